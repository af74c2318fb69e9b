"""What the machine can do at best, right now: probed beside every round, because it changes on a shared host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter

import torch

from llavakit.bench.figures import rounded
from llavakit.kernels import native

_BUFFER = 512 << 20  # bytes: far more than the caches of most machines
_SIDE = 8192  # of the matrices that an accelerator multiplies
_IN_A_ROW = 10  # of an accelerator's probes, so that starting them does not count


@dataclass(frozen=True)
class Ceilings:
    """GB read from memory a second, and 1e9 operations of products a second; None where nothing here can tell.

    Products are of 8-bit integers on CPUs, and of bfloat16 elsewhere.
    """

    read_gbps: float
    int8_gops: float | None
    bfloat16_gflops: float | None = None

    def plain(self) -> dict[str, float | None]:
        return {key: None if value is None else rounded(value) for key, value in asdict(self).items()}


def probe(threads: int, device: str = "cpu") -> Ceilings:
    """Takes half a second. Without native kernels the bandwidth is that of a sum in torch, which is somewhat less."""
    if device != "cpu":
        return Ceilings(_read_on(device), None, _multiplied_on(device))
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


def _read_on(device: str) -> float:
    numbers = torch.ones(4 * _BUFFER // 4, device=device)  # the larger, because starting a sum takes a while
    return numbers.nbytes / _seconds(numbers.sum, device) / 1e9


def _multiplied_on(device: str) -> float:
    # Of any numbers, because zeros and ones take less power, and so are multiplied faster than a model's.
    matrix = torch.randn(_SIDE, _SIDE, dtype=torch.bfloat16, device=device)
    return 2 * _SIDE**3 / _seconds(lambda: matrix @ matrix, device) / 1e9


def _seconds(call: Callable[[], object], device: str) -> float:
    """Of one call, the best of a few times several in a row."""
    taken = []
    for _ in range(4):
        wait_for(device)
        start = perf_counter()
        for _ in range(_IN_A_ROW):
            call()
        wait_for(device)
        taken.append((perf_counter() - start) / _IN_A_ROW)
    return min(taken)


def wait_for(device: str) -> None:
    """Until everything that a device was asked for is done; a CPU has it done at once."""
    if device != "cpu":
        torch.accelerator.synchronize(device)


def _gbps(numbers: torch.Tensor) -> float:
    start = perf_counter()
    numbers.sum()
    return numbers.numel() * numbers.element_size() / (perf_counter() - start) / 1e9
