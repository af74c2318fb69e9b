"""Guesses from what was said, against a plain search."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llavakit.engine.drafts import NUM_TRIED, SHORTEST, Lookup

TOKENS = st.lists(st.integers(0, 2), max_size=40)


def plain_guess(tokens: list[int], number: int, never: int) -> list[int]:
    best = (SHORTEST - 1, -1)
    places = [p for p in range(SHORTEST, len(tokens)) if tokens[p - SHORTEST : p] == tokens[-SHORTEST:]]
    for place in places[-NUM_TRIED:]:
        length = 0
        while length < place and length < 32 and tokens[place - 1 - length] == tokens[-1 - length]:
            length += 1
        best = max(best, (length, place))
    guess = tokens[best[1] : best[1] + number] if best[1] >= 0 else []
    return guess[: guess.index(never)] if never in guess else guess


@given(TOKENS, TOKENS, st.integers(0, 6))
def test_a_guess_is_what_followed_the_longest_match_the_latest_first(
    one: list[int], other: list[int], number: int
) -> None:
    lookup = Lookup(never=0)
    lookup.extend(one)
    lookup.extend(other)
    assert lookup.guess(number) == plain_guess([*one, *other], number, 0)
