"""Guesses of what comes next, looked up in what was said: no second model.

Answers repeat themselves and what they were asked. Where the last tokens have stood before, what followed then is a
good guess (prompt lookup, Saxena 2023); the model verifies all guesses in one step.
"""

from __future__ import annotations

from collections.abc import Sequence

SHORTEST = 2  # tokens that must have stood before
NUM_TRIED = 16  # places that are compared, the latest first


class Lookup:
    """Remembers one sequence and guesses how it goes on; `never` is an id that no answer may hold."""

    def __init__(self, *, never: int) -> None:
        self._never = never
        self._tokens: list[int] = []
        self._places: dict[tuple[int, ...], list[int]] = {}

    def extend(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            if len(self._tokens) >= SHORTEST:  # what stands at the very end has nothing behind it yet
                self._places.setdefault(tuple(self._tokens[-SHORTEST:]), []).append(len(self._tokens))
            self._tokens.append(token)

    def guess(self, number: int) -> list[int]:
        """Up to so many tokens: what followed where the longest end of the sequence stood before, latest first."""
        places = self._places.get(tuple(self._tokens[-SHORTEST:]), [])
        best = max(reversed(places[-NUM_TRIED:]), key=self._num_equal, default=None)
        if best is None or number < 1:
            return []
        guess = self._tokens[best : best + number]
        return guess[: guess.index(self._never)] if self._never in guess else guess

    def _num_equal(self, place: int) -> int:
        """How many tokens in front of `place` are those at the end."""
        tokens, longest = self._tokens, min(place, 32)
        return next((n for n in range(longest) if tokens[place - 1 - n] != tokens[-1 - n]), longest)
