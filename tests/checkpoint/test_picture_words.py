"""Stage 1 folders of the first generation, put on their base by hand and by us."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.contents import Contents, Parts, read_contents
from llavakit.checkpoint.pickles import unpickler
from llavakit.checkpoint.reader import Reader
from llavakit.checkpoint.weights import check_fit
from llavakit.model import Llava

WIDTH, NUM_BASE = 64, 544  # of the golden vicuna-tiny


def opened(fixtures: Path, folder: Path, words: Tensor, vocab_size: int) -> Contents:
    """The golden stage 1 folder, as it would be had it learned words for pictures too."""
    checkpoints = fixtures / "checkpoints"
    shutil.copytree(checkpoints / "projector-only", folder / "stage1")
    reader = Reader(unpickler(folder))
    projector = {name: tensor.read() for name, tensor in reader.file(folder / "stage1", "mm_projector").items()}
    (folder / "stage1" / "mm_projector.bin").unlink()
    save_file(projector | {"model.embed_tokens.weight": words}, folder / "stage1" / "mm_projector.safetensors")
    config = json.loads((folder / "stage1" / "config.json").read_text())
    config |= {"vocab_size": vocab_size, "mm_use_im_start_end": True, "mm_use_im_patch_token": vocab_size > 546}
    (folder / "stage1" / "config.json").write_text(json.dumps(config))
    parts = Parts(vision_tower=checkpoints / "openai" / "clip-tiny-patch14-84-b", base=checkpoints / "vicuna-tiny")
    return read_contents(folder / "stage1", parts, reader)


@pytest.mark.parametrize(("num_given", "vocab_size"), [(2, 546), (546, 546), (2, 547), (547, 547)])
def test_two_words_stand_behind_those_of_the_base(
    num_given: int, vocab_size: int, fixtures: Path, tmp_path: Path
) -> None:
    words = torch.randn(num_given, WIDTH, generator=torch.Generator().manual_seed(0)).half()
    contents = opened(fixtures, tmp_path, words, vocab_size)
    with torch.device("meta"):
        check_fit(Llava(contents.config), contents.tensors, tmp_path)

    base = torch.load(fixtures / "checkpoints" / "vicuna-tiny" / "pytorch_model.bin", weights_only=True)
    for ours, theirs in (("embed_tokens", "model.embed_tokens"), ("lm_head", "lm_head")):
        old = base[f"{theirs}.weight"]
        naive = torch.empty(vocab_size, WIDTH, dtype=old.dtype)
        naive[:NUM_BASE] = old
        naive[NUM_BASE:] = old.float().sum(0) / NUM_BASE
        if ours == "embed_tokens":
            naive[vocab_size - 2], naive[vocab_size - 1] = words[num_given - 2], words[num_given - 1]
        torch.testing.assert_close(contents.tensors[f"language.{ours}.weight"].read(), naive, atol=1e-4, rtol=0)
    tokens = contents.config.tokens
    assert (tokens.image_start, tokens.image_end, tokens.image) == (vocab_size - 2, vocab_size - 1, vocab_size)
    assert contents.config.template == "llava_v0"


@pytest.mark.parametrize(("num_given", "vocab_size"), [(2, 544), (3, 546), (544, 546), (2, 600), (545, 545)])
def test_words_that_do_not_go_together_are_refused(
    num_given: int, vocab_size: int, fixtures: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=rf"brings {num_given} words .* vocabulary of {vocab_size}; .*546 or 547"):
        opened(fixtures, tmp_path, torch.zeros(num_given, WIDTH), vocab_size)
