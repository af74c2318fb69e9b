"""`llava export` and `llava merge`: what is printed, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llavakit.checkpoint.exporting import WRITERS
from llavakit.checkpoint.gguf.language import Precision
from llavakit.cli import export


def test_every_writer_can_be_asked_for() -> None:
    assert set(export.Target.__args__) == set(WRITERS)
    assert export.Precision == Precision


def test_the_folder_is_printed_and_what_differs_is_noted(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    run = llava("export", model_folder, "--to", "hf", "--out", tmp_path / "hf")
    assert (run.code, run.out, run.err) == (0, f"{tmp_path / 'hf'}\n", "")
    run = llava("export", model_folder, "--to", "original", "--out", tmp_path / "theirs", "--dtype", "bfloat16")
    assert run.code == 0 and run.err.startswith("note: ") and "mm_vision_tower is theirs/vision_tower" in run.err
    shown = llava("show", tmp_path / "theirs").out
    assert "original format" in shown and "BF16" in shown
    assert "llava-hf format" in llava("show", tmp_path / "hf").out


def test_two_files_for_llama_cpp(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    run = llava("export", model_folder, "--to", "gguf", "--type", "q8_0", "--out", tmp_path / "small")
    assert run.code == 0 and run.out == f"{tmp_path / 'small'}\n"
    assert "note: llama.cpp since May 2025" in run.err
    written = sorted(path.name for path in (tmp_path / "small").glob("*.gguf"))
    assert written == ["mmproj-small-f16.gguf", "small-q8_0.gguf"]


def test_each_format_has_its_own_number_formats(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    run = llava("export", model_folder, "--to", "gguf", "--dtype", "float16", "--out", tmp_path / "x")
    assert run.code == 1 and "give --type f16, q8_0 or q4_0" in run.err
    run = llava("export", model_folder, "--to", "hf", "--type", "q8_0", "--out", tmp_path / "x")
    assert run.code == 1 and "the weights of hf take --dtype" in run.err
    assert not (tmp_path / "x").exists()


def test_nothing_else_is_overwritten(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    run = llava("export", model_folder, "--to", "hf", "--out", model_folder)
    assert run.code == 1 and "is no earlier export" in run.err and run.err.count("\n") == 1


def test_a_format_that_is_none(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    run = llava("export", model_folder, "--to", "onnx", "--out", tmp_path / "x")
    assert run.code == 2 and "onnx" in run.err and "hf" in run.err


def test_merging_says_what_it_did(llava: Callable, fixtures: Path, tmp_path: Path) -> None:
    checkpoints = fixtures / "checkpoints"
    tower = checkpoints / "openai" / "clip-tiny-patch14-84-b"
    given = ("--base", checkpoints / "vicuna-tiny", "--vision-tower", tower, "--out", tmp_path / "m")
    run = llava("merge", checkpoints / "lora", *given, "--allow-pickle")
    assert run.code == 0 and run.out == f"{tmp_path / 'm'}\n"
    assert run.err.startswith("21 weights changed\nlargest change of a logit by the adapter: ")
    refused = llava("merge", checkpoints / "lora", *given)
    assert refused.code == 1 and "--allow-pickle" in refused.err
