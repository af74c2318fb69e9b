"""A llava-hf configuration in our terms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
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
from llavakit.checkpoint.spoken import spoken_to
from llavakit.config import ConfigError, LlavaConfig, shown


@dataclass(frozen=True)
class Family:
    """The defaults of one class of transformers; files leave out what equals them."""

    language: str
    tower: JSON  # when the whole section is absent
    feature_layer: int
    feature_select: str
    image_token: int
    pinpoints: Any = None  # (height, width); None shows every picture in one view


_CLIP_LARGE_336 = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
_SIGLIP_SO400M_384 = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
FAMILIES = {
    "llava": Family("llama", _CLIP_LARGE_336, -2, "default", 32000),
    "llava_next": Family(
        "llama",
        _CLIP_LARGE_336,
        -2,
        "default",
        32000,
        pinpoints=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    ),
    "llava_onevision": Family(
        "qwen2",
        _SIGLIP_SO400M_384,
        -1,
        "full",
        151646,
        pinpoints=[[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)],
    ),
}
_MAX_TILES = re.compile(r"anyres_max_([1-9]\d{0,3})")

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


def is_llava_hf(config: JSON) -> bool:
    """Whether a config.json is of transformers' kind."""
    kind = config.get("model_type")
    return any(kind == known for known in FAMILIES) and ("text_config" in config or "vision_config" in config)


def translate(config: JSON, *, generation: JSON, image: JSON, tokenizer: JSON, chat_template: str = "") -> LlavaConfig:
    """`config.json` of a llava-hf folder and the files beside it, as one configuration.

    These are `generation_config.json`, the image settings, `tokenizer_config.json` and the chat template; each may be
    empty. Raises `ConfigError` naming the key that cannot be expressed.
    """
    check(config, _TOP_DEMANDS, "")
    family = FAMILIES[config.get("model_type", "llava")]
    text = read_language({"model_type": family.language} | section_of(config, "text_config"), where="text_config.")
    tied = bool(config.get("tie_word_embeddings") or text.get("tie_word_embeddings"))
    vision = _vision(config, image, family)
    return LlavaConfig.parse(
        {
            "vision": vision,
            "projector": {"kind": "mlp2x_gelu", "bias": config.get("multimodal_projector_bias", True)},
            "language": language_fields(text, tied=tied, where="text_config."),
            "tokens": {
                **token_fields(config, text, generation, tokenizer),
                "image": first(config.get("image_token_index"), config.get("image_token_id"), family.image_token),
            },
            **_pictures(config, image, vision, family),
            "template": spoken_to(text, chat_template),
        }
    )


def _vision(config: JSON, image: JSON, family: Family) -> dict[str, Any]:
    given = section_of(config, "vision_config") or family.tower
    given = {"model_type": family.tower["model_type"]} | given
    fields = tower_fields(given, image, where="vision_config.")
    strategy = config.get("vision_feature_select_strategy", family.feature_select)
    if strategy == "default" and not fields["class_token"]:
        raise ConfigError(
            "vision_feature_select_strategy is 'default', which leaves out the class feature, and this tower has none: "
            "only 'full' is supported with it"
        )
    return {
        **fields,
        "feature_layer": _feature_layer(config.get("vision_feature_layer", family.feature_layer)),
        "feature_select": "full" if strategy == "full" and fields["class_token"] else "patch",
    }


def _feature_layer(layer: int | list[int]) -> int:
    if not isinstance(layer, list):
        return layer
    if len(layer) != 1:
        raise ConfigError(
            f"vision_feature_layer is {shown(layer)}, and features of several layers at once are not supported"
        )
    return layer[0]


def _pictures(config: JSON, image: JSON, vision: JSON, family: Family) -> dict[str, Any]:
    """How pictures become views: in one, or in tiles, whose pinpoints are (height, width)."""
    check(image, _IMAGE_DEMANDS, "image settings: ")
    image_size = vision["image_size"]
    for key in ("size", "crop_size"):
        given = first(image.get(key), image_size)
        sides = set(given.values()) if isinstance(given, Mapping) else {given}
        if sides != {image_size}:
            raise ConfigError(f"image settings: {key} is {given}, but the tower takes pictures of {image_size} pixels")
    if family.pinpoints is None:
        return {"resize_mode": _resize_mode(image, has_class=vision["class_token"])}
    given = first(config.get("image_grid_pinpoints"), family.pinpoints)
    pinpoints = read_pinpoints(given, tile_size=image_size)
    cut = read_pinpoints(first(image.get("image_grid_pinpoints"), given), tile_size=image_size)
    if cut != pinpoints:
        raise ConfigError(
            f"image settings: image_grid_pinpoints is {shown(cut)}, but the model's are {shown(pinpoints)}"
        )
    tiling: dict[str, Any] = {
        "pinpoints": [(width, height) for height, width in pinpoints],
        "merge": "spatial_unpad",
        "compat": "hf",
    }
    if config.get("model_type") == "llava_onevision":
        tiling |= {"max_tiles": _max_tiles(config.get("vision_aspect_ratio", "anyres_max_9")), "only_alone": True}
    return {"resize_mode": "anyres", "tiling": tiling}


def _max_tiles(given: Any) -> int:
    found = _MAX_TILES.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        raise ConfigError(f"vision_aspect_ratio is {shown(given)}, and only 'anyres_max_N' is supported")
    return int(found[1])


def _resize_mode(image: JSON, *, has_class: bool) -> str:
    """As the folder's image settings do it; without any, as LLaVA-1.5 was trained, or as SigLIP's processor does."""
    if not image:
        return "pad" if has_class else "stretch"
    if image.get("do_pad", False):
        return "pad"
    size = image.get("size")
    if isinstance(size, Mapping) and "height" in size:
        return "stretch"
    if not image.get("do_center_crop", True):
        raise ConfigError("image settings: pictures are neither padded nor cropped to a square, which is not supported")
    return "square"
