"""Models from the hub, against a small hub on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from llavakit import hub
from llavakit.hub import download

COMMIT = "c" * 40
FILES = {
    "config.json": b'{"model_type": "llava"}',
    "model.safetensors": bytes(range(256)) * 8,
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"code",
    "picture.png": b"png",
}


class Hub(ThreadingHTTPServer):
    """As much of the hub's protocol as a pull needs."""

    asked: list[tuple[str, str | None]]
    served: dict[str, bytes]
    tokens: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        if self.path.startswith("/api/agent-harnesses"):  # the library's own question, no part of a pull
            self._body_of_nothing()
            return
        self.server.tokens.append(self.headers.get("Authorization"))
        if self.path.startswith("/api/models/"):
            self._model(self.path.partition("?")[0].removeprefix("/api/models/"))
            return
        body = self.server.served[self.path.rpartition("/")[2]]
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self._body(body[start:])

    def _model(self, path: str) -> None:
        for word, status, code in (
            ("gated", 403, "GatedRepo"),
            ("nowhere", 401, "RepoNotFound"),
            ("/revision/no", 404, "RevisionNotFound"),
        ):
            if word in path:
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self._body(b"{}")
                return
        siblings = []
        for name, body in FILES.items():
            blob = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
            row = {"rfilename": name, "size": len(body), "blobId": blob}
            if name == "model.safetensors":
                row["lfs"] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 1}
            siblings.append(row)
        self.send_response(200)
        self._body(json.dumps({"id": "a/b", "sha": COMMIT, "siblings": siblings}).encode())

    def _body_of_nothing(self) -> None:
        self.send_response(404)
        self._body(b"{}")

    def _body(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(("127.0.0.1", 0), Handler) as server:
        server.asked, server.served, server.tokens = [], dict(FILES), []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield server
        server.shutdown()


def nothing(*_: object) -> None:
    pass


def files_asked(server: Hub) -> list[tuple[str, str | None]]:
    return [(path.rpartition("/")[2], part) for path, part in server.asked if "/resolve/" in path]


def test_only_what_is_needed_and_only_once(server: Hub) -> None:
    with pytest.raises(hub.HubError, match="a/b has not been pulled: llava pull a/b"):
        hub.find("a/b")
    folder = download.pull("a/b", nothing)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: FILES[name] for name in ("config.json", "model.safetensors")
    }
    count = len(files_asked(server))
    assert download.pull("a/b", nothing) == hub.find("a/b") == hub.find(f"a/b@{COMMIT}") == folder
    assert len(files_asked(server)) == count


def test_an_interrupted_pull_goes_on(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)

    def interrupt(file: str, there: int, _: int) -> None:
        if file == "model.safetensors" and there > 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.pull("a/b", interrupt)
    with pytest.raises(hub.HubError, match="in part"):
        hub.find("a/b")
    folder = download.pull("a/b", nothing)
    assert files_asked(server)[-1] == ("model.safetensors", "bytes=500-")
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_two_pulls_at_once_are_one_after_the_other(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
    folders: list[Path] = []

    def slowly(*_: object) -> None:
        time.sleep(0.05)

    pulls = [threading.Thread(target=lambda: folders.append(download.pull("a/b", slowly))) for _ in range(3)]
    for one in pulls:
        one.start()
    for one in pulls:
        one.join(30)
    assert len(folders) == 3 and len(set(folders)) == 1
    assert sorted(files_asked(server)) == [("config.json", None), ("model.safetensors", None)]
    assert (folders[0] / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert not list((hub.cache_folder("a/b") / "blobs").glob("*.part"))


def test_a_part_that_is_too_long_begins_anew(server: Hub) -> None:
    blobs = hub.cache_folder("a/b") / "blobs"
    blobs.mkdir(parents=True)
    (blobs / (hashlib.sha256(FILES["model.safetensors"]).hexdigest() + ".part")).write_bytes(bytes(9999))
    assert (download.pull("a/b", nothing) / "model.safetensors").read_bytes() == FILES["model.safetensors"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_wrong_checksum_is_refused(server: Hub, name: str) -> None:
    server.served[name] = bytes(len(FILES[name]))
    with pytest.raises(hub.HubError, match=f"{name} of a/b arrived with a wrong checksum"):
        download.pull("a/b", nothing)
    with pytest.raises(hub.HubError, match="has not been pulled"):
        hub.find("a/b")


def test_pickles_only_where_there_is_nothing_better(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(FILES, "model.safetensors")
    assert {path.name for path in download.pull("a/b", nothing).iterdir()} == {"config.json", "pytorch_model.bin"}


def test_a_token_is_sent(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download.pull("a/b", nothing)
    assert set(server.tokens) == {"Bearer hf_secret"}


def test_a_short_file_is_refused(server: Hub) -> None:
    server.served["model.safetensors"] = FILES["model.safetensors"][:100]
    with pytest.raises(hub.HubError, match="ended too early"):
        download.pull("a/b", nothing)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a/gated", "is gated: accept its terms"),
        ("a/nowhere", "has no model a/nowhere"),
        ("a/b@no", "has no revision 'no'"),
        ("pocket", "is in the package"),
        ("lava", "neither a known model nor owner/repo"),
        ("a/b@../x", "is no revision"),
    ],
)
def test_what_cannot_be_pulled(server: Hub, name: str, sentence: str) -> None:
    with pytest.raises(hub.HubError, match=sentence):
        download.pull(name, nothing)


def test_offline_asks_nobody(server: Hub) -> None:
    with pytest.raises(hub.HubError, match="a/b is not here: nothing of it is in .*without --offline"):
        download.pull("a/b", nothing, offline=True)
    assert not server.asked
    folder = download.pull("a/b", nothing)
    server.asked.clear()
    assert download.pull("a/b", nothing, offline=True) == folder and not server.asked


def test_removed_is_gone(server: Hub) -> None:
    download.pull("a/b", nothing)
    assert [model.repo for model in hub.pulled()] == ["a/b"]
    assert hub.remove("a/b") >= len(FILES["model.safetensors"])
    assert not hub.pulled()
    with pytest.raises(hub.HubError, match="nothing to remove"):
        hub.remove("a/b")
