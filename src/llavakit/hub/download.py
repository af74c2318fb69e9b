"""Downloads from the Hugging Face hub into its cache, one pull of a model at a time."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi, constants, errors, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import WeakFileLock, build_hf_headers

from llavakit.hub import COMMIT, HubError, cache_folder, find, is_begun, parse

_TOKENIZER_FILES = ("tokenizer.model", "merges.txt", "chat_template.jinja", "README.md")

Watch = Callable[[str, int, int], None]  # file, bytes that are there, bytes in all


def pull(text: str, watch: Watch, *, offline: bool = False) -> Path:
    """Bring a model into the cache and return its folder; what is there already is not asked for again.

    An interrupted file goes on where it ended. Every file is compared with the checksum that the hub lists. Two pulls
    of one model at once: the second waits, and then finds everything there. Raises `HubError`.
    """
    if constants.HF_HUB_OFFLINE:
        return find(text)
    if offline:
        return _there(text)
    repo, revision = parse(text)
    try:
        info = HfApi(endpoint=constants.ENDPOINT).model_info(repo, revision=revision, files_metadata=True)
        with _alone(repo):
            return _fetch(repo, revision, info, watch)
    except (errors.HTTPError, errors.HfHubHTTPError) as error:
        raise HubError(_sentence(error, repo, revision)) from error


def _there(text: str) -> Path:
    """What was pulled; who asked for no network is told where it was looked for."""
    try:
        return find(text)
    except HubError:
        repo, revision = parse(text)
        cache = cache_folder(repo)
        part = "only a part of it is" if is_begun(repo) else "nothing of it is"
        what = f"{text} is not here: {part} in {cache}"
        if (cache / "snapshots").is_dir():
            what = f"{text} is not here at revision {revision!r}: it is not in {cache}"
        raise HubError(f"{what}; llava pull {text}, without --offline, gets it") from None


@contextmanager
def _alone(repo: str) -> Iterator[None]:
    """Held by one process at a time; the lock goes with the process that holds it, even if that is killed."""
    lock = cache_folder(repo).parent / ".locks" / cache_folder(repo).name / "llavakit.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        yield


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
    if not COMMIT.fullmatch(revision):
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
        part.unlink()
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
