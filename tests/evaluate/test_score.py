"""Wilson's interval against its definition and against published values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.evaluate.score import NORMAL_95, Score, wilson


@settings(deadline=None)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_its_ends_are_as_far_away_as_chance_reaches(counted: tuple[int, int]) -> None:
    """Both ends p solve |share - p| = z sqrt(p (1 - p) / n), which is what defines the interval."""
    right, n = counted
    low, high = wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1
    for end in (low, high):
        assert abs(right / n - end) == pytest.approx(NORMAL_95 * math.sqrt(end * (1 - end) / n), abs=1e-9)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(81, 263, 25.5, 36.6), (15, 148, 6.2, 16.0), (0, 20, 0.0, 16.1), (1, 29, 0.6, 17.2)],
)
def test_published_values(right: int, n: int, low: float, high: float) -> None:
    """Newcombe (1998), Statistics in Medicine 17, table I, method 3."""
    assert Score(right, n).interval == (low, high)


def test_a_score_counts() -> None:
    score = Score.of([True, False, True])
    assert (score.right, score.n, score.percent) == (2, 3, 66.7)
