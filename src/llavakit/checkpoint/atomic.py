"""Writing so that a kill, a crash or a full disk never costs what was there before.

New content is written beside its goal under a hidden name, flushed to the disk, and only then renamed:

    .name.partial     being written; worthless if found later, and overwritten by the next attempt
    name              always whole
    .name.previous    the old folder, for the instant between two renames; `surviving` finds it

Whoever may read a new file of this user may read what is written here: some libraries would close theirs to others.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Gives a path to write to; on success that file replaces `path`, on an exception nothing changes."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _hidden(path, "partial")
    try:
        partial.unlink(missing_ok=True)
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)
        _flush(partial)
        os.replace(partial, path)
        _flush(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to fill; on success it replaces `folder`, on an exception nothing changes."""
    folder = folder.resolve()
    _restore(folder)
    partial = _hidden(folder, "partial")
    _remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in partial.rglob("*"):
            path.chmod(partial.stat().st_mode & (0o777 if path.is_dir() else 0o666))
            _flush(path)
        _flush(partial)
        _swap(partial, folder)
    except BaseException:
        _restore(folder)
        _remove(partial)
        raise


def surviving(folder: Path) -> Path:
    """Where the last whole version of `folder` is: itself, or its predecessor if a kill came between two renames."""
    if folder.exists():
        return folder
    previous = _hidden(folder.resolve(), "previous")
    return previous if previous.is_dir() else folder


def _swap(partial: Path, folder: Path) -> None:
    # A folder with files in it cannot be replaced in one step, so the old one steps aside first.
    previous = _hidden(folder, "previous")
    _remove(previous)
    if folder.exists():
        folder.rename(previous)
    partial.rename(folder)
    _flush(folder.parent)
    _remove(previous)


def _restore(folder: Path) -> None:
    survivor = surviving(folder)
    if survivor != folder:
        survivor.rename(folder)


def _hidden(path: Path, role: str) -> Path:
    return path.with_name(f".{path.name}.{role}")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _flush(path: Path) -> None:
    """Wait until the file, or a folder's list of names, is on the disk and not only in memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
