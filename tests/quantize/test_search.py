"""The search never does worse than rounding to the largest, and what it knows of the inputs makes products better."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llavakit.kernels.packed import dequantize, pack
from llavakit.quantize.moments import Moments
from llavakit.quantize.schemes import Grid
from llavakit.quantize.search import product_error, quantize_matrix

GRIDS = [Grid("int4", 32), Grid("int4", 128), Grid("nf4", 32), Grid("int8", 32)]


def q4_0(weight: Tensor) -> Tensor:
    """llama.cpp's rule, dequantised: the largest of 32 weights, sign and all, becomes -8."""
    groups = weight.unflatten(1, (-1, 32))
    scale = groups.gather(-1, groups.abs().argmax(-1, keepdim=True)) / -8
    codes = (groups / scale + 8.5).trunc().clamp(0, 15)
    return dequantize(pack(codes.flatten(1).to(torch.uint8), scale.squeeze(-1).half(), kind="int4", group=32))


def correlated(num: int, cols: int, seed: int) -> Tensor:
    """Inputs that go together, some much larger than others, as activations are."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(cols // 4, cols, generator=generator)
    sizes = torch.randn(cols, generator=generator).exp()
    together = torch.randn(num, cols // 4, generator=generator) @ mix
    return (together + torch.randn(num, cols, generator=generator)) * sizes


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 40),
    cols=st.integers(1, 5).map(lambda n: 32 * n),
    size=st.sampled_from([1e-3, 0.02, 1.0, 300.0]),
    heavy=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_never_worse_than_the_plain_rule(rows: int, cols: int, size: float, heavy: bool, seed: int) -> None:
    weight = torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed)) * size
    weight = weight**3 / size**2 if heavy else weight
    ours = (dequantize(quantize_matrix(weight, Grid("int4", 32))) - weight).square().sum()
    assert ours <= (q4_0(weight) - weight).square().sum() * 1.001


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_eight_bits_are_finer_than_four(grid: Grid) -> None:
    weight = torch.randn(48, 200, generator=torch.Generator().manual_seed(0))
    error = product_error(weight, quantize_matrix(weight, grid))
    assert error < (0.006 if grid.kind == "int8" else 0.13)


@pytest.mark.parametrize("grid", GRIDS[:3], ids=str)
def test_products_are_better_for_knowing_the_inputs(grid: Grid) -> None:
    weight = torch.randn(64, 320, generator=torch.Generator().manual_seed(0))
    moments, x = Moments(320), correlated(2000, 320, seed=1)
    moments.add(correlated(4000, 320, seed=1))
    exact = x @ weight.T
    blind, knowing = (
        ((x @ dequantize(packed).T - exact).norm() / exact.norm()).item()
        for packed in (quantize_matrix(weight, grid), quantize_matrix(weight, grid, moments))
    )
    assert knowing < 0.8 * blind


def test_the_error_told_is_that_of_the_products() -> None:
    weight, x = torch.randn(40, 300, generator=torch.Generator().manual_seed(0)), correlated(500, 300, seed=2)
    x[:, 256:] = 0  # blocks are taken by themselves, so here there is but one
    moments = Moments(300)
    moments.add(x[:200])
    moments.add(x[200:])
    packed = quantize_matrix(weight, Grid("int4", 32), moments)
    exact = (x @ weight.T).double()
    told = product_error(weight, packed, moments)
    assert told == pytest.approx(((x @ dequantize(packed).T - exact).norm() / exact.norm()).item(), rel=1e-3)
    assert product_error(torch.zeros(16, 32), quantize_matrix(torch.zeros(16, 32), Grid("int4", 32))) == 0


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_zeros_stay_zeros(grid: Grid) -> None:
    weight = torch.randn(20, 160, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    weight[:, :128] = 0
    back = dequantize(quantize_matrix(weight, grid))
    assert back[3].eq(0).all() and back[:, :128].eq(0).all() and back[:, 128:].ne(0).any()


def test_inputs_that_were_never_seen_change_nothing() -> None:
    weight = torch.randn(20, 160, generator=torch.Generator().manual_seed(0))
    plain = quantize_matrix(weight, Grid("int4", 32))
    moments = Moments(160)
    moments.add(torch.zeros(3, 160))
    assert torch.equal(quantize_matrix(weight, Grid("int4", 32), moments).data, plain.data)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    weight = torch.ones(20, 64)
    weight[17, 33] = value
    with pytest.raises(ValueError, match="infinite or none at all"):
        quantize_matrix(weight, Grid("int4", 32))


def test_what_no_scale_reaches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weights up to 1e\+09, too large for a scale in float16"):
        quantize_matrix(torch.full((16, 64), 1e9), Grid("int8", 32))
