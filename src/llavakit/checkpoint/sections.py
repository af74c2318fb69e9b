"""The sections that foreign configurations share: a language model's fields and a vision tower's, in our terms.

Files are sparse: a key that equals the default of its class is left out, so those defaults stand here as
`transformers` has them. A key that would change the arithmetic in a way our model does not know is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llavakit.checkpoint.rope import rope_fields
from llavakit.config import CLIP_MEAN, CLIP_STD, SIGLIP_MEAN, SIGLIP_STD, ConfigError, shown

JSON = Mapping[str, Any]

_CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_SIGLIP = _CLIP | {
    "model_type": "siglip_vision_model",
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
TOWERS = {"clip_vision_model": _CLIP, "siglip_vision_model": _SIGLIP}
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
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
LANGUAGES = {"llama": _LLAMA, "mistral": _MISTRAL, "qwen2": _QWEN2}


@dataclass(frozen=True)
class Demand:
    """A key whose value our model takes for granted; absent, it has the value we want."""

    key: str
    holds: Callable[[Any], bool]
    allowed: str


_VISION_DEMANDS = (
    Demand("model_type", lambda value: value in TOWERS, "'clip_vision_model' or 'siglip_vision_model'"),
    Demand("num_channels", lambda value: value == 3, "3"),
    Demand("hidden_act", lambda value: value in ACTIVATIONS, "'quick_gelu', 'gelu' or 'gelu_pytorch_tanh'"),
)
_LANGUAGE_DEMANDS = (
    Demand("model_type", lambda value: value in LANGUAGES, "'llama', 'mistral' or 'qwen2'"),
    Demand("hidden_size", lambda value: _is_count(value), "a positive whole number"),
    Demand("num_attention_heads", lambda value: _is_count(value), "a positive whole number"),
    Demand("max_position_embeddings", lambda value: _is_count(value), "a positive whole number"),
    Demand("max_sequence_length", lambda value: value is None or _is_count(value), "null or a positive whole number"),
    Demand("sliding_window", lambda value: value is None or _is_count(value), "null or a positive whole number"),
    Demand("hidden_act", lambda value: value == "silu", "'silu'"),
    Demand("attention_bias", lambda value: not value, "false"),
    Demand("mlp_bias", lambda value: not value, "false"),
)


def read_language(text: JSON, *, where: str = "") -> dict[str, Any]:
    """A language model's section with the defaults of its type, checked; `where` begins the names in errors."""
    check(text, _LANGUAGE_DEMANDS, where)
    text = {"model_type": "llama"} | dict(text)
    return LANGUAGES[text["model_type"]] | text


def language_fields(text: JSON, *, tied: bool, where: str = "") -> dict[str, Any]:
    """What `read_language` gave, as the fields of `LanguageConfig`."""
    # Inside its window, sliding attention is full attention: a context of one window is exact.
    slides = text.get("use_sliding_window", True) and text["sliding_window"]
    context = first(text.get("max_sequence_length"), text["max_position_embeddings"])
    window = text["sliding_window"] if slides else context
    return {
        "vocab_size": text["vocab_size"],
        "hidden_size": text["hidden_size"],
        "intermediate_size": text["intermediate_size"],
        "num_layers": text["num_hidden_layers"],
        "num_heads": text["num_attention_heads"],
        "num_kv_heads": text["num_key_value_heads"] or text["num_attention_heads"],
        "head_dim": text["head_dim"] or text["hidden_size"] // text["num_attention_heads"],
        "rms_norm_eps": text["rms_norm_eps"],
        **rope_fields(text, where),
        "max_positions": min(context, window),
        "tie_embeddings": tied,
        "qkv_bias": text["model_type"] == "qwen2",
    }


def tower_fields(given: JSON, image: JSON, *, where: str = "") -> dict[str, Any]:
    """A vision tower's section and its image settings as the fields of `VisionConfig`, all but how it is read."""
    check(given, _VISION_DEMANDS, where)
    vision = TOWERS[given.get("model_type", "clip_vision_model")] | dict(given)
    is_clip = vision["model_type"] == "clip_vision_model"
    return {
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "hidden_size": vision["hidden_size"],
        "intermediate_size": vision["intermediate_size"],
        "num_layers": vision["num_hidden_layers"],
        "num_heads": vision["num_attention_heads"],
        "activation": ACTIVATIONS[vision["hidden_act"]],
        "layer_norm_eps": vision["layer_norm_eps"],
        "class_token": is_clip,
        "pre_norm": is_clip,
        "patch_bias": not is_clip,
        "image_mean": image.get("image_mean", CLIP_MEAN if is_clip else SIGLIP_MEAN),
        "image_std": image.get("image_std", CLIP_STD if is_clip else SIGLIP_STD),
    }


def token_fields(config: JSON, text: JSON, generation: JSON, tokenizer: JSON) -> dict[str, Any]:
    """The begin, end and padding tokens, from the first of the files that names them.

    `tokenizer` is tokenizer_config.json, which says whether a text begins with the begin token at all.
    """
    ends = first(generation.get("eos_token_id"), config.get("eos_token_id"), text["eos_token_id"])
    if ends is None or ends == []:
        raise ConfigError("eos_token_id is given nowhere, so there is no telling when an answer is complete")
    eos, *others = ends if isinstance(ends, list) else [ends]
    return {
        "bos": _bos(config, text, generation, tokenizer),
        "eos": eos,
        "also_ends": others,
        # Padding never reaches the model; a checkpoint without a token for it pads with its end token.
        "pad": first(generation.get("pad_token_id"), config.get("pad_token_id"), text.get("pad_token_id"), eos),
    }


def _bos(config: JSON, text: JSON, generation: JSON, tokenizer: JSON) -> int | None:
    """None where the tokenizer begins with nothing, as all of Qwen's do, whatever the configuration names."""
    is_silent = tokenizer.get("add_bos_token") is False or tokenizer.get("bos_token", "") is None
    if is_silent or text["model_type"] == "qwen2":
        return None
    return first(generation.get("bos_token_id"), config.get("bos_token_id"), text["bos_token_id"])


def section_of(config: JSON, name: str) -> dict[str, Any]:
    section = config.get(name) or {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{name} is {section!r}, and should be an object")
    return dict(section)


def check(section: JSON, demands: tuple[Demand, ...], where: str) -> None:
    for demand in demands:
        if demand.key in section and not demand.holds(section[demand.key]):
            raise ConfigError(
                f"{where}{demand.key} is {shown(section[demand.key])}, and only {demand.allowed} is supported"
            )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
