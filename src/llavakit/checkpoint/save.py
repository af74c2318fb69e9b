"""Model to disk: a native folder of four files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.aligned import NAMES, in_memory, write_aligned
from llavakit.checkpoint.atomic import atomic_folder
from llavakit.checkpoint.formats import (
    CONFIG_FILE,
    NATIVE_FORMAT,
    NATIVE_VERSION,
    QUANTIZATION,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    read_optional,
)
from llavakit.checkpoint.reader import StoredTensor
from llavakit.config import LlavaConfig
from llavakit.model import Llava
from llavakit.processing.tokenizer import Tokenizer
from llavakit.quantize.apply import scheme_of

CARD_FILE = "README.md"
_FILES = {CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, CARD_FILE}


def save(
    model: Llava,
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    card: str | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write `folder` with config.json, model.safetensors, tokenizer.json and a card (README.md), all or nothing.

    The weights are stored as they are, or converted to `dtype`. An earlier checkpoint in `folder` is replaced in one
    step once the new one is whole. Raises `CheckpointError` if the folder holds anything else, if a weight does not
    fit into `dtype`, or if the disk refuses.
    """
    folder = Path(folder)
    card = card or plain_card(folder.name, model.config)
    stored = [in_memory(name, stored_as(name, tensor, dtype)) for name, tensor in model.state_dict().items()]
    write_folder(folder, model.config, stored, tokenizer, card=card, scheme=scheme_of(model))


def write_folder(
    folder: Path,
    config: LlavaConfig,
    tensors: Iterable[StoredTensor],
    tokenizer: Tokenizer,
    *,
    card: str,
    scheme: str | None = None,
) -> None:
    """What `save` does, for tensors that need not be in memory: each is read when it is written."""
    check_replaceable(folder)
    described = {"format": NATIVE_FORMAT, "version": NATIVE_VERSION, **config.model_dump(mode="json")}
    if scheme:
        described[QUANTIZATION] = {"scheme": scheme}
    try:
        with atomic_folder(folder) as partial:
            (partial / CONFIG_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
            (partial / CARD_FILE).write_text(card, encoding="utf-8")
            tokenizer.save(partial / TOKENIZER_FILE)
            write_aligned(partial / WEIGHTS_FILE, tensors)
    except OSError as error:
        raise CheckpointError(f"could not write {folder} ({error}); what was there before is untouched") from error


def check_replaceable(folder: Path) -> None:
    """Saving replaces the whole folder, so it must hold nothing that saving does not write."""
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a checkpoint is a folder")
    files = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    others = [name for name in files if name not in _FILES]
    if others:
        raise CheckpointError(
            f"saving to {folder} would delete {', '.join(others[:5])}: choose a new folder, or that of a checkpoint"
        )
    if files and read_optional(folder / CONFIG_FILE).get("format") != NATIVE_FORMAT:
        raise CheckpointError(
            f"saving to {folder} would delete {', '.join(files)}, which llavakit has not written: choose a new folder"
        )


def check_apart(out: Path, source: Path) -> None:
    """What is written replaces what was there, so it must not be what it is made from."""
    if out.resolve() == source.resolve():
        raise CheckpointError(f"{out} is the model itself, and would be replaced: choose a new folder")


def overflows(narrow: Tensor, wide: Tensor) -> bool:
    """Whether numbers became infinite in a conversion from `wide`."""
    return narrow.dtype != wide.dtype and not torch.equal(narrow.isfinite(), wide.isfinite())


def stored_as(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor as it is written; raises `CheckpointError` if it holds values that `dtype` does not. Codes stay."""
    dtype = dtype if tensor.is_floating_point() else None
    stored = tensor.detach().to(device="cpu", dtype=dtype).contiguous()
    if overflows(stored, tensor.detach().cpu()):
        raise CheckpointError(f"{name} holds values too large for {dtype}; save in a wider type")
    return stored


def converted(name: str, tensor: StoredTensor, dtype: torch.dtype) -> StoredTensor:
    """A tensor of a file as it is to be written, under this name; read only then."""
    return StoredTensor(name, tensor.shape, NAMES[dtype], lambda: stored_as(name, tensor.read(), dtype))


def plain_card(name: str, config: LlavaConfig, origin: str = "") -> str:
    """A card for a model about which nobody has said more."""
    vision, language = config.vision, config.language
    about = f"A LLaVA model in llavakit's native format. {origin}".rstrip()
    return (
        f"# {name}\n\n{about}\n\n"
        f"- vision tower: {vision.num_layers} layers of width {vision.hidden_size}, "
        f"pictures of {vision.image_size} pixels in patches of {vision.patch_size}\n"
        f"- projector: {config.projector.kind}\n"
        f"- language model: {language.num_layers} layers of width {language.hidden_size}, "
        f"{language.vocab_size} tokens, a context of {language.max_positions}\n"
    )
