"""`llava doctor` in text and JSON, and its exit code."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from llavakit.checkpoint import doctor


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


def test_json_even_of_a_name_nobody_knows(llava: Callable) -> None:
    run = llava("doctor", "pokcet", "--json")
    told = json.loads(run.out)
    assert run.code == 1 and told["usable"] is False and "did you mean 'pocket'" in told["findings"][0]["says"]


def test_a_folder_that_may_not_be_read(llava: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied", "adapter_config.json")

    monkeypatch.setattr(doctor, "what_it_is", refuse)
    run = llava("doctor", tmp_path, "--json")
    told = json.loads(run.out)
    assert run.code == 1 and told["what"] == "a folder that cannot be read"
    assert any("Permission denied" in finding["says"] for finding in told["findings"])


def test_an_interruption_is_no_verdict(llava: Callable, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swallow(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RecursionError from None

    monkeypatch.setattr(doctor, "tokenizer_of", swallow)
    run = llava("doctor", model_folder)
    assert run.code == 130 and "usable" not in run.out and "Recursion" not in run.err


def test_a_note_is_one_line(llava: Callable, fixtures: Path) -> None:
    folder = fixtures / "hf" / "checkpoints" / "llava-llama"
    [note] = [line for line in llava("doctor", folder).out.splitlines() if "left aside" in line]
    told = json.loads(llava("doctor", folder, "--json").out)
    [names] = [finding["names"] for finding in told["findings"] if "left aside" in finding["says"]]
    assert note == f"note:     {len(names)} tensors of the vision tower left aside, which can never matter"
    assert all("vision" in name for name in names)
