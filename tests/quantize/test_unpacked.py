"""Matrices rewritten for accelerators are the same matrices, and torch's own operator agrees with them."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from llavakit.checkpoint.load import load
from llavakit.kernels.packed import CENTER, Packed, dequantize, pack
from llavakit.quantize.apply import quantize_model
from llavakit.quantize.linear import PackedMatrix, TiedHead
from llavakit.quantize.schemes import SCHEMES
from llavakit.quantize.unpacked import MOST_TILED_ROWS, TiledLinear, UnpackedLinear, can_tile, unpack_matrices


def random_packed(rows: int, cols: int, kind: str, group: int) -> Packed:
    torch.manual_seed(rows + cols)
    codes = torch.randint(1 if kind == "int8" else 0, 256 if kind == "int8" else 16, (rows, cols), dtype=torch.uint8)
    groups = -(-cols // group)
    scales = torch.rand(rows, groups).add(0.5).half()
    offsets = torch.randn(rows, groups).half() if kind == "int4z" else None
    return pack(codes, scales, offsets, kind=kind, group=group)


@pytest.mark.parametrize("cols", [128, 96, 45])
@pytest.mark.parametrize("group", [32, 128])
@pytest.mark.parametrize("kind", CENTER)
def test_the_matrix_is_the_same_to_the_last_bit(kind: str, group: int, cols: int) -> None:
    packed, bias = random_packed(37, cols, kind, group), torch.randn(37)
    linear = UnpackedLinear(packed, bias)
    wanted = dequantize(packed)
    torch.testing.assert_close(linear.matrix(), wanted, atol=0, rtol=2e-7)
    x = torch.randn(3, 2, cols)
    torch.testing.assert_close(linear(x), nn.functional.linear(x, wanted, bias), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("group", [32, 128])
@pytest.mark.parametrize("kind", ["int4", "int4z"])
@pytest.mark.parametrize("rows", [1, 7, MOST_TILED_ROWS, MOST_TILED_ROWS + 1])
def test_torch_s_operator_multiplies_by_the_same_numbers(kind: str, group: int, rows: int) -> None:
    packed, bias = random_packed(48, 256, kind, group), torch.randn(48).bfloat16()
    linear = TiledLinear(packed, bias)
    x = torch.randn(2, rows, 256).bfloat16()[:, :rows] if rows % 2 == 0 else torch.randn(rows, 256).bfloat16()
    wanted = x.float() @ dequantize(packed).T + bias.float()
    assert (linear(x).float() - wanted).norm() < 0.01 * wanted.norm()


def test_tiles_are_only_for_what_the_operator_takes() -> None:
    assert can_tile(random_packed(48, 256, "int4", 32), torch.bfloat16)
    assert not can_tile(random_packed(48, 256, "int4", 32), torch.float16)
    assert not can_tile(random_packed(48, 256, "nf4", 32), torch.bfloat16)
    assert not can_tile(random_packed(40, 256, "int4", 32), torch.bfloat16)
    assert not can_tile(random_packed(48, 250, "int4", 32), torch.bfloat16)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_whole_model_keeps_its_numbers(scheme: str) -> None:
    model = load("pocket").model
    quantize_model(model, SCHEMES[scheme])
    packed = deepcopy(model)
    unpack_matrices(model, torch.float32)
    assert not any(isinstance(part, (PackedMatrix, TiedHead)) for part in model.modules())
    for name, part in packed.named_modules():
        if isinstance(part, PackedMatrix):
            new = model.get_submodule(name)
            matrix = new.matrix() if isinstance(new, UnpackedLinear) else new.weight
            torch.testing.assert_close(matrix, dequantize(part.matrix), atol=0, rtol=2e-7)
    head = packed.language.embed_tokens if isinstance(packed.language.lm_head, TiedHead) else packed.language.lm_head
    torch.testing.assert_close(model.language.lm_head.matrix(), dequantize(head.matrix), atol=0, rtol=2e-7)


def test_a_model_that_is_not_quantised_stays_as_it_is() -> None:
    model = load("pocket").model
    unpack_matrices(model, torch.bfloat16)
    assert model.language.norm.weight.dtype == torch.float32
