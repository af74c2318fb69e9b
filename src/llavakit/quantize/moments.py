"""What is known of the inputs of a matrix: their second moments, column with column, within blocks of columns."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

BLOCK = 256  # columns; a multiple of every group


class Moments:
    """Sums of x x^T over the inputs x seen so far, for each block of columns of its own."""

    def __init__(self, cols: int) -> None:
        self.sums = torch.zeros(-(-cols // BLOCK), BLOCK, BLOCK)
        self.count = 0

    def add(self, x: Float[Tensor, "n cols"]) -> None:
        """More inputs."""
        blocks = F.pad(x.float(), (0, -x.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK)).transpose(0, 1)
        self.sums = self.sums.to(x.device).baddbmm_(blocks.mT, blocks)
        self.count += len(x)

    @property
    def mean(self) -> Float[Tensor, "blocks block block"]:
        """The moments themselves, on the CPU."""
        return self.sums.cpu() / self.count
