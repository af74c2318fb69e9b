"""The pool of blocks: who goes first, and where."""

from __future__ import annotations

import pytest

from llavakit.engine.blocks import BlockPool, num_blocks_for


def test_those_not_used_for_longest_go_first_and_their_contents_are_forgotten() -> None:
    forgotten: list[int] = []
    pool = BlockPool(4, forgotten.append)
    blocks = pool.take(4, after=None)
    for block in (2, 0, 3, 1):
        pool.release(block, keep=True)
    pool.share(2)
    pool.release(2, keep=True)
    assert sorted(blocks) == [0, 1, 2, 3] and pool.num_available == 4
    assert pool.take(1, after=None) == [0] and forgotten == [0]
    pool.take(2, after=None)
    assert forgotten == [0, 3, 1] and pool.num_available == 1
    pool.check([1, 1, 0, 1])


def test_blocks_come_in_one_row_where_they_can() -> None:
    pool = BlockPool(10, lambda _: None)
    first, second = pool.take(3, after=None), pool.take(2, after=None)
    assert (first, second) == ([0, 1, 2], [3, 4])
    for block in first:
        pool.release(block, keep=False)
    assert pool.take(4, after=None) == [5, 6, 7, 8], "the first row that is long enough"
    assert pool.take(1, after=0) == [1], "behind the one it goes on from"
    assert pool.take(3, after=None) == [0, 2, 9], "in pieces if it must be"


def test_a_block_is_shared_until_the_last_one_leaves() -> None:
    pool = BlockPool(1, lambda _: None)
    [block] = pool.take(1, after=None)
    pool.share(block)
    pool.release(block, keep=False)
    assert pool.num_available == 0
    pool.release(block, keep=False)
    assert pool.num_available == 1
    with pytest.raises(AssertionError):
        pool.release(block, keep=False)


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2)])
def test_tokens_are_counted_in_whole_blocks(tokens: int, blocks: int) -> None:
    assert num_blocks_for(tokens) == blocks
