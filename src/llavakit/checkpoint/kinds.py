"""What kind of value each key of a foreign configuration must have, checked before anything is made of it.

Keys that are not here are never read, or read by code that takes any value. A nullable key may be null for "as usual".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llavakit.checkpoint.sections import JSON, Demand, check

_MAX_NUMBER = 1e38  # what float32 holds, in which models are computed


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_one_or_more(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, list) and all(map(_is_whole, value)))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value)) and bool(value)


def _is_side(value: Any) -> bool:
    """Of a picture: one number of pixels for both, or an object with one for each."""
    return _is_whole(value) or (isinstance(value, Mapping) and all(map(_is_whole, value.values())))


def _kind(holds: Callable[[Any], bool], allowed: str, keys: str) -> tuple[Demand, ...]:
    """Demands for several keys at once; a key with a question mark may be null."""
    return tuple(
        Demand(key[:-1], lambda value: value is None or holds(value), f"null or {allowed}")
        if key.endswith("?")
        else Demand(key, holds, allowed)
        for key in keys.split()
    )


_KINDS = (
    *_kind(
        _is_count,
        "a positive whole number",
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads? head_dim? "
        "max_position_embeddings sliding_window? image_size patch_size num_channels mm_hidden_size? "
        "original_max_position_embeddings",
    ),
    *_kind(_is_whole, "a whole number", "image_token_index? image_token_id? mm_vision_select_layer bos_token_id?"),
    *_kind(_is_one_or_more, "a whole number or a list of them", "eos_token_id? pad_token_id? vision_feature_layer"),
    *_kind(
        _is_number,
        f"a number below {_MAX_NUMBER:g}",
        "rms_norm_eps layer_norm_eps rope_theta? lora_alpha rescale_factor "
        "factor low_freq_factor high_freq_factor partial_rotary_factor?",
    ),
    *_kind(
        lambda value: isinstance(value, bool),
        "true or false",
        "tie_word_embeddings? multimodal_projector_bias attention_bias? mlp_bias? mm_use_im_start_end? "
        "use_sliding_window? do_resize do_normalize do_rescale do_pad? do_center_crop? use_rslora? use_dora?",
    ),
    *_kind(
        _is_text,
        "a text",
        "model_type hidden_act projector_hidden_act mm_vision_tower? mm_projector_type mm_patch_merge_type "
        "mm_vision_select_feature image_aspect_ratio? vision_feature_select_strategy vision_aspect_ratio peft_type "
        "rope_type type",
    ),
    *_kind(_is_texts, "a list of texts", "architectures?"),
    *_kind(
        lambda value: isinstance(value, Mapping),
        "an object",
        "text_config? vision_config? rope_scaling? rope_parameters? image_processor",
    ),
    *_kind(
        lambda value: isinstance(value, Mapping) and all(map(_is_number, value.values())),
        f"an object of numbers below {_MAX_NUMBER:g}",
        "alpha_pattern?",
    ),
    *_kind(_is_side, "a number of pixels for each side", "size? crop_size?"),
)
_SECTIONS = ("text_config", "vision_config", "image_processor", "rope_scaling", "rope_parameters")


def check_kinds(config: JSON, where: str = "", depth: int = 2) -> None:
    """Raise `ConfigError` for a value of the wrong kind, in a configuration or in its sections, so deep."""
    check(config, _KINDS, where)
    for name in _SECTIONS if depth else ():
        if isinstance(section := config.get(name), Mapping):
            check_kinds(section, f"{where}{name}.", depth - 1)
