"""Too little memory is told before anything is loaded, with what would fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from llavakit.checkpoint import memory
from llavakit.checkpoint.load import load
from llavakit.checkpoint.memory import TooLittleMemory, available_bytes
from llavakit.checkpoint.quantizing import quantize_checkpoint
from llavakit.model import Llava
from llavakit.quantize.apply import bytes_in
from llavakit.quantize.schemes import SCHEMES


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files in which Linux tells of memory, for a test to write."""
    root = tmp_path / "machine"
    (root / "cgroup" / "a" / "b").mkdir(parents=True)
    for name, path in (("_MEMINFO", "meminfo"), ("_CGROUPS", "cgroup"), ("_OWN_CGROUP", "own"), ("_STATM", "statm")):
        monkeypatch.setattr(memory, name, root / path)
    return root


def test_the_machine_says_how_much_is_free(machine: Path) -> None:
    assert available_bytes() is None
    (machine / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable: 500 kB\n")
    assert available_bytes() == 500 * 1024


def test_a_group_may_have_less_and_its_parent_too(machine: Path) -> None:
    (machine / "meminfo").write_text("MemAvailable: 500 kB\n")
    (machine / "own").write_text("1:name=systemd:/\n0::/a/b\n")
    group = machine / "cgroup" / "a" / "b"
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("77\n")
    assert available_bytes() == 500 * 1024
    (group.parent / "memory.max").write_text("100000\n")
    (group.parent / "memory.current").write_text("60000\n")
    assert available_bytes() == 40000
    (group.parent / "memory.stat").write_text("anon 1\ninactive_file 10000\nactive_file 500\n")
    assert available_bytes() == 50500
    (group / "memory.max").write_text("50\n")
    assert available_bytes() == 0


def test_what_would_fit_is_named(folder: Path, model: Llava, machine: Path, tmp_path: Path) -> None:
    sizes = {name: bytes_in(model, scheme) for name, scheme in SCHEMES.items()}
    floats = sum(weight.nbytes for weight in model.parameters())

    def free(num_bytes: int) -> None:
        (machine / "meminfo").write_text(f"MemAvailable: {num_bytes // 1024} kB\n")

    assert sizes["int4-g32"] < sizes["int8"]
    quantize_checkpoint(folder, tmp_path / "int8", scheme="int8")
    free(floats + 1024)
    load(folder)
    free(sizes["int8"])
    if floats > sizes["int8"]:
        with pytest.raises(TooLittleMemory, match="float32, and .* are free: `llava quantize MODEL --scheme int8"):
            load(folder)
    free(sizes["int4-g32"] + 1024)
    with pytest.raises(TooLittleMemory, match=r"in int8, .* quantise the model it was made from with --scheme"):
        load(tmp_path / "int8")
    free(1024)
    with pytest.raises(TooLittleMemory, match="even by the scheme .* take a smaller model"):
        load(folder)


def test_of_this_process() -> None:
    free = available_bytes()
    assert free is None or free > torch.zeros(1).nbytes
