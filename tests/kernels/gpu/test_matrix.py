"""Matrices in the order of a GPU hold the numbers they were made of."""

from __future__ import annotations

import pytest
import torch

from llavakit.kernels.gpu.matrix import can_code, coded_matrix, plain_matrix
from llavakit.kernels.packed import Packed, dequantize, pack


def random_packed(rows: int, cols: int, kind: str, group: int, *, size: float = 1.0) -> Packed:
    torch.manual_seed(rows + cols)
    codes = torch.randint(1 if kind == "int8" else 0, 256 if kind == "int8" else 16, (rows, cols), dtype=torch.uint8)
    groups = -(-cols // group)
    scales = torch.rand(rows, groups).add(0.5).mul(size).half()
    offsets = torch.randn(rows, groups).half() if kind == "int4z" else None
    return pack(codes, scales, offsets, kind=kind, group=group)


@pytest.mark.parametrize("cols", [512, 256, 96, 45])
@pytest.mark.parametrize("group", [32, 128])
@pytest.mark.parametrize("kind", ["int4", "int8", "nf4"])
def test_the_matrix_is_the_same(kind: str, group: int, cols: int) -> None:
    packed = [random_packed(rows, cols, kind, group) for rows in (37, 5)]
    matrix, wanted = coded_matrix(*packed), torch.cat([dequantize(one) for one in packed])
    assert (matrix.rows, matrix.cols) == wanted.shape
    torch.testing.assert_close(matrix.values(), wanted, atol=0, rtol=1e-3 if kind == "nf4" else 2e-7)


def test_matrices_with_offsets_have_no_place() -> None:
    assert can_code(random_packed(16, 256, "int4", 32)) and not can_code(random_packed(16, 256, "int4z", 32))


def test_plain_ones_stand_below_one_another() -> None:
    weights = [torch.randn(3, 8), torch.randn(2, 8)]
    assert torch.equal(plain_matrix(*weights).values(), torch.cat(weights))
    assert plain_matrix(weights[0]).data is weights[0]


def test_bytes_are_those_of_codes_and_scales() -> None:
    assert coded_matrix(random_packed(16, 512, "int4", 128)).nbytes == 16 * (256 + 4 * 2)
    assert coded_matrix(random_packed(16, 512, "int8", 128)).nbytes == 16 * (512 + 4 * 2)
