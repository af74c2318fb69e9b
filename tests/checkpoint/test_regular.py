"""What is no file is told before anybody waits for it, and never passed over."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.regular import check_regular, is_there


def test_files_and_links_to_files(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("blob")
    for name in ("blob", "link"):
        assert is_there(tmp_path / name)
        check_regular(tmp_path / name, at_most=4)
        with pytest.raises(CheckpointError, match=f"{name} has 4 bytes, and at most 3 of such a file are read"):
            check_regular(tmp_path / name, at_most=3)


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name, kind in {
        "folder": "a folder",
        "pipe": "a named pipe",
        "link": "a named pipe",
        "device": "a device",
    }.items():
        assert is_there(tmp_path / name)
        with pytest.raises(CheckpointError, match=f"{name} is {kind} where a file should be"):
            check_regular(tmp_path / name)


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket must be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
        with pytest.raises(CheckpointError, match="socket is a socket where a file should be"):
            check_regular(Path("socket"))


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "itself").symlink_to("itself")
    for name in ("dangling", "itself"):
        assert is_there(tmp_path / name)
        with pytest.raises(CheckpointError, match=f"{name} cannot be read: "):
            check_regular(tmp_path / name)
    assert not is_there(tmp_path / "nothing")
