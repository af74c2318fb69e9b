"""A checkpoint of any format written in somebody else's, so that others can use it: the table of writers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.atomic import atomic_folder
from llavakit.checkpoint.contents import NO_PARTS, Parts, read_contents
from llavakit.checkpoint.dequantizing import dequantized
from llavakit.checkpoint.export.gguf import write_for_llama_cpp
from llavakit.checkpoint.export.hf import write_hf
from llavakit.checkpoint.export.original import write_original
from llavakit.checkpoint.export.source import Source
from llavakit.checkpoint.gguf.language import Precision
from llavakit.checkpoint.load import companions, locate, tokenizer_of
from llavakit.checkpoint.save import check_apart
from llavakit.checkpoint.weights import check_fit, empty_model, stored_dtype

Writer = Callable[[Source, Path], list[str]]

WRITERS: dict[str, Writer] = {
    "hf": write_hf,
    "original": write_original,
    "gguf": write_for_llama_cpp,
}

# By this file an earlier export is known: it lists what was written, which may be replaced, and nothing else ever is.
STAMP = ".llava-export"


def export_checkpoint(
    model: str | Path,
    out: Path,
    *,
    to: str,
    parts: Parts = NO_PARTS,
    dtype: torch.dtype | None = None,
    precision: Precision = "f16",
) -> list[str]:
    """Write the folder `out`, all or nothing; returns what the others will do otherwise than we do, a sentence each.

    `to` is a name of `WRITERS`. `dtype` None keeps that of the model's embeddings; GGUF has `precision` in its place.
    Raises `CheckpointError` where the format cannot hold the model, or where `out` is anything but new or an earlier
    export.
    """
    folder, parts = locate(model), companions(model, parts)
    check_replaceable(out)
    check_apart(out, folder)
    stored = read_contents(folder, parts)
    contents = dequantized(stored)
    check_fit(empty_model(contents), contents.tensors, folder)
    source = Source(
        config=contents.config,
        tensors=contents.tensors,
        tokenizer=tokenizer_of(folder, parts, contents.config),
        dtype=dtype or stored_dtype(contents.tensors),
        folder=folder,
        name=out.resolve().name,
        precision=precision,
    )
    try:
        with atomic_folder(out) as partial:
            differences = WRITERS[to](source, partial)
            (partial / STAMP).write_text("".join(f"{name}\n" for name in _files(partial)), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"could not write {out} ({error}); what was there before is untouched") from error
    return _widened(stored.scheme) + differences


def _widened(scheme: str | None) -> list[str]:
    """What there is to say of a model that was quantised."""
    if scheme is None:
        return []
    return [f"its weights were {scheme} and are written as the plain numbers that these stand for: larger, no better"]


def check_replaceable(out: Path) -> None:
    """Exporting replaces the whole folder, so everything in it must come from an earlier export."""
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out} is a file; an export is a folder")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / STAMP).is_file():
        raise CheckpointError(
            f"{out} is no earlier export, and exporting would delete what is in it: choose a new folder"
        )
    known = {STAMP, *(out / STAMP).read_text(encoding="utf-8").splitlines()}
    if others := [name for name in _files(out) if name not in known]:
        raise CheckpointError(f"exporting to {out} would delete {', '.join(others[:5])}: choose a new folder")


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
