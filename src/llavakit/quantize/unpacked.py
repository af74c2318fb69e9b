"""Packed matrices written out as plain ones: for parts that an accelerator computes seldom, and in large products."""

from __future__ import annotations

import torch
from torch import nn

from llavakit.kernels.packed import dequantize
from llavakit.quantize.linear import PackedMatrix, QuantizedLinear


@torch.no_grad()
def write_out(part: nn.Module, dtype: torch.dtype) -> None:
    """Every packed linear layer in a part of a model becomes an `nn.Linear` in its place; all of it is then `dtype`."""
    part.to(dtype)  # bytes are no floats, and stay
    for name, packed in [(name, each) for name, each in part.named_modules() if isinstance(each, PackedMatrix)]:
        assert isinstance(packed, QuantizedLinear)
        with torch.device("meta"):
            linear = nn.Linear(packed.cols, packed.rows, bias=packed.bias is not None)
        linear.weight = nn.Parameter(dequantize(packed.matrix).to(dtype), requires_grad=False)
        linear.bias = packed.bias
        part.set_submodule(name, linear)
