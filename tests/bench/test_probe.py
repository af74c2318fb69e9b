"""The ceilings: plausible, and there without native kernels too."""

from __future__ import annotations

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


def test_as_plain_data() -> None:
    assert Ceilings(47.123456, None).plain() == {"read_gbps": 47.12, "int8_gops": None}
