"""Models from the Hugging Face hub: pulled once, checked, and found again without network."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi, constants, errors, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from llavakit import catalog
from llavakit.config import nearest

_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TOKENIZER_FILES = ("tokenizer.model", "merges.txt", "chat_template.jinja", "README.md")

Watch = Callable[[str, int, int], None]  # file, bytes that are there, bytes in all


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
        raise HubError(f"{text!r} is neither a known model nor owner/repo; {nearest(name, tuple(catalog.MODELS))}")
    revision = revision or constants.DEFAULT_REVISION
    if ".." in revision.split("/") or revision.startswith("/"):
        raise HubError(f"{revision!r} is no revision: give a branch, a tag or a commit")
    return catalog.MODELS[name].hub if name in catalog.MODELS else name, revision


def cache_folder(repo: str) -> Path:
    """Where the cache keeps a repository, whether it is there or not."""
    return Path(constants.HF_HUB_CACHE) / ("models--" + repo.replace("/", "--"))


def find(text: str) -> Path:
    """The folder of a pulled model, without any network; raises `HubError` if it was not pulled."""
    repo, revision = parse(text)
    cache = cache_folder(repo)
    ref = cache / "refs" / revision
    commit = revision if _COMMIT.fullmatch(revision) else ref.read_text().strip() if ref.is_file() else ""
    folder = cache / "snapshots" / commit
    if commit and folder.is_dir():
        return folder
    begun = any((cache / "blobs").glob("*.part"))
    state = "has only been pulled in part" if begun else "has not been pulled"
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


def pull(text: str, watch: Watch, *, offline: bool = False) -> Path:
    """Bring a model into the cache and return its folder; what is there already is not asked for again.

    An interrupted file goes on where it ended. Every file is compared with the checksum that the hub lists.
    Raises `HubError`.
    """
    if offline or constants.HF_HUB_OFFLINE:
        return find(text)
    repo, revision = parse(text)
    try:
        info = HfApi(endpoint=constants.ENDPOINT).model_info(repo, revision=revision, files_metadata=True)
        return _fetch(repo, revision, info, watch)
    except (errors.HTTPError, errors.HfHubHTTPError) as error:
        raise HubError(_sentence(error, repo, revision)) from error


def _fetch(repo: str, revision: str, info: Any, watch: Watch) -> Path:
    cache = cache_folder(repo)
    snapshot = cache / "snapshots" / info.sha
    siblings = [sibling for sibling in info.siblings if is_needed(sibling.rfilename, info.siblings)]
    if not any(sibling.rfilename == "config.json" for sibling in siblings):
        raise HubError(f"{repo} has no config.json: it is no model that llavakit could read")
    for sibling in siblings:
        _fetch_file(repo, info.sha, sibling, cache / "blobs", watch)
    # Only now, so that a folder of the cache is never half a model.
    for sibling in siblings:
        _link(cache / "blobs" / _digest(sibling), snapshot / sibling.rfilename)
    if not _COMMIT.fullmatch(revision):
        ref = cache / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(info.sha)
    return snapshot


def is_needed(name: str, siblings: Any) -> bool:
    """Whether a file belongs to a model: configuration, tokenizer, card, weights; pickles for want of better."""
    if "/" in name or PurePosixPath(name).name != name:
        return False
    if name.endswith((".json", ".safetensors")) or name in _TOKENIZER_FILES:
        return True
    return name.endswith(".bin") and not any(other.rfilename.endswith(".safetensors") for other in siblings)


def _digest(sibling: Any) -> str:
    """The name of a file in the cache: its sha256 where it is large, else its git object id."""
    return sibling.lfs.sha256 if sibling.lfs else sibling.blob_id


def _fetch_file(repo: str, commit: str, sibling: Any, blobs: Path, watch: Watch) -> None:
    blob = blobs / _digest(sibling)
    if blob.exists():
        watch(sibling.rfilename, sibling.size, sibling.size)
        return
    blobs.mkdir(parents=True, exist_ok=True)
    part = blob.with_name(blob.name + ".part")
    if part.exists() and part.stat().st_size > sibling.size:
        part.unlink()  # two pulls at once wrote to it
    # http_get complains of a body of the wrong size in an OSError without a number; that is told below.
    with part.open("ab") as file, _unnumbered_errors_pass():
        http_get(
            hf_hub_url(repo, sibling.rfilename, revision=commit, endpoint=constants.ENDPOINT),
            file,
            resume_size=file.tell(),
            headers=build_hf_headers(),
            expected_size=sibling.size,
            tqdm_class=lambda **bar: _Bar(sibling, bar.get("initial") or 0, watch),
        )
    if part.stat().st_size < sibling.size:
        raise HubError(f"{sibling.rfilename} of {repo} ended too early: pull again, it goes on where it ended")
    if _checksum(part, sibling) != _digest(sibling):
        part.unlink()
        raise HubError(f"{sibling.rfilename} of {repo} arrived with a wrong checksum and was removed: pull it again")
    os.replace(part, blob)


@contextmanager
def _unnumbered_errors_pass() -> Iterator[None]:
    try:
        yield
    except errors.HfHubHTTPError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise


def _checksum(path: Path, sibling: Any) -> str:
    with path.open("rb") as file:
        if sibling.lfs:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha1(b"blob %d\0" % path.stat().st_size + file.read()).hexdigest()


def _link(blob: Path, place: Path) -> None:
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.symlink_to(os.path.relpath(blob, place.parent))
    except OSError:  # a file system without links
        shutil.copyfile(blob, place)


class _Bar:
    """What `http_get` needs of a progress bar."""

    def __init__(self, sibling: Any, start: int, watch: Watch) -> None:
        self._sibling, self._there, self._watch = sibling, start, watch

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: float | None = 1) -> None:
        self._there += int(count or 0)
        self._watch(self._sibling.rfilename, self._there, self._sibling.size)


def _sentence(error: Exception, repo: str, revision: str) -> str:
    page = f"{constants.ENDPOINT}/{repo}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is gated: accept its terms at {page}, then set HF_TOKEN to a token of your account"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}: {page} lists its branches and tags"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{constants.ENDPOINT} has no model {repo}, or it is private and HF_TOKEN must be set to a token for it"
    if status in (401, 403):
        return f"{constants.ENDPOINT} refuses {repo}: set HF_TOKEN to a token that may read it"
    if status:
        return f"{constants.ENDPOINT} answered {status} for {repo}: try again later"
    return f"{constants.ENDPOINT} cannot be reached ({error}): try again, a pull goes on where it ended"
