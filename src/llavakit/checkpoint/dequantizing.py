"""A quantised checkpoint as one of plain numbers, each matrix worked out when it is read."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from llavakit.checkpoint.aligned import NAMES
from llavakit.checkpoint.contents import Contents
from llavakit.checkpoint.reader import StoredTensor
from llavakit.checkpoint.weights import empty_model, stored_dtype
from llavakit.kernels.packed import Packed, dequantize
from llavakit.quantize.linear import PackedMatrix


def dequantized(contents: Contents) -> Contents:
    """The same model with the values that its codes stand for, in the type of what was never quantised."""
    if contents.scheme is None:
        return contents
    dtype = stored_dtype(contents.tensors)
    places = {name: part for name, part in empty_model(contents).named_modules() if isinstance(part, PackedMatrix)}
    tensors = {}
    for name, tensor in contents.tensors.items():
        matrix = name.removesuffix(".packed")
        if matrix in places and name != matrix:
            tensors[f"{matrix}.weight"] = _matrix(f"{matrix}.weight", tensor, places[matrix], dtype)
        else:
            tensors[name] = tensor
    return replace(contents, tensors=tensors, scheme=None)


def _matrix(name: str, stored: StoredTensor, place: PackedMatrix, dtype: torch.dtype) -> StoredTensor:
    def read() -> Tensor:
        grid = place.grid
        return dequantize(Packed(stored.read(), place.rows, place.cols, grid.kind, grid.group)).to(dtype)

    return StoredTensor(name, (place.rows, place.cols), NAMES[dtype], read)
