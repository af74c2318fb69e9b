"""A model as the original LLaVA code stores its own: one configuration, and the tower among the weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.export.sections import (
    generation_settings,
    image_settings,
    language_section,
    token_keys,
    tower_section,
)
from llavakit.checkpoint.export.source import Source
from llavakit.checkpoint.export.tokenizer import Vocabulary, names_of, write_tokenizer
from llavakit.checkpoint.export.tower import whole_tower
from llavakit.checkpoint.formats import CONFIG_FILE, GENERATION_FILE, IMAGE_FILE
from llavakit.checkpoint.original import OWN_TOWER
from llavakit.checkpoint.remarks import OUR_KEY, remarks
from llavakit.checkpoint.rename import rename, rename_back
from llavakit.checkpoint.shards import write_tensors
from llavakit.checkpoint.tables import ORIGINAL, TOWER_LAYOUTS, Row, Table, unused_layers
from llavakit.checkpoint.tokenizer_files import SENTENCEPIECE_FILE, says_the_same
from llavakit.checkpoint.towers import built_as
from llavakit.checkpoint.translate_original import translate_original
from llavakit.config import ConfigError, LlavaConfig, VisionConfig

_CLASSES = {"llama": ("LlavaLlamaForCausalLM", "llava_llama"), "qwen2": ("LlavaQwenForCausalLM", "llava_qwen")}
_FEATURES = {"patch": "patch", "full": "cls_patch"}
# One matrix has no number in its name.
_LINEAR: Table = (Row("model.mm_projector.*", "projector.fc1.*"), *ORIGINAL)


def write_original(source: Source, folder: Path) -> list[str]:
    """Fill `folder`; returns what the original code will do otherwise than we do, a sentence each.

    Raises `CheckpointError` for a model that its configuration cannot describe.
    """
    config = source.config
    published = built_as(config.vision)
    files = json_files(config, published or f"{source.name}/{OWN_TOWER}")
    files[CONFIG_FILE]["torch_dtype"] = str(source.dtype).removeprefix("torch.")
    if published is None:
        (folder / OWN_TOWER).mkdir()
        files |= {f"{OWN_TOWER}/{name}": data for name, data in tower_files(config.vision).items()}
    for name, data in files.items():
        (folder / name).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    _write_tokenizer(source, folder)
    tensors = whole_tower(source.tensors, config.vision)
    own = {name: tensor for name, tensor in tensors.items() if name.startswith("vision.")}
    if not config.vision.class_token:  # the original takes SigLIP's last layer off before it reads our weights
        tensors = {name: t for name, t in tensors.items() if rename(name, unused_layers(config.vision)) is None}
    table = _LINEAR if config.projector.kind == "linear" else ORIGINAL
    write_tensors({rename_back(name, table): tensor for name, tensor in tensors.items()}, folder, source.dtype)
    if published is None:
        own = {rename_back(name, TOWER_LAYOUTS[0]): tensor for name, tensor in own.items()}
        write_tensors(own, folder / OWN_TOWER, source.dtype)
    return _differences(source, published)


def json_files(config: LlavaConfig, tower: str) -> dict[str, dict[str, Any]]:
    """The configuration and settings by file; `tower` is the name that the original code finds the tower by.

    It is read back before it is used. Raises `CheckpointError` naming what it cannot say.
    """
    language = language_section(config.language)
    architecture, model_type = _CLASSES[language["model_type"]]
    described = language | {
        "architectures": [architecture],
        "model_type": model_type,
        **token_keys(config.tokens),
        "mm_vision_tower": tower,
        "unfreeze_mm_vision_tower": True,  # its weights are here
        "mm_hidden_size": config.vision.hidden_size,
        "mm_vision_select_layer": config.vision.feature_layer,
        "mm_vision_select_feature": _FEATURES[config.vision.feature_select],
        "mm_projector_type": config.projector.kind,
        "mm_use_im_start_end": config.tokens.image_start is not None,
        "mm_use_im_patch_token": False,
        # SigLIP's processor stretches where CLIP's crops.
        "image_aspect_ratio": "square" if config.resize_mode == "stretch" else config.resize_mode,
        "tokenizer_padding_side": "right",
        "tokenizer_model_max_length": config.language.max_positions,
        "use_mm_proj": True,
    }
    if tiling := config.tiling:
        most = f"_max_{tiling.max_tiles}" if tiling.max_tiles else ""
        described |= {
            "image_aspect_ratio": config.resize_mode + most,
            "image_grid_pinpoints": [list(pinpoint) for pinpoint in tiling.pinpoints],
            "mm_patch_merge_type": tiling.merge,
        }
    generation = generation_settings(config.tokens, list(config.tokens.ends))
    try:
        read_back = translate_original(described, config.vision, generation=generation, tokenizer={})
        described[OUR_KEY] = remarks(config, read_back)
    except ConfigError as error:
        raise CheckpointError(f"the original code has no words for this model: {error}") from error
    return {CONFIG_FILE: described, GENERATION_FILE: generation}


def tower_files(vision: VisionConfig) -> dict[str, dict[str, Any]]:
    """What describes a tower that nobody else has: the original builds it from there, then reads our weights."""
    return {
        CONFIG_FILE: {"architectures": ["CLIPVisionModel" if vision.class_token else "SiglipVisionModel"]}
        | tower_section(vision),
        IMAGE_FILE: image_settings(vision, "square" if vision.class_token else "stretch"),
    }


def _write_tokenizer(source: Source, folder: Path) -> None:
    """tokenizer.json, and the SentencePiece model of the source where the two still say the same."""
    tokens, vocabulary = source.config.tokens, Vocabulary.of(source.tokenizer)
    named = names_of(vocabulary, tokens)
    vocabulary.begins_with(None if tokens.bos is None else (named["bos_token"], tokens.bos))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": tokens.bos is not None,
        "add_eos_token": False,
        "padding_side": "right",
        "model_max_length": source.config.language.max_positions,
    }
    if says_the_same(source.folder, source.tokenizer):
        shutil.copyfile(source.folder / SENTENCEPIECE_FILE, folder / SENTENCEPIECE_FILE)
        settings |= {"tokenizer_class": "LlamaTokenizer", "legacy": source.tokenizer.prefix == "always"}
    vocabulary.spell_as_before()
    write_tokenizer(folder, vocabulary, named, settings)


def _differences(source: Source, published: str | None) -> list[str]:
    """What cannot be written down, or needs a hand."""
    config, name = source.config, source.name
    found = []
    if source.tokenizer.prefix == "first" and not says_the_same(source.folder, source.tokenizer):
        found.append(
            "the original code's version of the tokenizers library cuts a text at every space, and ours does not, so "
            f"ids may differ there: with the {SENTENCEPIECE_FILE} of this vocabulary beside tokenizer.json, and "
            "LlamaTokenizer as tokenizer_class in tokenizer_config.json, they do not"
        )
    if published is None:
        found.append(
            f"this tower is in no collection, so mm_vision_tower is {name}/{OWN_TOWER}, which the original code finds "
            f"when it runs in the folder above {name}; a full path there works from everywhere"
        )
    if config.tiling and config.tiling.compat == "hf":
        found.append(
            "the original code rounds the patches around a picture differently from transformers, whose way this model "
            "has: a picture of a few sizes, such as 376x799, becomes another number of tokens there"
        )
    return found
