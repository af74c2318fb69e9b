"""A decoder for rows of single tokens: five kernels a layer, all of fixed shapes, so that a step can be recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import gcd
from typing import Any, Literal

import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from llavakit.kernels.gpu import products
from llavakit.kernels.gpu.attention import attend_rows
from llavakit.kernels.gpu.layers import GpuLayer, GpuModel
from llavakit.kernels.gpu.matrix import CHUNK, GpuMatrix

LARGE_SHARED = 200_000  # bytes of a processor's shared memory, which the tiles for many rows take
FEW_ROWS = 16  # with so many at most, warps share out columns; with more a matrix unit takes all of them at once
AT_ONCE = 256  # programs that a card computes, more or less
LONGEST_SPLIT = 8


@dataclass(frozen=True)
class Tile:
    """What a program of a product takes: rows of the matrix, columns at a time, parts of a row, and steps ahead."""

    rows: int
    columns: int
    split: int
    warps: int
    stages: int


Role = Literal["heads", "add", "gate", "scores"]


def tile_for(role: Role, matrix: GpuMatrix, rows: int, whole: int) -> Tile:
    """The best of some hundred that were timed on an H200 at the shapes of a 7B model, for 1 and for 64 rows.

    A program's rows have to divide `whole`. Cards with less shared memory read fewer steps ahead.
    """
    columns, is_coded = CHUNK // 2, matrix.bits < 16
    if rows <= FEW_ROWS:
        if role == "add":  # narrow outputs are few programs: more warps share a row
            tile = Tile(16, columns, 4, 4, 4)
        elif role != "heads" and matrix.bits != 4:
            tile = Tile(16 if is_coded else 32, columns, 2, 2, 2)
        else:
            tile = Tile(16, columns, 2, 2, 3)
    elif role == "heads":
        tile = Tile(64, columns, 1, 8, 3 if is_coded else 4)
    elif role == "gate":
        tile = Tile(64, columns, 1, 4, 2) if is_coded else Tile(64, 64, 1, 4, 4)
    else:
        tile = Tile(64, columns, 1, 4, 3 if is_coded else 4)
    is_small = shared_memory(matrix.data.device) < LARGE_SHARED
    return replace(tile, rows=gcd(tile.rows, whole), stages=2 if is_small else tile.stages)


@cache
def shared_memory(device: torch.device) -> int:
    """Bytes that a program may have of it; no limit where kernels are interpreted."""
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin if device.type == "cuda" else 1 << 30


class GpuDecoder:
    """Scores behind each row of a plan; keys and values of the rows are written into their places.

    Rows of one sequence may stand in the same step, one behind the other: each is written before any is read.
    Everything is in the numbers of `table`.
    """

    def __init__(self, model: GpuModel, *, most_rows: int) -> None:
        self._model, sizes, table = model, model.sizes, model.table
        self._dim, dtype, device = table.shape[1], table.dtype, table.device

        def room(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        self._hidden, self._normed = room(most_rows, self._dim), room(most_rows, self._dim)
        self._squares = room(self._dim * most_rows, dtype=torch.float32)
        self._query, self._mixed = (room(most_rows, sizes.num_heads * sizes.head_dim) for _ in range(2))
        self._inner = room(most_rows, model.layers[0].down.cols)
        self._logits = room(most_rows, model.head.rows)
        pairs = [rows * sizes.num_kv_heads for rows in range(1, most_rows + 1)]
        group = sizes.num_heads // sizes.num_kv_heads * (sizes.head_dim + 2)
        self._partial = room(max(pair * _splits(pair) for pair in pairs) * group, dtype=torch.float32)
        self._arrived = room(pairs[-1], dtype=torch.int32)

    def __call__(self, plan: Int[Tensor, "rows numbers"]) -> Float[Tensor, "rows vocab"]:
        """What it gives holds until the next call."""
        rows, numbers = plan.shape
        model, parts = self._model, self._parts(rows)
        products.embed_rows[(rows,)](
            plan, model.table, model.layers[0].input_norm, self._hidden, self._normed, self._squares, self._dim,
            R=rows, PARTS=parts, PLAN=numbers, BLOCK_N=min(1024, triton.next_power_of_2(self._dim)),
        )  # fmt: skip
        norms = [layer.input_norm for layer in model.layers[1:]] + [model.norm]
        for index, (layer, norm) in enumerate(zip(model.layers, norms, strict=True)):
            self._attend(plan, layer, place=2 if index < model.drop_after else 3)
            self._add(rows, self._mixed, layer.out, layer.output_norm)
            self._gate(rows, layer.gated)
            self._add(rows, self._inner, layer.down, norm)
        return self._score(rows)

    def _parts(self, rows: int) -> int:
        """Programs of `add_product`, each of which leaves a part of the sums of squares."""
        return self._dim // tile_for("add", self._model.layers[0].out, rows, self._dim).rows

    def _attend(self, plan: Tensor, layer: GpuLayer, *, place: int) -> None:
        """`place`: which number of a plan's row it is in this layer."""
        sizes, (rows, numbers) = self._model.sizes, plan.shape
        tile = tile_for("heads", layer.heads, rows, sizes.head_dim // 2)
        slots = layer.keys.shape[1]
        shared = {
            "PLAN": numbers, "PLACE": place, "HEADER": sizes.header, "BLOCK": sizes.block,
            "HEADS": sizes.num_heads, "KV_HEADS": sizes.num_kv_heads, "HEAD_DIM": sizes.head_dim,
        }  # fmt: skip
        products.project_heads[(layer.heads.rows // 2 // tile.rows,)](
            self._normed, self._squares, sizes.eps, layer.heads.data, layer.heads.scales, layer.heads_bias, plan,
            self._model.cosine, self._model.sine, self._query, layer.keys, layer.values, slots,
            PARTS=self._parts(rows), **shared, **_shape(layer.heads, rows, tile),
        )  # fmt: skip
        splits = _splits(rows * sizes.num_kv_heads)
        attend_rows[(rows, sizes.num_kv_heads, splits)](
            self._query, layer.keys, layer.values, self._model.bias, plan, slots, sizes.head_dim**-0.5, self._mixed,
            self._partial, self._arrived, PADDED_DIM=triton.next_power_of_2(sizes.head_dim), SPLITS=splits,
            **_attention_tile(splits), **shared,
        )  # fmt: skip

    def _add(self, rows: int, x: Tensor, matrix: GpuMatrix, norm: Tensor) -> None:
        tile = tile_for("add", matrix, rows, self._dim)
        products.add_product[(matrix.rows // tile.rows,)](
            x, matrix.data, matrix.scales, self._hidden, norm, self._normed, self._squares, matrix.rows,
            **_shape(matrix, rows, tile),
        )  # fmt: skip

    def _gate(self, rows: int, matrix: GpuMatrix) -> None:
        number = matrix.rows // 2
        tile = tile_for("gate", matrix, rows, number)
        products.gated_product[(number // tile.rows,)](
            self._normed, self._squares, self._model.sizes.eps, matrix.data, matrix.scales, self._inner, number,
            PARTS=self._parts(rows), **_shape(matrix, rows, tile),
        )  # fmt: skip

    def _score(self, rows: int) -> Float[Tensor, "rows vocab"]:
        matrix = self._model.head
        tile = tile_for("scores", matrix, rows, 64)
        products.normed_product[(triton.cdiv(matrix.rows, tile.rows),)](
            self._normed, self._squares, self._model.sizes.eps, matrix.data, matrix.scales, self._logits, matrix.rows,
            PARTS=self._parts(rows), **_shape(matrix, rows, tile),
        )  # fmt: skip
        return self._logits[:rows]


def _shape(matrix: GpuMatrix, rows: int, tile: Tile) -> dict[str, Any]:
    return {
        "R": rows, "K": matrix.cols, "WIDTH": matrix.width, "BITS": matrix.bits, "GROUP": matrix.group,
        "BLOCK_R": triton.next_power_of_2(rows), "BLOCK_N": tile.rows, "BLOCK_K": tile.columns, "SPLIT": tile.split,
        "STAGES": tile.stages, "num_warps": tile.warps,
    }  # fmt: skip


def _splits(pairs: int) -> int:
    """How many programs share the tokens of each pair of a row and a key head."""
    return max(1, min(LONGEST_SPLIT, AT_ONCE // pairs))


def _attention_tile(splits: int) -> dict[str, int]:
    """Tokens at a time: many where the tokens of few rows are shared out, few where many programs are there anyway."""
    return {"BLOCK_T": 128, "num_warps": 4} if splits > 1 else {"BLOCK_T": 64, "num_warps": 2}
