"""A llava-hf configuration in our terms.

Their files are sparse: a key that equals the default of its class is left out, so those defaults stand here as
`transformers` has them. A key that would change the arithmetic in a way our model does not know is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llavakit.checkpoint.pinpoints import read_pinpoints
from llavakit.config import CLIP_MEAN, CLIP_STD, ConfigError, LlavaConfig

JSON = Mapping[str, Any]

LLAVA_HF_TYPES = ("llava", "llava_next")

# CLIPVisionConfig's defaults, and those that LlavaConfig puts in their place when the whole section is absent.
_CLIP = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_CLIP_LARGE_336 = _CLIP | {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "sliding_window": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MISTRAL = _LLAMA | {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096 * 32,
    "sliding_window": 4096,
}
_QWEN2 = _LLAMA | {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "sliding_window": 4096,
    "use_sliding_window": False,
    "eos_token_id": None,
}
_LANGUAGE_DEFAULTS = {"llama": _LLAMA, "mistral": _MISTRAL, "qwen2": _QWEN2}
_NEXT_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


@dataclass(frozen=True)
class Demand:
    """A key whose value our model takes for granted; absent, it has the value we want."""

    key: str
    holds: Callable[[Any], bool]
    allowed: str


_TOP_DEMANDS = (
    Demand("projector_hidden_act", lambda value: value == "gelu", "'gelu'"),
    Demand("vision_feature_select_strategy", lambda value: value in ("default", "full"), "'default' or 'full'"),
    Demand("quantization_config", lambda value: value is None, "nothing: quantised weights are not read"),
)
_VISION_DEMANDS = (
    Demand("model_type", lambda value: value == "clip_vision_model", "'clip_vision_model'"),
    Demand("num_channels", lambda value: value == 3, "3"),
    Demand("hidden_act", lambda value: value in ("quick_gelu", "gelu"), "'quick_gelu' or 'gelu'"),
)
_LANGUAGE_DEMANDS = (
    Demand("model_type", lambda value: value in _LANGUAGE_DEFAULTS, "'llama', 'mistral' or 'qwen2'"),
    Demand("hidden_size", lambda value: _is_count(value), "a positive whole number"),
    Demand("num_attention_heads", lambda value: _is_count(value), "a positive whole number"),
    Demand("max_position_embeddings", lambda value: _is_count(value), "a positive whole number"),
    Demand("sliding_window", lambda value: value is None or _is_count(value), "null or a positive whole number"),
    Demand("hidden_act", lambda value: value == "silu", "'silu'"),
    Demand("attention_bias", lambda value: not value, "false"),
    Demand("mlp_bias", lambda value: not value, "false"),
    Demand("rope_scaling", lambda value: _is_plain_rope(value), "plain rotary positions, not scaled ones"),
    Demand("rope_parameters", lambda value: _is_plain_rope(value), "plain rotary positions, not scaled ones"),
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
    _check(config, _TOP_DEMANDS, "")
    text = _section(config, "text_config")
    _check(text, _LANGUAGE_DEMANDS, "text_config.")
    text = {"model_type": "llama"} | text
    text = _LANGUAGE_DEFAULTS[text["model_type"]] | text
    language = _language(text, tied=bool(config.get("tie_word_embeddings") or text.get("tie_word_embeddings")))
    vision = _vision(config, image)
    return LlavaConfig.parse(
        {
            "vision": vision,
            "projector": {"kind": "mlp2x_gelu", "bias": config.get("multimodal_projector_bias", True)},
            "language": language,
            "tokens": _tokens(config, text, generation),
            **_pictures(config, image, vision["image_size"]),
            "template": "vicuna_v1",
        }
    )


def _language(text: JSON, *, tied: bool) -> dict[str, Any]:
    rope = text.get("rope_parameters") or {}
    # Inside its window, sliding attention is full attention: a context of one window is exact.
    slides = text.get("use_sliding_window", True) and text["sliding_window"]
    window = text["sliding_window"] if slides else text["max_position_embeddings"]
    return {
        "vocab_size": text["vocab_size"],
        "hidden_size": text["hidden_size"],
        "intermediate_size": text["intermediate_size"],
        "num_layers": text["num_hidden_layers"],
        "num_heads": text["num_attention_heads"],
        "num_kv_heads": text["num_key_value_heads"] or text["num_attention_heads"],
        "head_dim": text["head_dim"] or text["hidden_size"] // text["num_attention_heads"],
        "rms_norm_eps": text["rms_norm_eps"],
        "rope_theta": rope.get("rope_theta", text.get("rope_theta", 10000.0)),
        "max_positions": min(text["max_position_embeddings"], window),
        "tie_embeddings": tied,
        "qkv_bias": text["model_type"] == "qwen2",
    }


def _vision(config: JSON, image: JSON) -> dict[str, Any]:
    given = _section(config, "vision_config")
    _check(given, _VISION_DEMANDS, "vision_config.")
    vision = (_CLIP if given else _CLIP_LARGE_336) | given
    return {
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "hidden_size": vision["hidden_size"],
        "intermediate_size": vision["intermediate_size"],
        "num_layers": vision["num_hidden_layers"],
        "num_heads": vision["num_attention_heads"],
        "activation": vision["hidden_act"],
        "layer_norm_eps": vision["layer_norm_eps"],
        "feature_layer": _feature_layer(config.get("vision_feature_layer", -2)),
        "feature_select": {"default": "patch", "full": "full"}[config.get("vision_feature_select_strategy", "default")],
        "image_mean": image.get("image_mean", CLIP_MEAN),
        "image_std": image.get("image_std", CLIP_STD),
    }


def _feature_layer(layer: int | list[int]) -> int:
    if not isinstance(layer, list):
        return layer
    if len(layer) != 1:
        raise ConfigError(f"vision_feature_layer is {layer}, and features of several layers at once are not supported")
    return layer[0]


def _tokens(config: JSON, text: JSON, generation: JSON) -> dict[str, Any]:
    eos = _first(generation.get("eos_token_id"), config.get("eos_token_id"), text["eos_token_id"])
    if isinstance(eos, list):
        if len(eos) != 1:
            raise ConfigError(f"eos_token_id is {eos}, and several end tokens are not supported")
        eos = eos[0]
    if eos is None:
        raise ConfigError("eos_token_id is given nowhere, so there is no telling when an answer is complete")
    return {
        "bos": _bos(config, text, generation),
        "eos": eos,
        # Padding never reaches the model; a checkpoint without a token for it pads with its end token.
        "pad": _first(generation.get("pad_token_id"), config.get("pad_token_id"), text.get("pad_token_id"), eos),
        "image": _first(config.get("image_token_index"), config.get("image_token_id"), 32000),
    }


def _bos(config: JSON, text: JSON, generation: JSON) -> int | None:
    """Qwen's tokenizers begin with nothing, whatever its configuration names."""
    if text["model_type"] == "qwen2":
        return None
    return _first(generation.get("bos_token_id"), config.get("bos_token_id"), text["bos_token_id"])


