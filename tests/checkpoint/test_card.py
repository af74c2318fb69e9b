"""The licence that a folder states."""

from __future__ import annotations

from pathlib import Path

import pytest

from llavakit.checkpoint.card import licence_of


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: llama2\n---\n", "llama2"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("---\ntags: [a]\n---\n", ""),
        ("# A model\nlicense: mit\n", ""),
        ("---\nlicense: {\n---\n", ""),
        ("---\n- license\n---\n", ""),
        ("---\n" + "[" * 20000, ""),
        ("", ""),
    ],
)
def test_cards(card: str, licence: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card)
    assert licence_of(tmp_path) == licence


def test_files(tmp_path: Path) -> None:
    assert licence_of(tmp_path) == ""
    (tmp_path / "LICENSE.txt").touch()
    assert licence_of(tmp_path) == "see LICENSE.txt"
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    assert licence_of(tmp_path) == "see LICENSE.txt"
