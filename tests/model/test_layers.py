"""The written-out attention against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from llavakit.model.layers import attend


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(
    ("seq", "total", "is_causal", "masked"),
    [(7, 7, False, False), (7, 7, True, False), (1, 1, True, False), (7, 7, False, True), (3, 8, False, True)],
)
def test_attention_equals_torch(kv_heads: int, seq: int, total: int, is_causal: bool, masked: bool) -> None:
    """Values and gradients, with and without gradients wanted; the mask is that of tokens behind cached ones."""
    query, key, value = (
        torch.randn(2, heads, size, 8) for heads, size in ((4, seq), (kv_heads, total), (kv_heads, total))
    )
    mask = torch.ones(seq, total, dtype=torch.bool).tril(total - seq) if masked else None
    theirs, their_gradients = _both(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal, enable_gqa=True),
        query,
        key,
        value,
    )
    ours, gradients = _both(lambda q, k, v: attend(q, k, v, mask=mask, is_causal=is_causal), query, key, value)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradients, their_gradients)
    torch.testing.assert_close(attend(query, key, value, mask=mask, is_causal=is_causal), theirs)


def _both(attention, *tensors):
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    mixed = attention(*tensors)
    return mixed.detach(), torch.autograd.grad((mixed**2).sum(), tensors)
