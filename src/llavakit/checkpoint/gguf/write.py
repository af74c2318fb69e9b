"""A model written for llama.cpp, and for what is built on it: two files, as llama.cpp takes them."""

from __future__ import annotations

from pathlib import Path

from gguf import GGML_QUANT_VERSION, LlamaFileType

from llavakit.checkpoint.gguf import language, vision
from llavakit.checkpoint.gguf.file import Value, write
from llavakit.checkpoint.gguf.language import Precision
from llavakit.checkpoint.gguf.tokenizer import vocabulary
from llavakit.checkpoint.reader import Tensors
from llavakit.config import LlavaConfig
from llavakit.processing.tokenizer import Tokenizer

_FILE_TYPES = {
    "f16": LlamaFileType.MOSTLY_F16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
}


def write_gguf(
    config: LlavaConfig,
    tensors: Tensors,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    name: str,
    precision: Precision = "f16",
    chat_template: str | None = None,
) -> list[str]:
    """Write `name`-`precision`.gguf and mmproj-`name`-f16.gguf into `folder`; returns remarks for the user.

    `tensors` are a model's, by our names. The remarks say where llama.cpp will differ from us, whatever the files
    hold. Raises `CheckpointError`, before anything is written, for a model that GGUF or llama.cpp has no words for.
    """
    words = vocabulary(tokenizer, config.language.vocab_size)
    seen = vision.metadata(config)
    metadata = {
        **_general(name, "model", _FILE_TYPES[precision]),
        **language.metadata(config.language),
        **words.metadata,
    }
    if chat_template is not None:
        metadata["tokenizer.chat_template"] = chat_template
    text = language.entries(config.language, tensors, precision)
    write(folder / f"{name}-{precision}.gguf", language.arch(config.language), metadata, text)
    seen = {**_general(name, "mmproj", LlamaFileType.MOSTLY_F16), **seen}
    write(folder / f"mmproj-{name}-f16.gguf", vision.ARCH, seen, vision.entries(config, tensors))
    return [*words.remarks, *vision.remarks(config)]


def _general(name: str, kind: str, file_type: LlamaFileType) -> dict[str, Value]:
    return {
        "general.name": name,
        "general.type": kind,
        "general.description": "a LLaVA's language model"
        if kind == "model"
        else "a LLaVA's vision tower and projector",
        "general.file_type": int(file_type),
        "general.quantization_version": GGML_QUANT_VERSION,
    }
