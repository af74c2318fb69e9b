"""Weights in several files hold what they would hold in one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.reader import StoredTensor, Tensors, stored_tensors
from llavakit.checkpoint.shards import split, write_tensors


def tensors(*sizes: int) -> Tensors:
    return {
        f"t{number}": StoredTensor("elsewhere", (size,), "F32", lambda size=size: torch.arange(size).float())
        for number, size in enumerate(sizes)
    }


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((1, 2, 3), [["t0", "t1", "t2"]]),
        ((3, 3, 4), [["t0", "t1"], ["t2"]]),
        ((1, 9, 1), [["t0"], ["t1"], ["t2"]]),  # one that is larger than a file may be has its own
        ((9,), [["t0"]]),
        ((), [[]]),
    ],
)
def test_files_are_filled_in_order(sizes: tuple[int, ...], expected: list[list[str]]) -> None:
    assert split(tensors(*sizes), torch.float32, max_bytes=6 * 4) == expected
    assert split(tensors(*sizes), torch.float16, max_bytes=6 * 2) == expected


@pytest.mark.parametrize("max_bytes", [10**9, 40, 1])
def test_what_is_written_is_what_was_given(max_bytes: int, tmp_path: Path) -> None:
    given = tensors(4, 6, 3, 8)
    write_tensors(given, tmp_path, torch.float32, max_bytes)
    found = stored_tensors(tmp_path)
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name].read(), tensor.read()) for name, tensor in given.items())
    assert (tmp_path / "model.safetensors").exists() == (max_bytes > 84)


def test_the_index_is_as_transformers_has_it(tmp_path: Path) -> None:
    write_tensors(tensors(4, 6), tmp_path, torch.float16, max_bytes=12)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index == {
        "metadata": {"total_size": 20},
        "weight_map": {"t0": "model-00001-of-00002.safetensors", "t1": "model-00002-of-00002.safetensors"},
    }


def test_no_more_than_one_file_is_in_memory(tmp_path: Path) -> None:
    alive: set[int] = set()
    most = 0

    class Counted(torch.Tensor):
        def __del__(self) -> None:
            alive.discard(id(self))

    def read() -> torch.Tensor:
        nonlocal most
        tensor = torch.zeros(10).as_subclass(Counted)
        alive.add(id(tensor))
        most = max(most, len(alive))
        return tensor

    given = {f"t{number}": StoredTensor("", (10,), "F32", read) for number in range(12)}
    write_tensors(given, tmp_path, torch.float32, max_bytes=3 * 40)
    assert most <= 4


def test_a_value_too_large_is_not_written_as_infinity(tmp_path: Path) -> None:
    given = {"big": StoredTensor("", (1,), "F32", lambda: torch.tensor([1e6]))}
    with pytest.raises(CheckpointError, match="big holds values too large"):
        write_tensors(given, tmp_path, torch.float16)
