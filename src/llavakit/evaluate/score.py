"""A share of right answers, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

NORMAL_95 = 1.959963984540054  # 97.5% of a normal distribution lie below this many deviations


@dataclass(frozen=True)
class Score:
    """How many of how many."""

    right: int
    n: int

    @classmethod
    def of(cls, verdicts: Iterable[bool]) -> Score:
        verdicts = list(verdicts)
        return cls(sum(verdicts), len(verdicts))

    @property
    def percent(self) -> float:
        """In percent, rounded to a tenth; not to be asked of nothing."""
        return round(100 * self.right / self.n, 1)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of Wilson (1927), in percent, rounded to a tenth."""
        low, high = wilson(self.right, self.n)
        return round(100 * low, 1), round(100 * high, 1)


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95% interval of a share, of all true shares those under which `right` of `n` is no surprise."""
    share, z2 = right / n, NORMAL_95**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    spread = NORMAL_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return center - spread if right else 0.0, center + spread if right < n else 1.0  # there rounding would stray
