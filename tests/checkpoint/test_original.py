"""Folders of the original code: every kind of them against what the original computed with the same files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from llavakit.anyres import num_image_tokens
from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.contents import Parts, read_contents
from llavakit.checkpoint.importing import import_checkpoint
from llavakit.checkpoint.load import load, tokenizer_of
from llavakit.checkpoint.pickles import unpickler
from llavakit.checkpoint.reader import Reader
from llavakit.checkpoint.weights import fill
from llavakit.model import Images, KVCache, Llava
from llavakit.processing import Processor

PLACEHOLDER = -200
STAGES = {"pixel_values": "pixels", "tower_features": "tower features"}


@dataclass(frozen=True)
class Kind:
    """A golden folder and what has to be given with it."""

    name: str
    tower: str | None = None
    base: str | None = None

    def parts(self, checkpoints: Path) -> Parts:
        return Parts(
            vision_tower=checkpoints / "openai" / f"clip-tiny-patch14-{self.tower}" if self.tower else None,
            base=checkpoints / self.base if self.base else None,
        )


KINDS = (
    Kind("v1-linear", tower="56-a"),
    Kind("v15-mlp", tower="84-b"),
    Kind("v16-anyres-vicuna", tower="56-c"),
    Kind("v16-anyres-mistral", tower="84-d"),
    Kind("projector-only", tower="84-b", base="vicuna-tiny"),
    Kind("lora", tower="84-b", base="vicuna-tiny"),
    Kind("v0-delta", tower="56-a", base="vicuna-tiny"),
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_equals_the_original(kind: Kind, fixtures: Path, tmp_path: Path, compared: Any) -> None:
    """From picture files and prompts' ids to logits and answers, through the tokens that stand for pictures."""
    folder, parts = fixtures / "checkpoints" / kind.name, kind.parts(fixtures / "checkpoints")
    contents = read_contents(folder, parts, Reader(unpickler(tmp_path)))
    assert contents.format == "original"
    model = filled(contents.config, contents.tensors, folder)
    processor = Processor(contents.config, tokenizer_of(folder, parts, contents.config))
    check_golden(kind.name, model, processor, fixtures, compared, subject=f"original, {kind.name}")


def check_golden(name: str, model: Llava, processor: Processor, fixtures: Path, compared: Any, *, subject: str) -> None:
    """All that the original computed with a folder."""
    golden = json.loads((fixtures / "cases" / f"{name}.json").read_text())
    tensors = load_file(fixtures / "cases" / f"{name}.safetensors")
    files = {record["name"]: fixtures / record["file"] for record in golden["images"]}
    pictures = {name: as_the_original(file) for name, file in files.items()}
    about = {"subject": subject, "oracle": "haotian-liu/LLaVA c121f04"}

    views = {name: processor.pixels(picture) for name, picture in pictures.items()}
    for name, pixels in views.items():
        with torch.inference_mode():
            features = model.vision(pixels)
            embeds = model.encode_images(Images(features=features, sizes=[pictures[name].size]))
        for stage, ours, atol in (("pixel_values", pixels, 1e-6), ("tower_features", features, 2e-5)):
            if (theirs := tensors.get(f"image.{name}.{stage}")) is not None:  # stored for some of the pictures
                rtol = 0.0 if stage == "pixel_values" else 1e-5
                compared.close(ours.reshape(theirs.shape), theirs, stage=STAGES[stage], atol=atol, rtol=rtol, **about)
        if (theirs := tensors.get(f"image.{name}.features")) is not None:
            compared.close(embeds, theirs, stage="projected features", atol=2e-5, rtol=1e-5, **about)

    for case in golden["cases"]:
        sizes = [pictures[name].size for name in case["images"]]
        ids = expand(case["input_ids"], processor, sizes)
        images = Images(torch.cat([views[name] for name in case["images"]]), sizes=sizes) if sizes else None
        cache = KVCache(model.config.language, capacity=len(ids) + 24)
        with torch.inference_mode():
            hidden = model(torch.tensor([ids]), images, torch.arange(len(ids))[None], cache)
            ours = model.language.logits(hidden)[0]
        theirs = tensors[f"case.{case['name']}.logits"]
        compared.equal(len(ids), case["sequence_length"], stage="number of tokens", **about)
        compared.close(ours[-len(theirs) :], theirs, stage="logits", atol=1e-4, **about)
        answer = list(greedy(model, cache, int(ours[-1].argmax()), len(case["generated_ids"])))
        compared.equal(answer, case["generated_ids"], stage="greedy ids", **about)
    assert len(golden["cases"]) >= 24


def greedy(model: Llava, cache: KVCache, token: int, number: int) -> Iterator[int]:
    """So many tokens, each the likeliest, behind what is in the cache."""
    for _ in range(number):
        yield token
        place = torch.tensor([[cache.length]])
        with torch.inference_mode():
            token = int(model.language.logits(model(torch.tensor([[token]]), None, place, cache)[0, -1]).argmax())


def as_the_original(file: Path) -> Image.Image:
    """A picture as the original opens it: neither turned upright nor laid over white."""
    return Image.fromarray(np.asarray(Image.open(file).convert("RGB")))


def expand(ids: list[int], processor: Processor, sizes: list[tuple[int, int]]) -> list[int]:
    """Our ids from the original's, which has one id for each picture."""
    image = processor.config.tokens.image
    remaining = iter(sizes)
    return [
        new for id in ids
        for new in ([image] * num_image_tokens(*next(remaining), processor.config) if id == PLACEHOLDER else [id])
    ]  # fmt: skip


