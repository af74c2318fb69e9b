"""Every native kernel says what its torch twin says, on every instruction set of this machine."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit import kernels
from llavakit.kernels import native, twin
from llavakit.kernels.graph import Matrix, NativeTower, TowerLayer
from llavakit.kernels.halves import halves
from llavakit.kernels.packed import BITS, GROUPS, dequantize, pack
from llavakit.kernels.threads import cores

INSTRUCTION_SETS = native.instruction_sets() if native else []
needs_native = pytest.mark.skipif(native is None, reason="the native kernels are not built")


@pytest.fixture(params=INSTRUCTION_SETS, scope="module")
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    before = kernels.instruction_set()
    native.use_instruction_set(request.param)
    yield request.param
    native.use_instruction_set(before)


@needs_native
@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 150), st.integers(1, 600)),
    kind=st.sampled_from(sorted(BITS)),
    group=st.sampled_from(GROUPS),
    seed=st.integers(0, 99),
)
def test_matmul_is_its_twin(
    instruction_set: str, drawn: Callable, shape: tuple[int, int, int], kind: str, group: int, seed: int
) -> None:
    m, rows, cols = shape
    codes, scales, offsets = drawn(rows, cols, kind, group, seed)
    packed = pack(codes, scales, offsets, kind=kind, group=group)
    x = torch.randn(m, cols, generator=torch.Generator().manual_seed(seed))
    assert kernels.instruction_set() == instruction_set
    found, wanted = kernels.matmul(packed, x), twin.matmul(packed, x)
    # Only the adding up is rounded: a few times 2^-24 of what is added, of either sign.
    positive = pack(codes, scales.abs(), None if offsets is None else offsets.abs(), kind=kind, group=group)
    assert ((found - wanted).abs() <= 2**-20 * (x.abs() @ dequantize(positive).abs().T) + 1e-30).all()


@needs_native
@pytest.mark.parametrize("kind", sorted(BITS))
def test_a_row_depends_on_neither_threads_nor_neighbours(instruction_set: str, drawn: Callable, kind: str) -> None:
    packed = pack(*drawn(333, 704, kind, 32, 0), kind=kind, group=32)
    x = torch.randn(77, 704, generator=torch.Generator().manual_seed(0))
    together, before = kernels.matmul(packed, x), kernels.num_threads()
    for threads in {1, before}:
        kernels.set_num_threads(threads)
        assert kernels.num_threads() == threads
        for few in (1, 2, 3, 5, 8, 13):
            assert torch.equal(torch.cat([kernels.matmul(packed, part) for part in x.split(few)]), together)
    kernels.set_num_threads(before)


@needs_native
def test_activations_at_the_edge_of_float_are_as_the_twin_has_them(instruction_set: str, drawn: Callable) -> None:
    packed = pack(*drawn(16, 64, "int8", 32, 0), kind="int8", group=32)
    for x in (torch.zeros(1, 64), torch.full((1, 64), 1e-40), torch.full((1, 64), 1e30)):
        torch.testing.assert_close(kernels.matmul(packed, x), twin.matmul(packed, x), rtol=1e-5, atol=1e-5)


@needs_native
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_not_lost(instruction_set: str, drawn: Callable, value: float) -> None:
    packed = pack(*drawn(33, 200, "int8", 32, 0), kind="int8", group=32)
    for column in (0, 5, 31, 199):
        x = torch.ones(3, 200)
        x[1, column] = value
        found = kernels.matmul(packed, x)
        assert found[1].isnan().all() and found[[0, 2]].isfinite().all()


@needs_native
def test_no_rows_are_no_result(instruction_set: str, drawn: Callable) -> None:
    packed = pack(*drawn(33, 80, "int8", 32, 0), kind="int8", group=32)
    native.matmul(kernels.native_matrix(packed), torch.empty(0, 80), torch.empty(0, 33))
    assert kernels.matmul(packed, torch.empty(0, 80)).shape == (0, 33)


@needs_native
def test_what_would_have_to_be_copied_is_refused(drawn: Callable) -> None:
    """A pointer into a copy is one into freed memory, and a result written to a copy is lost."""
    packed = pack(*drawn(16, 64, "int8", 32, 0), kind="int8", group=32)
    with pytest.raises(TypeError):
        kernels.native_matrix(packed, torch.zeros(16).half())
    for to in (torch.empty(16, 2).T, torch.empty(2, 16).double()):
        with pytest.raises(TypeError):
            native.matmul(kernels.native_matrix(packed), torch.ones(2, 64), to)


def test_more_threads_than_cores_are_refused() -> None:
    before = kernels.num_threads(), torch.get_num_threads()
    for count in (0, cores() + 1):
        with pytest.raises(ValueError, match=f"^{count} threads are asked for, and .* {cores()} cores"):
            kernels.set_num_threads(count)
    assert (kernels.num_threads(), torch.get_num_threads()) == before


@needs_native
@needs_native
def test_the_number_of_threads_may_change_while_others_compute() -> None:
    """A graph has scratch memory for each thread: a number that grew in the middle of one wrote beside it."""
    tower, before = a_tower(), kernels.num_threads()
    x = torch.randn(3, 200, 64, generator=torch.Generator().manual_seed(0))
    wanted, is_done = tower.run(x), threading.Event()

    def change() -> None:
        for number in itertools.cycle(range(1, cores() + 1)):
            if is_done.is_set():
                return
            kernels.set_num_threads(number)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(60):
            assert torch.equal(tower.run(x), wanted)
    finally:
        is_done.set()
        changing.join()
        kernels.set_num_threads(before)


def a_tower() -> NativeTower:
    chance = torch.Generator().manual_seed(1)

    def matrix(rows: int, cols: int) -> Matrix:
        weight = torch.randn(rows, cols, generator=chance) / cols**0.5
        return Matrix(halves(weight.bfloat16(), "bfloat16"), torch.zeros(rows))

    def layer() -> TowerLayer:
        norms = torch.ones(64), torch.zeros(64), torch.ones(64), torch.zeros(64)
        return TowerLayer(*norms, *(matrix(64, 64) for _ in range(4)), matrix(160, 64), matrix(64, 160))

    return NativeTower([layer() for _ in range(8)], dim=64, num_heads=4, eps=1e-5, activation="gelu")


def test_at_first_there_are_no_more_threads_than_cores_that_may_be_used() -> None:
    """However many the native module counts by itself."""
    imports = "import os; os.sched_getaffinity = lambda _: {0}; from llavakit import kernels"
    assert _said("print(kernels.num_threads())", imports) == "1"


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
from llavakit.kernels.graph import Matrix, NativeTower, TowerLayer
from llavakit.kernels.halves import halves
from llavakit.kernels.packed import pack
twos = pack(torch.full((2, 3), 130, dtype=torch.uint8), torch.ones(2, 1).half(), kind='int8', group=32)
assert torch.equal(kernels.matmul(twos, torch.ones(2, 3)), torch.full((2, 2), 6.0))
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
