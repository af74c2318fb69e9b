"""Every kernel becomes code for a card, also where there is none: what is interpreted elsewhere is not all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="kernels of a GPU are written in triton, which is not installed")
pytest.importorskip("triton.backends.nvidia", reason="this triton compiles for no Nvidia card")


@pytest.mark.parametrize(("capability", "shared"), [(89, 101_376), (90, 232_448)])
def test_kernels_are_compiled_for_a_card_that_is_not_there(
    root: Path, tmp_path: Path, capability: int, shared: int
) -> None:
    environment = os.environ | {"PYTHONPATH": str(root / "src"), "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    program = [sys.executable, root / "tests/kernels/gpu/compiled.py", str(capability), str(shared)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    told = [line.split() for line in done.stdout.splitlines()]
    assert len({name for name, *_ in told}) == 10
    for name, taken, spilled in told:
        assert int(taken) <= shared, f"{name} finds no room"
        assert capability < 90 or int(spilled) < 1024, f"{name} needs more registers than there are"
