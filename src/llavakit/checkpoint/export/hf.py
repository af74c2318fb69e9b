"""A model as llava-hf publishes them: what transformers' classes, and the servers built on them, load.

The names of the weights are those of the files on the hub, which every version of transformers reads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.export.chat_template import Words, chat_template
from llavakit.checkpoint.export.sections import image_settings, language_section, token_keys, tower_section
from llavakit.checkpoint.export.source import Source
from llavakit.checkpoint.export.tokenizer import Vocabulary, names_of, write_tokenizer
from llavakit.checkpoint.export.tower import whole_tower
from llavakit.checkpoint.formats import CONFIG_FILE, GENERATION_FILE
from llavakit.checkpoint.reader import StoredTensor
from llavakit.checkpoint.remarks import OUR_KEY, remarks
from llavakit.checkpoint.rename import rename_back
from llavakit.checkpoint.shards import write_tensors
from llavakit.checkpoint.tables import LLAVA_HF
from llavakit.checkpoint.translate import translate
from llavakit.config import ConfigError, LlavaConfig
from llavakit.processing import Template, Tokenizer, find_template

_STRATEGIES = {"patch": "default", "full": "full"}


def write_hf(source: Source, folder: Path) -> list[str]:
    """Fill `folder`; returns what transformers will do otherwise than we do, a sentence each.

    Raises `CheckpointError` for a model that its classes cannot hold.
    """
    vocabulary = Vocabulary.of(source.tokenizer)
    config = with_placeholder(source.config, vocabulary)
    named = names_of(vocabulary, config.tokens)
    template = find_template(config.template)
    words = words_of(config, vocabulary, source.tokenizer)
    image, generation = _image(config), _generation(config, template, vocabulary)
    files: dict[str, dict[str, Any]] = {
        CONFIG_FILE: describe(config, image, generation) | {"torch_dtype": str(source.dtype).removeprefix("torch.")},
        GENERATION_FILE: generation,
        "preprocessor_config.json": image,
        "processor_config.json": _processor(config, words),
    }
    for name, data in files.items():
        (folder / name).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(chat_template(template, words), encoding="utf-8")
    # The template writes the begin token, and servers encode what it wrote as it is.
    vocabulary.begins_with(None)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # the file as it is; others would rebuild it after their fashion
        "processor_class": _class(config, "Processor"),
        "padding_side": "left",
        "model_max_length": config.language.max_positions,
    }
    write_tokenizer(folder, vocabulary, named, settings)
    tensors = whole_tower(source.tensors, config.vision)
    tensors = {name: _with_rows(name, tensor, config.language.vocab_size) for name, tensor in tensors.items()}
    write_tensors({rename_back(name, LLAVA_HF): tensor for name, tensor in tensors.items()}, folder, source.dtype)
    return _differences(config, template)


def with_placeholder(config: LlavaConfig, vocabulary: Vocabulary) -> LlavaConfig:
    """The model with a word for a picture, which transformers needs: in its vocabulary, or a row behind it."""
    image = vocabulary.placeholder(config.tokens)
    return config.model_copy(
        update={
            "tokens": config.tokens.model_copy(update={"image": image}),
            "language": config.language.model_copy(
                update={"vocab_size": max(config.language.vocab_size, image + 1)},
            ),
        }
    )


def describe(config: LlavaConfig, image: dict[str, Any], generation: dict[str, Any]) -> dict[str, Any]:
    """The content of config.json beside the image settings and the generation settings.

    It is read back before it is used. Raises `CheckpointError` naming what it cannot say.
    """
    if config.projector.kind == "linear":
        raise CheckpointError(
            "transformers' LLaVA has no linear projector, so a model of the first generation cannot be written for it: "
            "--to original keeps it as it is"
        )
    vision, tiling = config.vision, config.tiling
    described = {
        "model_type": "llava_next" if tiling else "llava",
        "architectures": [_class(config, "ForConditionalGeneration")],
        "text_config": language_section(config.language) | token_keys(config.tokens),
        "vision_config": tower_section(vision),
        "image_token_index": config.tokens.image,
        "image_seq_length": vision.num_features,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": config.projector.bias,
        "vision_feature_layer": vision.feature_layer,
        "vision_feature_select_strategy": _STRATEGIES[vision.feature_select],
        "tie_word_embeddings": config.language.tie_embeddings,
        "pad_token_id": config.tokens.pad,
    }
    if tiling:
        # Theirs are (height, width). The order, which settles ties, stays.
        turned = [[height, width] for width, height in tiling.pinpoints]
        described |= {"image_grid_pinpoints": turned, "use_image_newline_parameter": True}
    try:
        read_back = translate(described, generation=generation, image=image)
        return described | {OUR_KEY: remarks(config, read_back)}
    except ConfigError as error:
        raise CheckpointError(f"transformers' classes cannot hold this model: {error}") from error


def _class(config: LlavaConfig, kind: str) -> str:
    return ("LlavaNext" if config.tiling else "Llava") + kind


def _image(config: LlavaConfig) -> dict[str, Any]:
    settings = image_settings(config.vision) | {"processor_class": _class(config, "Processor")}
    if config.tiling:
        turned = [[height, width] for width, height in config.tiling.pinpoints]
        return settings | {
            "image_processor_type": "LlavaNextImageProcessor",
            "image_grid_pinpoints": turned,
            "do_pad": True,
        }
    if config.resize_mode == "pad":
        return settings | {"image_processor_type": "LlavaImageProcessor", "do_pad": True}
    return settings


def _processor(config: LlavaConfig, words: Words) -> dict[str, Any]:
    return {
        "processor_class": _class(config, "Processor"),
        "image_token": words.image,
        "patch_size": config.vision.patch_size,
        "vision_feature_select_strategy": _STRATEGIES[config.vision.feature_select],
        "num_additional_image_tokens": 1,  # CLIP's class feature
    }


def _generation(config: LlavaConfig, template: Template, vocabulary: Vocabulary) -> dict[str, Any]:
    """How to generate. An answer ends where its template says, which need not be the model's own end token."""
    markers = {text: id for id, text in vocabulary.spellings.items()}
    ends = [markers[text] for text in template.stop if text in markers and not template.answer_eos]
    keys = token_keys(config.tokens.model_copy(update={"eos": [*ends, config.tokens.eos][0]}))
    return {key: id for key, id in keys.items() if id is not None}


