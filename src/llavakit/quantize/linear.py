"""The layers that stand where `nn.Linear` and `nn.Embedding` stood, over packed matrices.

A packed matrix is a buffer of bytes, so a state dict has it and a file may be mapped into it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llavakit import kernels
from llavakit.kernels import Packed
from llavakit.kernels.packed import packed_bytes
from llavakit.model import LanguageModel
from llavakit.quantize.schemes import Grid


class PackedMatrix(nn.Module):
    """A matrix of `rows` x `cols` in numbers of `grid`; empty until `packed` is given."""

    packed: Tensor

    def __init__(self, rows: int, cols: int, grid: Grid, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.rows, self.cols, self.grid = rows, cols, grid
        size = packed_bytes(rows, cols, grid.kind, grid.group)
        self.register_buffer("packed", torch.empty(size, dtype=torch.uint8, device=device))

    @property
    def matrix(self) -> Packed:
        return Packed(self.packed, self.rows, self.cols, self.grid.kind, self.grid.group)

    def times(self, x: Float[Tensor, "*batch cols"]) -> Float[Tensor, "*batch rows"]:
        """x times the transposed matrix, computed in float32 and given back in the type of x."""
        out = kernels.matmul(self.matrix, x.reshape(-1, self.cols).float())
        return out.view(*x.shape[:-1], self.rows).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.rows}x{self.cols}, {self.grid.kind} in groups of {self.grid.group}"


class QuantizedLinear(PackedMatrix):
    """For `nn.Linear`; `bias` is as it was."""

    def __init__(
        self, rows: int, cols: int, grid: Grid, *, bias: Tensor | None = None, device: torch.device | str | None = None
    ) -> None:
        super().__init__(rows, cols, grid, device)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Float[Tensor, "*batch cols"]) -> Float[Tensor, "*batch rows"]:
        out = self.times(x)
        return out if self.bias is None else out + self.bias


class QuantizedEmbedding(PackedMatrix):
    """For `nn.Embedding`: rows by number, in float32."""

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch cols"]:
        return kernels.gather_rows(self.matrix, ids.flatten()).view(*ids.shape, self.cols)


class TiedHead(nn.Module):
    """The output matrix of a model whose embeddings are its output matrix too; it has no numbers of its own."""

    def __init__(self, embeddings: QuantizedEmbedding) -> None:
        super().__init__()
        self._embeddings = (embeddings,)  # in a tuple, so that they are not counted or stored twice

    def forward(self, hidden: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        return self._embeddings[0].times(hidden)


def output_matrix(language: LanguageModel) -> nn.Module:
    """What holds the numbers of a language model's output matrix: its embeddings, where they are that too."""
    is_tied = language.lm_head is None or isinstance(language.lm_head, TiedHead)
    return language.embed_tokens if is_tied else language.lm_head
