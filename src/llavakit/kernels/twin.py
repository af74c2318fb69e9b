"""The torch twin of every native kernel: what it is compared with, and what runs where it is not built."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def rms_norm(x: Float[Tensor, "rows dim"], weight: Float[Tensor, " dim"], eps: float) -> Float[Tensor, "rows dim"]:
    """Rows by their root mean square (Zhang and Sennrich 2019)."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight
