"""What stands between the matrix products of a prompt, each in one pass over memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from llavakit.kernels.gpu.matrix import CHUNK, GpuMatrix
from llavakit.kernels.gpu.products import half_of, place_of_word


def add_and_norm(
    hidden: Float[Tensor, "rows dim"],
    product: Float[Tensor, "rows dim"] | None,
    weights: Float[Tensor, " dim"],
    eps: float,
) -> Float[Tensor, "rows dim"]:
    """`product` is added to `hidden`, in place and where there is any; gives the sum's norm (RMSNorm)."""
    rows, dim = hidden.shape
    normed = torch.empty_like(hidden)
    _add_and_norm[(rows,)](hidden, product, weights, normed, eps, DIM=dim, BLOCK=triton.next_power_of_2(dim))
    return normed


def rotate_heads(
    heads: Float[Tensor, "rows width"],
    positions: Int[Tensor, " rows"],
    cosine: Float[Tensor, "positions pairs"],
    sine: Float[Tensor, "positions pairs"],
    *,
    turned: int,
) -> None:
    """The first `turned` heads of each row are turned to its position, in place."""
    rows, pairs = len(heads), cosine.shape[1]
    block = min(8, triton.next_power_of_2(turned))
    _rotate_heads[(rows, triton.cdiv(turned, block))](
        heads, positions, cosine, sine,
        TURNED=turned, BLOCK_H=block, WIDTH=heads.shape[1], PAIRS=pairs, BLOCK_P=triton.next_power_of_2(pairs),
    )  # fmt: skip


def gate(gated: Float[Tensor, "rows twice"]) -> Float[Tensor, "rows inner"]:
    """SwiGLU: silu of the first half of each row, times the second."""
    rows, number = len(gated), gated.shape[1] // 2
    out = gated.new_empty(rows, number)
    _gate[(rows, triton.cdiv(number, 1024))](gated, out, number, BLOCK=1024)
    return out


def values_of(matrix: GpuMatrix, dtype: torch.dtype) -> Float[Tensor, "rows cols"]:
    """The numbers of a matrix; codes are written out for a product with many rows."""
    if matrix.bits == 16:
        return matrix.data
    out, block = matrix.data.new_empty(matrix.rows, matrix.cols, dtype=dtype), 16
    _write_values[(triton.cdiv(matrix.rows, block), matrix.width // CHUNK)](
        matrix.data, matrix.scales, out, matrix.rows, matrix.cols,
        WIDTH=matrix.width, BITS=matrix.bits, GROUP=matrix.group, HALF=CHUNK // 2, BLOCK=block,
    )  # fmt: skip
    return out


@triton.jit
def _add_and_norm(hidden, product, weights, normed, eps, DIM: tl.constexpr, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    place, mask = tl.program_id(0).to(tl.int64) * DIM + column, column < DIM
    total = tl.load(hidden + place, mask, other=0.0).to(tl.float32)
    if product is not None:
        total += tl.load(product + place, mask, other=0.0).to(tl.float32)
        tl.store(hidden + place, total.to(hidden.dtype.element_ty), mask)
    scaled = total * tl.rsqrt(tl.sum(total * total) / DIM + eps)
    weighted = scaled * tl.load(weights + column, mask, other=0.0).to(tl.float32)
    tl.store(normed + place, weighted.to(normed.dtype.element_ty), mask)


@triton.jit
def _rotate_heads(
    heads, positions, cosine, sine,
    TURNED: tl.constexpr, BLOCK_H: tl.constexpr, WIDTH: tl.constexpr, PAIRS: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Channels i and i + PAIRS together."""
    row = tl.program_id(0).to(tl.int64)
    head, pair = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_P)
    mask = (head < TURNED)[:, None] & (pair < PAIRS)[None, :]
    angle = tl.load(positions + row) * PAIRS + pair
    cos = tl.load(cosine + angle, pair < PAIRS, other=0.0)[None, :]
    sin = tl.load(sine + angle, pair < PAIRS, other=0.0)[None, :]
    place = heads + row * WIDTH + head[:, None] * (2 * PAIRS) + pair[None, :]
    one, two = tl.load(place, mask, other=0.0).to(tl.float32), tl.load(place + PAIRS, mask, other=0.0).to(tl.float32)
    tl.store(place, (one * cos - two * sin).to(heads.dtype.element_ty), mask)
    tl.store(place + PAIRS, (two * cos + one * sin).to(heads.dtype.element_ty), mask)


@triton.jit
def _gate(gated, out, N, BLOCK: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < N
    one = tl.load(gated + row * 2 * N + column, mask, other=0.0).to(tl.float32)
    two = tl.load(gated + row * 2 * N + N + column, mask, other=0.0).to(tl.float32)
    tl.store(out + row * N + column, (one * tl.sigmoid(one) * two).to(out.dtype.element_ty), mask)


@triton.jit
def _write_values(
    data, scales, out, ROWS, COLS,
    WIDTH: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Some rows of one chunk, which has HALF columns on either side."""
    row = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)[:, None]
    chunk, column = tl.program_id(1), tl.arange(0, HALF)[None, :]
    is_row = row < ROWS
    word = place_of_word(row, (chunk * HALF + column) // GROUP, WIDTH // (2 * GROUP))
    scale = tl.load(scales + word, is_row, other=0)
    if BITS == 8:
        place = data + row * WIDTH + chunk * 2 * HALF + column
        low, high = tl.load(place, is_row, other=0), tl.load(place + HALF, is_row, other=0)
        low, high = low.to(tl.float32), high.to(tl.float32)
    else:
        pairs = tl.load(data + row * (WIDTH // 2) + chunk * HALF + column, is_row, other=0)
        low, high = (pairs & 15).to(tl.float32) - 8, (pairs >> 4).to(tl.float32) - 8
    goal, left = out + row * COLS, chunk * 2 * HALF + column
    tl.store(goal + left, (low * half_of(scale, 0)).to(out.dtype.element_ty), is_row & (left < COLS))
    tl.store(goal + left + HALF, (high * half_of(scale, 16)).to(out.dtype.element_ty), is_row & (left + HALF < COLS))
