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


@pytest.mark.parametrize("wants_gradients", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_logarithm_of_a_number_is_as_good_as_that_many_equal_keys(kv_heads: int, wants_gradients: bool) -> None:
    query, key, value = (torch.randn(2, heads, size, 8) for heads, size in ((4, 3), (kv_heads, 5), (kv_heads, 5)))
    counts = torch.tensor([1, 4, 1, 2, 7])
    many = [tensor.repeat_interleave(counts, dim=2) for tensor in (key, value)]
    query.requires_grad_(wants_gradients)
    mask = counts.log().expand(2, 1, 3, 5)
    torch.testing.assert_close(attend(query, key, value, mask=mask), attend(query, *many))


def _both(attention, *tensors):
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    mixed = attention(*tensors)
    return mixed.detach(), torch.autograd.grad((mixed**2).sum(), tensors)
