"""The golden files: what the original and the Hugging Face implementations computed with the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from llavakit.checkpoint.weights import load_model
from llavakit.config import LlavaConfig
from llavakit.model import Images, Llava

LOGITS = {"atol": 1e-4, "rtol": 0}
FEATURES = {"atol": 2e-5, "rtol": 0}
ORIGINAL_IMAGE_TOKEN = -200


@pytest.mark.parametrize("name", ["llava-llama", "llava-mistral-dopad", "llava-qwen2"])
def test_equals_hugging_face(name: str, fixtures: Path, compared: Any) -> None:
    about = {"subject": f"llava-hf, {name}", "oracle": "transformers 4.57.1"}
    model = load_model(fixtures / "hf" / "checkpoints" / name)
    cases, tensors = golden(fixtures / "hf" / "cases" / name)
    seen = 0
    for case in cases:
        key = f"case.{case['name']}"
        pixels = tensors.get(f"{key}.pixel_values")
        if case["images"] and pixels is None:
            continue  # stored for a part of the cases
        if pixels is not None:
            theirs = tensors[f"{key}.features"]
            compared.close(encode(model, pixels), theirs, stage="projected features", **FEATURES, **about)
        for row, length in enumerate(real_lengths(case)):
            tokens = torch.tensor([case["input_ids"][row][-length:]])
            ours = logits(model, tokens, pictures_of_row(model, case, row, pixels))
            expected = tensors[f"{key}.logits"][row]
            rows = min(len(expected), ours.shape[1])
            compared.close(ours[0, -rows:], expected[-rows:], stage="logits", **LOGITS, **about)
            best = tensors[f"{key}.logits_argmax"][row, -ours.shape[1] :]
            assert torch.equal(ours[0].argmax(-1).int(), best)
        seen += 1
    assert seen >= 4


def test_converted_v15_mlp_equals_the_original(fixtures: Path, compared: Any) -> None:
    """Hugging Face's layout of the original's weights; its vocabulary has more rows."""
    model, num_words = load_model(fixtures / "hf" / "converted" / "v15-mlp"), 544
    about = {"subject": "llava-hf, converted v15-mlp", "oracle": "haotian-liu/LLaVA c121f04"}
    cases, tensors = golden(fixtures / "cases" / "v15-mlp")
    seen = 0
    for case in cases:
        stored = [tensors.get(f"image.{name}.pixel_values") for name in case["images"]]
        if any(pixels is None for pixels in stored):
            continue
        for name, pixels in zip(case["images"], stored, strict=True):
            theirs = tensors[f"image.{name}.features"]
            compared.close(encode(model, pixels), theirs, stage="projected features", **FEATURES, **about)
            features, theirs = model.vision(pixels).flatten(0, 1), tensors[f"image.{name}.tower_features"]
            compared.close(features, theirs.flatten(0, -2), stage="tower features", **FEATURES, **about)
        ours = logits(model, expand(case["input_ids"], model.config), torch.cat(stored) if stored else None)
        key = f"case.{case['name']}"
        expected = tensors[f"{key}.logits"]
        compared.close(ours[0, -len(expected) :, :num_words], expected, stage="logits", **LOGITS, **about)
        assert torch.equal(ours[0, :, :num_words].argmax(-1).int(), tensors[f"{key}.logits_argmax"])
        seen += 1
    assert seen >= 10


def golden(files: Path) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    return json.loads(files.with_suffix(".json").read_text())["cases"], load_file(files.with_suffix(".safetensors"))


def real_lengths(case: dict[str, Any]) -> list[int]:
    """How many tokens of each row are no padding, which stands on the left there."""
    if case["attention_mask"] is None:
        return [len(row) for row in case["input_ids"]]
    return [sum(row) for row in case["attention_mask"]]


def pictures_of_row(model: Llava, case: dict[str, Any], row: int, pixels: Tensor | None) -> Tensor | None:
    per_picture = model.config.vision.num_features
    counts = [sum(token == model.config.tokens.image for token in ids) // per_picture for ids in case["input_ids"]]
    return pixels[sum(counts[:row]) : sum(counts[: row + 1])] if pixels is not None and counts[row] else None


def expand(ids: list[int], config: LlavaConfig) -> Tensor:
    """The original writes one id for a picture; ours are as many as its features."""
    placeholders = [config.tokens.image] * config.vision.num_features
    return torch.tensor([[new for id in ids for new in (placeholders if id == ORIGINAL_IMAGE_TOKEN else [id])]])


def encode(model: Llava, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        return model.encode_images(Images(pixels=pixels))


def logits(model: Llava, tokens: Tensor, pixels: Tensor | None) -> Tensor:
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    with torch.inference_mode():
        hidden = model(tokens, None if pixels is None else Images(pixels=pixels), positions)
        return model.language.logits(hidden)