def filled(config, tensors, source: Path) -> Llava:
    with torch.device("meta"):
        model = Llava(config)
    fill(model, tensors, device=torch.device("cpu"), dtype=torch.float32, source=source)
    return model.eval()


def test_a_delta_is_added_as_the_original_adds_it(fixtures: Path, tmp_path: Path) -> None:
    kind = KINDS[-1]
    checkpoints = fixtures / "checkpoints"
    contents = read_contents(checkpoints / kind.name, kind.parts(checkpoints), Reader(unpickler(tmp_path)))
    merged = json.loads((fixtures / "cases" / "v0-delta.merged-tensors.json").read_text())
    for tensor in contents.tensors.values():
        if tensor.name not in merged:
            continue  # the tower's
        values, expected = tensor.read(), merged.pop(tensor.name)
        assert str(values.dtype) == f"torch.{expected['dtype']}" and list(values.shape) == expected["shape"]
        assert values.double().sum().item() == pytest.approx(expected["float64_sum"], abs=1e-9)
        assert values.flatten()[: len(expected["first"])].tolist() == expected["first"]
    assert not merged


@pytest.mark.parametrize(
    "name, given, says",
    [
        ("v15-mlp", {"tower": "84-b"}, "allow-pickle"),
        ("v16-anyres-vicuna", {}, "give --vision-tower, the folder of 'openai/clip-tiny-patch14-56-c'"),
        ("v16-anyres-vicuna", {"tower": "56-c", "base": "vicuna-tiny"}, "needs no base"),
        ("v16-anyres-vicuna", {"tower": "84-d"}, "mm_hidden_size is 48, but the vision tower has width 32"),
        ("v0-delta", {"tower": "56-a"}, "give --base, the folder of the model it was made from"),
    ],
)
def test_what_is_missing_is_named(name: str, given: dict[str, str], says: str, fixtures: Path) -> None:
    kind = Kind(name, **given)
    with pytest.raises(CheckpointError) as refused:
        read_contents(fixtures / "checkpoints" / name, kind.parts(fixtures / "checkpoints"))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "base, says",
    [
        ("openai/clip-tiny-patch14-56-a", "holds no language model"),
        ("v15-mlp", "v0-delta is no change of the model in --base: projector.fc1.bias, projector.fc1.weight, "),
    ],
)
def test_a_base_that_a_delta_was_not_made_from_is_refused(base: str, says: str, fixtures: Path, tmp_path: Path) -> None:
    checkpoints = fixtures / "checkpoints"
    parts = Kind("v0-delta", tower="56-a", base=base).parts(checkpoints)
    with pytest.raises(CheckpointError, match=re.escape(says)):
        read_contents(checkpoints / "v0-delta", parts, Reader(unpickler(tmp_path)))


def test_the_tower_inside_counts_and_not_the_one_beside(fixtures: Path) -> None:
    checkpoints = fixtures / "checkpoints"
    kind = KINDS[2]
    contents = read_contents(checkpoints / kind.name, kind.parts(checkpoints))
    assert contents.tensors["vision.pre_layrnorm.weight"].name.startswith("model.vision_tower.")


def test_a_key_nobody_knows_is_an_error_that_names_it(fixtures: Path, tmp_path: Path) -> None:
    source = fixtures / "checkpoints" / "v16-anyres-vicuna"
    for file in source.iterdir():
        if file.suffix == ".json" and "index" not in file.name:
            shutil.copy(file, tmp_path)
    tensors = {}
    for shard in source.glob("*.safetensors"):
        tensors |= load_file(shard)
    tensors["model.vision_tower.adapter.weight"] = torch.zeros(2)
    del tensors["model.mm_projector.2.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    contents = read_contents(tmp_path, KINDS[2].parts(fixtures / "checkpoints"))
    with pytest.raises(CheckpointError) as refused:
        filled(contents.config, contents.tensors, tmp_path)
    assert "model.vision_tower.adapter.weight" in str(refused.value)
    assert "projector.fc2.bias" in str(refused.value)


@pytest.mark.parametrize(("tokenizer", "bos"), [("chatml-nobos", None), ("chatml", 1), ("vicuna", 1)])
def test_the_tokenizer_says_whether_a_text_has_a_beginning(
    tokenizer: str, bos: int | None, fixtures: Path, tmp_path: Path
) -> None:
    shutil.copytree(fixtures / "checkpoints" / "v16-anyres-vicuna", tmp_path / "model")
    for file in (fixtures / "tokenizers" / tokenizer).iterdir():
        shutil.copy(file, tmp_path / "model")
    contents = read_contents(tmp_path / "model", KINDS[2].parts(fixtures / "checkpoints"))
    assert contents.config.tokens.bos == bos


@pytest.mark.parametrize("kind", [KINDS[1], KINDS[5]], ids=lambda kind: kind.name)
def test_imported_it_is_a_native_folder_with_the_same_numbers(kind: Kind, fixtures: Path, tmp_path: Path) -> None:
    folder, parts = fixtures / "checkpoints" / kind.name, kind.parts(fixtures / "checkpoints")
    out = tmp_path / "native"
    import_checkpoint(folder, out, parts=parts, dtype=torch.float32, allow_pickle=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["native"]  # nothing is left behind
    contents = read_contents(folder, parts, Reader(unpickler(tmp_path)))
    again = load(out)
    assert again.config == contents.config
    assert again.tokenizer.tokenize("a chat") == tokenizer_of(folder, parts, contents.config).tokenize("a chat")
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, contents.tensors[name].read().float()), name


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "pytorch_model.bin"
    bomb.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(CheckpointError, match="cannot be read as a file of weights"):
        Reader(unpickler(tmp_path)).weights(tmp_path)
    assert not (tmp_path / "ran").exists()
