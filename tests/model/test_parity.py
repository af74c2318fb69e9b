"""Law 1: logits equal transformers' on tiny random models, for every variant the configuration can express."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llavakit.checkpoint.weights import load_model
from llavakit.model import Images, Llava

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped KV heads": {"text": {"num_key_value_heads": 2}},
    "one KV head": {"text": {"num_key_value_heads": 1}},
    "heads wider than the model": {"text": {"head_dim": 16}},
    "other rotary base": {"text": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}},
    "other norm eps": {"text": {"rms_norm_eps": 1e-2}, "vision": {"layer_norm_eps": 1e-2}},
    "tied embeddings": {"text": {"tie_word_embeddings": True}},
    "mistral": {"mistral": True, "text": {"num_key_value_heads": 2, "sliding_window": None}},
    "mistral within its window": {"mistral": True, "text": {"sliding_window": 48}},
    "class feature kept": {"vision_feature_select_strategy": "full"},
    "last layer": {"vision_feature_layer": -1},
    "first layer": {"vision_feature_layer": 1},
    "embeddings as features": {"vision_feature_layer": -4},
    "layer in a list": {"vision_feature_layer": [-3], "text": {"num_key_value_heads": 2}},
    "projector without bias": {"multimodal_projector_bias": False},
    "gelu tower": {"vision": {"hidden_act": "gelu"}},
    "finer patches": {"vision": {"patch_size": 4}},
    "one layer each": {"text": {"num_hidden_layers": 1}, "vision": {"num_hidden_layers": 1}},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_equal_transformers(name: str, build: Callable[..., Any]) -> None:
    oracle, folder = build(**VARIANTS[name])
    model = load_model(folder)
    tokens, pixels = picture_prompt(model, num_pictures=2)

    with torch.inference_mode():
        theirs = oracle(input_ids=tokens, pixel_values=pixels, attention_mask=torch.ones_like(tokens)).logits
        ours = logits(model, tokens, pixels)

    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_text_alone_equals_transformers(build: Callable[..., Any]) -> None:
    oracle, folder = build()
    model = load_model(folder)
    tokens = torch.arange(3, 40)[None]

    with torch.inference_mode():
        torch.testing.assert_close(logits(model, tokens, None), oracle(input_ids=tokens).logits, atol=1e-5, rtol=0)


def test_a_row_padded_on_the_right_equals_transformers(build: Callable[..., Any]) -> None:
    oracle, folder = build(text={"num_key_value_heads": 2})
    model = load_model(folder)
    with_picture, pixels = picture_prompt(model, num_pictures=1)
    length = 9
    text = torch.zeros_like(with_picture)
    text[0, :length] = torch.arange(3, 3 + length)
    tokens = torch.cat((text, with_picture))
    seen = torch.ones_like(tokens)
    seen[0, length:] = 0

    with torch.inference_mode():
        theirs = oracle(input_ids=tokens, pixel_values=pixels, attention_mask=seen).logits
        ours = logits(model, tokens, pixels)

    torch.testing.assert_close(ours[seen.bool()], theirs[seen.bool()], atol=1e-5, rtol=0)


def picture_prompt(model: Llava, num_pictures: int) -> tuple[Tensor, Tensor]:
    """One row of text with pictures in it, and their pixels."""
    generator = torch.Generator().manual_seed(1)
    config = model.config
    size, placeholder = config.vision.image_size, config.tokens.image
    pixels = torch.randn(num_pictures, 3, size, size, generator=generator)
    row = [1]
    for _ in range(num_pictures):
        row += [*torch.randint(3, 60, (4,), generator=generator), *[placeholder] * config.vision.num_features, 5]
    return torch.tensor([row]), pixels


def logits(model: Llava, tokens: Tensor, pixels: Tensor | None) -> Tensor:
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    images = None if pixels is None else Images(pixels=pixels)
    return model.language.logits(model(tokens, images, positions))
