"""Law 9: N + M steps equal N steps, a stop or a kill, and M more, bit for bit on a CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from llavakit.checkpoint.tensors import read_tensors
from llavakit.train import loop
from llavakit.train.config import TrainConfig
from llavakit.train.loop import Interrupted
from llavakit.train.run import train
from llavakit.train.state import checkpoints


class Killed(BaseException):
    """A kill: nothing after it is run."""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", ["clip", "language", "align", "instruct"])
def test_a_run_in_pieces_equals_a_whole_one(
    stage: str, precision: str, configure: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"precision": precision} | ({"vision_rate": 1e-3} if stage == "instruct" else {})
    changes |= {"micro_batch": 2} if stage != "clip" else {}
    whole, pieces = (str(tmp_path / name) for name in ("whole", "pieces"))
    train(configure(stage, out=whole, **changes))

    with monkeypatch.context() as patch:
        at_step(patch, 4, Killed())
        with pytest.raises(Killed):
            train(configure(stage, out=pieces, workers=1, **changes))
    assert [path.name for path in checkpoints(Path(pieces))] == ["step-00000002.safetensors"]
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match="stopped at step 5 of 6; run the same command to go on"):
            train(configure(stage, out=pieces, **changes))
    train(configure(stage, out=pieces, workers=1, **changes))

    same(weights(pieces), weights(whole))
    same(last_checkpoint(pieces), last_checkpoint(whole))
    assert rows(pieces) == rows(whole)
    assert len(rows(whole)) == 6


def test_accumulation_of_a_resumed_run_may_change(
    configure: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes no result, or only its last bits, may be another when a run goes on."""
    with monkeypatch.context() as patch:
        at_step(patch, 4, Killed())
        with pytest.raises(Killed):
            train(configure("align"))
    train(configure("align", micro_batch=1, workers=1, threads=1, save_every=3))
    assert rows(configure("align").out)[-1]["step"] == 6


def test_a_process_killed_again_and_again(configure: Callable[..., TrainConfig], tmp_path: Path, root: Path) -> None:
    """From outside: SIGKILL, then Ctrl-C to the whole group, then to the end."""
    whole, pieces = (str(tmp_path / name) for name in ("whole", "pieces"))
    config = configure("align", out=pieces, steps=200, save_every=1, workers=1, threads=1)
    train(config.model_copy(update={"out": whole, "save_every": 100}))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(config.model_dump(mode="json")))

    killed = start(recipe, root)
    wait_for_checkpoint(killed, Path(pieces))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    reached = checkpoints(Path(pieces))[-1]
    stopped = start(recipe, root)
    wait_for_checkpoint(stopped, Path(pieces), after=reached)
    os.killpg(stopped.pid, signal.SIGINT)
    _, said = stopped.communicate(timeout=120)
    assert stopped.returncode == 130
    assert "run the same command to go on" in said and "Traceback" not in said
    ended = start(recipe, root)
    out, said = ended.communicate(timeout=120)
    assert (ended.returncode, out) == (0, f"{pieces}/model\n"), said
    assert all(line.endswith("left") for line in said.splitlines())  # whole lines, not wrapped

    same(weights(pieces), weights(whole))
    assert len(rows(pieces)) == config.steps


def at_step(patch: pytest.MonkeyPatch, number: int, event: BaseException | Callable[[], None]) -> None:
    """Let something happen when the loop, having started, comes to its step of that number."""
    step, calls = loop.train_step, []

    def train_step(*arguments: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == number:
            if isinstance(event, BaseException):
                raise event
            event()
        return step(*arguments)

    patch.setattr(loop, "train_step", train_step)


def start(recipe: Path, root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from llavakit.cli.main import main; main()", "train", str(recipe)]
    environment = os.environ | {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_checkpoint(process: subprocess.Popen[str], folder: Path, *, after: Path | None = None) -> None:
    while not any(after is None or path > after for path in checkpoints(folder)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def weights(folder: str) -> dict[str, Tensor]:
    return load_file(Path(folder) / "model" / "model.safetensors")


def last_checkpoint(folder: str) -> dict[str, Tensor]:
    return read_tensors(checkpoints(Path(folder))[-1])[0]


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def rows(folder: str) -> list[dict[str, float]]:
    """The metrics without what the clock says."""
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    clock = {"tokens_per_s", "seconds"}
    return [{key: value for key, value in json.loads(line).items() if key not in clock} for line in lines]
