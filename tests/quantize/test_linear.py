"""The layers are those they stand for, over the values of their codes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llavakit.kernels.packed import dequantize
from llavakit.quantize.linear import QuantizedEmbedding, QuantizedLinear, TiedHead
from llavakit.quantize.schemes import Grid
from llavakit.quantize.search import quantize_matrix

GRID = Grid("int4", 32)


@pytest.mark.parametrize("shape", [(100,), (3, 100), (2, 3, 100)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(40, 100, generator=generator), torch.randn(40, generator=generator)
    layer = QuantizedLinear(40, 100, GRID, bias=bias.to(dtype))
    layer.packed = quantize_matrix(weight, GRID).data
    x = torch.randn(shape, generator=generator).to(dtype)
    expected = F.linear(x.float(), dequantize(layer.matrix), bias)
    out = layer(x)
    assert out.dtype == dtype and out.shape == (*shape[:-1], 40)
    assert (out - expected).norm() < 0.01 * expected.norm()  # inputs are rounded to eight bits


def test_embedding_and_a_head_tied_to_it() -> None:
    weight = torch.randn(50, 70, generator=torch.Generator().manual_seed(0))
    grid = Grid("int8", 32)
    table = QuantizedEmbedding(50, 70, grid)
    table.packed = quantize_matrix(weight, grid).data
    ids = torch.tensor([[3, 49], [0, 3]])
    assert torch.equal(table(ids), dequantize(table.matrix)[ids])
    head = TiedHead(table)
    assert not head.state_dict() and not list(head.children())
    torch.testing.assert_close(head(weight[:3]), weight[:3] @ weight.T, atol=0.5, rtol=0.02)


def test_what_it_is_can_be_read() -> None:
    assert "100x7, int4 in groups of 32" in str(nn.Sequential(QuantizedLinear(100, 7, GRID)))
