"""Pinpoints as foreign configurations spell them: a list of pairs, that list as a string, or a range of grids."""

from __future__ import annotations

import json
import re
from typing import Any

from llavakit.config import MAX_PINPOINTS, ConfigError, shown

Pair = tuple[int, int]


def read_pinpoints(given: Any, *, tile_size: int) -> list[Pair]:
    """The pairs in their order, each as it stands; which side comes first depends on who wrote them.

    `[[336, 672], ...]`, the same as a string, or `"(1x1),...,(6x6)"`: every grid of tiles from the first to the last.
    Raises `ConfigError` for anything else.
    """
    try:
        pairs = _from_string(given, tile_size) if isinstance(given, str) else given
        if len(pairs) > MAX_PINPOINTS:
            raise ValueError
        return [(_side(first), _side(second)) for first, second in pairs]
    except (TypeError, ValueError, RecursionError):
        raise ConfigError(
            f"image_grid_pinpoints is {shown(given)}, and should be a list of at most {MAX_PINPOINTS:,} pairs of "
            "pixels, or a range of grids such as '(1x1),...,(6x6)'"
        ) from None


def _from_string(text: str, tile_size: int) -> Any:
    grids = [(int(first), int(second)) for first, second in re.findall(r"\((\d+)x(\d+)\)", text)]
    if not grids:
        # A Python literal of numbers, lists and tuples is JSON but for its brackets.
        return json.loads(text.replace("(", "[").replace(")", "]"))
    (first, second), (last_first, last_second) = grids[0], grids[-1]
    if last_first * last_second > MAX_PINPOINTS:
        raise ValueError
    return [
        (i * tile_size, j * tile_size) for i in range(first, last_first + 1) for j in range(second, last_second + 1)
    ]


def _side(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError
    return value
