"""The tensors of weight files, one file or several with an index: listed first, read when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

from safetensors import SafetensorError, safe_open
from torch import Tensor

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.formats import INDEX_FILE, WEIGHTS_FILE, read_json
from llavakit.checkpoint.regular import check_regular, is_there

PICKLED_WEIGHTS_FILE = "pytorch_model.bin"
_INDEX_OF = {WEIGHTS_FILE: INDEX_FILE, PICKLED_WEIGHTS_FILE: f"{PICKLED_WEIGHTS_FILE}.index.json"}
_MAX_HEADER_BYTES = 4 << 20  # the largest published models need a tenth of it
PICKLES = (".bin", ".pt", ".pth")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on disk: its shape and type are known from the file's header, its values are not read yet."""

    name: str  # as the file calls it
    shape: tuple[int, ...]
    dtype: str  # as the format spells it: F32, BF16, I64...
    read: Callable[[], Tensor]  # the values, mapped rather than copied; writing to them does not change the file


Tensors = dict[str, StoredTensor]


def file_of(folder: Path, stem: str) -> Path | None:
    """The weight file of a name, safetensors before a pickle; None if there is none."""
    paths = (folder / f"{stem}{suffix}" for suffix in (".safetensors", ".bin"))
    return next((path for path in paths if is_there(path)), None)


def stored_tensors(folder: Path) -> Tensors:
    """All tensors of a folder by name, as its single safetensors file or its index lists them.

    Raises `CheckpointError` for a missing, truncated or otherwise damaged file, and where index and files disagree.
    """
    return Reader().weights(folder)


class Reader:
    """Opens weight files. Pickles only with `unpickle`, which makes a safetensors file of one and says where it is."""

    def __init__(self, unpickle: Callable[[Path], Path] | None = None) -> None:
        self._unpickle = unpickle

    def weights(self, folder: Path) -> Tensors:
        """A whole model's tensors; of a folder with both kinds of files, those of the safetensors."""
        for name, index in _INDEX_OF.items():
            if is_there(folder / name):
                return self._open(folder / name)
            if is_there(folder / index):
                return self._sharded(folder / index)
        if loose := sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES):
            raise CheckpointError(_refusal(folder, loose))
        raise CheckpointError(f"{folder} has no weights: neither {WEIGHTS_FILE} nor {INDEX_FILE}")

    def has_weights(self, folder: Path) -> bool:
        """Whether a folder holds a whole model, and not only parts of one."""
        return any(is_there(folder / file) for names in _INDEX_OF.items() for file in names)

    def file(self, folder: Path, stem: str) -> Tensors | None:
        """A file of its own beside the weights, such as an adapter; None if there is none of that name."""
        path = file_of(folder, stem)
        return path and self._open(path)

    def _sharded(self, index: Path) -> Tensors:
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise CheckpointError(f"{index} has no weight_map from tensor names to file names")
        kind = index.name.split(".")[1]
        found: Tensors = {}
        for name in sorted(set(places.values())):
            # An index must not lead out of its folder.
            if PurePath(name).name != name or not name.endswith(f".{kind}"):
                raise CheckpointError(f"{index} names {name!r}, which is no {kind} file in the same folder")
            if not is_there(index.parent / name):
                raise CheckpointError(f"{index} names {name}, but that file is missing")
            tensors = self._open(index.parent / name)
            listed = {key for key, place in places.items() if place == name}
            if tensors.keys() != listed:
                wrong = sorted(tensors.keys() ^ listed)
                raise CheckpointError(f"{index} and {name} disagree on {', '.join(wrong[:5])}")
            found |= tensors
        return found

    def _open(self, path: Path) -> Tensors:
        check_regular(path)
        if path.suffix not in PICKLES:
            return _open_safetensors(path)
        if self._unpickle is None:
            raise CheckpointError(_refusal(path.parent, [path.name]))
        return _open_safetensors(self._unpickle(path))


def _open_safetensors(path: Path) -> Tensors:
    try:
        _check_header(path)
        file = safe_open(path, "pt")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged, truncated or no safetensors file ({error})") from error
    return {
        name: StoredTensor(name, tuple(entry.get_shape()), entry.get_dtype(), partial(file.get_tensor, name))
        for name, entry in slices.items()
    }


def _check_header(path: Path) -> None:
    """The library would read a header of any length up to 100 MB, and take many times as much memory."""
    with path.open("rb") as file:
        length, rest = int.from_bytes(file.read(8), "little"), path.stat().st_size - 8
    if length > rest:
        raise CheckpointError(
            f"{path} is damaged, truncated or no safetensors file "
            f"(its header should have {length:,} bytes, and {max(rest, 0):,} are there)"
        )
    if length > _MAX_HEADER_BYTES:
        raise CheckpointError(f"{path} has a header of {length:,} bytes, and at most {_MAX_HEADER_BYTES:,} are read")


def _refusal(folder: Path, names: list[str]) -> str:
    return (
        f"{folder} holds its weights as pickles ({', '.join(names[:3])}), which can run any code when opened; "
        "`llava import MODEL --out NEW --allow-pickle` makes a safe folder of them, in a process of its own (where the "
        "model needs --base or --vision-tower, give them there too)"
    )
