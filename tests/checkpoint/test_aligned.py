"""The file: readable by others, and packed matrices where they can be used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llavakit.checkpoint.aligned import in_memory, write_aligned
from llavakit.checkpoint.reader import Reader


@pytest.mark.parametrize("length", range(0, 70, 3))
def test_bytes_lie_at_multiples_of_64_and_all_is_read_back(length: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(length)
    tensors = {
        "half." + "x" * length: torch.randn(3, 5, generator=generator).half(),
        "a.packed": torch.randint(0, 256, (576,), generator=generator, dtype=torch.uint8),
        "norm": torch.randn(7, generator=generator).bfloat16(),
        "z.packed": torch.randint(0, 256, (64,), generator=generator, dtype=torch.uint8),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "single": torch.randn(2, 3, generator=generator).T,
    }
    path = tmp_path / "model.safetensors"
    write_aligned(path, [in_memory(name, tensor) for name, tensor in tensors.items()])
    for stored in (load_file(path), {name: one.read() for name, one in Reader().file(tmp_path, "model").items()}):
        assert stored.keys() == tensors.keys()
        for name, tensor in stored.items():
            assert torch.equal(tensor, tensors[name]) and tensor.dtype == tensors[name].dtype
            assert not name.endswith("packed") or tensor.data_ptr() % 64 == 0


def test_a_tensor_is_read_only_when_its_turn_comes(tmp_path: Path) -> None:
    alive: list[str] = []

    def lazily(name: str) -> object:
        tensor = in_memory(name, torch.zeros(64, dtype=torch.uint8))
        return type(tensor)(name, (64,), "U8", lambda: alive.append(name) or torch.zeros(64, dtype=torch.uint8))

    tensors = [lazily(name) for name in "cab"]
    assert not alive
    write_aligned(tmp_path / "model.safetensors", tensors)
    assert alive == ["a", "b", "c"]
