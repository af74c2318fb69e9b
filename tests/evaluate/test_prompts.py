"""Conversations to run a model on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llavakit.checkpoint.load import Loaded, load
from llavakit.data.records import DataError
from llavakit.evaluate.prompts import hidden_states, observe, prompts
from llavakit.quantize.schemes import SCHEMES


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> Loaded:
    return load(model_folder)


@pytest.fixture
def heldout(write_data: Callable[..., Path]) -> Path:
    return write_data() / "instruct-heldout.json"


def test_as_many_as_have_so_many_tokens(loaded: Loaded, heldout: Path) -> None:
    every = list(prompts(loaded, heldout, num_tokens=10**9, split="heldout"))
    records = json.loads(heldout.read_text())
    assert len(every) == len(records) and all(any(sample.targets) for sample in every)
    first = len(every[0].tokens)
    for wanted, number in ((0, 0), (1, 1), (first, 1), (first + 1, 2)):
        assert len(list(prompts(loaded, heldout, num_tokens=wanted, split="heldout"))) == number


def test_drawn_ones_are_always_the_same_and_of_their_split(loaded: Loaded) -> None:
    drawn = [list(prompts(loaded, None, num_tokens=300, split="train")) for _ in range(2)]
    assert [sample.tokens for sample in drawn[0]] == [sample.tokens for sample in drawn[1]]
    assert all(torch.equal(one.pixels, other.pixels) for one, other in zip(*drawn, strict=True))
    held = next(prompts(loaded, None, num_tokens=1, split="heldout"))
    assert held.tokens != drawn[0][0].tokens


def test_a_file_that_is_none(loaded: Loaded, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no file"):
        next(prompts(loaded, tmp_path / "none.json", num_tokens=1, split="train"))


def test_all_that_is_read_is_observed(loaded: Loaded, heldout: Path) -> None:
    samples = list(prompts(loaded, heldout, num_tokens=10**9, split="heldout"))
    told: list[int] = []
    inputs = observe(loaded.model, SCHEMES["int4-g32"], samples, told.append)
    total = sum(len(sample.tokens) for sample in samples)
    assert sum(told) == total and {moments.count for moments in inputs.values()} == {total}
    hidden = hidden_states(loaded.model, samples[0])
    assert hidden.shape == (len(samples[0].tokens), loaded.config.language.hidden_size)


def test_text_alone_can_be_read_too(loaded: Loaded, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "a red circle"}, {"from": "gpt", "value": "Yes"}]
    (tmp_path / "text.json").write_text(json.dumps([{"id": "1", "conversations": turns}]))
    sample = next(prompts(loaded, tmp_path / "text.json", num_tokens=1, split="train"))
    assert sample.pixels is None and hidden_states(loaded.model, sample).isfinite().all()
