"""Attention of one query a row, each over the blocks of its own sequence, read where they lie."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def attend_rows(
    query, keys, values, bias, plan, slots, scale, out, partial, arrived, PLAN,
    PLACE: tl.constexpr, HEADER: tl.constexpr, BLOCK: tl.constexpr,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_T: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """A program takes the query heads of one key head, and one part of the tokens; who comes last puts parts together.

    `partial` is room for `rows kv_heads splits` times `group * (HEAD_DIM + 2)` numbers in float32: sums, then greatest
    scores and totals. `arrived` counts, and is zero before and after.
    """
    group: tl.constexpr = HEADS // KV_HEADS
    padded: tl.constexpr = triton.next_power_of_2(group)
    row, kept, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = (tl.load(plan + row * PLAN + PLACE) + 1).to(tl.int32)
    share = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK_T) * BLOCK_T
    start, end = split * share, tl.minimum(split * share + share, length)
    blocks = plan + row * PLAN + HEADER
    head, channel = tl.arange(0, padded), tl.arange(0, PADDED_DIM)
    own = (row * HEADS + kept * group) * HEAD_DIM
    if group == 1:
        greatest, total, mixed = _one_query(
            query + own, keys, values, bias, blocks, kept * slots, scale, start, end,
            BLOCK, HEAD_DIM, PADDED_DIM, BLOCK_T,
        )  # fmt: skip
    else:
        greatest, total, mixed = _queries(
            query + own, keys, values, bias, blocks, kept * slots, scale, start, end,
            BLOCK, group, padded, HEAD_DIM, PADDED_DIM, BLOCK_T,
        )  # fmt: skip
    part, is_part = head[:, None] * HEAD_DIM + channel[None, :], (head < group)[:, None] & (channel < HEAD_DIM)[None, :]
    if SPLITS == 1:
        tl.store(out + own + part, (mixed / total[:, None]).to(out.dtype.element_ty), is_part)
    else:
        size: tl.constexpr = group * (HEAD_DIM + 2)
        pair = row * KV_HEADS + kept
        here = partial + pair * SPLITS * size
        tl.store(here + split * size + part, mixed, is_part)
        tl.store(here + split * size + group * HEAD_DIM + head, greatest, head < group)
        tl.store(here + split * size + group * (HEAD_DIM + 1) + head, total, head < group)
        tl.debug_barrier()  # all threads have written before one of them says so
        if tl.atomic_add(arrived + pair, 1, sem="acq_rel") == SPLITS - 1:
            tl.store(arrived + pair, 0)
            greatest = tl.full((padded,), -float("inf"), tl.float32)
            total = tl.zeros((padded,), tl.float32)
            mixed = tl.zeros((padded, PADDED_DIM), tl.float32)
            for other in tl.static_range(SPLITS):  # in order, so that the sums are the same whoever came last
                its = here + other * size
                its_greatest = tl.load(its + group * HEAD_DIM + head, head < group, other=0.0, cache_modifier=".cg")
                its_total = tl.load(its + group * (HEAD_DIM + 1) + head, head < group, other=1.0, cache_modifier=".cg")
                its_mixed = tl.load(its + part, is_part, other=0.0, cache_modifier=".cg")
                new = tl.maximum(greatest, its_greatest)
                shrink, weight = tl.exp(greatest - new), tl.exp(its_greatest - new)
                mixed = mixed * shrink[:, None] + its_mixed * weight[:, None]
                total = total * shrink + its_total * weight
                greatest = new
            tl.store(out + own + part, (mixed / total[:, None]).to(out.dtype.element_ty), is_part)


@triton.jit
def _one_query(
    query, keys, values, bias, blocks, base, scale, start, end,
    BLOCK: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Greatest score, total of weights and weighted sum over the tokens [start, end), for one query: `1`, `1 dim`.

    What belongs to a token stays with the threads that read its key, so that nothing moves between them.
    """
    channel = tl.arange(0, PADDED_DIM)
    q = tl.load(query + channel, channel < HEAD_DIM, other=0.0).to(tl.float32) * scale
    greatest, total, mixed = -float("inf"), 0.0, tl.zeros((PADDED_DIM,), tl.float32)
    for first in range(start, end, BLOCK_T):
        k, v, slot, is_seen = _read(keys, values, blocks, base, first, end, BLOCK, HEAD_DIM, PADDED_DIM, BLOCK_T)
        scores = tl.sum(q[None, :] * k.to(tl.float32), 1)
        if bias is not None:
            scores += tl.load(bias + slot, is_seen, other=0.0).to(tl.float32)
        scores = tl.where(is_seen, scores, -float("inf"))
        new = tl.maximum(greatest, tl.max(scores, 0))
        weights, shrink = tl.exp(scores - new), tl.exp(greatest - new)
        mixed = mixed * shrink + tl.sum(weights[:, None] * v.to(tl.float32), 0)
        total = total * shrink + tl.sum(weights, 0)
        greatest = new
    one = tl.zeros((1,), tl.float32)
    return one + greatest, one + total, mixed[None, :]


@triton.jit
def _queries(
    query, keys, values, bias, blocks, base, scale, start, end,
    BLOCK: tl.constexpr, GROUP: tl.constexpr, PADDED: tl.constexpr, HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """The same for several queries, in products on the matrix units: `group`, `group dim`."""
    head, channel = tl.arange(0, PADDED), tl.arange(0, PADDED_DIM)
    is_query = (head < GROUP)[:, None] & (channel < HEAD_DIM)[None, :]
    q = tl.load(query + head[:, None] * HEAD_DIM + channel[None, :], is_query, other=0.0)
    greatest = tl.full((PADDED,), -float("inf"), tl.float32)
    total = tl.zeros((PADDED,), tl.float32)
    mixed = tl.zeros((PADDED, PADDED_DIM), tl.float32)
    for first in range(start, end, BLOCK_T):
        k, v, slot, is_seen = _read(keys, values, blocks, base, first, end, BLOCK, HEAD_DIM, PADDED_DIM, BLOCK_T)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if bias is not None:
            scores += tl.load(bias + slot, is_seen, other=0.0).to(tl.float32)[None, :]
        scores = tl.where(is_seen[None, :], scores, -float("inf"))
        new = tl.maximum(greatest, tl.max(scores, 1))
        weights, shrink = tl.exp(scores - new[:, None]), tl.exp(greatest - new)
        mixed = tl.dot(weights.to(v.dtype), v, mixed * shrink[:, None], input_precision="ieee")
        total = total * shrink + tl.sum(weights, 1)
        greatest = new
    return greatest, total, mixed


@triton.jit
def _read(
    keys, values, blocks, base, first, end,
    BLOCK: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Keys and values of some tokens, their slots, and whether they are there.

    Hidden values are zero and not only weighted so: not even a weight of 0 hides a NaN left by a failed request.
    """
    token, channel = first + tl.arange(0, BLOCK_T), tl.arange(0, PADDED_DIM)
    is_seen = token < end
    slot = tl.load(blocks + token // BLOCK, is_seen, other=0) * BLOCK + token % BLOCK
    place = (base + slot).to(tl.int64)[:, None] * HEAD_DIM + channel[None, :]
    mask = is_seen[:, None] & (channel < HEAD_DIM)[None, :]
    return tl.load(keys + place, mask, other=0.0), tl.load(values + place, mask, other=0.0), slot, is_seen