def _pictures(config: JSON, image: JSON, image_size: int) -> dict[str, Any]:
    """How pictures become views: in tiles for LLaVA-NeXT, whose pinpoints are (height, width), else in one view."""
    _check(image, _IMAGE_DEMANDS, "image settings: ")
    for key in ("size", "crop_size"):
        given = image.get(key, image_size)
        sides = set(given.values()) if isinstance(given, Mapping) else {given}
        if sides != {image_size}:
            raise ConfigError(f"image settings: {key} is {given}, but the tower takes pictures of {image_size} pixels")
    if config.get("model_type") != "llava_next":
        return {"resize_mode": _resize_mode(image)}
    given = _first(config.get("image_grid_pinpoints"), _NEXT_PINPOINTS)
    pinpoints = read_pinpoints(given, tile_size=image_size)
    cut = read_pinpoints(_first(image.get("image_grid_pinpoints"), given), tile_size=image_size)
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


def _section(config: JSON, name: str) -> dict[str, Any]:
    section = config.get(name) or {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{name} is {section!r}, and should be an object")
    return dict(section)


def _check(section: JSON, demands: tuple[Demand, ...], where: str) -> None:
    for demand in demands:
        if demand.key in section and not demand.holds(section[demand.key]):
            raise ConfigError(f"{where}{demand.key} is {section[demand.key]!r}, and only {demand.allowed} is supported")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _is_plain_rope(rope: JSON | None) -> bool:
    return not rope or rope.get("rope_type", rope.get("type", "default")) == "default"


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
