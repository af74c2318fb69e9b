"""`llava quantize`, from a model to an answer of its quantised form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llavakit.checkpoint import memory
from llavakit.cli import quantize


def test_a_model_becomes_smaller_and_still_answers(
    llava: Callable, model_folder: Path, root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    run = llava("quantize", model_folder, "--scheme", "int4-g32", "--out", out, "--calibrate", 200)
    assert run.code == 0 and run.out == f"{out}\n"
    assert "MB became" in run.err and "products of the language model's matrices are off by" in run.err
    assert llava("ask", root / "examples" / "drawing.png", "a red circle", "--model", out, "--max-tokens", 3).code == 0
    assert "int4-g32" in llava("doctor", out).out
    again = llava("quantize", out, "--scheme", "int8", "--out", tmp_path / "again")
    assert again.code == 1 and "is quantised already (int4-g32)" in again.err and again.err.count("\n") == 1


def test_a_report(llava: Callable, model_folder: Path, root: Path, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>\na red circle?"}, {"from": "gpt", "value": "Yes"}]
    sample = {"id": "1", "image": str(root / "examples" / "drawing.png"), "conversations": turns}
    data = tmp_path / "data.json"
    data.write_text(json.dumps([sample]))
    out = tmp_path / "small"
    run = llava("quantize", model_folder, "--scheme", "int8", "--out", out, "--report", "--data", data)
    assert run.code == 0
    lines = [line for line in run.err.splitlines() if "KL divergence" in line or "likeliest word" in line]
    assert len(lines) == 2 and all(line in (out / "README.md").read_text() for line in lines)


def test_more_threads_than_cores(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    run = llava("quantize", model_folder, "--scheme", "int8", "--out", out, "--threads", 4096)
    assert run.code == 1 and "4096 threads are asked for" in run.err and not out.exists()


def test_a_scheme_that_there_is_not(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    run = llava("quantize", model_folder, "--scheme", "int3", "--out", tmp_path / "small")
    assert run.code == 2 and "int4-g128" in run.err


def test_a_model_too_large_to_run_is_quantised_without_calibration(
    llava: Callable, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    run = llava("quantize", model_folder, "--scheme", "nf4", "--out", tmp_path / "small")
    assert run.code == 0 and "not calibrated, for the model cannot be run here" in run.err
    run = llava("ask", "x.png", "a", "--model", tmp_path / "small")
    assert run.code == 1 and run.err.count("\n") == 1


def test_a_model_is_not_quantised_over_itself(
    llava: Callable, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told at once, and not after minutes of reading conversations."""
    read: list[object] = []
    monkeypatch.setattr(quantize, "_inputs", lambda *given: read.append(given))
    (tmp_path / "here").symlink_to(model_folder)
    run = llava("quantize", model_folder, "--scheme", "int8", "--out", tmp_path / "here")
    assert run.code == 1 and "is the model itself" in run.err and run.err.count("\n") == 1 and not read
