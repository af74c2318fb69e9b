"""Pictures in tiles, from their files to logits, against golden files of the original and of Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from llavakit.anyres import Size, num_image_tokens
from llavakit.checkpoint.weights import load_model
from llavakit.config import TilingConfig
from llavakit.model import Images, Llava
from llavakit.processing import preprocess_tiles

LOGITS = {"atol": 1e-4, "rtol": 0}
FEATURES = {"atol": 2e-5, "rtol": 1e-5}  # our own pixels add a last bit to the few features above 1
PIXELS = {"atol": 1e-6, "rtol": 0}
ORIGINAL_IMAGE_TOKEN = -200
ORIGINAL_WORDS = 544


@pytest.mark.parametrize("name", ["llava-next-llama", "llava-next-mistral", "llava-next-qwen2"])
def test_equals_hugging_face(name: str, fixtures: Path, compared: Any) -> None:
    about = {"subject": f"llava-hf, {name}", "oracle": "transformers 4.57.1"}
    model = load_model(fixtures / "hf" / "checkpoints" / name)
    cases, tensors = golden(fixtures / "hf" / "cases" / name)
    for case in cases:
        key = f"case.{case['name']}"
        views = [views_of(model, fixtures / file) for file in case["images"]]
        sizes = [(width, height) for height, width in case["image_sizes_hw"] or []]
        if f"{key}.pixel_values" in tensors:
            theirs = tensors[f"{key}.pixel_values"].flatten(0, 1)
            compared.close(torch.cat(views), theirs, stage="pixels", **PIXELS, **about)
        if f"{key}.features" in tensors:
            features = encode(model, views, sizes)
            theirs = tensors[f"{key}.features"]
            compared.close(features, theirs, stage="projected features", **FEATURES, **about)
        pictures = iter(zip(views, sizes, strict=True))
        for row, ids in enumerate(real_ids(case)):
            in_row = pictures_for(model, ids.count(model.config.tokens.image), pictures)
            ours = logits(model, ids, *in_row)
            expected = tensors[f"{key}.logits"][row]
            rows = min(len(expected), len(ours))
            compared.close(ours[-rows:], expected[-rows:], stage="logits", **LOGITS, **about)
            assert torch.equal(ours.argmax(-1).int(), tensors[f"{key}.logits_argmax"][row, -len(ours) :])


@pytest.mark.parametrize("name", ["v16-anyres-vicuna", "v16-anyres-mistral"])
def test_equals_the_original(name: str, fixtures: Path, compared: Any) -> None:
    """The same weights in Hugging Face's layout, told to cut and round as the original does."""
    about = {"subject": f"llava-hf, converted {name}", "oracle": "haotian-liu/LLaVA c121f04"}
    model = load_model(fixtures / "hf" / "converted" / name)
    pinpoints = json.loads((fixtures / "checkpoints" / name / "config.json").read_text())["image_grid_pinpoints"]
    model.config = model.config.model_copy(update={"tiling": TilingConfig(pinpoints=pinpoints, compat="original")})
    cases, tensors = golden(fixtures / "cases" / name)
    listed = json.loads((fixtures / "cases" / f"{name}.json").read_text())["images"]
    views = {image["name"]: views_of(model, fixtures / image["file"]) for image in listed}
    sizes = {image["name"]: tuple(image["size_wh"]) for image in listed}
    for image, pixels in views.items():
        if (theirs := tensors.get(f"image.{image}.pixel_values")) is not None:
            compared.close(pixels, theirs, stage="pixels", **PIXELS, **about)
        if (theirs := tensors.get(f"image.{image}.tower_features")) is not None:
            with torch.inference_mode():
                compared.close(model.vision(pixels), theirs, stage="tower features", **FEATURES, **about)
        embeds, theirs = encode(model, [pixels], [sizes[image]]), tensors[f"image.{image}.features"]
        compared.close(embeds, theirs, stage="projected features", **FEATURES, **about)
    for case in cases:
        case_sizes = [sizes[image] for image in case["images"]]
        ids = list(expand(case["input_ids"], case_sizes, model))
        ours = logits(model, ids, [views[image] for image in case["images"]], case_sizes)[:, :ORIGINAL_WORDS]
        assert len(ids) == case["sequence_length"]
        expected = tensors[f"case.{case['name']}.logits"]
        compared.close(ours[-len(expected) :], expected, stage="logits", **LOGITS, **about)
        assert torch.equal(ours.argmax(-1).int(), tensors[f"case.{case['name']}.logits_argmax"])


def golden(files: Path) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    return json.loads(files.with_suffix(".json").read_text())["cases"], load_file(files.with_suffix(".safetensors"))


def views_of(model: Llava, file: Path) -> Tensor:
    """As both did it: bare RGB, whatever is transparent or lies on its side."""
    with Image.open(file) as image:
        views = preprocess_tiles(image.convert("RGB"), model.config.vision, model.config.tiling)
    return torch.from_numpy(views)


def real_ids(case: dict[str, Any]) -> list[list[int]]:
    """The ids of each row without padding, which stands on the left there."""
    masks = case["attention_mask"] or [[1] * len(row) for row in case["input_ids"]]
    return [row[len(row) - sum(mask) :] for row, mask in zip(case["input_ids"], masks, strict=True)]


def pictures_for(
    model: Llava, num_tokens: int, pictures: Iterator[tuple[Tensor, Size]]
) -> tuple[list[Tensor], list[Size]]:
    """The next pictures, as many as those placeholders are for."""
    views, sizes = [], []
    while sum(num_image_tokens(*size, model.config) for size in sizes) < num_tokens:
        picture, size = next(pictures)
        views.append(picture)
        sizes.append(size)
    return views, sizes


def expand(ids: list[int], sizes: list[Size], model: Llava) -> Iterator[int]:
    """The original writes one id for a picture; ours are as many as its features."""
    pictures = iter(sizes)
    for id in ids:
        if id == ORIGINAL_IMAGE_TOKEN:
            yield from [model.config.tokens.image] * num_image_tokens(*next(pictures), model.config)
        else:
            yield id


def encode(model: Llava, views: list[Tensor], sizes: Sequence[Size]) -> Tensor:
    with torch.inference_mode():
        return model.encode_images(Images(pixels=torch.cat(views), sizes=sizes))


def logits(model: Llava, ids: list[int], views: list[Tensor], sizes: Sequence[Size]) -> Tensor:
    images = Images(pixels=torch.cat(views), sizes=sizes) if views else None
    with torch.inference_mode():
        hidden = model(torch.tensor([ids]), images, torch.arange(len(ids))[None])
        return model.language.logits(hidden[0])
