"""Differences against a search by hand."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.parity.compare import numbers, sequences

VALUES = st.sampled_from([0.0, 1.0, 1.0 + 1e-7, 1.5, -2.0, math.inf, -math.inf, math.nan])
ROWS = st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=2, max_size=2)


def apart(one: float, other: float) -> float:
    if one == other:
        return 0.0
    return math.inf if math.isnan(one - other) else abs(one - other)


@settings(deadline=None)
@given(ROWS, ROWS, st.sampled_from([0.0, 1e-3, 0.5, 2.0]))
def test_numbers(one: list[list[float]], other: list[list[float]], tolerance: float) -> None:
    found = numbers(torch.tensor(one, dtype=torch.float64), torch.tensor(other, dtype=torch.float64), tolerance)
    each = {(i, j): apart(one[i][j], other[i][j]) for i in range(2) for j in range(3)}
    beyond = [place for place, distance in each.items() if distance > tolerance]
    assert found.largest == max(each.values())
    assert found.agrees == (not beyond)
    assert found.index == (beyond[0] if beyond else ())


def test_what_is_no_number_in_either_is_not_equal() -> None:
    found = numbers(torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.nan]), math.inf)
    assert found.largest == math.inf and found.agrees  # an infinite tolerance allows anything
    found = numbers(torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.nan]), 1e9)
    assert found.index == (1,) and found.says == "nan and nan, where neither is a number"


def test_other_shapes() -> None:
    found = numbers(torch.zeros(2, 3), torch.zeros(3, 2), 1.0)
    assert found.largest is None and found.says == "of the shapes [2, 3] and [3, 2]"


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=5), st.lists(st.integers(0, 2), max_size=5))
def test_sequences(one: list[int], other: list[int]) -> None:
    found = sequences(one, other)
    assert found.agrees == (one == other)
    if one != other:
        [index] = found.index
        assert one[:index] == other[:index] and one[: index + 1] != other[: index + 1]
