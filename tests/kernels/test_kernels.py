"""Every native kernel says what its torch twin says, on every instruction set of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit import kernels
from llavakit.kernels import native, twin

INSTRUCTION_SETS = native.instruction_sets() if native else []
needs_native = pytest.mark.skipif(native is None, reason="the native kernels are not built")


@pytest.fixture(params=INSTRUCTION_SETS, scope="module")
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    before = kernels.instruction_set()
    native.use_instruction_set(request.param)
    yield request.param
    native.use_instruction_set(before)


@needs_native
@settings(deadline=None)
@given(rows=st.integers(0, 40), dim=st.integers(1, 300), seed=st.integers(0, 99))
def test_rms_norm_is_its_twin(instruction_set: str, rows: int, dim: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(rows, dim, generator=random), torch.randn(dim, generator=random)
    assert kernels.instruction_set() == instruction_set
    torch.testing.assert_close(kernels.rms_norm(x, weight, 1e-5), twin.rms_norm(x, weight, 1e-5))


@needs_native
def test_results_depend_on_neither_threads_nor_neighbours_nor_instruction_set() -> None:
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(200, 333, generator=random), torch.randn(333, generator=random)
    before = kernels.num_threads(), kernels.instruction_set()
    found = []
    for name in INSTRUCTION_SETS:
        native.use_instruction_set(name)
        for threads in {1, before[0]}:
            kernels.set_num_threads(threads)
            assert kernels.num_threads() == threads
            found += [
                kernels.rms_norm(x, weight, 1e-5),
                torch.cat([kernels.rms_norm(row[None], weight, 1e-5) for row in x]),
            ]
    native.use_instruction_set(before[1])
    assert all(torch.equal(found[0], other) for other in found)


@needs_native
def test_more_threads_than_cores_are_refused() -> None:
    many = native.cores() + 1
    with pytest.raises(
        ValueError, match=f"^{many} threads are more than the {native.cores()} cores that .*give at most"
    ):
        kernels.set_num_threads(many)
    with pytest.raises(ValueError, match="is 0; give 1 or more"):
        kernels.set_num_threads(0)


@needs_native
@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_the_environment_names_an_instruction_set(name: str) -> None:
    assert _said("print(kernels.instruction_set())", LLAVAKIT_ISA=name) == name


@needs_native
def test_an_unknown_instruction_set_is_a_sentence() -> None:
    said = _said("try: kernels.instruction_set()\nexcept ValueError as error: print(error)", LLAVAKIT_ISA="avx1024")
    assert said.startswith("LLAVAKIT_ISA is 'avx1024', which ") and said.endswith(", ".join(INSTRUCTION_SETS))


def test_without_native_kernels_the_twin_runs() -> None:
    code = """
sys.modules['llavakit.kernels._native'] = None
from llavakit import kernels
import torch
x = torch.ones(2, 3)
assert torch.equal(kernels.rms_norm(x, x[0], 0.0), x)
kernels.set_num_threads(1)
print(kernels.num_threads(), kernels.instruction_set())
"""
    assert _said(code, imports="import sys").startswith("1 none: ")


def _said(code: str, imports: str = "from llavakit import kernels", **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}\n{code}"], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
