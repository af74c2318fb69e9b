"""What is written for the original code has its names and says all of the model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPImageProcessorPil, CLIPVisionModel, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as Fast

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.contents import read_contents
from llavakit.checkpoint.exporting import export_checkpoint
from llavakit.checkpoint.importing import import_checkpoint
from llavakit.checkpoint.load import load
from llavakit.checkpoint.reader import stored_tensors
from llavakit.checkpoint.towers import built_as
from llavakit.config import VisionConfig
from llavakit.processing import preprocess

from ..test_original import KINDS, Kind, check_golden
from .conftest import SIGLIP, TILED

NAMED = {kind.name: kind for kind in KINDS}


@pytest.mark.parametrize("name", ["v15-mlp", "v16-anyres-mistral"])
def test_imported_exported_and_imported_again(name: str, fixtures: Path, tmp_path: Path, compared: Any) -> None:
    """All golden cases of the original, from pixels to logits, after the way there and back."""
    kind: Kind = NAMED[name]
    parts = kind.parts(fixtures / "checkpoints")
    import_checkpoint(
        fixtures / "checkpoints" / name, tmp_path / "once", parts=parts, dtype=torch.float32, allow_pickle=True
    )
    differences = export_checkpoint(tmp_path / "once", tmp_path / "theirs", to="original")
    assert "mm_vision_tower is theirs/vision_tower" in differences[-1]
    # A native folder has no tokenizer.model, and this vocabulary puts its space first only.
    assert ["tokenizer.model of this vocabulary" in told for told in differences[:-1]] == [True] * (name == "v15-mlp")
    import_checkpoint(tmp_path / "theirs", tmp_path / "again")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    again = load(tmp_path / "again")
    check_golden(name, again.model, again.processor, fixtures, compared, subject=f"export, original and back, {name}")


def test_the_names_are_the_originals_own(fixtures: Path, tmp_path: Path) -> None:
    source = fixtures / "checkpoints" / "v16-anyres-mistral"
    parts = NAMED["v16-anyres-mistral"].parts(fixtures / "checkpoints")
    export_checkpoint(source, tmp_path / "theirs", to="original", parts=parts)
    written, before = stored_tensors(tmp_path / "theirs"), stored_tensors(source)
    assert {name: (t.shape, t.dtype) for name, t in written.items()} == {
        name: (t.shape, t.dtype) for name, t in before.items() if not name.endswith("position_ids")
    }
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "theirs"))
    for key in (
        "image_aspect_ratio", "image_grid_pinpoints", "mm_hidden_size", "mm_patch_merge_type", "mm_projector_type",
        "mm_use_im_start_end", "mm_vision_select_feature", "mm_vision_select_layer", "unfreeze_mm_vision_tower",
        "hidden_size", "rope_theta", "rms_norm_eps", "vocab_size", "num_key_value_heads", "max_position_embeddings",
    ):  # fmt: skip
        assert new[key] == old[key], key


def test_one_matrix_has_no_number(make: Callable[..., Path], tmp_path: Path) -> None:
    export_checkpoint(make(projector={"kind": "linear"}), tmp_path / "theirs", to="original")
    names = {name for name in stored_tensors(tmp_path / "theirs") if "mm_projector" in name}
    assert names == {"model.mm_projector.weight", "model.mm_projector.bias"}


def test_others_read_its_parts(make: Callable[..., Path], drawings: list[Any], tmp_path: Path) -> None:
    """The original builds on these classes: a language model from the folder, a tower from the folder inside."""
    ours = load(make(resize_mode="square", language={"num_kv_heads": 2, "head_dim": 6}))
    export_checkpoint(tmp_path / "native", tmp_path / "theirs", to="original")
    config = LlamaConfig(**json.loads((tmp_path / "theirs" / "config.json").read_text()) | {"model_type": "llama"})
    model, report = LlamaForCausalLM.from_pretrained(tmp_path / "theirs", config=config, output_loading_info=True)
    assert not report["missing_keys"]
    assert {name.split(".")[1] for name in report["unexpected_keys"]} == {"mm_projector", "vision_tower"}
    tokens = torch.arange(4, 40)[None]
    tower = CLIPVisionModel.from_pretrained(tmp_path / "theirs" / "vision_tower").eval()
    images = CLIPImageProcessorPil.from_pretrained(tmp_path / "theirs" / "vision_tower")
    with torch.inference_mode():
        hidden = ours.model.language(ours.model.language.embed(tokens), torch.arange(36)[None])
        torch.testing.assert_close(model.eval()(tokens).logits, ours.model.language.logits(hidden), atol=1e-4, rtol=0)
        pixels = images(drawings[0], return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(pixels[0], torch.from_numpy(preprocess(drawings[0], ours.config.vision, "square")))
        features = tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        torch.testing.assert_close(features, ours.model.vision(pixels), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"resize_mode": "square", "projector": {"kind": "linear"}},
        {"template": "gemma_instruct", "tokens": {"image_start": 7, "image_end": 8}},
        {"language": {"qkv_bias": True, "tie_embeddings": True}, "tokens": {"bos": None}},
        {"vision": {"feature_layer": 1, "feature_select": "full"}},
        SIGLIP | {"resize_mode": "stretch"},
        SIGLIP | {"resize_mode": "pad"},
        {"language": {"rope_scaling": {"kind": "linear", "factor": 2.5}}, "tokens": {"also_ends": [7, 9]}},
        TILED,
        {"resize_mode": "anyres", "tiling": TILED["tiling"] | {"max_tiles": 2, "only_alone": True}},
        {"resize_mode": "anyres", "tiling": TILED["tiling"] | {"merge": "flat"}},
        {"resize_mode": "anyres", "tiling": TILED["tiling"] | {"merge": "spatial", "compat": "hf"}},
    ],
)
def test_it_reads_back_the_same(changes: dict[str, Any], make: Callable[..., Path], tmp_path: Path) -> None:
    before = read_contents(make(**changes))
    export_checkpoint(tmp_path / "native", tmp_path / "theirs", to="original")
    after = read_contents(tmp_path / "theirs")
    assert after.format == "original" and after.config == before.config
    assert all(torch.equal(after.tensors[name].read(), tensor.read()) for name, tensor in before.tensors.items())
    assert after.tensors.keys() == before.tensors.keys()


def test_the_tokenizer_begins_as_the_original_expects(make: Callable[..., Path], tmp_path: Path) -> None:
    folder = make()
    export_checkpoint(folder, tmp_path / "theirs", to="original")
    theirs = Fast.from_pretrained(tmp_path / "theirs")
    ours = load(folder).tokenizer
    assert theirs("a circle")["input_ids"] == [1, *ours.tokenize("a circle")]
    assert (theirs.bos_token, theirs.eos_token, theirs.pad_token) == ("<s>", "</s>", "<pad>")
    # The library that the original works with reads merges as strings.
    merges = json.loads((tmp_path / "theirs" / "tokenizer.json").read_text())["model"]["merges"]
    assert merges and all(isinstance(merge, str) for merge in merges)
    assert ours.tokenize("it is a circle") == load(tmp_path / "theirs").tokenizer.tokenize("it is a circle")


def test_a_sentencepiece_model_goes_along_while_it_says_the_truth(fixtures: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(fixtures / "checkpoints" / "v16-anyres-mistral", source)
    source.chmod(0o755)
    parts = NAMED["v16-anyres-mistral"].parts(fixtures / "checkpoints")
    export_checkpoint(source, tmp_path / "theirs", to="original", parts=parts)
    assert (tmp_path / "theirs" / "tokenizer.model").read_bytes() == (source / "tokenizer.model").read_bytes()
    settings = json.loads((tmp_path / "theirs" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "LlamaTokenizer" and settings["legacy"] is True
    spec = json.loads((source / "tokenizer.json").read_text())
    vocab = spec["model"]["vocab"]
    one, other = list(vocab)[300:302]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    (source / "tokenizer.json").chmod(0o644)
    (source / "tokenizer.json").write_text(json.dumps(spec))
    export_checkpoint(source, tmp_path / "theirs", to="original", parts=parts)
    assert not (tmp_path / "theirs" / "tokenizer.model").exists()


def test_a_published_tower_is_named_and_not_written_twice() -> None:
    assert built_as(VisionConfig(feature_layer=-1)) == "openai/clip-vit-large-patch14-336"
    assert built_as(VisionConfig(image_size=224)) == "openai/clip-vit-large-patch14"
    assert built_as(VisionConfig(image_size=224, num_layers=23)) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"projector": {"bias": False}}, r"projector\.bias is False, and it can only be True there"),
        ({"resize_mode": "stretch"}, "resize_mode is 'stretch', and it can only be 'square' there"),
        ({"resize_mode": "pad", "tiling": TILED["tiling"]}, r"tiling\.pinpoints is .*, and it can only be None there"),
    ],
)
def test_what_the_original_has_no_words_for(
    changes: dict[str, Any], says: str, make: Callable[..., Path], tmp_path: Path
) -> None:
    make(**changes)
    with pytest.raises(CheckpointError, match=says):
        export_checkpoint(tmp_path / "native", tmp_path / "theirs", to="original")
