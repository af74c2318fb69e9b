"""What is opened of a folder that others may have written: regular files, or links to them, and none too large."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from llavakit.checkpoint import CheckpointError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def is_there(path: Path) -> bool:
    """Whether a folder has something of this name, be it a file or not: what is no file is told, never passed over."""
    return os.path.lexists(path)


def check_regular(path: Path, at_most: int | None = None) -> None:
    """Before a file is opened; raises `CheckpointError` for what is none, or has more than `at_most` bytes.

    A pipe would keep its reader waiting for ever, and a device may never end.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "of an unknown kind")
        raise CheckpointError(f"{path} is {kind} where a file should be: put the file in its place")
    if at_most is not None and found.st_size > at_most:
        raise CheckpointError(f"{path} has {found.st_size:,} bytes, and at most {at_most:,} of such a file are read")
