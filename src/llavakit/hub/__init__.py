"""Models from the Hugging Face hub: pulled once, checked, and found again without network.

Here is the cache, as the hub's own library lays it out; `download` fills it, and alone needs the network part of it.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from llavakit import catalog

_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


class HubError(ValueError):
    """A model that cannot be pulled or found; the message says what to do."""


@dataclass(frozen=True)
class Pulled:
    """A model in the cache."""

    repo: str
    folder: Path
    size: int


def is_name(text: str) -> bool:
    """Whether this could be a model of the hub: a published name or owner/repo, either with @revision."""
    name, _, _ = text.partition("@")
    return bool(_ID.fullmatch(name)) or (name in catalog.MODELS and bool(catalog.MODELS[name].hub))


def parse(text: str) -> tuple[str, str]:
    """The hub id and revision behind a name; raises `HubError` for what is no such name."""
    name, _, revision = text.partition("@")
    if not is_name(text):
        if name in catalog.MODELS:
            raise HubError(f"{name} is in the package: there is nothing to pull or to remove")
        raise HubError(f"{text!r} is neither a known model nor owner/repo; {catalog.hint(name)}")
    revision = revision or constants.DEFAULT_REVISION
    if ".." in revision.split("/") or revision.startswith("/"):
        raise HubError(f"{revision!r} is no revision: give a branch, a tag or a commit")
    return catalog.MODELS[name].hub if name in catalog.MODELS else name, revision


def cache_folder(repo: str) -> Path:
    """Where the cache keeps a repository, whether it is there or not."""
    return Path(constants.HF_HUB_CACHE) / ("models--" + repo.replace("/", "--"))


def is_begun(repo: str) -> bool:
    """Whether a pull was interrupted in the middle of a file."""
    return any((cache_folder(repo) / "blobs").glob("*.part"))


def find(text: str) -> Path:
    """The folder of a pulled model, without any network; raises `HubError` if it was not pulled."""
    repo, revision = parse(text)
    cache = cache_folder(repo)
    ref = cache / "refs" / revision
    commit = revision if COMMIT.fullmatch(revision) else ref.read_text().strip() if ref.is_file() else ""
    folder = cache / "snapshots" / commit
    if commit and folder.is_dir():
        return folder
    state = "has only been pulled in part" if is_begun(repo) else "has not been pulled"
    offline = " once this machine is online (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
    raise HubError(f"there is no folder {text}, and the model {text} {state}: llava pull {text}{offline}")


def pulled() -> list[Pulled]:
    """Every model of the cache that has a configuration, by id."""
    found = []
    for cache in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        folders = [folder for folder in (cache / "snapshots").glob("*") if (folder / "config.json").is_file()]
        if folders:
            latest = max(folders, key=lambda folder: folder.stat().st_mtime)
            found.append(Pulled(cache.name.removeprefix("models--").replace("--", "/"), latest, size_of(cache)))
    return found


def size_of(folder: Path) -> int:
    """Bytes on disk; a file that several links name counts once."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def remove(repo: str) -> int:
    """Delete a repository from the cache, with what was pulled of it in part; returns the bytes freed."""
    cache = cache_folder(repo)
    if not cache.is_dir():
        raise HubError(f"{repo} is not in {constants.HF_HUB_CACHE}: there is nothing to remove")
    freed = size_of(cache)
    shutil.rmtree(cache)
    return freed
