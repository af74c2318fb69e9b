"""Results say which code they came from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from llavakit import circumstances


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "src" / "package"
    folder.mkdir(parents=True)
    (folder / "code.py").write_text("one")
    monkeypatch.setattr(circumstances, "__file__", str(folder / "code.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return folder


def git(folder: Path, *arguments: str) -> str:
    named = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    return subprocess.run(["git", *named, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_outside_a_clone_there_is_no_commit(package: Path) -> None:
    assert circumstances._commit() is None


def test_the_commit_of_the_package_and_whether_it_was_changed(package: Path) -> None:
    git(package.parent.parent, "init", "-q")
    (package.parent.parent / "results.json").write_text("{}")
    git(package.parent.parent, "add", "results.json")
    git(package.parent.parent, "commit", "-qm", "of another project, which has the package somewhere within")
    assert circumstances._commit() is None
    git(package, "add", ".")
    git(package, "commit", "-qm", "its own")
    head = git(package, "rev-parse", "HEAD").strip()
    (package.parent.parent / "results.json").write_text("[]")  # a benchmark writes what it measured
    assert circumstances._commit() == head
    (package / "code.py").write_text("two")
    assert circumstances._commit() == head + "+changes"
