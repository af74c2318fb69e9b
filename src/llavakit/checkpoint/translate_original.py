"""A configuration of the original LLaVA code in our terms: the language model's own file with `mm_*` keys in it."""

from __future__ import annotations

import re
from typing import Any

from llavakit.checkpoint.pinpoints import read_pinpoints
from llavakit.checkpoint.sections import JSON, Demand, check, first, language_fields, read_language, token_fields
from llavakit.checkpoint.spoken import spoken_to
from llavakit.config import ConfigError, LlavaConfig, VisionConfig, shown

_DEMANDS = (
    Demand("mm_projector_type", lambda value: value in ("linear", "mlp2x_gelu"), "'linear' or 'mlp2x_gelu'"),
    Demand("mm_vision_select_feature", lambda value: value in _FEATURES, "'patch' or 'cls_patch'"),
    Demand("mm_patch_merge_type", lambda value: value in _MERGES, "'flat', 'spatial' or 'spatial_unpad'"),
    Demand("mm_resampler_type", lambda value: value is None, "null: resamplers are not read"),
    Demand("s2", lambda value: not value, "false: towers at several scales are not read"),
)
_FEATURES = {"patch": "patch", "cls_patch": "full"}
_MERGES = ("flat", "spatial", "spatial_unpad")
# model_type alone does not tell: `llava` stands over every language model.
_LANGUAGES = {
    "LlavaLlamaForCausalLM": "llama",
    "LlavaMistralForCausalLM": "mistral",
    "LlavaQwenForCausalLM": "qwen2",
    "llava": "llama",
    "llava_llama": "llama",
    "llava_mistral": "mistral",
    "llava_qwen": "qwen2",
}
_ANYRES = re.compile(r"anyres(?:_max_(\d{1,4}))?")


def is_original(config: JSON) -> bool:
    """Whether a config.json is of the original's kind."""
    return "mm_vision_tower" in config or "mm_hidden_size" in config


def translate_original(config: JSON, vision: VisionConfig, *, generation: JSON, tokenizer: JSON) -> LlavaConfig:
    """A whole configuration, the tower's own being known; raises `ConfigError` naming what cannot be expressed."""
    check(config, _DEMANDS, "")
    text = read_language(dict(config) | {"model_type": _language(config)})
    language = language_fields(text, tied=bool(config.get("tie_word_embeddings")))
    if config.get("mm_hidden_size", vision.hidden_size) != vision.hidden_size:
        raise ConfigError(
            f"mm_hidden_size is {config['mm_hidden_size']}, but the vision tower has width {vision.hidden_size}: "
            "this is another tower than the checkpoint was trained with"
        )
    # The original has no word for a picture; the first id behind its words serves.
    tokens = {**token_fields(config, text, generation, tokenizer), "image": language["vocab_size"]}
    if config.get("mm_use_im_start_end"):
        tokens |= {"image_start": language["vocab_size"] - 2, "image_end": language["vocab_size"] - 1}
    return LlavaConfig.parse(
        {
            "vision": vision.model_dump() | _view(config, vision),
            "projector": {"kind": config.get("mm_projector_type", "linear")},
            "language": language,
            "tokens": tokens,
            **_pictures(config, vision),
            # The first generation alone marks its pictures.
            "template": "llava_v0" if config.get("mm_use_im_start_end") else spoken_to(text),
        }
    )


def _language(config: JSON) -> str:
    names = [*first(config.get("architectures"), []), config.get("model_type", "llava")]
    return next((_LANGUAGES[name] for name in names if name in _LANGUAGES), names[-1])


def _view(config: JSON, vision: VisionConfig) -> dict[str, Any]:
    """Which features are taken. For SigLIP the original has one way, whatever the configuration says."""
    if not vision.class_token:
        return {"feature_layer": -2, "feature_select": "patch"}
    return {
        "feature_layer": config.get("mm_vision_select_layer", -1),
        "feature_select": _FEATURES[config.get("mm_vision_select_feature", "patch")],
    }


def _pictures(config: JSON, vision: VisionConfig) -> dict[str, Any]:
    """How pictures become views. A picture without tiles that is padded or cropped has no use for a merge type."""
    mode = first(config.get("image_aspect_ratio"), "square")
    if mode == "square" and not vision.class_token:
        return {"resize_mode": "stretch"}  # what SigLIP's processor does
    if mode in ("square", "pad"):
        return {"resize_mode": mode}
    if not (tiled := _ANYRES.fullmatch(mode)):
        allowed = "'square', 'pad', 'anyres' and 'anyres_max_N'"
        raise ConfigError(f"image_aspect_ratio is {shown(mode)}, and only {allowed} are supported")
    if "image_grid_pinpoints" not in config:
        raise ConfigError(f"image_aspect_ratio is {mode!r}, which needs image_grid_pinpoints, and there are none")
    return {
        "resize_mode": "anyres",
        "tiling": {
            "pinpoints": read_pinpoints(config["image_grid_pinpoints"], tile_size=vision.image_size),
            "merge": config.get("mm_patch_merge_type", "flat"),
            "max_tiles": int(tiled[1]) if tiled[1] else None,
            "only_alone": tiled[1] is not None,
            "compat": "original",
        },
    }
