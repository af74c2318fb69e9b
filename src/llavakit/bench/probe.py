"""What the machine can do at best, right now: probed beside every round, because it changes on a shared host."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import perf_counter

import torch

from llavakit.bench.figures import rounded
from llavakit.kernels import native

_BUFFER = 512 << 20  # bytes: far more than the caches of most machines


@dataclass(frozen=True)
class Ceilings:
    """GB read from memory a second, and 1e9 operations of 8-bit products; None where nothing here can tell."""

    read_gbps: float
    int8_gops: float | None

    def plain(self) -> dict[str, float | None]:
        return {key: None if value is None else rounded(value) for key, value in asdict(self).items()}


def probe(threads: int) -> Ceilings:
    """Takes half a second. Without native kernels the bandwidth is that of a sum in torch, which is somewhat less."""
    if native is None:
        return Ceilings(_read_with_torch(threads), None)
    return Ceilings(native.probe_read_bandwidth(threads), native.probe_int8_rate(threads))


def _read_with_torch(threads: int) -> float:
    """A sum has to read everything; the best of a few, because torch wakes its threads up first."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        numbers = torch.ones(_BUFFER // 8, dtype=torch.int64)
        return max(_gbps(numbers) for _ in range(4))
    finally:
        torch.set_num_threads(before)


def _gbps(numbers: torch.Tensor) -> float:
    start = perf_counter()
    numbers.sum()
    return numbers.numel() * numbers.element_size() / (perf_counter() - start) / 1e9
