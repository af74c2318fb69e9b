"""Who uses which block of memory: counts over integers, no tensors. A block has room for 16 tokens."""

# Every block is in one of three states:
#   free    nothing worth keeping in it
#   used    in the tables of `count` sequences
#   idle    in no table, but its tokens may be wanted again: kept until room is needed, the longest unused goes first

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

BLOCK = 16  # tokens


def num_blocks_for(num_tokens: int) -> int:
    return -(-num_tokens // BLOCK)


class BlockPool:
    """`forget` is told of every idle block that is given to somebody else."""

    def __init__(self, num_blocks: int, forget: Callable[[int], None]) -> None:
        self.num_blocks = num_blocks
        self._forget = forget
        self._free = set(range(num_blocks))
        self._counts = [0] * num_blocks
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def num_available(self) -> int:
        """How many blocks `take` could give."""
        return len(self._free) + len(self._idle)

    def count(self, block: int) -> int:
        return self._counts[block]

    def take(self, number: int, *, after: int | None) -> list[int]:
        """So many blocks, used once each; behind block `after` or at least in one row, where that can be.

        In one row a sequence can be read without gathering it.
        """
        assert number <= self.num_available
        while len(self._free) < number:
            block, _ = self._idle.popitem(last=False)
            self._forget(block)
            self._free.add(block)
        blocks = self._choose(number, after)
        self._free.difference_update(blocks)
        for block in blocks:
            self._counts[block] = 1
        return blocks

    def share(self, block: int) -> None:
        """One more sequence uses a block that is used or idle."""
        assert block not in self._free
        self._idle.pop(block, None)
        self._counts[block] += 1

    def release(self, block: int, *, keep: bool) -> None:
        """One sequence less. Nobody's block becomes idle where its tokens are worth keeping, otherwise free."""
        assert self._counts[block] > 0
        self._counts[block] -= 1
        if self._counts[block] == 0:
            if keep:
                self._idle[block] = None
            else:
                self._free.add(block)

    def recount(self, counts: Sequence[int]) -> None:
        """From now on every block is used as often as `counts` says, and free where it is not used."""
        self._counts = list(counts)
        self._idle.clear()
        self._free = {block for block, count in enumerate(counts) if not count}

    def check(self, expected: list[int]) -> None:
        """Assert that every block is in exactly one state, and used as often as `expected` says."""
        assert self._counts == expected, (self._counts, expected)
        used = {block for block, count in enumerate(self._counts) if count}
        assert not (self._free & used or self._idle.keys() & used or self._free & self._idle.keys())
        assert len(self._free) + len(self._idle) + len(used) == self.num_blocks

    def is_free(self, block: int) -> bool:
        return block in self._free

    def _choose(self, number: int, after: int | None) -> list[int]:
        if after is not None and all(block in self._free for block in range(after + 1, after + 1 + number)):
            return list(range(after + 1, after + 1 + number))
        run: list[int] = []
        for block in sorted(self._free):
            run = [*run, block] if run and run[-1] + 1 == block else [block]
            if len(run) >= number:
                return run[:number]
        return sorted(self._free)[:number]
