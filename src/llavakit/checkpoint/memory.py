"""Whether a model fits into memory, told before it is loaded; and if not, in which scheme it would."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from pathlib import Path

import torch

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.aligned import PACKED
from llavakit.checkpoint.contents import Contents
from llavakit.model.empty import empty
from llavakit.quantize.apply import bytes_in
from llavakit.quantize.schemes import SCHEMES

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_MEMINFO = Path("/proc/meminfo")
_STATM = Path("/proc/self/statm")


class TooLittleMemory(CheckpointError):
    """A model that does not fit; the message says what would."""


def check_memory(contents: Contents, dtype: torch.dtype, folder: Path) -> None:
    """Raise `TooLittleMemory` where a model's weights are larger than the memory that this process may still take."""
    needed = sum(
        math.prod(tensor.shape) * (1 if tensor.dtype == PACKED else dtype.itemsize)
        for tensor in contents.tensors.values()
    )
    free = available_bytes()
    if free is None or needed <= free:
        return
    what = contents.scheme or str(dtype).removeprefix("torch.")
    raise TooLittleMemory(
        f"{folder} takes {_gigabytes(needed)} of memory in {what}, and {_gigabytes(free)} are free: "
        f"{_way_out(contents, free)}"
    )


def available_bytes() -> int | None:
    """Memory that this process may still take: of the machine, its control groups and its own limit; None if unknown.

    What files left in memory counts as free, for the system drops it when it is needed.
    """
    return min((*_of_machine(), *_of_cgroups(), *_of_process()), default=None)


def _way_out(contents: Contents, free: int) -> str:
    model = empty(contents.config)
    sizes = {name: bytes_in(model, scheme) for name, scheme in SCHEMES.items()}
    best = max((name for name in sizes if sizes[name] <= free), key=lambda name: sizes[name], default=None)
    if best is None:
        smallest = min(sizes, key=lambda name: sizes[name])
        return f"even by the scheme {smallest} it would take {_gigabytes(sizes[smallest])}; take a smaller model"
    if contents.scheme:
        return f"quantise the model it was made from with --scheme {best}, which takes {_gigabytes(sizes[best])}"
    return f"`llava quantize MODEL --scheme {best} --out NEW` makes one of {_gigabytes(sizes[best])}"


def _of_machine() -> Iterator[int]:
    if _MEMINFO.is_file():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024


def _of_cgroups() -> Iterator[int]:
    """Version 2: each group from our own up to the root may have a limit."""
    own = _OWN_CGROUP.read_text() if _OWN_CGROUP.is_file() else ""
    path = next((line[3:] for line in own.splitlines() if line.startswith("0::")), None)
    if path is None:
        return
    group = _CGROUPS / path.strip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(_CGROUPS):
            return
        limit, used = folder / "memory.max", folder / "memory.current"
        if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdecimal():
            yield max(0, int(text) - int(used.read_text()) + _droppable(folder / "memory.stat"))


def _of_process() -> Iterator[int]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and _STATM.is_file():
        yield max(0, limit - int(_STATM.read_text().split()[0]) * resource.getpagesize())


def _droppable(statistics: Path) -> int:
    """Bytes of files that a group holds."""
    words = (line.split() for line in (statistics.read_text().splitlines() if statistics.is_file() else ()))
    return sum(int(size) for name, size in words if name in ("inactive_file", "active_file"))


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2g} GB" if num_bytes < 1e9 else f"{num_bytes / 1e9:.1f} GB"
