"""Training state comes back bit for bit, and a broken file is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.tensors import read_tensors, save_tensors


def test_tensors_and_data_come_back(tmp_path: Path) -> None:
    weight = torch.randn(3, 4)
    tensors = {
        "weight": weight,
        "transposed": weight.T,
        "shared": weight[1:],
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 2),
        "half": weight.half(),
        "random": torch.get_rng_state(),
        "nan": torch.tensor([float("nan"), float("-inf"), -0.0]),
        "yes": torch.tensor([True, False]),
    }
    data = {"step": 3, "name": "é\n", "deep": {"list": [1, None, 2.5]}}
    save_tensors(tmp_path / "state.safetensors", tensors, data)
    read, read_data = read_tensors(tmp_path / "state.safetensors")
    assert read_data == data
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        assert read[name].numpy().tobytes() == tensor.contiguous().numpy().tobytes(), name


def test_what_was_read_does_not_change_when_the_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_tensors(path, {"a": torch.ones(3)})
    first, _ = read_tensors(path)
    save_tensors(path, {"a": torch.zeros(3)})
    assert torch.equal(first["a"], torch.ones(3))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no file .*state\.safetensors"):
        read_tensors(tmp_path / "state.safetensors")


@pytest.mark.parametrize("kept", [0, 7, 40, -1])
def test_a_truncated_file(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_tensors(path, {"a": torch.ones(30)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"state\.safetensors is damaged or no safetensors file"):
        read_tensors(path)


def test_a_file_of_another_program(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "theirs.safetensors")
    with pytest.raises(CheckpointError, match="was not written by llavakit"):
        read_tensors(tmp_path / "theirs.safetensors")
