"""`llava import`, as a user types it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_it_says_where_the_model_is_and_what_was_replaced(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    first = llava("import", model_folder, "--out", out)
    assert (first.code, first.out, first.err) == (0, f"{out}\n", "")
    second = llava("import", model_folder, "--out", out)
    assert (second.code, second.out) == (0, f"{out}\n")
    assert "held an earlier checkpoint, which this one has replaced" in second.err


def test_what_others_wrote_is_kept(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Mine")
    run = llava("import", model_folder, "--out", tmp_path)
    assert (run.code, run.out) == (1, "") and "choose a new folder" in run.err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("README.md", "# Mine")]


def test_a_model_is_not_imported_over_itself(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    llava("import", model_folder, "--out", tmp_path / "mine")
    run = llava("import", tmp_path / "mine", "--out", tmp_path / "mine")
    assert run.code == 1 and "is the model itself" in run.err
