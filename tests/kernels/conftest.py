"""Matrices drawn at random."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Drawn = tuple[Tensor, Tensor, Tensor | None]


@pytest.fixture(scope="session")
def drawn() -> Callable[[int, int, str, int, int], Drawn]:
    """Codes, scales and, where the kind has them, offsets."""

    def draw(rows: int, cols: int, kind: str, group: int, seed: int) -> Drawn:
        generator = torch.Generator().manual_seed(seed)
        low, high = (1, 256) if kind == "int8" else (0, 16)
        codes = torch.randint(low, high, (rows, cols), generator=generator).to(torch.uint8)
        scales, offsets = torch.randn(2, rows, -(-cols // group), generator=generator).half()
        return codes, scales, offsets if kind == "int4z" else None

    return draw
