"""Every kernel in plain torch: what the native ones are held to, and what runs where there are none.

Activations become int8 too, with a scale for each group, so that all multiplication is of whole numbers and exact; the
groups' sums are then scaled and added in float32, one group after the other. Nothing here depends on how many rows are
computed together: a row's result is always the same, to the last bit.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from llavakit.kernels.packed import Packed, unpack, whole_numbers


def quantize_activations(
    x: Float[Tensor, "m cols"], group: int
) -> tuple[Int8[Tensor, "m cols"], Float[Tensor, "m groups"]]:
    """Codes from -127 to 127 and the scale of each group of columns, so that codes times scales is nearly x.

    The largest of a group becomes 127; halves are rounded to even. A group too small to have an inverse is all zeros.
    """
    groups = _in_groups(x, group)
    largest = groups.abs().amax(-1, keepdim=True)
    inverse = 127 / largest
    inverse = inverse.where(inverse.isfinite() | largest.isnan(), 0.0)
    codes = (groups * inverse).round().to(torch.int8).flatten(1)[:, : x.shape[1]]
    return codes, largest.squeeze(-1) / 127


def matmul(packed: Packed, x: Float[Tensor, "m cols"]) -> Float[Tensor, "m rows"]:
    """x times the transposed matrix, as `torch.nn.functional.linear` has it."""
    codes, scales, offsets = unpack(packed)
    weights, scales = whole_numbers(codes, packed.kind), scales.float()
    if packed.kind == "nf4":
        scales = scales / 127
    inputs, x_scales = quantize_activations(x, packed.group)
    inputs = inputs.float()
    total = torch.zeros(len(x), packed.rows, device=x.device)
    for index, start in enumerate(range(0, packed.cols, packed.group)):
        columns = slice(start, start + packed.group)
        # Exact in float32, in whatever order it is added up: no sum of so few products reaches 2^24.
        dots = (inputs[:, columns] @ weights[:, columns].T) * scales[:, index]
        if offsets is not None:
            dots = dots + inputs[:, columns].sum(-1, keepdim=True) * offsets[:, index].float()
        total = total + dots * x_scales[:, index, None]
    return total


def _in_groups(x: Tensor, group: int) -> Float[Tensor, "m groups group"]:
    """The columns in groups, the last one filled up with zeros."""
    missing = -x.shape[1] % group
    return torch.nn.functional.pad(x, (0, missing)).unflatten(1, (-1, group))
