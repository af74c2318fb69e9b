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
from llavakit.config import LanguageConfig, LlavaConfig, ProjectorConfig, SpecialTokens, VisionConfig
from llavakit.model import Images, Llava

LOGITS = {"atol": 1e-4, "rtol": 0}
FEATURES = {"atol": 2e-5, "rtol": 0}
ORIGINAL_IMAGE_TOKEN = -200


@pytest.mark.parametrize("name", ["llava-llama", "llava-mistral-dopad", "llava-qwen2"])
def test_equals_hugging_face(name: str, fixtures: Path) -> None:
    model = load_model(fixtures / "hf" / "checkpoints" / name)
    cases, tensors = golden(fixtures / "hf" / "cases" / name)
    seen = 0
    for case in cases:
        key = f"case.{case['name']}"
        pixels = tensors.get(f"{key}.pixel_values")
        if case["images"] and pixels is None:
            continue  # stored for a part of the cases
        if pixels is not None:
            torch.testing.assert_close(encode(model, pixels), tensors[f"{key}.features"], **FEATURES)
        for row, length in enumerate(real_lengths(case)):
            tokens = torch.tensor([case["input_ids"][row][-length:]])
            ours = logits(model, tokens, pictures_of_row(model, case, row, pixels))
            check_logits(ours, tensors, key, row)
        seen += 1
    assert seen >= 4


def test_v15_mlp_equals_the_original(fixtures: Path) -> None:
    model = load_model(fixtures / "hf" / "converted" / "v15-mlp")
    check_original(model, fixtures / "cases" / "v15-mlp", num_words=544)


def test_v1_linear_equals_the_original(fixtures: Path) -> None:
    """The arithmetic of a linear projector; its files are pickles, which only a test may open."""
    model = original_v1(fixtures / "checkpoints")
    check_original(model, fixtures / "cases" / "v1-linear", num_words=544)


def check_original(model: Llava, case_files: Path, num_words: int) -> None:
    cases, tensors = golden(case_files)
    seen = 0
    for case in cases:
        stored = [tensors.get(f"image.{name}.pixel_values") for name in case["images"]]
        if any(pixels is None for pixels in stored):
            continue
        for name, pixels in zip(case["images"], stored, strict=True):
            embeds = encode(model, pixels)
            torch.testing.assert_close(embeds, tensors[f"image.{name}.features"], **FEATURES)
            features = model.vision(pixels).flatten(0, 1)
            torch.testing.assert_close(features, tensors[f"image.{name}.tower_features"].flatten(0, -2), **FEATURES)
        ours = logits(model, expand(case["input_ids"], model.config), torch.cat(stored) if stored else None)
        key = f"case.{case['name']}"
        expected = tensors[f"{key}.logits"]
        torch.testing.assert_close(ours[0, -len(expected) :, :num_words], expected, **LOGITS)
        assert torch.equal(ours[0, :, :num_words].argmax(-1).int(), tensors[f"{key}.logits_argmax"])
        seen += 1
    assert seen >= 10


def check_logits(ours: Tensor, tensors: dict[str, Tensor], key: str, row: int) -> None:
    expected = tensors[f"{key}.logits"][row]
    rows = min(len(expected), ours.shape[1])
    torch.testing.assert_close(ours[0, -rows:], expected[-rows:], **LOGITS)
    best = tensors[f"{key}.logits_argmax"][row, -ours.shape[1] :]
    assert torch.equal(ours[0].argmax(-1).int(), best)


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


def original_v1(checkpoints: Path) -> Llava:
    """LLaVA v1 out of the original's two files, by the few names that differ from ours."""
    words = 544
    config = LlavaConfig(
        vision=VisionConfig(
            image_size=56, patch_size=14, hidden_size=32, intermediate_size=128, num_layers=3, num_heads=4
        ),
        projector=ProjectorConfig(kind="linear"),
        # The original has no row for the placeholder.
        language=LanguageConfig(
            vocab_size=words + 1,
            hidden_size=64,
            intermediate_size=160,
            num_layers=3,
            num_heads=4,
            num_kv_heads=4,
            head_dim=16,
            rms_norm_eps=1e-5,
        ),
        tokens=SpecialTokens(image=words),
        resize_mode="square",
    )
    names = {
        "vision_model.encoder.": "vision.",
        "vision_model.": "vision.",
        "model.mm_projector.": "projector.fc1.",
        "model.": "language.",
        "lm_head.": "language.lm_head.",
    }
    folders = ("v1-linear", "openai/clip-tiny-patch14-56-a")
    theirs: dict[str, Tensor] = {}
    for folder in folders:
        theirs |= torch.load(checkpoints / folder / "pytorch_model.bin", weights_only=True)
    renamed = {}
    for name, tensor in theirs.items():
        old = next((old for old in names if name.startswith(old)), None)
        renamed[names[old] + name.removeprefix(old) if old else name] = tensor.float()
    for name in ("language.embed_tokens.weight", "language.lm_head.weight"):
        renamed[name] = torch.cat((renamed[name], torch.zeros(1, renamed[name].shape[1])))
    model = Llava(config)
    model.load_state_dict({name: renamed[name] for name in model.state_dict()})
    return model.eval()
