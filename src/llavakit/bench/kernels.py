"""Every matrix product of a model by itself, beside what the machine could do in the same round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llavakit.bench.cost import Matrix, language_matrices, tower_matrices
from llavakit.bench.figures import figure
from llavakit.bench.probe import probe
from llavakit.config import LlavaConfig, nearest
from llavakit.kernels import matmul, set_num_threads
from llavakit.kernels.packed import Kind, pack
from llavakit.quantize.schemes import SCHEMES

ROWS = (1, 8, 64, 640)
MOST_COPIES = 64


@dataclass(frozen=True)
class Product:
    """A matrix in some number format: what it takes in memory, and the product of rows with it."""

    bytes: int
    run: Callable[[Tensor], Tensor]


def _float(dtype: torch.dtype, rows: int, cols: int) -> Product:
    weight = torch.full((rows, cols), 0.02, dtype=dtype)
    return Product(weight.numel() * weight.element_size(), lambda x: F.linear(x.to(dtype), weight))


def _packed(kind: Kind, group: int, rows: int, cols: int) -> Product:
    codes = torch.randint(1, 256 if kind == "int8" else 16, (rows, cols), dtype=torch.uint8)
    scales = torch.full((rows, -(-cols // group)), 0.002, dtype=torch.float16)
    packed = pack(codes, scales, kind=kind, group=group)
    return Product(len(packed.data), partial(matmul, packed))


# Number format -> a random matrix of rows x cols in it.
FORMATS: Mapping[str, Callable[[int, int], Product]] = MappingProxyType(
    {
        "float32": partial(_float, torch.float32),
        "bfloat16": partial(_float, torch.bfloat16),
        **{name: partial(_packed, scheme.language.kind, scheme.language.group) for name, scheme in SCHEMES.items()},
    }
)


def measure(
    config: LlavaConfig,
    scheme: str,
    *,
    threads: int,
    rounds: int,
    rows: Sequence[int] = ROWS,
    copies_bytes: float = 2e8,
) -> dict[str, Any]:
    """GB/s of weights and GOP/s for each different matrix of these shapes and each number of rows.

    So many copies of a matrix take turns that the caches cannot hold them: in a model it is read from memory too.
    """
    if scheme not in FORMATS:
        raise ValueError(f"there is no number format called {scheme!r}: {nearest(scheme, list(FORMATS))}")
    set_num_threads(threads)
    ceilings = []
    table = []
    for matrix in _different(config):
        copies = [FORMATS[scheme](matrix.rows, matrix.cols)]
        while len(copies) < min(MOST_COPIES, copies_bytes / copies[0].bytes):
            copies.append(FORMATS[scheme](matrix.rows, matrix.cols))
        for count in rows:
            x = torch.randn(count, matrix.cols)
            _run(copies, x)
            seconds = []
            for _ in range(rounds):
                ceilings.append(probe(threads))
                seconds.append(_run(copies, x))
            gigaoperations = 2 * count * matrix.rows * matrix.cols / 1e9
            table.append(
                {
                    "matrix": matrix.name,
                    "shape": [matrix.rows, matrix.cols],
                    "rows": count,
                    "gbps": figure([copies[0].bytes / 1e9 / one for one in seconds]),
                    "gops": figure([gigaoperations / one for one in seconds]),
                }
            )
    rates = [one.int8_gops for one in ceilings if one.int8_gops]
    return {
        "products": table,
        "read_gbps": figure([one.read_gbps for one in ceilings]),
        "int8_gops": figure(rates) if rates else None,
        "rounds": rounds,
    }


@torch.inference_mode()
def _run(copies: list[Product], x: Tensor) -> float:
    """Seconds of one product."""
    start = perf_counter()
    for product in copies:
        product.run(x)
    return (perf_counter() - start) / len(copies)


def _different(config: LlavaConfig) -> list[Matrix]:
    found: dict[tuple[int, int], Matrix] = {}
    for matrix in (*language_matrices(config.language), *tower_matrices(config)):
        found.setdefault((matrix.rows, matrix.cols), matrix)
    return list(found.values())
