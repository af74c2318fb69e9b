"""The tensors of a folder's safetensors files, one file or several with an index: listed first, read when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.formats import INDEX_FILE, WEIGHTS_FILE, read_json


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on disk: its shape and type are known from the file's header, its values are not read yet."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # as the format spells it: F32, BF16, I64...
    file: Any  # an open `safe_open` handle

    def read(self) -> Tensor:
        """The values, mapped from the file rather than copied; writing to them does not change the file."""
        return self.file.get_tensor(self.name)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a folder by name, as its single file or its index lists them.

    Raises `CheckpointError` for a missing, truncated or otherwise damaged file, and where index and files disagree.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return _open(folder / WEIGHTS_FILE)
    if (folder / INDEX_FILE).is_file():
        return _sharded(folder)
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{folder} holds its weights as pickles ({', '.join(pickles[:3])}), which can run any code when opened; "
            "llavakit reads safetensors only: convert them first"
        )
    raise CheckpointError(f"{folder} has no weights: neither {WEIGHTS_FILE} nor {INDEX_FILE}")


def _sharded(folder: Path) -> dict[str, StoredTensor]:
    index = folder / INDEX_FILE
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{index} has no weight_map from tensor names to file names")
    found: dict[str, StoredTensor] = {}
    for name in sorted(set(places.values())):
        # An index must not lead out of its folder.
        if PurePath(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index} names {name!r}, which is no safetensors file in the same folder")
        if not (folder / name).is_file():
            raise CheckpointError(f"{index} names {name}, but that file is missing")
        tensors = _open(folder / name)
        listed = {key for key, place in places.items() if place == name}
        if tensors.keys() != listed:
            wrong = sorted(tensors.keys() ^ listed)
            raise CheckpointError(f"{index} and {name} disagree on {', '.join(wrong[:5])}")
        found |= tensors
    return found


def _open(path: Path) -> dict[str, StoredTensor]:
    try:
        file = safe_open(path, "pt")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged, truncated or no safetensors file ({error})") from error
    return {
        name: StoredTensor(name, tuple(entry.get_shape()), entry.get_dtype(), file) for name, entry in slices.items()
    }
