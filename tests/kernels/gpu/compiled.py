"""Compiles every kernel for a card that is not there, as a step at the shapes of a 7B model launches them.

    compiled.py CAPABILITY SHARED    of the card, 90 for 9.0, and the bytes of shared memory that a program may have

A program of its own, because in tests kernels are interpreted. Prints one line for each: name, bytes of shared memory,
and bytes of registers that were spilled into memory.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from llavakit.kernels.gpu import decoder, elementwise, products
from llavakit.kernels.gpu.layers import GpuLayer, GpuModel, Sizes
from llavakit.kernels.gpu.matrix import GpuMatrix

TYPES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.int64: "i64", torch.int32: "i32", torch.int8: "i8",
         torch.uint8: "u8"}  # fmt: skip
DIM, INNER, HEADS, HEAD_DIM, VOCAB = 4096, 11008, 32, 128, 32000


class Launched:
    """Stands for a kernel and remembers how it was launched."""

    found: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: Any, **options: Any) -> None:
            types = [each.dtype if isinstance(each, torch.Tensor) else each for each in arguments]
            self.found[f"{self._kernel.__name__} {types} {options}"] = self._kernel, arguments, options

        return launch


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def matrix(rows: int, cols: int, bits: int, group: int) -> GpuMatrix:
    if bits == 16:
        return GpuMatrix(empty(rows, cols), rows, cols)
    data = empty(rows, cols, dtype=torch.int8) if bits == 8 else empty(rows, cols // 2, dtype=torch.uint8)
    scales = empty((rows + 1) // 2, -(-cols // group // 4) * 2, 2, dtype=torch.int32)
    return GpuMatrix(data, rows, cols, bits, group, scales)


def launch_all(rows: int, kv_heads: int, bits: int, group: int) -> None:
    def weights(outputs: int, inputs: int) -> GpuMatrix:
        return matrix(outputs, inputs, bits, group)

    slots, angles = 1024 * 16, empty(4096, HEAD_DIM // 2, dtype=torch.float32)
    layer = GpuLayer(
        empty(DIM), weights((HEADS + 2 * kv_heads) * HEAD_DIM, DIM), None, weights(DIM, HEADS * HEAD_DIM), empty(DIM),
        weights(2 * INNER, DIM), weights(DIM, INNER), *(empty(kv_heads, slots, HEAD_DIM) for _ in range(2)),
    )  # fmt: skip
    model = GpuModel(
        [layer], sizes=Sizes(HEADS, kv_heads, HEAD_DIM, 16, 4, 1e-5), table=empty(VOCAB, DIM), norm=empty(DIM),
        head=matrix(VOCAB, DIM, 16 if bits == 16 else 8, 128), cosine=angles, sine=angles, bias=None, drop_after=1,
    )  # fmt: skip
    step = decoder.GpuDecoder(model, most_rows=64)
    step(empty(rows, 68, dtype=torch.int64))
    hidden = empty(640, DIM)
    elementwise.values_of(layer.down, torch.bfloat16)
    elementwise.add_and_norm(hidden, None, empty(DIM), 1e-5)
    elementwise.add_and_norm(hidden, hidden, empty(DIM), 1e-5)
    heads = empty(640, (HEADS + 2 * kv_heads) * HEAD_DIM)
    elementwise.rotate_heads(heads, empty(640, dtype=torch.int64), angles, angles, turned=HEADS + kv_heads)
    elementwise.gate(empty(640, 2 * INNER))


def source_of(kernel: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[ASTSource, dict[str, Any]]:
    """What is compiled, as a launch with these arguments would say it, and the compiler's options."""
    names = kernel.arg_names
    values = dict(zip(names, arguments, strict=False)) | {name: options[name] for name in names if name in options}
    types, constants, hints = {}, {}, {}
    for index, (name, parameter) in enumerate(zip(names, kernel.params, strict=True)):
        value = values[name]
        if parameter.is_constexpr or value is None:
            types[name], constants[(index,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            types[name], hints[(index,)] = f"*{TYPES[value.dtype]}", [["tt.divisibility", 16]]
        else:
            types[name] = "fp32" if isinstance(value, float) else "i32"
    return ASTSource(kernel, types, constants, hints), {k: v for k, v in options.items() if k not in names}


def compiled(target: GPUTarget) -> Iterator[str]:
    reader = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    for kernel, arguments, options in Launched.found.values():
        source, more = source_of(kernel, arguments, options)
        made = triton.compile(source, target=target, options=more)
        with TemporaryDirectory() as folder:
            cubin = Path(folder) / "cubin"
            cubin.write_bytes(made.asm["cubin"])
            told = subprocess.run([reader, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
        spilled = int(re.search(r"STACK:(\d+)", told)[1])
        yield f"{kernel.__name__} {made.metadata.shared} {spilled}"


def main() -> None:
    for room in (products, decoder, elementwise):
        for name, kernel in list(vars(room).items()):
            if isinstance(kernel, triton.runtime.jit.JITFunction) and name.lstrip("_") in LAUNCHED:
                setattr(room, name, Launched(kernel))
    capability, shared = map(int, sys.argv[1:])
    decoder.shared_memory = lambda device: shared
    for rows, kv_heads, bits, group in (
        (1, 32, 16, 128), (16, 32, 8, 128), (64, 8, 16, 128), (1, 32, 4, 128), (16, 8, 4, 32), (64, 32, 4, 128),
    ):  # fmt: skip
        launch_all(rows, kv_heads, bits, group)
    for line in compiled(GPUTarget("cuda", capability, 32)):
        print(line)


LAUNCHED = {"embed_rows", "project_heads", "add_product", "gated_product", "normed_product", "attend_rows",
            "add_and_norm", "rotate_heads", "gate", "write_values"}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
