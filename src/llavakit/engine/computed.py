"""What the model has computed so far, with memory that grows as it is needed."""

from __future__ import annotations

import torch

from llavakit.config import LanguageConfig
from llavakit.engine.prefix_cache import Key
from llavakit.model import KVCache

STEP = 256  # tokens; room is added in whole steps


class Computed:
    """Keys and values of one sequence, and for each position what stands there.

    Room is at first none, then grows by at least half, in whole steps, up to the context: a long context costs
    memory only when a conversation fills it.
    """

    def __init__(self, config: LanguageConfig, *, dtype: torch.dtype, device: torch.device) -> None:
        self._config, self._dtype, self._device = config, dtype, device
        self.cache = self._room_for(0)
        self._keys: list[Key] = []

    @property
    def keys(self) -> list[Key]:
        """One for each computed token. A step that was broken off left no trace: its tokens do not count."""
        return self._keys[: self.cache.length]

    def rewind(self, length: int) -> None:
        """Forget all tokens from `length` on."""
        self.cache.truncate(length)

    def expect(self, keys: list[Key]) -> None:
        """Make room for the next tokens and note what they are; the model then writes them into `cache`."""
        self._keys = self.keys + keys
        if len(self._keys) > self.cache.capacity:
            self._grow(len(self._keys))

    def _grow(self, num_tokens: int) -> None:
        assert num_tokens <= self._config.max_positions
        wanted = max(num_tokens, self.cache.capacity * 3 // 2)
        larger = self._room_for(min(-(-wanted // STEP) * STEP, self._config.max_positions))
        length = self.cache.length
        larger.keys[..., :length, :] = self.cache.keys[..., :length, :]
        larger.values[..., :length, :] = self.cache.values[..., :length, :]
        larger.advance(length)
        self.cache = larger

    def _room_for(self, capacity: int) -> KVCache:
        return KVCache(self._config, capacity=capacity, dtype=self._dtype, device=self._device)
