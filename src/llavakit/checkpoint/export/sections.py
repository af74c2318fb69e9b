"""The sections that foreign configurations share, from ours: what `checkpoint.sections` reads, written."""

from __future__ import annotations

from typing import Any

from llavakit.config import LanguageConfig, SpecialTokens, VisionConfig


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
        "rope_theta": language.rope_theta,
        "max_position_embeddings": language.max_positions,
        "hidden_act": "silu",
        "tie_word_embeddings": language.tie_embeddings,
    }


def tower_section(vision: VisionConfig) -> dict[str, Any]:
    """A CLIP tower's own configuration."""
    return {
        "model_type": "clip_vision_model",
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "hidden_size": vision.hidden_size,
        "intermediate_size": vision.intermediate_size,
        "num_hidden_layers": vision.num_layers,
        "num_attention_heads": vision.num_heads,
        "hidden_act": vision.activation,
        "layer_norm_eps": vision.layer_norm_eps,
    }


def image_settings(vision: VisionConfig) -> dict[str, Any]:
    """How CLIP takes a picture: its middle, resized to the tower's size, then normalised."""
    size = vision.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(vision.image_mean),
        "image_std": list(vision.image_std),
    }


def token_keys(tokens: SpecialTokens) -> dict[str, Any]:
    """The ids that begin, end and pad, as both configuration and generation settings name them."""
    return {"bos_token_id": tokens.bos, "eos_token_id": tokens.eos, "pad_token_id": tokens.pad}
