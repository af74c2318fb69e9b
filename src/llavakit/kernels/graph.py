"""Whole graphs as one native call: a step of a decoder, and the layers of a vision tower.

They are told the tensors once and keep them; nothing is copied. Only where the native kernels are built: the modules
they were made from say the same in torch, and are their twins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor

from llavakit.kernels import native, native_matrix
from llavakit.kernels.halves import Halves
from llavakit.kernels.packed import Packed

BLOCK = 16  # positions of the cache that lie together
PARTS = (
    "embedding", "norms, rounding to 8 bits", "queries, keys, values", "positions, cache", "attention", "attention out",
    "gate, up", "down", "output matrix",
)  # fmt: skip
"""Of a step of a decoder, in the native module's order."""
KeysValues = Literal["float16", "int8"]  # what they are kept as; as int8 with a scale for each position

ACTIVATIONS = ("quick_gelu", "gelu", "gelu_tanh")  # by the native module's numbers


@dataclass(frozen=True)
class Matrix:
    """Weights, and a bias where there is one."""

    weight: Packed | Halves
    bias: Float[Tensor, " rows"] | None = None


@dataclass(frozen=True)
class DecoderLayer:
    """In the order in which they are used; norms are float32."""

    input_norm: Float[Tensor, " dim"]
    post_norm: Float[Tensor, " dim"]
    q: Matrix
    k: Matrix
    v: Matrix
    o: Matrix
    gate: Matrix
    up: Matrix
    down: Matrix


@dataclass(frozen=True)
class TowerLayer:
    norm1: Float[Tensor, " dim"]
    norm1_bias: Float[Tensor, " dim"]
    norm2: Float[Tensor, " dim"]
    norm2_bias: Float[Tensor, " dim"]
    q: Matrix
    k: Matrix
    v: Matrix
    out: Matrix
    fc1: Matrix
    fc2: Matrix


@dataclass(frozen=True)
class Dropping:
    """Of `pictures` among the rows of a step, what the layers behind the first `after_layer` do without. All int32.

    Each is its first row, its end, and how many of its rows stay: those that the last row of its sequence attends to
    most. `cached` are how many tokens the later layers hold of each sequence.
    """

    after_layer: int
    cached: Int[Tensor, " sequences"]
    pictures: Int[Tensor, "pictures 3"]


class NativeDecoder:
    """A decoder of the Llama family. `cosine` and `sine` are the angles of every position of the context.

    Raises ValueError where shapes, kinds or groups do not go together.
    """

    def __init__(
        self,
        layers: Sequence[DecoderLayer],
        *,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        eps: float,
        norm: Float[Tensor, " dim"],
        embedding: Packed | Halves,
        head: Packed | Halves,
        cosine: Float[Tensor, "positions pairs"],
        sine: Float[Tensor, "positions pairs"],
    ) -> None:
        self._kept = (tuple(layers), norm, embedding, head, cosine, sine)
        self._vocab = head.rows
        self._num_layers, self._num_kv_heads, self._head_dim = len(layers), num_kv_heads, head_dim
        self._native = native.Decoder(
            num_heads, num_kv_heads, head_dim, eps, norm, native_matrix(embedding), native_matrix(head), cosine, sine
        )
        for layer in layers:
            self._native.add_layer(*(_told(value) for value in vars(layer).values()))

    def new_cache(self, num_blocks: int, kept_as: KeysValues = "float16") -> UInt8[Tensor, "layers blocks bytes"]:
        """Room for keys and values; memory is only taken where it is written."""
        numbers = self._num_kv_heads * 2 * BLOCK * self._head_dim
        scales = self._num_kv_heads * 2 * BLOCK * 4
        size = 2 * numbers if kept_as == "float16" else numbers + scales
        return torch.empty(self._num_layers, num_blocks, size, dtype=torch.uint8)

    def step(
        self,
        tokens: Int[Tensor, " rows"],
        positions: Int[Tensor, " rows"],
        starts: Int[Tensor, " sequences_and_one"],
        cached: Int[Tensor, " sequences"],
        tables: Int[Tensor, "sequences table"],
        cache: UInt8[Tensor, "layers blocks bytes"],
        wanted: Int[Tensor, " wanted"],
        embeds: Float[Tensor, "embedded dim"] | None = None,
        bias: Float[Tensor, "blocks 16"] | None = None,
        seconds: Float64[Tensor, " parts"] | None = None,
        dropping: Dropping | None = None,
    ) -> Float[Tensor, "wanted vocab"]:
        """New tokens of several sequences, behind one another; sequence s has the rows from starts[s] to starts[s+1].

        All integers are int32. A token below 0 stands for the next row of `embeds`. Keys and values go into `cache`
        by each sequence's table of blocks, behind the `cached` ones; `positions` may leave gaps. Logits come of the
        rows that are `wanted`. `bias` is added to all attention to each position of the cache, the new ones included.
        What each of the `PARTS` took is added to `seconds`. With `dropping` the later layers put fewer keys and values
        into the same blocks.
        """
        logits = torch.empty(len(wanted), self._vocab)
        self._native.step(
            tokens,
            positions,
            starts,
            cached,
            tables,
            embeds,
            cache,
            wanted,
            logits,
            bias,
            seconds,
            *((-1, None, None) if dropping is None else (dropping.after_layer, dropping.cached, dropping.pictures)),
        )
        return logits


class NativeTower:
    """The layers of a vision tower, after its patches have been embedded."""

    def __init__(
        self,
        layers: Sequence[TowerLayer],
        *,
        dim: int,
        num_heads: int,
        eps: float,
        activation: Literal["quick_gelu", "gelu", "gelu_tanh"],
    ) -> None:
        self._kept = tuple(layers)
        self._num_heads = num_heads
        self._native = native.Tower(dim, num_heads, eps, ACTIVATIONS.index(activation))
        for layer in layers:
            self._native.add_layer(*(_told(value) for value in vars(layer).values()))

    def run(self, x: Float[Tensor, "views seq dim"]) -> Float[Tensor, "views seq dim"]:
        """The hidden states after the last layer; `x` stays as it is."""
        x = x.clone(memory_format=torch.contiguous_format)
        self._native.run(x, None)
        return x

    def run_looking(
        self, x: Float[Tensor, "views seq dim"]
    ) -> tuple[Float[Tensor, "views seq dim"], Float[Tensor, "layers views heads seq"]]:
        """The same, and how the first position of each view looks at all: its attention, which sums up to 1."""
        x = x.clone(memory_format=torch.contiguous_format)
        looks = torch.empty(len(self._kept), x.shape[0], self._num_heads, x.shape[1])
        self._native.run(x, looks)
        return x, looks


def _told(value: Tensor | Matrix) -> object:
    return native_matrix(value.weight, value.bias) if isinstance(value, Matrix) else value
