"""A language model as the kernels of a GPU take it."""

from __future__ import annotations

from collections.abc import Sequence
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
    def matrices(self) -> tuple[GpuMatrix, ...]:
        return self.heads, self.out, self.gated, self.down

    @property
    def nbytes(self) -> int:
        """Of what each token reads of the weights."""
        parts = (self.input_norm, self.heads_bias, self.output_norm, *self.matrices)
        return sum(0 if part is None else part.nbytes for part in parts)


@dataclass(frozen=True)
class Sizes:
    num_heads: int
    num_kv_heads: int
    head_dim: int
    block: int  # tokens of a block of keys and values
    header: int  # numbers of a plan's row before those of its blocks: token, rotary position, place, later place
    eps: float


@dataclass(frozen=True)
class GpuModel:
    """`cosine` and `sine` are of half a head. Layers behind the first `drop_after` take a row's later place."""

    layers: Sequence[GpuLayer]
    sizes: Sizes
    table: Float[Tensor, "vocab dim"]
    norm: Float[Tensor, " dim"]
    head: GpuMatrix
    cosine: Float[Tensor, "positions pairs"]
    sine: Float[Tensor, "positions pairs"]
    bias: Float[Tensor, " slots"] | None
    drop_after: int

    @property
    def matrices(self) -> list[GpuMatrix]:
        """All that are multiplied with."""
        return [self.head, *(matrix for layer in self.layers for matrix in layer.matrices)]

    @property
    def nbytes(self) -> int:
        """Of what each token reads of the weights."""
        return sum(layer.nbytes for layer in self.layers) + self.norm.nbytes + self.head.nbytes
