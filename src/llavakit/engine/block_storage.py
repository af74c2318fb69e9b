"""Keys and values in blocks, as the torch path keeps them: one line of slots, 16 to a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llavakit.config import LanguageConfig
from llavakit.engine.blocks import BLOCK, num_blocks_for
from llavakit.model.cache import Bias, biased_mask, continuation_mask
from llavakit.model.layers import Mask

STEP = 16  # blocks; room is added in whole steps

Pair = tuple[Float[Tensor, "batch kv_heads all head_dim"], Float[Tensor, "batch kv_heads all head_dim"]]


class Storage(Protocol):
    """Layers of keys and values, `kv_heads slots head_dim` each, with room for as many blocks as are reserved."""

    keys: Tensor | list[Tensor]
    values: Tensor | list[Tensor]
    bias: Float[Tensor, " slots"] | None
    device: torch.device

    def reserve(self, num_blocks: int) -> None:
        """Make sure of the blocks [0, num_blocks)."""

    def put_bias(self, new: slice | Int[Tensor, " new"], bias: Float[Tensor, " new"] | None) -> None:
        """What is added to the attention to new tokens, by their slots: nothing unless it is given."""


class BlockStorage:
    """Memory that grows with the highest block in use: a long context costs memory only when it is filled."""

    def __init__(self, config: LanguageConfig, *, dtype: torch.dtype, device: torch.device) -> None:
        self._config, self._dtype, self.device = config, dtype, device
        self.keys, self.values = self._room_for(0), self._room_for(0)
        self.bias: Float[Tensor, " slots"] | None = None  # of the attention to each; made when the first comes

    @property
    def num_blocks(self) -> int:
        return self.keys.shape[2] // BLOCK

    def reserve(self, num_blocks: int) -> None:
        """Make room for the blocks [0, num_blocks): by half as much again as there is, in whole steps."""
        if num_blocks <= self.num_blocks:
            return
        wanted = -(-max(num_blocks, self.num_blocks * 3 // 2) // STEP) * STEP
        for name in ("keys", "values"):
            larger, old = self._room_for(wanted), getattr(self, name)
            larger[:, :, : old.shape[2]] = old
            setattr(self, name, larger)
        if self.bias is not None:
            self.bias = torch.nn.functional.pad(self.bias, (0, wanted * BLOCK - len(self.bias)))

    def copy(self, source: int, target: int) -> None:
        """Copy a whole block."""
        self.reserve(max(source, target) + 1)
        for tensor in (self.keys, self.values):
            start = source * BLOCK
            tensor[:, :, target * BLOCK : (target + 1) * BLOCK] = tensor[:, :, start : start + BLOCK].clone()
        if self.bias is not None:
            self.bias.view(-1, BLOCK)[target] = self.bias.view(-1, BLOCK)[source]

    def put_bias(self, new: slice | Int[Tensor, " new"], bias: Float[Tensor, " new"] | None) -> None:
        """What is added to the attention to new tokens, by their slots: nothing unless it is given."""
        if self.bias is None and bias is not None:
            self.bias = torch.zeros(self.num_blocks * BLOCK, dtype=self._dtype, device=self.device)
        if self.bias is not None:
            self.bias[new] = 0 if bias is None else bias

    def _room_for(self, num_blocks: int) -> Float[Tensor, "layers kv_heads slots head_dim"]:
        config = self._config
        shape = (config.num_layers, config.num_kv_heads, num_blocks * BLOCK, config.head_dim)
        # Zeros, because a batch reads slots that nobody has written, and not even a weight of 0 hides a NaN.
        return torch.zeros(shape, dtype=self._dtype, device=self.device)


class OneSequence:
    """The cache of one sequence, of which [0, start) is computed: a plain slice where its blocks stand in one row."""

    def __init__(self, storage: Storage, blocks: Sequence[int], start: int, num_new: int) -> None:
        end = start + num_new
        blocks = blocks[: num_blocks_for(end)]
        storage.reserve(max(blocks) + 1)
        self._storage, self._start = storage, start
        self._old_and_new: slice | Tensor
        self._new: slice | Tensor
        first = blocks[0]
        if list(blocks) == list(range(first, first + len(blocks))):
            self._old_and_new = slice(first * BLOCK, first * BLOCK + end)
            self._new = slice(first * BLOCK + start, first * BLOCK + end)
        else:
            self._old_and_new = slots(blocks, end, storage.device)
            self._new = self._old_and_new[start:]

    def mask(self, num_new: int, bias: Bias | None = None) -> Mask | None:
        self._storage.put_bias(self._new, None if bias is None else bias[0])
        if self._storage.bias is None:
            return continuation_mask(num_new, self._start, self._storage.device)
        return biased_mask(self._storage.bias[self._old_and_new][None], num_new)

    def extend(
        self,
        layer: int,
        keys: Float[Tensor, "1 kv_heads new head_dim"],
        values: Float[Tensor, "1 kv_heads new head_dim"],
    ) -> Pair:
        all_keys, all_values = self._storage.keys[layer], self._storage.values[layer]
        all_keys[:, self._new] = keys[0]
        all_values[:, self._new] = values[0]
        return all_keys[:, self._old_and_new][None], all_values[:, self._old_and_new][None]

    def advance(self, num_tokens: int) -> None:
        """Nothing is counted here: the scheduler does."""


class ManySequences:
    """The cache of a batch of sequences, padded on the right: each row has its own past and number of new tokens."""

    def __init__(
        self, storage: BlockStorage, tables: Sequence[Sequence[int]], starts: Sequence[int], lengths: Sequence[int]
    ) -> None:
        ends = [start + length for start, length in zip(starts, lengths, strict=True)]
        tables = [table[: num_blocks_for(end)] for table, end in zip(tables, ends, strict=True)]
        storage.reserve(max(map(max, tables)) + 1)
        self._storage, device = storage, storage.device
        self._starts = torch.tensor(starts, device=device)
        self._slots = torch.zeros(len(tables), max(ends), dtype=torch.long)
        for row, (table, end) in enumerate(zip(tables, ends, strict=True)):
            self._slots[row, :end] = slots(table, end, torch.device("cpu"))
            self._slots[row, end:] = self._slots[row, 0]  # padding of its own: not even a weight of 0 hides a NaN
        # Where each real new token comes from in the batch, and where it goes to.
        self._rows = torch.tensor([row for row, n in enumerate(lengths) for _ in range(n)], device=device)
        self._columns = torch.tensor([column for n in lengths for column in range(n)], device=device)
        self._slots = self._slots.to(device)
        self._new = self._slots[self._rows, self._starts[self._rows] + self._columns]

    def mask(self, num_new: int, bias: Bias | None = None) -> Mask:
        """Token j of a row sees what was computed before, the new ones up to itself, and no padding but its own."""
        device = self._storage.device
        last_seen = self._starts[:, None] + torch.arange(num_new, device=device)
        seen = (torch.arange(self._slots.shape[1], device=device) <= last_seen[..., None])[:, None]
        self._storage.put_bias(self._new, None if bias is None else bias[self._rows, self._columns])
        if self._storage.bias is None:
            return seen
        return self._storage.bias[self._slots][:, None, None].masked_fill(~seen, -torch.inf)

    def extend(
        self,
        layer: int,
        keys: Float[Tensor, "batch kv_heads new head_dim"],
        values: Float[Tensor, "batch kv_heads new head_dim"],
    ) -> Pair:
        all_keys, all_values = self._storage.keys[layer], self._storage.values[layer]
        all_keys[:, self._new] = keys[self._rows, :, self._columns].transpose(0, 1)
        all_values[:, self._new] = values[self._rows, :, self._columns].transpose(0, 1)
        return all_keys[:, self._slots].transpose(0, 1), all_values[:, self._slots].transpose(0, 1)

    def advance(self, num_tokens: int) -> None:
        """Nothing is counted here: the scheduler does."""


def slots(blocks: Sequence[int], length: int, device: torch.device) -> Int[Tensor, " length"]:
    """Where each of the first `length` tokens of a block table stands."""
    table = torch.tensor(blocks, device=device)
    return (table[:, None] * BLOCK + torch.arange(BLOCK, device=device)).flatten()[:length]
