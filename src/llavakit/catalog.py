"""The table of known models: a short name for each, and where it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from llavakit.config import nearest


@dataclass(frozen=True)
class Entry:
    """A known model."""

    folder: str  # inside the package
    about: str
    source: str  # where the weights come from


MODELS: Mapping[str, Entry] = MappingProxyType(
    {
        "pocket": Entry(
            folder="pocket",
            about="a small LLaVA for drawn scenes, in the package",
            source="trained by this project: llava train pocket; its card is README.md in the folder",
        ),
    }
)


def resolve(name_or_path: str | Path) -> Path:
    """The folder of a model, by catalog name or path; a `Path` is never taken for a name.

    As text a name of the table wins: write ./pocket for a folder so called. Raises ValueError for what is neither,
    naming the nearest known model.
    """
    if isinstance(name_or_path, str) and name_or_path in MODELS:
        folder = Path(str(files("llavakit"))) / MODELS[name_or_path].folder
        if not folder.is_dir():
            raise ValueError(f"the model {name_or_path} is not part of this installation: there is no folder {folder}")
        return folder
    path = Path(name_or_path)
    if path.is_dir() and name_or_path != "":
        return path
    if path.is_file():
        raise ValueError(f"{path} is a file; a model is a folder with a config.json")
    if path.name != str(name_or_path):
        raise ValueError(f"there is no folder {path}")
    raise ValueError(f"{path.name!r} is neither a known model nor a folder; {nearest(path.name, tuple(MODELS))}")
