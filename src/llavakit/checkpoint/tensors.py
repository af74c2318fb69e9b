"""A handful of named tensors and plain data in one file: what training puts down to resume from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.atomic import atomic_file

_DATA_KEY = "llavakit"


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], data: Mapping[str, Any] | None = None) -> None:
    """Write tensors and JSON-like `data` to one safetensors file, bit for bit and all or nothing.

    Raises `CheckpointError` if the disk refuses; a file that was there before then still is.
    """
    path = Path(path)
    header = {"format": "pt", _DATA_KEY: json.dumps(dict(data or {}))}
    # A copy of each: the format refuses views and tensors that share their memory.
    owned = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    try:
        with atomic_file(path) as partial:
            save_file(owned, partial, metadata=header)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"could not write {path} ({error}); what was there before is untouched") from error


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and data that `save_tensors` wrote. Raises `CheckpointError` naming the file if it is not whole."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error})") from error
    if _DATA_KEY not in header:
        raise CheckpointError(f"{path} was not written by llavakit: its header has no entry {_DATA_KEY!r}")
    return tensors, json.loads(header[_DATA_KEY])
