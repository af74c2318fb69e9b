"""Damaged, incomplete and misleading files: each is told apart and named, none is half read."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.reader import stored_tensors


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(4)}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder with two files and an index."""
    save_file({"a": torch.ones(2)}, tmp_path / "one.safetensors")
    save_file({"b": torch.zeros(4)}, tmp_path / "two.safetensors")
    write_index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    return tmp_path


def write_index(folder: Path, places: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def rewrite_header(path: Path, **entry: object) -> None:
    """Change what the header says of `a`, and leave the data as they are."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["a"] |= entry
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])


def test_headers_are_read_before_values(weights: Path) -> None:
    tensor = stored_tensors(weights.parent)["a"]
    assert (tensor.shape, tensor.dtype) == ((2, 3), "F32")
    assert torch.equal(tensor.read(), torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("kept", [0, 4, 8, 60, -1])
def test_a_truncated_file_is_named(kept: int, weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged, truncated or no safetensors file"):
        stored_tensors(weights.parent)


@pytest.mark.parametrize(
    "lie",
    [{"data_offsets": [0, 400]}, {"data_offsets": [-8, 16]}, {"shape": [2, 300]}, {"dtype": "F64"}, {"dtype": "X1"}],
)
def test_a_header_that_lies_is_found_out(lie: dict[str, object], weights: Path) -> None:
    rewrite_header(weights, **lie)
    with pytest.raises(CheckpointError, match="is damaged"):
        stored_tensors(weights.parent)


@pytest.mark.parametrize("length", [0, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_header_longer_than_its_file_is_found_out(length: int, weights: Path) -> None:
    weights.write_bytes(struct.pack("<Q", length) + weights.read_bytes()[8:])
    with pytest.raises(CheckpointError, match="is damaged"):
        stored_tensors(weights.parent)


def test_shards_are_read_as_one(shards: Path) -> None:
    assert stored_tensors(shards).keys() == {"a", "b"}


def test_an_index_that_names_a_missing_file(shards: Path) -> None:
    (shards / "two.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"index\.json names two\.safetensors, but that file is missing"):
        stored_tensors(shards)


@pytest.mark.parametrize(
    "places",
    [
        {"a": "one.safetensors", "b": "one.safetensors"},
        {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"},
    ],
)
def test_an_index_that_disagrees_with_its_files(places: dict[str, str], shards: Path) -> None:
    write_index(shards, places)
    with pytest.raises(CheckpointError, match=r"index\.json and (one|two)\.safetensors disagree on [bc]$"):
        stored_tensors(shards)


@pytest.mark.parametrize(
    "name", ["../one.safetensors", "/etc/passwd", "sub/one.safetensors", "pytorch_model.bin", ".."]
)
def test_an_index_cannot_lead_out_of_its_folder(name: str, shards: Path) -> None:
    write_index(shards, {"a": name})
    with pytest.raises(CheckpointError, match="is no safetensors file in the same folder"):
        stored_tensors(shards)


@pytest.mark.parametrize("places", [None, [], {"a": 3}])
def test_an_index_without_a_map(places: object, shards: Path) -> None:
    write_index(shards, places)
    with pytest.raises(CheckpointError, match="has no weight_map"):
        stored_tensors(shards)


def test_pickles_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(CheckpointError, match=r"as pickles \(pytorch_model\.bin\), which can run any code"):
        stored_tensors(tmp_path)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no weights"):
        stored_tensors(tmp_path)
