"""Keys and values at addresses that never change, as a recorded graph of a GPU needs them."""

from __future__ import annotations

import torch

from llavakit.config import LanguageConfig
from llavakit.engine.blocks import BLOCK


class FixedStorage:
    """Room for `num_blocks` blocks, taken at once, and one more that nobody reads: padding is written there.

    Each layer has tensors of its own, `kv_heads slots head_dim`, so that compiled code may write into them in place.
    """

    def __init__(self, config: LanguageConfig, num_blocks: int, *, dtype: torch.dtype, device: torch.device) -> None:
        shape = (config.num_kv_heads, (num_blocks + 1) * BLOCK, config.head_dim)
        # Zeros, because a step reads slots that nobody has written, and not even a weight of 0 hides a NaN.
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_layers)]
        self.num_blocks, self.device = num_blocks, device

    @property
    def padding_block(self) -> int:
        return self.num_blocks

    def reserve(self, num_blocks: int) -> None:
        """Nothing grows here; the blocks have to be there."""
        assert num_blocks <= self.num_blocks, f"block {num_blocks - 1} of {self.num_blocks}"

    def copy(self, source: int, target: int) -> None:
        """Copy a whole block."""
        self.reserve(max(source, target) + 1)
        old, new = (slice(block * BLOCK, (block + 1) * BLOCK) for block in (source, target))
        for tensor in [*self.keys, *self.values]:
            tensor[:, new] = tensor[:, old]
