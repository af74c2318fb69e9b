"""Keys and values of the tokens already computed, so that each is computed once."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from llavakit.config import LanguageConfig
from llavakit.model.layers import Mask

Bias = Float[Tensor, "batch new"]


@runtime_checkable
class Cache(Protocol):
    """What a language model asks of whoever keeps its keys and values."""

    def mask(self, num_new: int, bias: Bias | None = None) -> Mask | None:
        """Who may see whom when so many tokens follow the cached ones; None where plain causal attention does.

        `bias` is what is added to the attention to each of the new tokens, now and as long as they are cached.
        """

    def extend(
        self,
        layer: int,
        keys: Float[Tensor, "batch kv_heads new head_dim"],
        values: Float[Tensor, "batch kv_heads new head_dim"],
    ) -> tuple[Float[Tensor, "batch kv_heads all head_dim"], Float[Tensor, "batch kv_heads all head_dim"]]:
        """Put one layer's new keys and values behind the cached ones; returns all of that layer's, old and new."""

    def advance(self, num_tokens: int) -> None:
        """Count the new tokens as computed, once every layer has put theirs."""


class KVCache:
    """Room for `capacity` tokens, filled from the front: [0, length) is valid, the rest is free.

    A row of the batch is one sequence; all rows are equally long.
    """

    def __init__(
        self,
        config: LanguageConfig,
        *,
        capacity: int,
        batch: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.num_layers, batch, config.num_kv_heads, capacity, config.head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.bias: Float[Tensor, "batch capacity"] | None = None  # made when the first comes
        self.capacity = capacity
        self.length = 0

    def mask(self, num_new: int, bias: Bias | None = None) -> Mask | None:
        """Who may see whom when so many tokens follow the cached ones; None where plain causal attention does.

        `bias` is what is added to the attention to each of the new tokens, now and as long as they are cached.
        """
        if bias is None and self.bias is None:
            return continuation_mask(num_new, self.length, self.keys.device)
        if self.bias is None:
            self.bias = self.keys.new_zeros(self.keys.shape[1], self.capacity)
        end = self.length + num_new
        self.bias[:, self.length : end] = 0 if bias is None else bias
        return biased_mask(self.bias[:, :end], num_new)

    def extend(
        self,
        layer: int,
        keys: Float[Tensor, "batch kv_heads new head_dim"],
        values: Float[Tensor, "batch kv_heads new head_dim"],
    ) -> tuple[Float[Tensor, "batch kv_heads all head_dim"], Float[Tensor, "batch kv_heads all head_dim"]]:
        """Put one layer's new keys and values behind `length`; returns all of that layer's, old and new."""
        end = self.length + keys.shape[2]
        assert end <= self.capacity, f"{end} tokens do not fit in a cache of {self.capacity}"
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, num_tokens: int) -> None:
        """Count the new tokens as computed, once every layer has put theirs."""
        self.length += num_tokens

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on."""
        assert 0 <= length <= self.length
        self.length = length


def continuation_mask(num_new: int, num_cached: int, device: torch.device) -> Bool[Tensor, "new all"] | None:
    """Who may see whom when several tokens follow cached ones; the plain causal cases need no mask."""
    if num_cached == 0 or num_new == 1:
        return None
    return _causal(num_new, num_cached, device)


def biased_mask(bias: Float[Tensor, "batch all"], num_new: int) -> Mask | None:
    """The same where something is added to the attention to each token, cached and new; no bias needs no such mask."""
    num_cached = bias.shape[1] - num_new
    if not bias.any():
        return continuation_mask(num_new, num_cached, bias.device)
    return bias[:, None, None].masked_fill(~_causal(num_new, num_cached, bias.device), -torch.inf)


def _causal(num_new: int, num_cached: int, device: torch.device) -> Bool[Tensor, "new all"]:
    return torch.ones(num_new, num_cached + num_new, dtype=torch.bool, device=device).tril(num_cached)
