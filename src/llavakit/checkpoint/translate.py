"""A llava-hf configuration in our terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llavakit.checkpoint.pinpoints import read_pinpoints
from llavakit.checkpoint.sections import (
    JSON,
    Demand,
    check,
    first,
    language_fields,
    read_language,
    section_of,
    token_fields,
    tower_fields,
)
from llavakit.config import ConfigError, LlavaConfig

LLAVA_HF_TYPES = ("llava", "llava_next")

_NEXT_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]

_TOP_DEMANDS = (
    Demand("projector_hidden_act", lambda value: value == "gelu", "'gelu'"),
    Demand("vision_feature_select_strategy", lambda value: value in ("default", "full"), "'default' or 'full'"),
    Demand("quantization_config", lambda value: value is None, "nothing: quantised weights are not read"),
)
_IMAGE_DEMANDS = (
    Demand("do_resize", lambda value: value is True, "true"),
    Demand("do_normalize", lambda value: value is True, "true"),
    Demand("do_rescale", lambda value: value is True, "true"),
    Demand("resample", lambda value: value == 3, "3 (bicubic)"),
    Demand("rescale_factor", lambda value: isinstance(value, float) and abs(value * 255 - 1) < 1e-6, "1/255"),
)


def translate(config: JSON, *, generation: JSON, image: JSON) -> LlavaConfig:
    """`config.json`, `generation_config.json` and the image settings of a llava-hf folder, as one configuration.

    The last two may be empty. Raises `ConfigError` naming the key that cannot be expressed.
    """
    check(config, _TOP_DEMANDS, "")
    text = read_language(section_of(config, "text_config"), where="text_config.")
    tied = bool(config.get("tie_word_embeddings") or text.get("tie_word_embeddings"))
    vision = _vision(config, image)
    return LlavaConfig.parse(
        {
            "vision": vision,
            "projector": {"kind": "mlp2x_gelu", "bias": config.get("multimodal_projector_bias", True)},
            "language": language_fields(text, tied=tied),
            "tokens": {
                **token_fields(config, text, generation),
                "image": first(config.get("image_token_index"), config.get("image_token_id"), 32000),
            },
            **_pictures(config, image, vision["image_size"]),
            "template": "vicuna_v1",
        }
    )


def _vision(config: JSON, image: JSON) -> dict[str, Any]:
    return {
        **tower_fields(section_of(config, "vision_config"), image, where="vision_config."),
        "feature_layer": _feature_layer(config.get("vision_feature_layer", -2)),
        "feature_select": {"default": "patch", "full": "full"}[config.get("vision_feature_select_strategy", "default")],
    }


def _feature_layer(layer: int | list[int]) -> int:
    if not isinstance(layer, list):
        return layer
    if len(layer) != 1:
        raise ConfigError(f"vision_feature_layer is {layer}, and features of several layers at once are not supported")
    return layer[0]


def _pictures(config: JSON, image: JSON, image_size: int) -> dict[str, Any]:
    """How pictures become views: in tiles for LLaVA-NeXT, whose pinpoints are (height, width), else in one view."""
    check(image, _IMAGE_DEMANDS, "image settings: ")
    for key in ("size", "crop_size"):
        given = image.get(key, image_size)
        sides = set(given.values()) if isinstance(given, Mapping) else {given}
        if sides != {image_size}:
            raise ConfigError(f"image settings: {key} is {given}, but the tower takes pictures of {image_size} pixels")
    if config.get("model_type") != "llava_next":
        return {"resize_mode": _resize_mode(image)}
    given = first(config.get("image_grid_pinpoints"), _NEXT_PINPOINTS)
    pinpoints = read_pinpoints(given, tile_size=image_size)
    cut = read_pinpoints(first(image.get("image_grid_pinpoints"), given), tile_size=image_size)
    if cut != pinpoints:
        raise ConfigError(f"image settings: image_grid_pinpoints is {cut}, but the model's are {pinpoints}")
    swapped = [(width, height) for height, width in pinpoints]
    return {"resize_mode": "anyres", "tiling": {"pinpoints": swapped, "merge": "spatial_unpad", "compat": "hf"}}


def _resize_mode(image: JSON) -> str:
    """`pad` or `square`, as the folder's image settings do it; LLaVA-1.5 was trained with `pad`."""
    if not image:
        return "pad"
    if image.get("do_pad", False):
        return "pad"
    if not image.get("do_center_crop", True):
        raise ConfigError("image settings: pictures are neither padded nor cropped to a square, which is not supported")
    return "square"
