"""The twin multiplies what the codes say, exactly where whole numbers are, and each row by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.kernels.packed import BITS, GROUPS, dequantize, pack
from llavakit.kernels.twin import matmul, quantize_activations

KINDS = sorted(BITS)
matrices = given(
    rows=st.integers(1, 40),
    cols=st.integers(1, 300),
    kind=st.sampled_from(KINDS),
    group=st.sampled_from(GROUPS),
    seed=st.integers(0, 2**20),
)


@settings(max_examples=60, deadline=None)
@matrices
def test_products_are_those_of_the_dequantised_matrices(
    drawn: Callable, rows: int, cols: int, kind: str, group: int, seed: int
) -> None:
    packed = pack(*drawn(rows, cols, kind, group, seed), kind=kind, group=group)
    x = torch.randn(5, cols, generator=torch.Generator().manual_seed(seed))
    codes, scales = quantize_activations(x, group)
    inputs = codes.double() * scales.double().repeat_interleave(group, dim=1)[:, :cols]
    exact = inputs @ dequantize(packed).double().T
    apart = (matmul(packed, x).double() - exact).abs()
    # Only scales and the sum over groups are rounded: a few times 2^-24 of what is added up.
    assert (apart <= 2**-20 * (inputs.abs() @ dequantize(packed).double().abs().T)).all()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 300)),
    kind=st.sampled_from(["int4", "int4z", "int8"]),
    group=st.sampled_from(GROUPS),
    seed=st.integers(0, 2**20),
)
def test_whole_numbers_come_out_exactly(
    drawn: Callable, shape: tuple[int, int], kind: str, group: int, seed: int
) -> None:
    """With whole scales and offsets, and activations that are whole and reach 127, nothing is rounded at all."""
    codes, scales, offsets = drawn(*shape, kind, group, seed)
    twos = torch.full_like(scales, 2)
    packed = pack(codes, twos, None if offsets is None else twos + 1, kind=kind, group=group)
    x = torch.randint(-127, 128, (4, shape[1]), generator=torch.Generator().manual_seed(seed)).float()
    x[:, ::group] = 127
    weights = 2 * codes.long() + {"int4": -16, "int4z": 3, "int8": -256}[kind]
    assert torch.equal(matmul(packed, x), (x.long() @ weights.T).float())


@settings(max_examples=40, deadline=None)
@matrices
def test_a_row_does_not_depend_on_the_others(
    drawn: Callable, rows: int, cols: int, kind: str, group: int, seed: int
) -> None:
    packed = pack(*drawn(rows, cols, kind, group, seed), kind=kind, group=group)
    x = torch.randn(37, cols, generator=torch.Generator().manual_seed(seed))
    together = matmul(packed, x)
    for few in (1, 2, 8):
        assert torch.equal(matmul(packed, x[:few]), together[:few])
    assert torch.equal(matmul(packed, x[30:]), together[30:])


@settings(max_examples=60, deadline=None)
@given(cols=st.integers(1, 300), group=st.sampled_from(GROUPS), seed=st.integers(0, 2**20))
def test_activations(cols: int, group: int, seed: int) -> None:
    x = torch.randn(3, cols, generator=torch.Generator().manual_seed(seed)) * 5
    codes, scales = quantize_activations(x, group)
    spread = scales.repeat_interleave(group, dim=1)[:, :cols]
    assert codes.shape == x.shape and scales.shape == (3, -(-cols // group))
    assert ((codes * spread - x).abs() <= spread * 0.50001).all()
    for start in range(0, cols, group):
        assert (codes[:, start : start + group].int().abs().amax(-1) == 127).all()


@pytest.mark.parametrize("value", [0.0, 1e-40])
def test_nothing_stays_nothing(value: float) -> None:
    codes, scales = quantize_activations(torch.full((2, 40), value), 32)
    assert codes.eq(0).all() and scales.isfinite().all()


def test_halves_are_rounded_to_even() -> None:
    codes, _ = quantize_activations(torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]]), 32)
    assert codes.tolist() == [[127, 0, 2, 2, 0, -2]]


def test_what_is_no_number_stays_none() -> None:
    packed = pack(torch.full((16, 64), 9, dtype=torch.uint8), torch.ones(16, 2).half(), kind="int4", group=32)
    x = torch.ones(3, 64)
    x[1, 5] = float("nan")
    out = matmul(packed, x)
    assert out[1].isnan().all() and out[[0, 2]].isfinite().all()
