"""Tensors to safetensors files: one, or as many as it takes, with an index as transformers reads it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

from llavakit.checkpoint.formats import INDEX_FILE, WEIGHTS_FILE
from llavakit.checkpoint.reader import StoredTensor, Tensors
from llavakit.checkpoint.save import stored_as

MAX_SHARD_BYTES = 5 * 10**9  # what the hub and other programs are used to


def write_tensors(tensors: Tensors, folder: Path, dtype: torch.dtype, max_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write `tensors`, by the names the files shall have, in files of at most `max_bytes`, or of one larger tensor.

    They are read when their file is written, so that no more than one file's are in memory.
    """
    shards = split(tensors, dtype, max_bytes)
    if len(shards) == 1:
        _write(tensors, list(tensors), folder / WEIGHTS_FILE, dtype)
        return
    places = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write(tensors, names, folder / file, dtype)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": sum(_bytes(tensor, dtype) for tensor in tensors.values())}}
    (folder / INDEX_FILE).write_text(json.dumps(index | {"weight_map": places}, indent=2) + "\n", encoding="utf-8")


def split(tensors: Tensors, dtype: torch.dtype, max_bytes: int) -> list[list[str]]:
    """The tensors' names, file by file."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        size = _bytes(tensor, dtype)
        if shards[-1] and filled + size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _write(tensors: Tensors, names: list[str], path: Path, dtype: torch.dtype) -> None:
    save_file({name: stored_as(name, tensors[name].read(), dtype) for name in names}, path, metadata={"format": "pt"})


def _bytes(tensor: StoredTensor, dtype: torch.dtype) -> int:
    return math.prod(tensor.shape) * dtype.itemsize
