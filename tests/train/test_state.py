"""Checkpoints of a run: whole or not at all, and the newest whole one is used."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import llavakit.checkpoint.tensors
from llavakit.checkpoint.tensors import read_tensors
from llavakit.train.config import TrainConfig, TrainError
from llavakit.train.loop import fit
from llavakit.train.run import train
from llavakit.train.setup import prepare
from llavakit.train.state import checkpoints

Configure = Callable[..., TrainConfig]


def test_the_newest_two_are_kept(configure: Configure) -> None:
    config = configure("align")
    fit(prepare(config), config)
    assert steps_kept(config) == [4, 6]


@pytest.mark.parametrize("damage", [b"", b"half", None])
def test_a_damaged_checkpoint_is_told_and_the_one_before_used(
    damage: bytes | None, configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure("align")
    fit(prepare(config), config)
    newest = checkpoints(Path(config.out))[-1]
    whole = contents(newest)
    newest.write_bytes(newest.read_bytes()[:-100] if damage is None else damage)
    capsys.readouterr()
    fit(prepare(config), config)
    said = capsys.readouterr().err
    assert f"{newest} is damaged" in said and "going on from the one before" in said
    same(contents(newest), whole)


def test_without_a_whole_checkpoint_the_run_begins_again(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure("align")
    fit(prepare(config), config)
    newest = checkpoints(Path(config.out))[-1]
    whole = contents(newest)
    for path in checkpoints(Path(config.out)):
        path.write_bytes(b"")
    fit(prepare(config), config)
    assert "beginning again from the first step" in capsys.readouterr().err
    same(contents(newest), whole)


def test_what_a_kill_left_half_written_is_no_checkpoint(configure: Configure) -> None:
    config = configure("align", steps=2)
    (Path(config.out)).mkdir()
    (Path(config.out) / ".step-00000002.safetensors.partial").write_bytes(b"half")
    fit(prepare(config), config)
    assert [path.name for path in Path(config.out).glob("*step*")] == ["step-00000002.safetensors"]


def test_a_full_disk_ends_the_run_and_loses_nothing(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fourth step's checkpoint does not fit; with room again, the run ends as if it always had been there."""
    config = configure("align")
    with monkeypatch.context() as patch:
        fill_disk(patch, after=1)
        with pytest.raises(TrainError, match="could not write .*step-00000004.*No space left.*Make room and run the"):
            train(config)
    assert steps_kept(config) == [2]
    assert [path.name for path in Path(config.out).glob(".*")] == []
    folder = train(config)
    other = train(configure("align", out=config.out + "-whole"))
    assert (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_a_checkpoint_of_another_run_is_refused(configure: Configure) -> None:
    config = configure("align")
    fit(prepare(config), config)
    other = configure("instruct", out=config.out)
    with pytest.raises(TrainError, match="trains other parameters"):
        fit(prepare(other), other)


def contents(path: Path) -> dict[str, Tensor]:
    """Copies: what is read lies in the file, and goes with it when the file is cut."""
    return {name: tensor.clone() for name, tensor in read_tensors(path)[0].items()}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def fill_disk(patch: pytest.MonkeyPatch, *, after: int) -> None:
    save_file, calls = llavakit.checkpoint.tensors.save_file, []

    def save_half(tensors: dict, path: Path, metadata: dict) -> None:
        calls.append(1)
        if len(calls) > after:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save_file(tensors, path, metadata=metadata)

    patch.setattr(llavakit.checkpoint.tensors, "save_file", save_half)


def steps_kept(config: TrainConfig) -> list[int]:
    return [int(path.stem.removeprefix("step-")) for path in checkpoints(Path(config.out))]
