"""A checkpoint of any format written as a native folder: the one place where pickles may be read."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.contents import NO_PARTS, Contents, Parts, read_contents
from llavakit.checkpoint.load import companions, locate, tokenizer_of
from llavakit.checkpoint.pickles import unpickler
from llavakit.checkpoint.reader import Reader
from llavakit.checkpoint.save import check_apart, check_replaceable, converted, plain_card, write_folder
from llavakit.checkpoint.weights import check_fit, empty_model, stored_dtype


def import_checkpoint(
    source: str | Path,
    out: Path,
    *,
    parts: Parts = NO_PARTS,
    dtype: torch.dtype | None = None,
    allow_pickle: bool = False,
) -> Contents:
    """Write `out` from a folder or name of any format; returns what was read.

    `dtype` None keeps that of the source's embeddings. The source's tensors are read one by one, mapped from their
    files. Raises `CheckpointError` as `load` does, before anything is written.
    """
    folder, parts = locate(source), companions(source, parts)
    check_replaceable(out)
    check_apart(out, folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".llava-import-", dir=out.parent) as scratch:
        contents = read_contents(folder, parts, Reader(unpickler(Path(scratch)) if allow_pickle else None))
        if contents.scheme:
            raise CheckpointError(
                f"{folder} is native and quantised ({contents.scheme}) already, so there is nothing to import: copy it"
            )
        check_fit(empty_model(contents), contents.tensors, folder)
        dtype = dtype or stored_dtype(contents.tensors)
        origin = f"Imported from a checkpoint in {contents.format} format."
        write_folder(
            out,
            contents.config,
            [converted(name, tensor, dtype) for name, tensor in contents.tensors.items()],
            tokenizer_of(folder, parts, contents.config),
            card=plain_card(out.name, contents.config, origin=origin),
        )
    return contents
