"""How many cores this process may use: those it may run on, and no more than its control group gives it time for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """At least 1; a part of a core counts as one. `root` is where /proc and /sys are."""
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([known, *map(math.ceil, _quotas(root))]))


def check_threads(count: int) -> None:
    """Raise ValueError for fewer threads than one, and for more than there are cores."""
    most = cores()
    if not 1 <= count <= most:
        raise ValueError(
            f"{count} threads are asked for, and this process may use {most} cores: give a number from 1 to {most}, "
            "for more threads than cores only wait for each other"
        )


def _quotas(root: Path) -> Iterator[float]:
    """In cores, what each control group around this process allows, whichever of the two versions Linux runs with."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        base = root / "sys/fs/cgroup" / controllers
        folder = base / path.lstrip("/")
        for group in [folder, *folder.parents][: len(folder.parts) - len(base.parts) + 1]:
            if not controllers:
                limits = _read(group / "cpu.max").split()
            elif "cpu" in controllers.split(","):
                limits = [_read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
            else:
                limits = []
            if len(limits) == 2 and all(limit.isdecimal() and int(limit) for limit in limits):  # not "max", not "-1"
                yield int(limits[0]) / int(limits[1])


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
