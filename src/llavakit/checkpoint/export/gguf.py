"""A model for llama.cpp, with the chat template that its server writes prompts by."""

from __future__ import annotations

from pathlib import Path

from llavakit.checkpoint.export.chat_template import Words, chat_template
from llavakit.checkpoint.export.source import Source
from llavakit.checkpoint.export.tokenizer import Vocabulary
from llavakit.checkpoint.gguf.write import write_gguf
from llavakit.processing import Tokenizer, find_template

# llama.cpp gives a template all of a message as one text, in which <__media__> or <__media_x7__> stands for a picture.
_IN_TEXT = ("<__media", "__>")


def write_for_llama_cpp(source: Source, folder: Path) -> list[str]:
    """Fill `folder`; returns what llama.cpp will do otherwise than we do, a sentence each.

    Raises `CheckpointError` for a model that it cannot hold.
    """
    return write_gguf(
        source.config,
        source.tensors,
        source.tokenizer,
        folder,
        name=source.name,
        precision=source.precision,
        chat_template=chat_template(find_template(source.config.template), _words(source.tokenizer)),
    )


def _words(tokenizer: Tokenizer) -> Words:
    spelt, tokens = Vocabulary.of(tokenizer).spellings, tokenizer.tokens
    return Words(
        bos="" if tokens.bos is None else spelt[tokens.bos],
        eos=spelt[tokens.eos],
        image=spelt.get(tokens.image, ""),
        in_text=_IN_TEXT,
    )
