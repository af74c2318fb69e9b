"""The spellings of pinpoints, and the sentence for what is none."""

from __future__ import annotations

from typing import Any

import pytest

from llavakit.checkpoint.pinpoints import read_pinpoints
from llavakit.config import ConfigError


@pytest.mark.parametrize(
    ("given", "pairs"),
    [
        ([[336, 672], [672, 336]], [(336, 672), (672, 336)]),
        ("[[336, 672], [672, 336]]", [(336, 672), (672, 336)]),
        ("[(336, 672), (672, 336)]", [(336, 672), (672, 336)]),
        ("(1x1),...,(2x3)", [(384, 384), (384, 768), (384, 1152), (768, 384), (768, 768), (768, 1152)]),
        ("(2x1),(2x2)", [(768, 384), (768, 768)]),
    ],
)
def test_spellings(given: Any, pairs: list[tuple[int, int]]) -> None:
    assert read_pinpoints(given, tile_size=384) == pairs


@pytest.mark.parametrize(
    "given", [None, 5, [336, 672], [[336]], [[336, 672, 1]], [["336", "672"]], [[1.5, 2.0]], "", "1x1", "os.getcwd()"]
)
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="should be a list of at most 1,024 pairs of pixels, or a range of grids"):
        read_pinpoints(given, tile_size=384)
