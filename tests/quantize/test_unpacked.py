"""Matrices written out are the same matrices."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from llavakit.checkpoint.load import load
from llavakit.kernels.packed import dequantize
from llavakit.quantize.apply import quantize_model
from llavakit.quantize.linear import PackedMatrix
from llavakit.quantize.schemes import SCHEMES
from llavakit.quantize.unpacked import write_out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("part", ["vision", "projector"])
def test_a_part_keeps_its_numbers(part: str, dtype: torch.dtype) -> None:
    model = load("pocket").model
    quantize_model(model, SCHEMES["int8"])
    packed, plain = deepcopy(model.get_submodule(part)), model.get_submodule(part)
    write_out(plain, dtype)
    assert any(isinstance(each, PackedMatrix) for each in packed.modules())
    assert not any(isinstance(each, PackedMatrix) for each in plain.modules())
    assert {weight.dtype for weight in plain.parameters()} == {dtype}
    for name, each in packed.named_modules():
        if isinstance(each, PackedMatrix):
            linear = plain.get_submodule(name)
            assert torch.equal(linear.weight, dequantize(each.matrix).to(dtype))
            assert (linear.bias is None) == (each.bias is None)
            assert linear.bias is None or torch.equal(linear.bias, each.bias.to(dtype))


def test_what_is_not_quantised_stays_as_it_is() -> None:
    model = load("pocket").model
    weights = deepcopy(model.vision.state_dict())
    write_out(model.vision, torch.float32)
    assert all(torch.equal(weights[name], weight) for name, weight in model.vision.state_dict().items())
