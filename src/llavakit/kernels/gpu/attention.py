"""Attention of one query a row, each over the blocks of its own sequence, read where they lie."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def attend_rows(
    query, keys, values, bias, plan, slots, scale, out, partial, arrived,
    PLAN: tl.constexpr, HEADER: tl.constexpr, BLOCK: tl.constexpr,
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
    length = tl.load(plan + row * PLAN + 2) + 1
    share = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK_T) * BLOCK_T
    start, end = split * share, tl.minimum(split * share + share, length)

    head, channel = tl.arange(0, padded), tl.arange(0, PADDED_DIM)
    is_query = (head < group)[:, None] & (channel < HEAD_DIM)[None, :]
    own = (row * HEADS + kept * group + head)[:, None] * HEAD_DIM + channel[None, :]
    q = tl.load(query + own, is_query, other=0.0)
    greatest = tl.full((padded,), -float("inf"), tl.float32)
    total = tl.zeros((padded,), tl.float32)
    mixed = tl.zeros((padded, PADDED_DIM), tl.float32)
    for first in range(start, end, BLOCK_T):
        token = first + tl.arange(0, BLOCK_T)
        is_seen = token < end
        slot = tl.load(plan + row * PLAN + HEADER + token // BLOCK, is_seen, other=0) * BLOCK + token % BLOCK
        place = (kept * slots + slot).to(tl.int64)[:, None] * HEAD_DIM + channel[None, :]
        mask = is_seen[:, None] & (channel < HEAD_DIM)[None, :]
        # Hidden values are zero and not only weighted so: not even a weight of 0 hides a NaN left by a failed request.
        k, v = tl.load(keys + place, mask, other=0.0), tl.load(values + place, mask, other=0.0)
        if group == 1:  # one query is a sum; of several a matrix unit makes a product
            scores = tl.sum(q.to(tl.float32) * k.to(tl.float32), 1)[None, :] * scale
        else:
            scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if bias is not None:
            scores += tl.load(bias + slot, is_seen, other=0.0).to(tl.float32)[None, :]
        scores = tl.where(is_seen[None, :], scores, -float("inf"))
        new = tl.maximum(greatest, tl.max(scores, 1))
        weights, shrink = tl.exp(scores - new[:, None]), tl.exp(greatest - new)
        mixed = mixed * shrink[:, None]
        if group == 1:
            mixed += tl.sum(tl.trans(weights) * v.to(tl.float32), 0)[None, :]
        else:
            mixed = tl.dot(weights.to(v.dtype), v, mixed, input_precision="ieee")
        total = total * shrink + tl.sum(weights, 1)
        greatest = new

    if SPLITS == 1:
        tl.store(out + own, (mixed / total[:, None]).to(out.dtype.element_ty), is_query)
    else:
        size: tl.constexpr = group * (HEAD_DIM + 2)
        here = partial + (row * KV_HEADS + kept) * SPLITS * size
        part = head[:, None] * HEAD_DIM + channel[None, :]
        tl.store(here + split * size + part, mixed, is_query)
        tl.store(here + split * size + group * HEAD_DIM + head, greatest, head < group)
        tl.store(here + split * size + group * (HEAD_DIM + 1) + head, total, head < group)
        tl.debug_barrier()  # all threads have written before one of them says so
        if tl.atomic_add(arrived + row * KV_HEADS + kept, 1, sem="acq_rel") == SPLITS - 1:
            tl.store(arrived + row * KV_HEADS + kept, 0)
            greatest = tl.full((padded,), -float("inf"), tl.float32)
            total = tl.zeros((padded,), tl.float32)
            mixed = tl.zeros((padded, PADDED_DIM), tl.float32)
            for other in tl.static_range(SPLITS):  # in order, so that the sums are the same whoever came last
                its = here + other * size
                its_greatest = tl.load(its + group * HEAD_DIM + head, head < group, other=0.0, cache_modifier=".cg")
                its_total = tl.load(its + group * (HEAD_DIM + 1) + head, head < group, other=1.0, cache_modifier=".cg")
                its_mixed = tl.load(its + part, is_query, other=0.0, cache_modifier=".cg")
                new = tl.maximum(greatest, its_greatest)
                shrink, weight = tl.exp(greatest - new), tl.exp(its_greatest - new)
                mixed = mixed * shrink[:, None] + its_mixed * weight[:, None]
                total = total * shrink + its_total * weight
                greatest = new
            tl.store(out + own, (mixed / total[:, None]).to(out.dtype.element_ty), is_query)
