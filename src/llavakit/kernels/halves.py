"""A matrix of 16-bit floats as the native kernels read it: for models that are not quantised, and lose nothing.

Rows are padded to panels of 16 and columns to as many; in a panel one column of 16 rows follows the other, so that a
line is one register.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from llavakit.kernels.packed import PANEL

_TYPES: dict[Literal["float16", "bfloat16"], torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Halves:
    """`rows` outputs and `cols` inputs; `group` is nothing here but what every matrix of the kernels has."""

    data: UInt8[Tensor, " bytes"]
    rows: int
    cols: int
    kind: Literal["float16", "bfloat16"]
    group: int = 32


def halves(weight: Float[Tensor, "rows cols"], kind: Literal["float16", "bfloat16"]) -> Halves:
    """The matrix in 16 bits."""
    rows, cols = weight.shape
    padded = torch.zeros(-(-rows // PANEL) * PANEL, -(-cols // PANEL) * PANEL, dtype=_TYPES[kind])
    padded[:rows, :cols] = weight
    lines = padded.view(-1, PANEL, padded.shape[1]).transpose(1, 2).contiguous()
    return Halves(lines.view(-1).view(torch.uint8), rows, cols, kind)


def exact_kind(weights: list[Tensor]) -> Literal["float16", "bfloat16"] | None:
    """In which 16 bits all of these numbers are written without loss; None if in neither."""
    for kind, dtype in _TYPES.items():
        if all(torch.equal(weight.to(dtype).to(weight.dtype), weight) for weight in weights):
            return kind
    return None
