"""`llava train` hands recipe and changes on as they were typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import llavakit.train.run
from llavakit.train.loop import Interrupted


def test_recipe_and_overrides_are_handed_on(llava: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[str]]] = []

    def run(recipe: str, overrides: list[str]) -> Path:
        calls.append((recipe, overrides))
        return Path("runs/it/model")

    monkeypatch.setattr(llavakit.train.run, "run", run)
    assert llava("train", "pocket").out == "runs/it/model\n"
    assert llava("train", "pocket-align", "steps=3", "learning_rate=1e-3").code == 0
    assert calls == [("pocket", []), ("pocket-align", ["steps=3", "learning_rate=1e-3"])]


def test_a_stopped_run_says_how_to_go_on(llava: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(recipe: str, overrides: list[str]) -> Path:
        raise Interrupted("stopped at step 3 of 9; run the same command to go on")

    monkeypatch.setattr(llavakit.train.run, "run", run)
    done = llava("train", "pocket")
    assert (done.code, done.out, done.err) == (130, "", "stopped at step 3 of 9; run the same command to go on\n")


def test_mistakes_name_what_was_meant(llava: Callable) -> None:
    recipe, key = llava("train", "pocket-aline"), llava("train", "pocket-align", "step=3")
    assert recipe.code == key.code == 1
    assert "pocket-align" in recipe.err and "steps" in key.err
    assert llava("train").code == 2
