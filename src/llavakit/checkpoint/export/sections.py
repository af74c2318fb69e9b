"""The sections that foreign configurations share, from ours: what `checkpoint.sections` reads, written."""

from __future__ import annotations

from typing import Any

from llavakit.checkpoint.rope import rope_keys
from llavakit.checkpoint.sections import ACTIVATIONS
from llavakit.config import LanguageConfig, ResizeMode, SpecialTokens, VisionConfig


def language_section(language: LanguageConfig) -> dict[str, Any]:
    """A language model's own configuration, every key spelt out: the defaults of its class are not the same everywhere.

    A Mistral is a Llama that shares key-value heads, so two types are enough; Qwen2 alone has a bias.
    """
    return {
        "model_type": "qwen2" if language.qkv_bias else "llama",
        "vocab_size": language.vocab_size,
        "hidden_size": language.hidden_size,
        "intermediate_size": language.intermediate_size,
        "num_hidden_layers": language.num_layers,
        "num_attention_heads": language.num_heads,
        "num_key_value_heads": language.num_kv_heads,
        "head_dim": language.head_dim,
        "rms_norm_eps": language.rms_norm_eps,
        **rope_keys(language),
        "max_position_embeddings": language.max_positions,
        "hidden_act": "silu",
        "tie_word_embeddings": language.tie_embeddings,
    }


def tower_section(vision: VisionConfig) -> dict[str, Any]:
    """A tower's own configuration: CLIP's, or SigLIP's without its pooling head."""
    kind = {"model_type": "clip_vision_model"}
    if not vision.class_token:
        kind = {"model_type": "siglip_vision_model", "vision_use_head": False}
    return kind | {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "hidden_size": vision.hidden_size,
        "intermediate_size": vision.intermediate_size,
        "num_hidden_layers": vision.num_layers,
        "num_attention_heads": vision.num_heads,
        "hidden_act": {ours: theirs for theirs, ours in ACTIVATIONS.items()}[vision.activation],
        "layer_norm_eps": vision.layer_norm_eps,
    }


def image_settings(vision: VisionConfig, resize_mode: ResizeMode) -> dict[str, Any]:
    """How a picture becomes one view, as the processors of CLIP, LLaVA and SigLIP do it; then it is normalised."""
    size, square = vision.image_size, {"height": vision.image_size, "width": vision.image_size}
    kinds: dict[str, dict[str, Any]] = {
        "square": {"image_processor_type": "CLIPImageProcessor"},
        "pad": {"image_processor_type": "LlavaImageProcessor", "do_pad": True},
        "stretch": {"image_processor_type": "SiglipImageProcessor", "size": square},
    }
    cropped = {"size": {"shortest_edge": size}, "do_center_crop": True, "crop_size": square}
    shape = kinds[resize_mode] if resize_mode == "stretch" else cropped | kinds[resize_mode]
    return shape | {
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(vision.image_mean),
        "image_std": list(vision.image_std),
    }


def token_keys(tokens: SpecialTokens) -> dict[str, Any]:
    """The ids that begin, end and pad, as a configuration names them: there, one end token alone."""
    return {"bos_token_id": tokens.bos, "eos_token_id": tokens.eos, "pad_token_id": tokens.pad}


def generation_settings(tokens: SpecialTokens, ends: list[int]) -> dict[str, Any]:
    """The same for generating, where an answer may end with any of several tokens."""
    keys = token_keys(tokens) | {"eos_token_id": ends if len(ends) > 1 else ends[0]}
    return {key: value for key, value in keys.items() if value is not None}