def words_of(config: LlavaConfig, vocabulary: Vocabulary, tokenizer: Tokenizer) -> Words:
    """The special tokens of a model as its chat template has to spell them."""

    def spelt(id: int | None) -> str:
        return "" if id is None else vocabulary.spellings[id]

    if config.tokens.image_start is not None or config.tokens.image_end is not None:
        raise CheckpointError("words of their own around a picture (tokens.image_start) are not written for transformers")
    return Words(
        bos=spelt(config.tokens.bos),
        eos=spelt(config.tokens.eos),
        image=spelt(config.tokens.image),
        lead=" " if tokenizer.prefix == "first" else "",
        spares_lead=tokenizer.tokenize(" a") == tokenizer.tokenize("a"),
    )


def _with_rows(name: str, tensor: StoredTensor, num_rows: int) -> StoredTensor:
    """Embeddings and output matrix with a row for each word behind the vocabulary, the mean of the others.

    No feature ever passes through them; in the output the mean is never the largest, so the word is never said.
    """
    missing = num_rows - tensor.shape[0]
    if name not in ("language.embed_tokens.weight", "language.lm_head.weight") or not missing:
        return tensor

    def read() -> Tensor:
        rows = tensor.read()
        return torch.cat((rows, rows.float().mean(0, keepdim=True).to(rows.dtype).expand(missing, -1)))

    return StoredTensor(tensor.name, (num_rows, tensor.shape[1]), tensor.dtype, read)


def _differences(config: LlavaConfig, template: Template) -> list[str]:
    """What cannot be written down."""
    found = []
    if config.tiling and config.tiling.compat == "original":
        found.append(
            "transformers rounds the patches around a picture differently from the original code, with which this "
            "model was trained: a picture of a few sizes, such as 376x799, becomes another number of tokens there"
        )
    untold = [text for text in template.stop if text not in template.markers]
    if untold and not template.answer_eos:
        found.append(
            f"an answer ends in front of {' or '.join(map(repr, untold))}, which no file can say: give it to generate "
            "as stop_strings, or to a server as stop"
        )
    return found
