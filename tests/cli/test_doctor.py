"""`llava doctor` in text and JSON, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_a_sound_folder(llava: Callable, model_folder: Path) -> None:
    run = llava("doctor", model_folder)
    assert run.code == 0 and not run.err
    assert run.out.startswith(f"{model_folder}: a native llavakit model\n")
    assert "  template      vicuna_v1\n" in run.out
    assert run.out.endswith("\nusable, nothing unusual\n")


def test_a_folder_that_is_none(llava: Callable, tmp_path: Path) -> None:
    run = llava("doctor", tmp_path)
    assert run.code == 1 and not run.err
    assert "wrong:    " in run.out and "it has no config.json" in run.out
    assert run.out.endswith("\nnot usable as it is\n")


def test_a_file(llava: Callable, model_folder: Path) -> None:
    run = llava("doctor", model_folder / "config.json")
    assert run.code == 1 and ": a file, not a folder\n" in run.out


def test_a_name_nobody_knows(llava: Callable) -> None:
    run = llava("doctor", "pokcet")
    assert run.code == 1 and "did you mean 'pocket'" in run.err


def test_json_for_scripts(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    sound = json.loads(llava("doctor", model_folder, "--json").out)
    assert sound["usable"] is True and sound["findings"] == [] and sound["treated_as"]["format"] == "llavakit"
    run = llava("doctor", tmp_path, "--json")
    broken = json.loads(run.out)
    assert run.code == 1 and broken["usable"] is False and broken["treated_as"] == {}
    assert [finding["severity"] for finding in broken["findings"]] == ["wrong"]
