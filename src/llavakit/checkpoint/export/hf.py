"""A model as llava-hf publishes them: what transformers' classes, and the servers built on them, load.

The names of the weights are those of the files on the hub, which every version of transformers reads.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from llavakit.checkpoint.export.chat_template import Words, chat_template
from llavakit.checkpoint.export.hf_files import class_name, json_files
from llavakit.checkpoint.export.source import Source
from llavakit.checkpoint.export.tokenizer import Vocabulary, names_of, write_tokenizer
from llavakit.checkpoint.export.tower import whole_tower
from llavakit.checkpoint.formats import CHAT_TEMPLATE_FILE, CONFIG_FILE
from llavakit.checkpoint.reader import StoredTensor
from llavakit.checkpoint.rename import rename_back
from llavakit.checkpoint.shards import write_tensors
from llavakit.checkpoint.tables import LLAVA_HF
from llavakit.config import LlavaConfig
from llavakit.processing import Template, Tokenizer, find_template


def write_hf(source: Source, folder: Path) -> list[str]:
    """Fill `folder`; returns what transformers will do otherwise than we do, a sentence each.

    Raises `CheckpointError` for a model that its classes cannot hold.
    """
    vocabulary = Vocabulary.of(source.tokenizer)
    config = with_placeholder(source.config, vocabulary)
    named = names_of(vocabulary, config.tokens)
    template = find_template(config.template)
    words = words_of(config, vocabulary, source.tokenizer)
    files = json_files(config, image_token=words.image, ends=_ends(config, template, vocabulary))
    files[CONFIG_FILE]["torch_dtype"] = str(source.dtype).removeprefix("torch.")
    for name, data in files.items():
        (folder / name).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    (folder / CHAT_TEMPLATE_FILE).write_text(chat_template(template, words), encoding="utf-8")
    # The template writes the begin token, and servers encode what it wrote as it is.
    vocabulary.begins_with(None)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # the file as it is; others would rebuild it after their fashion
        "processor_class": class_name(config, "Processor"),
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


def _ends(config: LlavaConfig, template: Template, vocabulary: Vocabulary) -> list[int]:
    """What ends an answer: the model's own end tokens, and one that its template has for a stop string."""
    ids = {text: id for id, text in vocabulary.spellings.items() if text in template.markers}
    return list(dict.fromkeys([*config.tokens.ends, *(ids[text] for text in template.stop if text in ids)]))


def words_of(config: LlavaConfig, vocabulary: Vocabulary, tokenizer: Tokenizer) -> Words:
    """The special tokens of a model as its chat template has to spell them."""

    def spelt(id: int | None) -> str:
        return "" if id is None else vocabulary.spellings[id]

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
