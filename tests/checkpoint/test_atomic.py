"""Whatever moment a kill or a full disk chooses, the old content or the new one is there, whole."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.atomic import atomic_file, atomic_folder, surviving
from llavakit.checkpoint.load import load
from llavakit.checkpoint.save import save
from llavakit.checkpoint.tensors import read_tensors, save_tensors
from llavakit.model import Llava
from llavakit.processing.tokenizer import Tokenizer

# Replaces what is in the folder or file again and again, killed at its first step on the disk, its second, ... until
# one attempt gets through. After each, the survivors are printed.
KILLED_AT_EVERY_STEP = """
import os, signal, sys
from pathlib import Path
from llavakit.checkpoint.atomic import atomic_file, atomic_folder, surviving

goal, kind = Path(sys.argv[1]), sys.argv[2]

def write(number):
    if kind == "file":
        with atomic_file(goal) as partial:
            partial.write_text(f"{number} {number}")
        return
    with atomic_folder(goal) as partial:
        for name in "ab":
            (partial / name).write_text(str(number))

def read():
    if kind == "file":
        return goal.read_text()
    return " ".join((surviving(goal) / name).read_text() for name in "ab")

def kill_at(step):
    seen = 0
    def count(event, args):
        nonlocal seen
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "shutil.rmtree"):
            seen += 1
            if seen > step:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)

write(0)
for number in range(1, 1000):
    child = os.fork()
    if child == 0:
        kill_at(number - 1)
        write(number)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), number, read(), flush=True)
    if status == 0:
        break
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_kill_at_any_step_leaves_a_whole_version(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_AT_EVERY_STEP, str(tmp_path / "goal"), kind]
    steps = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    newest = 0
    for step in steps:
        code, number, first, second = (int(word) for word in step.split())
        assert first == second, "half of one version, half of another"
        assert first in (newest, number), "neither the version before nor the one being written"
        assert code in (0, -signal.SIGKILL)
        newest = first
    assert newest == len(steps) > 5, "the last attempt got through, the others were killed at some step"
    assert [path.name for path in tmp_path.iterdir()] == ["goal"], "nothing lies about after a whole attempt"


def test_the_predecessor_is_loaded_after_a_kill_between_the_two_renames(
    model: Llava, tokenizer: Tokenizer, folder: Path
) -> None:
    folder.rename(folder.with_name(".tiny.previous"))
    loaded = load(folder)
    assert loaded.name == "tiny"
    save(model, tokenizer, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_an_exception_changes_nothing(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "goal") as partial:
        (partial / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "goal") as partial:
        (partial / "a").write_text("new")
        raise KeyboardInterrupt
    assert (tmp_path / "goal" / "a").read_text() == "old"
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "file") as partial:
        partial.write_text("new")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["goal"]


def test_missing_parents_are_made(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "x" / "y" / "file") as partial:
        partial.write_text("here")
    with atomic_folder(tmp_path / "p" / "q") as partial:
        (partial / "a").write_text("here")
    assert (tmp_path / "x" / "y" / "file").read_text() == (tmp_path / "p" / "q" / "a").read_text() == "here"


def test_what_is_written_is_as_readable_as_any_new_file(model: Llava, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """safetensors would make its files readable to their owner alone."""
    (tmp_path / "plain").touch()
    save(model, tokenizer, tmp_path / "saved")
    save_tensors(tmp_path / "state", {"a": torch.zeros(2)}, {})
    for path in (*(tmp_path / "saved").iterdir(), tmp_path / "state"):
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode, path.name


def test_nothing_survives_where_nothing_was(tmp_path: Path) -> None:
    assert surviving(tmp_path / "goal") == tmp_path / "goal"


@contextmanager
def full_disk(free: int) -> Iterator[None]:
    """No file can grow beyond so many bytes; Python ignores the signal, so that writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_costs_nothing(model: Llava, tokenizer: Tokenizer, folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with full_disk(2048), pytest.raises(CheckpointError, match="could not write .*what was there before is untouched"):
        save(model, tokenizer, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_full_disk_leaves_the_training_state_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_tensors(path, {"a": torch.ones(3)}, {"step": 1})
    with full_disk(2048), pytest.raises(CheckpointError, match="could not write"):
        save_tensors(path, {"a": torch.zeros(3000)}, {"step": 2})
    tensors, data = read_tensors(path)
    assert torch.equal(tensors["a"], torch.ones(3))
    assert data == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.safetensors"]
