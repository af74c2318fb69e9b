"""What stands in which block, so that a new prompt finds what of it was computed before: integers and digests."""

# kept     [bos USER: [picture a] wh][at is it? ASSISTANT: a c][at
# wanted   [bos USER: [picture a] wh][at is it? ASSISTANT: a c][at </s> USER: which colour?][ASSISTANT:
#          [0 ---------------------- reusable ------------------- )[-------- still to be computed ---------)

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llavakit.engine.blocks import BLOCK

Key = int | bytes
"""What stands at one position: a token id, or the digest of the picture that a placeholder belongs to."""


def prefix_keys(tokens: Sequence[int], spans: Sequence[tuple[int, int]], digests: Sequence[bytes]) -> list[Key]:
    """The key of each position; `spans` are the half-open image spans, one digest each."""
    keys: list[Key] = list(tokens)
    for (start, end), digest in zip(spans, digests, strict=True):
        keys[start:end] = [digest] * (end - start)
    return keys


def root(tenant: str) -> bytes:
    """Where a tenant's chains begin: nobody can find out what another has asked."""
    return hashlib.blake2b(tenant.encode(), digest_size=16, person=b"tenant").digest()


def chain(parent: bytes, keys: Sequence[Key]) -> bytes:
    """The name of a full block: it says what stands in it and in all blocks before it."""
    digest = hashlib.blake2b(parent, digest_size=16)
    for key in keys:
        digest.update(b"t" + key.to_bytes(8, "little") if isinstance(key, int) else b"p" + key)
    return digest.digest()


class Match(NamedTuple):
    """`blocks` are equal throughout; of `partial`, if any, the first `num_partial` tokens."""

    blocks: list[int]
    partial: int | None
    num_partial: int


class PrefixCache:
    """Blocks by what stands in them and in front of them.

    A full block can be shared as it is. Of one that is equal only at its beginning, or not full, the beginning can be
    used: by copying it, or by going on in it where nobody else uses it.
    """

    def __init__(self) -> None:
        self._full: dict[bytes, int] = {}
        self._children: dict[bytes, dict[int, list[Key]]] = {}
        self._parents: dict[int, bytes] = {}

    def __contains__(self, block: int) -> bool:
        return block in self._parents

    def __iter__(self) -> Iterator[int]:
        return iter(self._parents)

    def put(self, block: int, parent: bytes, keys: list[Key]) -> None:
        """Remember what stands in a block, unless another block has it already."""
        children = self._children.get(parent, {})
        if any(known[: len(keys)] == keys for known in children.values()):
            return
        self._children.setdefault(parent, children)[block] = keys
        self._parents[block] = parent
        if len(keys) == BLOCK:
            self._full[chain(parent, keys)] = block

    def forget(self, block: int) -> None:
        """Its memory goes to somebody else."""
        parent = self._parents.pop(block)
        keys = self._children[parent].pop(block)
        if not self._children[parent]:
            del self._children[parent]
        if len(keys) == BLOCK:
            del self._full[chain(parent, keys)]

    def clear(self) -> None:
        """Nothing is remembered any more."""
        self._full.clear()
        self._children.clear()
        self._parents.clear()

    def is_full(self, block: int) -> bool:
        return len(self._children[self._parents[block]][block]) == BLOCK

    def match(self, keys: Sequence[Key], names: Sequence[bytes]) -> Match:
        """The longest part of a prompt that is known; `names` are its root and then that of each full block.

        At least the last token is left to compute, since the first score is read from it.
        """
        limit, blocks = len(keys) - 1, list[int]()
        for name in names[1 : limit // BLOCK + 1]:
            if name not in self._full:
                break
            blocks.append(self._full[name])
        rest = list(keys[len(blocks) * BLOCK : min(limit, (len(blocks) + 1) * BLOCK)])
        partial, num_partial = None, 0
        for block, known in self._children.get(names[len(blocks)], {}).items():
            if (common := _num_common(known, rest)) > num_partial:
                partial, num_partial = block, common
        return Match(blocks, partial, num_partial)


def _num_common(one: Sequence[Key], other: Sequence[Key]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
