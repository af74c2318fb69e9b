"""A decoder layer as the kernels of a GPU take it, and the sizes they need."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from llavakit.kernels.gpu.matrix import GpuMatrix


@dataclass(frozen=True)
class GpuLayer:
    """`heads` is query, key and value below one another, `gated` the gate and what it gates."""

    input_norm: Float[Tensor, " dim"]
    heads: GpuMatrix
    heads_bias: Float[Tensor, " heads"] | None
    out: GpuMatrix
    output_norm: Float[Tensor, " dim"]
    gated: GpuMatrix
    down: GpuMatrix
    keys: Float[Tensor, "kv_heads slots head_dim"]
    values: Float[Tensor, "kv_heads slots head_dim"]

    @property
    def nbytes(self) -> int:
        """Of what each token reads of the weights."""
        parts = (self.input_norm, self.heads, self.heads_bias, self.out, self.output_norm, self.gated, self.down)
        return sum(0 if part is None else part.nbytes for part in parts)


@dataclass(frozen=True)
class Sizes:
    num_heads: int
    num_kv_heads: int
    head_dim: int
    block: int  # tokens of a block of keys and values
    header: int  # numbers of a plan's row before those of its blocks: token, rotary position, place, later place
    eps: float
