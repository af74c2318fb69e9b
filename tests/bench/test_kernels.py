"""The products: every matrix once, each with every number of rows."""

from __future__ import annotations

import pytest
import torch

from llavakit.bench import kernels
from llavakit.bench.kernels import FORMATS, measure
from llavakit.bench.probe import Ceilings
from llavakit.bench.report import products_table
from llavakit.bench.shapes import SHAPES


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "probe", lambda threads: Ceilings(50.0, 2000.0))


def test_every_matrix_with_every_number_of_rows() -> None:
    found = measure(SHAPES["tiny"], "float32", threads=1, rounds=2, rows=(1, 3), copies_bytes=1e6)
    shapes = [tuple(one["shape"]) for one in found["products"]]
    assert len(shapes) == 2 * len(set(shapes)) and (768, 256) in shapes and (192, 64) in shapes
    one, three = found["products"][:2]
    assert (one["rows"], three["rows"]) == (1, 3) and len(one["gops"]["rounds"]) == 2
    # A single row makes two operations of each weight's four bytes.
    assert one["gops"]["rounds"] == pytest.approx([rate / 2 for rate in one["gbps"]["rounds"]], rel=1e-3)
    table = products_table(found)
    assert table.splitlines()[-1].split()[-2:] == ["2,000", "[2,000-2,000]"]


@pytest.mark.parametrize(("name", "bits"), [("float32", 32), ("bfloat16", 16)])
def test_a_product_is_one(name: str, bits: int) -> None:
    product = FORMATS[name](5, 32)
    assert torch.allclose(product.run(torch.ones(2, 32)).float(), torch.tensor(0.64), rtol=1e-2)
    assert product.bytes == 5 * 32 * bits // 8


@pytest.mark.parametrize(("name", "bits"), [("int4-g32", 4.5), ("int4-g128", 4.125), ("int8", 8.125), ("nf4", 4.5)])
def test_a_packed_product_is_one(name: str, bits: float) -> None:
    product = FORMATS[name](32, 512)
    assert product.run(torch.randn(2, 512)).shape == (2, 32)
    assert product.bytes == 32 * 512 * bits / 8


def test_unknown_format() -> None:
    with pytest.raises(ValueError, match="no number format called 'int5'"):
        measure(SHAPES["tiny"], "int5", threads=1, rounds=1)
