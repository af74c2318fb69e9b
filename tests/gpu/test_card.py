"""What only a CUDA device can show: its own operators, graphs that are recorded there, and whole answers.

Whatever is compiled runs in a program of its own, because what checks shapes in tests cannot be traced.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from llavakit.bench.probe import probe
from llavakit.kernels.packed import dequantize, pack
from llavakit.quantize.schemes import SCHEMES
from llavakit.quantize.unpacked import MOST_TILED_ROWS, TiledLinear, can_tile

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def random_codes(rows: int, cols: int, group: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(rows + cols)
    codes = torch.randint(0, 16, (rows, cols), dtype=torch.uint8)
    return codes, torch.rand(rows, cols // group).add(0.5).half()


@pytest.mark.parametrize("group", [32, 128])
@pytest.mark.parametrize("rows", [1, 7, MOST_TILED_ROWS, MOST_TILED_ROWS + 1])
def test_the_operator_for_4_bits_multiplies_by_the_same_numbers(rows: int, group: int) -> None:
    packed = pack(*random_codes(48, 256, group), kind="int4", group=group)
    wanted = dequantize(packed)
    there = type(packed)(packed.data.cuda(), packed.rows, packed.cols, packed.kind, packed.group)
    if not can_tile(there, torch.bfloat16):
        pytest.skip("this card has no operator for 4 bits")
    x = torch.randn(rows, 256).bfloat16()
    found = TiledLinear(there, None)(x.cuda()).cpu().float()
    wanted = x.float() @ wanted.T
    assert (found - wanted).norm() < 0.01 * wanted.norm()


@pytest.mark.parametrize("scheme", ["float32", *SCHEMES])
def test_recorded_graphs_compute_what_the_plain_step_does(root: Path, scheme: str) -> None:
    subprocess.run([sys.executable, root / "tests/engine/traced_steps.py", "cuda", scheme], check=True)


def test_a_compiled_engine_answers_as_the_reference_does(root: Path) -> None:
    subprocess.run([sys.executable, root / "tests/gpu/answers.py"], check=True)


def test_ceilings_of_a_card() -> None:
    ceilings = probe(1, "cuda")
    assert 50 < ceilings.read_gbps < 20_000
    assert ceilings.bfloat16_gflops is not None and 1_000 < ceilings.bfloat16_gflops < 10_000_000


@pytest.mark.parametrize("scheme", ["bfloat16", "int8", "int4-g128"])
@pytest.mark.parametrize("what", ["latency", "throughput"])
def test_benchmarks(what: str, scheme: str) -> None:
    command = [sys.executable, "-m", "llavakit", "bench", what, "--device", "cuda", "--shapes", "tiny", "--scheme",
               scheme, "--rounds", "2"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["machine"]["device"] != "cpu"
    assert told["figures"]["prefill_share_of_products"] if what == "latency" else told["share_of_bandwidth"]["8"]
