"""Where two walks part: the largest difference of a stage, and the first place beyond what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Difference:
    """Of one stage and picture. `largest` is None where the two cannot be laid over one another, or are no numbers.

    `index` is the first place beyond the tolerance, and `says` what is there; both empty where they agree.
    """

    largest: float | None = None
    index: tuple[int, ...] = ()
    says: str = ""

    @property
    def agrees(self) -> bool:
        return not self.says


def numbers(one: Tensor, other: Tensor, tolerance: float) -> Difference:
    """Of two tensors. What is no number, in one of them or in both, is infinitely far away: nothing was compared."""
    if one.shape != other.shape:
        return Difference(says=f"of the shapes {list(one.shape)} and {list(other.shape)}")
    if not one.numel():
        return Difference(largest=0.0)
    apart = (one.double() - other.double()).abs()
    apart = torch.where(one == other, 0.0, apart).nan_to_num(nan=torch.inf, posinf=torch.inf)
    largest = apart.max().item()
    beyond = (apart > tolerance).flatten()
    if not beyond.any():
        return Difference(largest=largest)
    first = int(beyond.int().argmax())
    index = tuple(int(place) for place in torch.unravel_index(torch.tensor(first), one.shape))
    left, right = one[index].item(), other[index].item()
    neither = ", where neither is a number" if left != left and right != right else ""
    return Difference(largest, index, f"{left:.6g} and {right:.6g}{neither}")


def sequences(one: Sequence[object], other: Sequence[object]) -> Difference:
    """Of two sequences that have to be equal: tokens, or the characters of a text."""
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return Difference(index=(index,), says=f"{left!r} and {right!r}")
    if len(one) != len(other):
        shorter = min(len(one), len(other))
        return Difference(index=(shorter,), says=f"of the lengths {len(one)} and {len(other)}")
    return Difference()
