"""A safetensors file whose packed matrices can be used where they lie: mapped, and each at a multiple of 64 bytes.

Tensors are read and written one after the other, so that a model need not be in memory to be written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from llavakit.checkpoint.reader import StoredTensor

ALIGNMENT = 64  # bytes: a line of a processor's cache, and of `kernels.packed`
PACKED = "U8"  # of bytes that are no numbers by themselves
DTYPES: Mapping[str, torch.dtype] = {
    PACKED: torch.uint8,
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def in_memory(name: str, tensor: Tensor) -> StoredTensor:
    """A tensor that is here, as one to be written."""
    return StoredTensor(name, tuple(tensor.shape), NAMES[tensor.dtype], lambda: tensor)


def write_aligned(path: Path, tensors: Iterable[StoredTensor]) -> None:
    """Write a safetensors file. Bytes, whose numbers are multiples of 64, come first and keep all the others in step.

    Blanks behind the header move the first of them to a multiple of 64; other readers skip these.
    """
    ordered = sorted(tensors, key=lambda tensor: (tensor.dtype != PACKED, -DTYPES[tensor.dtype].itemsize, tensor.name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in ordered:
        size = math.prod(tensor.shape) * DTYPES[tensor.dtype].itemsize
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [end, end := end + size]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in ordered:
            values = tensor.read().detach().cpu()
            assert values.dtype == DTYPES[tensor.dtype] and values.shape == tensor.shape, tensor.name
            file.write(values.contiguous().view(-1).view(torch.uint8).numpy().data)
