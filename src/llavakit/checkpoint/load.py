"""Disk to model: one call for every format that is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from llavakit import catalog, hub
from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.atomic import surviving
from llavakit.checkpoint.contents import NO_PARTS, Parts
from llavakit.checkpoint.tokenizer_files import read_tokenizer, tokenizer_folder
from llavakit.checkpoint.weights import load_model
from llavakit.config import LlavaConfig, VisualTokens
from llavakit.model import Llava
from llavakit.processing.processor import Processor
from llavakit.processing.tokenizer import Tokenizer


@dataclass(frozen=True)
class Loaded:
    """A model with all that is needed to talk with it."""

    model: Llava
    tokenizer: Tokenizer
    config: LlavaConfig
    name: str

    @cached_property
    def processor(self) -> Processor:
        return Processor(self.config, self.tokenizer)


def load(
    path: str | Path,
    *,
    parts: Parts = NO_PARTS,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    visual_tokens: VisualTokens | None = None,
) -> Loaded:
    """A model by catalog name, hub id or folder, of any format, with its tokenizer; `parts` are what is not in it.

    `dtype` None keeps the stored type or takes what suits a CPU (see `load_model`). Where a save was killed
    between its last two steps, the earlier checkpoint is found and used. With `visual_tokens` pictures become fewer
    tokens than it was trained with. Raises `CheckpointError` with what is wrong, `ConfigError` for `visual_tokens`
    that it cannot have.
    """
    folder, parts = locate(path), companions(path, parts)
    model = load_model(folder, parts=parts, device=device, dtype=dtype)
    model.config = model.config.with_visual_tokens(visual_tokens)
    tokenizer = tokenizer_of(folder, parts, model.config)
    return Loaded(model, tokenizer, model.config, Path(path).resolve().name)


def tokenizer_of(folder: Path, parts: Parts, config: LlavaConfig) -> Tokenizer:
    """The tokenizer in a folder or, where it has none, in that of its base."""
    folder = tokenizer_folder(folder, parts.base)
    tokenizer = read_tokenizer(folder, config.tokens)
    if tokenizer.size > config.language.vocab_size:
        raise CheckpointError(
            f"the tokenizer in {folder} knows {tokenizer.size} tokens, but the model only "
            f"{config.language.vocab_size}: they do not belong together"
        )
    return tokenizer


def companions(path: str | Path, parts: Parts) -> Parts:
    """What was given, and of a known model what it needs besides, as it was pulled; raises ValueError if it was not."""
    entry = catalog.entry_of(path) if isinstance(path, str) and not surviving(Path(path)).exists() else None
    if entry is None:
        return parts
    tower, base = entry.needs_tower, entry.needs_base
    return Parts(
        vision_tower=parts.vision_tower or (hub.find(tower) if tower else None),
        base=parts.base or (hub.find(base) if base else None),
    )


def locate(path: str | Path) -> Path:
    """The folder behind a name or a path: the package's own model, a folder, or what was pulled from the hub.

    Uses no network. Raises ValueError that says what to do: the nearest name, or what to pull.
    """
    name = path if isinstance(path, str) else ""
    if name in catalog.MODELS and catalog.MODELS[name].folder:
        return catalog.resolve(name)
    folder = surviving(Path(path))
    if name and not folder.exists() and hub.is_name(name):
        return hub.find(name)
    return folder if folder != Path(path) else catalog.resolve(path)
