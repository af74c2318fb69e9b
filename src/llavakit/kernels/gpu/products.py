"""Products of a few rows of activations with a weight matrix, each with what stands around it in a decoder layer.

Reading the matrix is all the cost, so a program takes some of its rows whole and does at once what the decoder does
next with the numbers that come out. A norm is two things: its weights are multiplied in by whoever writes the
activations, and its scale by whoever sums over them, from the sums of squares that were written beside, one for each
program. What a program needs behind its sums is read before them, while memory is busy anyway.
"""

from __future__ import annotations

import triton
import triton.language as tl

# What waits for its norm's scale is kept so much smaller, or float16 would not hold it; a power of two, so it rounds
# nothing.
SHRUNK = tl.constexpr(1 / 64)


@triton.jit
def sums(
    x, data, scales, first, second,
    R: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr, PAIR: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Of R rows of x with the matrix rows `first`, and with `second` too where PAIR says so: `BLOCK_R BLOCK_N`.

    With a SPLIT above 1 each warp has columns of its own, or a few warps would wait for one another's sums. BLOCK_K is
    how many columns are multiplied at once; of codes it is half a chunk.
    """
    step: tl.constexpr = BLOCK_K if BITS == 16 else 2 * BLOCK_K
    span: tl.constexpr = (WIDTH + step * SPLIT - 1) // (step * SPLIT) * step
    end: tl.constexpr = span * SPLIT
    groups: tl.constexpr = 1 if BITS == 16 else BLOCK_K // GROUP
    column, row, group = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_R), tl.arange(0, groups)
    if SPLIT == 1:
        shape: tl.constexpr = (BLOCK_N, BLOCK_R)
        one_row, two_row, x_row = first[:, None], second[:, None], row[None, :]
        w_column, x_column, word = column[None, :], column[:, None], group[None, :]
    else:
        shape: tl.constexpr = (SPLIT, BLOCK_N, BLOCK_R)
        one_row, two_row, x_row = first[None, :, None], second[None, :, None], row[None, None, :]
        start = tl.arange(0, SPLIT)[:, None, None] * span
        w_column, x_column = start + column[None, None, :], start + column[None, :, None]
        word = start // (2 * GROUP) + group[None, None, :]
    one_row, two_row = one_row.to(tl.int64), two_row.to(tl.int64)
    one, two = tl.zeros(shape, tl.float32), tl.zeros(shape, tl.float32)
    for k in tl.range(0, span, step, num_stages=STAGES):
        left = _activations(x, x_row, k + x_column, R, K, BLOCK_R, end)
        if BITS == 16:
            one = _plain(one, left, data, one_row, k + w_column, K, end)
            if PAIR:
                two = _plain(two, left, data, two_row, k + w_column, K, end)
        else:
            right = _activations(x, x_row, k + BLOCK_K + x_column, R, K, BLOCK_R, end)
            at = k // (2 * GROUP) + word
            one = _coded(one, left, right, data, scales, one_row, k + w_column, at, WIDTH, BITS, GROUP, BLOCK_K, end)
            if PAIR:
                two = _coded(
                    two, left, right, data, scales, two_row, k + w_column, at, WIDTH, BITS, GROUP, BLOCK_K, end
                )
    if SPLIT > 1:
        one, two = tl.sum(one, 0), tl.sum(two, 0)
    return tl.trans(one), tl.trans(two)


@triton.jit
def _activations(x, row, column, R: tl.constexpr, K: tl.constexpr, BLOCK_R: tl.constexpr, END: tl.constexpr):
    if K == END and R == BLOCK_R:
        mask = None
    elif K == END:
        mask = row < R
    else:
        mask = (row < R) & (column < K)
    return _read(x + row * K + column, mask)


@triton.jit
def _plain(total, x, data, row, column, K: tl.constexpr, END: tl.constexpr):
    mask = None if K == END else column < K
    return tl.dot(_read(data + row * K + column, mask), x, total, input_precision="ieee")


@triton.jit
def _coded(
    total, left, right, data, scales, row, column, word,
    WIDTH: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr, BLOCK_K: tl.constexpr, END: tl.constexpr,
):  # fmt: skip
    """A chunk: its left half of columns and its right one. `word` is where their scales lie in a row of the matrix."""
    words: tl.constexpr = WIDTH // (2 * GROUP)
    is_word = None if WIDTH == END else word < words
    is_column = None if WIDTH == END else column < WIDTH
    scale = _read(scales + place_of_word(row, word, words), is_word)
    if BITS == 8:
        place = data + row * WIDTH + column
        low, high = _read(place, is_column).to(left.dtype), _read(place + BLOCK_K, is_column).to(left.dtype)
    else:
        # A chunk's bytes begin at half of its columns.
        pairs = _read(data + row * (WIDTH // 2) + column - column // (2 * BLOCK_K) * BLOCK_K, is_column)
        low, high = _halves(pairs, left.dtype)
    return _scaled(_scaled(total, left, low, half_of(scale, 0)), right, high, half_of(scale, 16))


@triton.jit
def _read(place, mask):
    """Zero where there is nothing."""
    return tl.load(place) if mask is None else tl.load(place, mask, other=0)


@triton.jit
def place_of_word(row, word, words: tl.constexpr):
    """Of so many scales of a row: those of it and of the next take turns, and their number is made even."""
    return (row // 2 * (words + words % 2) + word) * 2 + row % 2


@triton.jit
def half_of(words, shift: tl.constexpr):
    """The float16 in the lower or upper half of each word."""
    return (words >> shift).to(tl.int16).to(tl.float16, bitcast=True)


@triton.jit
def _halves(pairs, DTYPE: tl.constexpr):
    """The numbers in the lower and the upper half of each byte, less 8."""
    if DTYPE == tl.bfloat16:  # noqa: SIM300
        # Half as many instructions as a compiler makes of it. 0x4300 are the bits of 128, and of its mantissa bfloat16
        # has just as many as hold a code; 0x3F80 are those of 1, and 0xC308 of -136.
        low, high = tl.inline_asm_elementwise(
            """{
            .reg .b32 a, b, one, less;
            mov.b32 one, 0x3F803F80;
            mov.b32 less, 0xC308C308;
            prmt.b32 a, $4, 0, 0x4140;
            prmt.b32 b, $4, 0, 0x4342;
            lop3.b32 $0, a, 0x000F000F, 0x43004300, 0xEA;
            lop3.b32 $1, b, 0x000F000F, 0x43004300, 0xEA;
            shr.u32 a, a, 4;
            shr.u32 b, b, 4;
            lop3.b32 $2, a, 0x000F000F, 0x43004300, 0xEA;
            lop3.b32 $3, b, 0x000F000F, 0x43004300, 0xEA;
            fma.rn.bf16x2 $0, $0, one, less;
            fma.rn.bf16x2 $1, $1, one, less;
            fma.rn.bf16x2 $2, $2, one, less;
            fma.rn.bf16x2 $3, $3, one, less;
            }""",
            "=r,=r,=r,=r,r", [pairs], dtype=(tl.bfloat16, tl.bfloat16), is_pure=True, pack=4,
        )  # fmt: skip
    else:
        low, high = ((pairs & 15).to(tl.float32) - 8).to(DTYPE), ((pairs >> 4).to(tl.float32) - 8).to(DTYPE)
    return low, high


@triton.jit
def _scaled(total, x, values, scales):
    groups: tl.constexpr = scales.shape[-1]
    if groups == 1:  # then it is the sums that are scaled
        total += tl.dot(values, x, input_precision="ieee") * scales.to(tl.float32)
    else:
        apart = tl.reshape(values, values.shape[:-1] + [groups, values.shape[-1] // groups])
        scaled = tl.reshape(apart * tl.expand_dims(scales.to(values.dtype), -1), values.shape)
        total = tl.dot(scaled, x, total, input_precision="ieee")
    return total


@triton.jit
def normed_sums(
    x, squares, eps, data, scales, first, second, PARTS: tl.constexpr,
    R: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr, PAIR: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The `sums` of what waits for its norm: `squares`, `parts rows`, are its sums of squares as `add_product` leaves
    them.
    """
    part, row = tl.arange(0, triton.next_power_of_2(PARTS)), tl.arange(0, BLOCK_R)
    mask = (part < PARTS)[:, None] & (row < R)[None, :]
    found = tl.load(squares + part[:, None] * R + row[None, :], mask, other=0.0)
    one, two = sums(
        x, data, scales, first, second, R, K, WIDTH, BITS, GROUP, PAIR, BLOCK_R, BLOCK_N, BLOCK_K, SPLIT, STAGES
    )
    norm = tl.rsqrt(tl.sum(found, 0) / K + eps)[:, None] / SHRUNK
    return one * norm, two * norm


@triton.jit
def project_heads(
    x, squares, eps, data, scales, bias, plan, cosine, sine, query, keys, values, slots, PLAN,
    PARTS: tl.constexpr, PLACE: tl.constexpr, HEADER: tl.constexpr, BLOCK: tl.constexpr,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    R: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Query, key and value of each row. Query and key are turned to their position; key and value go to their slot.

    A program takes both channels of its pairs: i, and i + HEAD_DIM / 2. `cosine` and `sine` are `positions pairs`.
    """
    pairs: tl.constexpr = HEAD_DIM // 2
    head = tl.program_id(0) * BLOCK_N // pairs
    channel = tl.program_id(0) * BLOCK_N % pairs + tl.arange(0, BLOCK_N)
    first = head * HEAD_DIM + channel
    row = tl.arange(0, BLOCK_R)
    is_row = row < R
    position = tl.load(plan + row * PLAN + 1, is_row, other=0)
    place = tl.load(plan + row * PLAN + PLACE, is_row, other=0)
    block = tl.load(plan + row * PLAN + HEADER + place // BLOCK, is_row, other=0)
    angle = position[:, None] * pairs + channel[None, :]
    if BLOCK_R <= 16:  # of more rows they would take up registers meanwhile
        cos, sin = tl.load(cosine + angle), tl.load(sine + angle)
    one, two = normed_sums(
        x, squares, eps, data, scales, first, first + pairs, PARTS,
        R, K, WIDTH, BITS, GROUP, True, BLOCK_R, BLOCK_N, BLOCK_K, SPLIT, STAGES,
    )  # fmt: skip
    if bias is not None:
        one += tl.load(bias + first).to(tl.float32)[None, :]
        two += tl.load(bias + first + pairs).to(tl.float32)[None, :]
    if BLOCK_R > 16:
        cos, sin = tl.load(cosine + angle), tl.load(sine + angle)
    if head < HEADS + KV_HEADS:
        one, two = one * cos - two * sin, two * cos + one * sin
    if head < HEADS:
        goal = query + row[:, None] * (HEADS * HEAD_DIM) + first[None, :]
    else:
        slot = (head - HEADS) % KV_HEADS * slots + block * BLOCK + place % BLOCK
        goal = keys if head < HEADS + KV_HEADS else values
        goal = goal + slot.to(tl.int64)[:, None] * HEAD_DIM + channel[None, :]
    tl.store(goal, one.to(query.dtype.element_ty), is_row[:, None])
    tl.store(goal + pairs, two.to(query.dtype.element_ty), is_row[:, None])


@triton.jit
def add_product(
    x, data, scales, hidden, weights, normed, squares, N,
    R: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The product is added to `hidden`, `rows N`. Beside it, for the norm that follows: the sums times its `weights`,
    and their squares, summed for this program.
    """
    column, row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_R)
    is_row, place = (row < R)[:, None], row[:, None] * N + column[None, :]
    old, weight = tl.load(hidden + place, is_row, other=0.0), tl.load(weights + column)
    product, _ = sums(
        x, data, scales, column, column,
        R, K, WIDTH, BITS, GROUP, False, BLOCK_R, BLOCK_N, BLOCK_K, SPLIT, STAGES,
    )  # fmt: skip
    total = old.to(tl.float32) + product
    tl.store(hidden + place, total.to(hidden.dtype.element_ty), is_row)
    weighted = total * SHRUNK * weight.to(tl.float32)[None, :]
    tl.store(normed + place, weighted.to(normed.dtype.element_ty), is_row)
    tl.store(squares + tl.program_id(0) * R + row, tl.sum(total * total, 1), row < R)


@triton.jit
def gated_product(
    x, squares, eps, data, scales, out, N, PARTS: tl.constexpr,
    R: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """SwiGLU: silu of the product with the first N rows of the matrix, times the product with the next N."""
    column, row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_R)
    gate, up = normed_sums(
        x, squares, eps, data, scales, column, column + N, PARTS,
        R, K, WIDTH, BITS, GROUP, True, BLOCK_R, BLOCK_N, BLOCK_K, SPLIT, STAGES,
    )  # fmt: skip
    gated = gate * tl.sigmoid(gate) * up
    tl.store(out + row[:, None] * N + column[None, :], gated.to(out.dtype.element_ty), (row < R)[:, None])


@triton.jit
def normed_product(
    x, squares, eps, data, scales, out, N, PARTS: tl.constexpr,
    R: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Scores of the vocabulary, whose size is not always a multiple of anything."""
    column, row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_R)
    there = tl.minimum(column, N - 1)
    product, _ = normed_sums(
        x, squares, eps, data, scales, there, there, PARTS,
        R, K, WIDTH, BITS, GROUP, False, BLOCK_R, BLOCK_N, BLOCK_K, SPLIT, STAGES,
    )  # fmt: skip
    is_there = (row < R)[:, None] & (column < N)[None, :]
    tl.store(out + row[:, None] * N + column[None, :], product.to(out.dtype.element_ty), is_there)


@triton.jit
def embed_rows(
    plan, table, weights, hidden, normed, squares, N, PLAN,
    R: tl.constexpr, PARTS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A row's token, embedded, and what the first norm needs of it, as in `add_product`: all in the first part."""
    row = tl.program_id(0)
    token = tl.load(plan + row * PLAN).to(tl.int64)
    found = 0.0
    for start in range(0, N, BLOCK_N):
        column = start + tl.arange(0, BLOCK_N)
        mask = column < N
        x = tl.load(table + token * N + column, mask, other=0.0).to(tl.float32)
        weighted = x * SHRUNK * tl.load(weights + column, mask, other=0.0).to(tl.float32)
        tl.store(hidden + row * N + column, x.to(hidden.dtype.element_ty), mask)
        tl.store(normed + row * N + column, weighted.to(normed.dtype.element_ty), mask)
        found += tl.sum(x * x)
    part = tl.arange(0, triton.next_power_of_2(PARTS))
    tl.store(squares + part * R + row, tl.where(part == 0, found, 0.0), part < PARTS)
