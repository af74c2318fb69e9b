"""Law 1: logits equal transformers' on tiny random models, for every variant the configuration can express."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llavakit.anyres import Size, num_image_tokens, num_views
from llavakit.checkpoint.weights import load_model
from llavakit.model import Images, Llava

# Some pairs of channels turn often, some hardly, and some lie between.
LLAMA_3_1 = {
    "rope_type": "llama3",
    "rope_theta": 5e3,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 40,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped KV heads": {"text": {"num_key_value_heads": 2}},
    "one KV head": {"text": {"num_key_value_heads": 1}},
    "heads wider than the model": {"text": {"head_dim": 16}},
    "other rotary base": {"text": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}},
    "linear positions": {"text": {"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 1e4}}},
    "llama 3.1's positions": {"text": {"rope_parameters": LLAMA_3_1, "head_dim": 16}},
    "dynamic positions": {"text": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}},
    "other norm eps": {"text": {"rms_norm_eps": 1e-2}, "vision": {"layer_norm_eps": 1e-2}},
    "tied embeddings": {"text": {"tie_word_embeddings": True}},
    "mistral": {"language": "mistral", "text": {"num_key_value_heads": 2, "sliding_window": None}},
    "mistral within its window": {"language": "mistral", "text": {"sliding_window": 48}},
    "qwen2": {"language": "qwen2", "text": {"num_key_value_heads": 2}},
    "qwen2, tied": {"language": "qwen2", "text": {"tie_word_embeddings": True}},
    "class feature kept": {"vision_feature_select_strategy": "full"},
    "last layer": {"vision_feature_layer": -1},
    "first layer": {"vision_feature_layer": 1},
    "embeddings as features": {"vision_feature_layer": -4},
    "layer in a list": {"vision_feature_layer": [-3], "text": {"num_key_value_heads": 2}},
    "projector without bias": {"multimodal_projector_bias": False},
    "gelu tower": {"vision": {"hidden_act": "gelu"}},
    "siglip tower": {"tower": "siglip", "vision_feature_select_strategy": "full", "vision_feature_layer": -1},
    "siglip tower, its last layer left out": {"tower": "siglip", "vision_feature_select_strategy": "full"},
    "siglip tower without a head": {
        "tower": "siglip",
        "vision_feature_select_strategy": "full",
        "vision_feature_layer": -1,
        "vision": {"vision_use_head": False, "image_size": 33},
    },
    "finer patches": {"vision": {"patch_size": 4}},
    "one layer each": {"text": {"num_hidden_layers": 1}, "vision": {"num_hidden_layers": 1}},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_equal_transformers(name: str, build: Callable[..., Any], compared: Any) -> None:
    oracle, folder = build(**VARIANTS[name])
    model = load_model(folder)
    tokens, pixels = picture_prompt(model, num_pictures=2)

    with torch.inference_mode():
        theirs = oracle(input_ids=tokens, pixel_values=pixels, attention_mask=torch.ones_like(tokens)).logits
        ours = logits(model, tokens, pixels)

    compared.close(
        ours, theirs, subject=f"LLaVA, {name}", stage="logits", oracle="transformers as installed", atol=1e-5
    )


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


PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
SIZES = [(40, 40), (90, 21), (30, 70), (13, 200), (56, 56), (300, 1)]
NEXT_VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"language": "mistral", "text": {"num_key_value_heads": 2, "sliding_window": None}},
    "qwen2": {"language": "qwen2", "text": {"num_key_value_heads": 2}},
    "tied embeddings": {"text": {"tie_word_embeddings": True}, "tie_word_embeddings": True},
    "finer patches": {"vision": {"patch_size": 4}},
    "last layer": {"vision_feature_layer": -1},
    "siglip": {"tower": "siglip", "vision_feature_select_strategy": "full"},
}
ONEVISION_VARIANTS: dict[str, dict[str, Any]] = {
    "one tile at most": {"vision_aspect_ratio": "anyres_max_1"},
    "two tiles at most": {"vision_aspect_ratio": "anyres_max_2", "text": {"num_key_value_heads": 2}},
    "never pooled, tied": {"text": {"tie_word_embeddings": True}},
    "a rest of the picture unseen": {"vision": {"patch_size": 6}, "vision_aspect_ratio": "anyres_max_1"},
    "clip": {"tower": "clip", "vision_feature_select_strategy": "default", "vision_feature_layer": -2},
}
ONEVISION = {"family": "onevision", "language": "qwen2", "tower": "siglip"}
TILED = {f"LLaVA-NeXT, {name}": {"family": "next"} | variant for name, variant in NEXT_VARIANTS.items()}
TILED |= {f"LLaVA-OneVision, {name}": ONEVISION | variant for name, variant in ONEVISION_VARIANTS.items()}


@pytest.mark.parametrize("name", TILED)
def test_tiles_equal_transformers(name: str, build: Callable[..., Any], compared: Any) -> None:
    """Pictures of several sizes, each in tiles, all in one row."""
    variant, room = TILED[name], {"max_position_embeddings": 2048}
    oracle, folder = build(image_grid_pinpoints=PINPOINTS, **variant | {"text": room | variant.get("text", {})})
    model = load_model(folder)
    config = model.config
    counts = [num_views(*size, config) for size in SIZES]
    assert len(set(counts)) > 1
    pixels = torch.randn(sum(counts), 3, 28, 28, generator=torch.Generator().manual_seed(1))
    spans = [[5, *[config.tokens.image] * num_image_tokens(*size, config)] for size in SIZES]
    tokens = torch.tensor([[1, *chain(*spans), 6, 7]])
    # Theirs are tiles of equal number, filled up, and (height, width).
    filled = pad_sequence(pixels.split(counts), batch_first=True)
    heights_first = torch.tensor([size[::-1] for size in SIZES])

    with torch.inference_mode():
        theirs = oracle(input_ids=tokens, pixel_values=filled, image_sizes=heights_first).logits
        ours = logits(model, tokens, pixels, SIZES)

    about = {"subject": name, "stage": "logits", "oracle": "transformers as installed"}
    compared.close(ours, theirs, atol=1e-5, **about)


@pytest.mark.parametrize("count", [2, 3])
def test_several_pictures_in_one_view_each_equal_transformers(
    count: int, build: Callable[..., Any], compared: Any
) -> None:
    """OneVision cuts a picture that is alone; these are padded, and a newline ends each."""
    room = {"text": {"max_position_embeddings": 2048}}
    oracle, folder = build(image_grid_pinpoints=PINPOINTS, **ONEVISION, **room)
    model, sizes = load_model(folder), SIZES[:count]
    config = model.config.for_pictures(count)
    pixels = torch.randn(count, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    spans = [[5, *[config.tokens.image] * num_image_tokens(*size, config)] for size in sizes]
    tokens = torch.tensor([[1, *chain(*spans), 6, 7]])
    heights_first = torch.tensor([size[::-1] for size in sizes])

    with torch.inference_mode():
        theirs = oracle(
            input_ids=tokens, pixel_values=pixels[:, None], image_sizes=heights_first, batch_num_images=[count]
        ).logits
        ours = logits(model, tokens, pixels, sizes)

    about = {"subject": "LLaVA-OneVision, several pictures", "oracle": "transformers as installed"}
    compared.close(ours, theirs, stage="logits", atol=1e-5, **about)


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


def logits(model: Llava, tokens: Tensor, pixels: Tensor | None, sizes: Sequence[Size] = ()) -> Tensor:
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    images = None if pixels is None else Images(pixels=pixels, sizes=sizes)
    return model.language.logits(model(tokens, images, positions))
