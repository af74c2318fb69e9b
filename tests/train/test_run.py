"""From a recipe's name to a model in a folder, once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import llavakit.train.run
from llavakit.checkpoint.load import load
from llavakit.cli.main import main
from llavakit.train.config import TrainConfig, TrainError
from llavakit.train.run import run, train

Configure = Callable[..., TrainConfig]


def test_a_run_folder_holds_what_it_was_and_what_it_made(configure: Configure) -> None:
    config = configure("instruct")
    folder = train(config)
    names = {path.name for path in Path(config.out).iterdir()}
    kept = {"step-00000004.safetensors", "step-00000006.safetensors"}
    assert names == {"config.yaml", "metrics.jsonl", "curves.png", "model"} | kept
    assert TrainConfig.parse(yaml.safe_load((Path(config.out) / "config.yaml").read_text())) == config
    assert load(folder).config == load(config.start).config


def test_the_saved_configuration_runs_it_again(configure: Configure, tmp_path: Path) -> None:
    config = configure("align", steps=3)
    folder = train(config)
    again = run(f"{config.out}/config.yaml", [f"out={tmp_path}/again"])
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("stage", ["clip", "align"])
def test_a_finished_run_says_so_and_reads_nothing(
    stage: str, configure: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(stage, steps=1)
    folder = train(config)
    monkeypatch.setattr(llavakit.train.run, "prepare", lambda config: pytest.fail("the data is loaded again"))
    capsys.readouterr()
    assert train(config) == folder
    assert f"{config.out} is finished; its model is in {folder}" in capsys.readouterr().err


def test_a_run_that_lost_its_model_saves_it_again(configure: Configure) -> None:
    """A kill between the last checkpoint and the model."""
    config = configure("align")
    weights = train(config) / "model.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    train(config)
    assert weights.read_bytes() == before


def test_other_settings_do_not_go_on_in_the_same_folder(configure: Configure) -> None:
    train(configure("align", steps=1))
    with pytest.raises(TrainError, match="a run with other settings: steps was 1 and is now 2; give another out="):
        train(configure("align", steps=2))


def test_a_damaged_configuration_is_named(configure: Configure) -> None:
    config = configure("align")
    Path(config.out).mkdir()
    (Path(config.out) / "config.yaml").write_text("stage: [")
    (Path(config.out) / "step-00000002.safetensors").touch()
    with pytest.raises(TrainError, match="config.yaml is not the configuration of a run"):
        train(config)


def test_the_runs_of_a_sequence_need_folders_of_their_own() -> None:
    with pytest.raises(ValueError, match="pocket is 5 runs, and each needs a folder of its own; leave out out="):
        run("pocket", ["out=runs/here"])


def test_the_command_trains(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`llava train finetune`, as a user types it: small settings, an own start and own data."""
    config = configure("instruct")
    out = tmp_path / "mine"
    words = [f"start={config.start}", f"data={config.data[0]}", f"out={out}", "epochs=1", "batch_size=4", "workers=0"]
    monkeypatch.setattr(sys, "argv", ["llava", "train", "finetune", *words])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr()
    assert (left.value.code or 0, said.out) == (0, f"{out}/model\n")
    assert "step 3/3" in said.err


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_is_one_sentence(
    workers: int, configure: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where another process found it."""
    config = configure("instruct", max_length=60, workers=workers)
    recipe = Path(config.out).with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    monkeypatch.setattr(sys, "argv", ["llava", "train", str(recipe)])
    with pytest.raises(SystemExit) as left:
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert left.value.code == 1
    assert line.startswith("llava: sample '") and "has no word to learn within its first 60 tokens" in line
