"""Measurements over rounds, as medians with their ranges: the speed of a shared machine drifts while one looks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any


def figure(values: Sequence[float]) -> dict[str, Any]:
    """The median of some measurements, from the least to the greatest, and all of them in order."""
    return {
        "median": rounded(statistics.median(values)),
        "range": [rounded(min(values)), rounded(max(values))],
        "rounds": [rounded(value) for value in values],
    }


def rounded(value: float) -> float:
    """Four digits: more than any of them is worth."""
    return float(f"{value:.4g}")


def spoken(measured: dict[str, Any]) -> str:
    """As a table shows it: the median, and the range in brackets."""
    low, high = measured["range"]
    return f"{measured['median']:,g} [{low:,g}-{high:,g}]"
