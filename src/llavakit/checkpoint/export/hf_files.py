"""The configuration of a llava-hf folder and the settings beside it, from ours."""

from __future__ import annotations

from typing import Any

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.export.sections import (
    generation_settings,
    image_settings,
    language_section,
    token_keys,
    tower_section,
)
from llavakit.checkpoint.formats import CONFIG_FILE, GENERATION_FILE, IMAGE_FILE, PROCESSOR_FILE
from llavakit.checkpoint.remarks import OUR_KEY, remarks
from llavakit.checkpoint.translate import translate
from llavakit.config import ConfigError, LlavaConfig, TilingConfig, VisionConfig


def json_files(config: LlavaConfig, *, image_token: str, ends: list[int]) -> dict[str, dict[str, Any]]:
    """The configuration and settings by file; `ends` are the ids that end an answer.

    They are read back before they are used. Raises `CheckpointError` naming what they cannot say.
    """
    if config.projector.kind == "linear":
        raise CheckpointError(
            "transformers' LLaVA has no linear projector, so a model of the first generation cannot be written for it: "
            "--to original keeps it as it is"
        )
    if config.tokens.image_start is not None or config.tokens.image_end is not None:
        raise CheckpointError(
            "transformers' LLaVA has no words of their own around a picture (tokens.image_start, tokens.image_end): "
            "--to original keeps them"
        )
    if config.tiling and config.tiling.max_tiles:
        raise CheckpointError(
            "a model with pooled tiles (tiling.max_tiles) is not written for transformers, whose LLaVA-OneVision needs "
            "video settings that we do not have: --to original keeps it as it is"
        )
    described, image = _config(config), _image(config)
    generation = generation_settings(config.tokens, ends)
    try:
        described[OUR_KEY] = remarks(config, translate(described, generation=generation, image=image, tokenizer={}))
    except ConfigError as error:
        raise CheckpointError(f"transformers' classes cannot hold this model: {error}") from error
    processor = {
        "processor_class": class_name(config, "Processor"),
        "image_token": image_token,
        "patch_size": config.vision.patch_size,
        "vision_feature_select_strategy": _strategy(config.vision),
        "num_additional_image_tokens": int(config.vision.class_token),
    }
    return {
        CONFIG_FILE: described,
        GENERATION_FILE: generation,
        IMAGE_FILE: image,
        PROCESSOR_FILE: processor,
    }


def _config(config: LlavaConfig) -> dict[str, Any]:
    vision, tiling = config.vision, config.tiling
    described = {
        "model_type": "llava_next" if tiling else "llava",
        "architectures": [class_name(config, "ForConditionalGeneration")],
        "text_config": language_section(config.language) | token_keys(config.tokens),
        "vision_config": tower_section(vision),
        "image_token_index": config.tokens.image,
        "image_seq_length": vision.num_features,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": config.projector.bias,
        "vision_feature_layer": vision.feature_layer,
        "vision_feature_select_strategy": _strategy(vision),
        "tie_word_embeddings": config.language.tie_embeddings,
        "pad_token_id": config.tokens.pad,
    }
    if tiling:
        described |= {"image_grid_pinpoints": _pinpoints(tiling), "use_image_newline_parameter": True}
    return described


def _strategy(vision: VisionConfig) -> str:
    """`default` leaves out the first feature, which only some towers have for the class."""
    return "default" if vision.class_token and vision.feature_select == "patch" else "full"


def class_name(config: LlavaConfig, kind: str) -> str:
    """The class of transformers for this model: the model itself, its processor."""
    return ("LlavaNext" if config.tiling else "Llava") + kind


def _image(config: LlavaConfig) -> dict[str, Any]:
    settings = {"processor_class": class_name(config, "Processor")}
    if config.resize_mode != "anyres" or config.tiling is None:
        return settings | image_settings(config.vision, config.resize_mode)
    settings |= image_settings(config.vision, "square") | {"image_processor_type": "LlavaNextImageProcessor"}
    return settings | {"image_grid_pinpoints": _pinpoints(config.tiling), "do_pad": True}


def _pinpoints(tiling: TilingConfig) -> list[list[int]]:
    """Theirs are (height, width). The order, which settles ties, stays."""
    return [[height, width] for width, height in tiling.pinpoints]
