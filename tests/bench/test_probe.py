"""The ceilings: plausible, and there without native kernels too."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llavakit.bench import probe as module
from llavakit.bench.probe import Ceilings, probe
from llavakit.kernels import native


def test_without_native_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "native", None)
    monkeypatch.setattr(module, "_BUFFER", 16 << 20)
    ceilings = probe(1)
    assert 0.1 < ceilings.read_gbps < 10_000 and ceilings.int8_gops is None


@pytest.mark.skipif(native is None, reason="the native kernels are not built")
def test_with_native_kernels() -> None:
    ceilings = probe(1)
    assert 0.1 < ceilings.read_gbps < 10_000
    assert ceilings.int8_gops is not None and 1 < ceilings.int8_gops < 1_000_000


def test_of_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic alone: torch's CPU stands for the device, and a clock on which each call takes 2 ms."""
    calls, now = [], [0.0]
    monkeypatch.setattr(module, "_BUFFER", 1 << 20)
    monkeypatch.setattr(module, "_SIDE", 64)
    monkeypatch.setattr(module, "wait_for", lambda device: calls.append(device))
    monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    seconds = module._seconds

    def timed(call: Callable[[], object], device: str) -> float:
        def slow() -> object:
            now[0] += 0.002
            return call()

        return seconds(slow, device)

    monkeypatch.setattr(module, "_seconds", timed)
    assert module._read_on("cpu") == pytest.approx(4 * 2**20 / 0.002 / 1e9)
    assert module._multiplied_on("cpu") == pytest.approx(2 * 64**3 / 0.002 / 1e9)
    assert set(calls) == {"cpu"} and len(calls) == 16


def test_as_plain_data() -> None:
    assert Ceilings(47.123456, None).plain() == {"read_gbps": 47.12, "int8_gops": None, "bfloat16_gflops": None}
