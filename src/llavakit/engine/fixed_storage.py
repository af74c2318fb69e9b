"""Keys and values at addresses that never change, as a recorded graph of a GPU needs them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llavakit.config import LanguageConfig
from llavakit.engine.blocks import BLOCK


class FixedStorage:
    """Room for `num_blocks` blocks, taken at once, and one more that nobody reads: padding is written there.

    Each layer has tensors of its own, `kv_heads slots head_dim`, so that a kernel gets just those it writes into.
    """

    def __init__(
        self,
        config: LanguageConfig,
        num_blocks: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        has_bias: bool = False,
    ) -> None:
        """`has_bias`: whether anything will ever be added to the attention to a token."""
        shape = (config.num_kv_heads, (num_blocks + 1) * BLOCK, config.head_dim)
        # Zeros, because a step reads slots that nobody has written, and not even a weight of 0 hides a NaN.
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_layers)]
        self.bias = torch.zeros(shape[1], dtype=dtype, device=device) if has_bias else None
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
        if self.bias is not None:
            self.bias[new] = self.bias[old]

    def put_bias(self, new: slice | Int[Tensor, " new"], bias: Float[Tensor, " new"] | None) -> None:
        """What is added to the attention to new tokens, by their slots: nothing unless it is given."""
        assert bias is None or self.bias is not None
        if self.bias is not None:
            self.bias[new] = 0 if bias is None else bias
