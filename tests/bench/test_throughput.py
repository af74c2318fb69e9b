"""Many together: the arithmetic of the rates, with a subject whose time is known."""

from __future__ import annotations

import pytest

from llavakit.bench import throughput
from llavakit.bench.peers import worker
from llavakit.bench.probe import Ceilings
from llavakit.bench.shapes import SHAPES


class Clock:
    """A subject that takes one second a step, however many take it, and many seconds to be ready for several."""

    decode_bytes = 1

    def __init__(self) -> None:
        self.now = 0.0

    def encode(self) -> None: ...

    def prefill(self, tokens: int, start: int) -> None: ...

    def decode(self, steps: int, start: int, batch: int) -> float | None:
        self.now += steps if batch == 1 else steps + 100
        return None if batch == 1 else float(steps)


def test_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(worker, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(throughput, "probe", lambda threads, device="cpu": Ceilings(50.0, None))
    found = throughput.measure(clock, SHAPES["tiny"], counts=[1, 4], context=8, steps=3, threads=1, rounds=2)
    assert found["tokens_per_s"]["1"]["median"] == 1 and found["tokens_per_s"]["4"]["median"] == 4
    assert found["times_1"]["4"]["rounds"] == [4, 4]
    language = SHAPES["tiny"].language
    cache = 2 * 2 * language.num_layers * language.num_kv_heads * language.head_dim * 8  # 16 bits, 8 tokens
    assert found["share_of_bandwidth"]["4"]["median"] == pytest.approx((1 + 4 * cache) / 50e9, rel=1e-3)


def test_a_context_too_long() -> None:
    with pytest.raises(ValueError, match="2048 tokens and 1 more do not fit into the context of 2048"):
        throughput.measure(Clock(), SHAPES["tiny"], counts=[1], context=2048, steps=1, threads=1, rounds=1)
