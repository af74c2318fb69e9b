"""Matrices in the order of a GPU hold the numbers they were made of."""

from __future__ import annotations

import pytest
import torch

from llavakit.kernels.gpu.matrix import coded_matrix, plain_matrix
from llavakit.kernels.packed import CENTER, Packed, dequantize, pack


def random_packed(rows: int, cols: int, kind: str, group: int) -> Packed:
    torch.manual_seed(rows + cols)
    codes = torch.randint(1 if kind == "int8" else 0, 256 if kind == "int8" else 16, (rows, cols), dtype=torch.uint8)
    groups = -(-cols // group)
    scales = torch.rand(rows, groups).add(0.5).half()
    if kind != "int4z":
        return pack(codes, scales, kind=kind, group=group)
    scales[3:5, 0] = 0  # a group whose numbers are all the same
    return pack(codes, scales, torch.randn(rows, groups).half(), kind=kind, group=group)


@pytest.mark.parametrize("cols", [512, 256, 96, 45])
@pytest.mark.parametrize("group", [32, 128])
@pytest.mark.parametrize("kind", CENTER)
def test_the_matrix_is_the_same(kind: str, group: int, cols: int) -> None:
    packed = [random_packed(rows, cols, kind, group) for rows in (37, 5)]
    matrix, wanted = coded_matrix(*packed), torch.cat([dequantize(one) for one in packed])
    assert (matrix.rows, matrix.cols) == wanted.shape
    # A scale over 127 and an offset over a scale are rounded to float16.
    exact = kind in ("int4", "int8")
    torch.testing.assert_close(matrix.values(), wanted, atol=0 if exact else 0.01, rtol=2e-7 if exact else 1e-3)


def test_plain_ones_stand_below_one_another() -> None:
    weights = [torch.randn(3, 8), torch.randn(2, 8)]
    assert torch.equal(plain_matrix(*weights).values(), torch.cat(weights))
    assert plain_matrix(weights[0]).data is weights[0]


def test_bytes_are_those_of_codes_and_scales() -> None:
    assert coded_matrix(random_packed(16, 512, "int4", 128)).nbytes == 16 * (256 + 4 * 2)
    assert coded_matrix(random_packed(16, 512, "int8", 128)).nbytes == 16 * (512 + 4 * 2)
