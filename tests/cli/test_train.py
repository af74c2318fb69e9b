"""`llava train` hands recipe and changes on as they were typed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import llavakit.train


def test_recipe_and_overrides_are_handed_on(llava: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(
        llavakit.train, "run", lambda recipe, overrides: calls.append((recipe, overrides)), raising=False
    )
    assert llava("train", "pocket").code == 0
    assert llava("train", "pocket-align", "steps=3", "learning_rate=1e-3").code == 0
    assert calls == [("pocket", []), ("pocket-align", ["steps=3", "learning_rate=1e-3"])]
    assert llava("train").code == 2
