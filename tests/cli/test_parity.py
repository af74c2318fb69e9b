"""`llava parity` in text and JSON, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llavakit.checkpoint.load import load
from llavakit.checkpoint.save import save


@pytest.fixture
def other(model_folder: Path, tmp_path: Path) -> Path:
    """The tiny model with another projector."""
    loaded = load(model_folder)
    with torch.no_grad():
        loaded.model.projector.fc1.bias += 1
    save(loaded.model, loaded.tokenizer, tmp_path / "other")
    return tmp_path / "other"


def test_they_agree(llava: Callable, model_folder: Path) -> None:
    run = llava("parity", model_folder, model_folder)
    assert run.code == 0
    assert run.out.endswith("they agree on 5 pictures\n") and run.out.count(" agree\n") == 6


def test_they_part(llava: Callable, model_folder: Path, other: Path, picture: Path) -> None:
    run = llava("parity", model_folder, other, "--pictures", picture.parent)
    assert run.code == 1 and not run.err
    assert run.out.splitlines()[-1].startswith("they part at projected, in it's red.png at [0, 0]: ")
    one = llava("parity", model_folder, model_folder, "--pictures", picture.parent)
    assert one.out.endswith("\nthey agree on 1 picture\n")
    assert llava("parity", model_folder, other, "--tolerance", 1000, "--max-tokens", 1).out.count(" agree\n") >= 5


def test_json(llava: Callable, model_folder: Path, other: Path) -> None:
    run = llava("parity", model_folder, other, "--json")
    told = json.loads(run.out)
    assert run.code == 1 and told["first_to_part"] == "projected" and told["agree"] is False
    assert [stage["name"] for stage in told["stages"]] == [
        "pixels",
        "features",
        "projected",
        "prompt",
        "logits",
        "text",
    ]
    assert told["stages"][1]["largest"] == 0.0 and told["stages"][2]["parting"]["picture"] == "drawn 336x336"


def test_json_of_what_is_no_number(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    loaded = load(model_folder)
    with torch.no_grad():
        loaded.model.projector.fc1.bias.fill_(torch.nan)
    save(loaded.model, loaded.tokenizer, tmp_path / "other")
    told = json.loads(llava("parity", model_folder, tmp_path / "other", "--json").out, parse_constant=pytest.fail)
    assert told["stages"][2]["largest"] == "inf"


def test_a_folder_without_pictures(llava: Callable, model_folder: Path) -> None:
    run = llava("parity", model_folder, model_folder, "--pictures", model_folder)
    assert run.code == 1 and run.err == f"llava: there is no picture in {model_folder}\n"


def test_the_parts_of_each_go_by_name_too(llava: Callable, model_folder: Path) -> None:
    for option in ("--vision-tower-a", "--base-b"):
        run = llava("parity", model_folder, model_folder, option, "nobody/nothing")
        assert run.code == 2 and "has not been pulled" in run.err
