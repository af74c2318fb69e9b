"""A model from a folder: built without memory, then given the stored tensors, no key missing, none left over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.contents import NO_PARTS, Parts, read_contents
from llavakit.checkpoint.reader import StoredTensor
from llavakit.checkpoint.save import overflows
from llavakit.model import Llava

LARGEST_WIDENED = 10**9  # weights of a model that is widened to float32 on a CPU: 4 GB

_FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def load_model(
    folder: Path,
    *,
    parts: Parts = NO_PARTS,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Llava:
    """The model of a folder in any format, with the `parts` that are not in it, in evaluation mode.

    `dtype` None keeps the stored type (that of the embeddings, where types are mixed), but for 16 bits on a CPU: small
    models are widened to float32, which is exact; large ones, which would not fit then, become bfloat16, for CPUs
    compute float16 many times more slowly.
    Weights that need no conversion stay mapped from their file. Raises `CheckpointError` naming every key at fault.
    """
    contents = read_contents(folder, parts)
    with torch.device("meta"):
        model = Llava(contents.config)
    fill(model, contents.tensors, device=torch.device(device), dtype=dtype, source=folder)
    return model.eval()


def fill(
    model: nn.Module,
    stored: Mapping[str, StoredTensor],
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    source: Path,
) -> None:
    """Give a model made on `meta` its tensors, `stored` by the model's own names; strict about names and shapes."""
    check_fit(model, stored, source)
    dtype = dtype or _natural_dtype(stored, device)
    model.load_state_dict(
        {name: _as(tensor.read(), name, dtype).to(device) for name, tensor in stored.items()}, assign=True
    )


def _as(weight: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """A weight in another type; raises `CheckpointError` where that would make numbers infinite."""
    converted = weight.to(dtype)
    if dtype == torch.float16 and overflows(converted, weight):
        raise CheckpointError(f"{name} holds values too large for float16: give another --dtype")
    return converted


def check_fit(model: nn.Module, stored: Mapping[str, StoredTensor], source: Path) -> None:
    """Raise `CheckpointError` unless `stored` are just the tensors of a model, which may be on `meta`."""
    problems = [_listed(what, names) for what, names in misfits(model, stored).items()]
    if problems:
        raise CheckpointError(f"the weights in {source} do not fit their configuration: {'; '.join(problems)}")


def misfits(model: nn.Module, stored: Mapping[str, StoredTensor]) -> dict[str, list[str]]:
    """Where `stored` are not the tensors of a model: the names by what is wrong with them; empty where they fit."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {
        "missing": [name for name in expected if name not in stored],
        "not used": [tensor.name for name, tensor in stored.items() if name not in expected],
        "of another shape than the configuration says": [
            f"{tensor.name} {list(tensor.shape)} instead of {list(expected[name])}"
            for name, tensor in stored.items()
            if name in expected and tensor.shape != expected[name]
        ],
        "not floating-point numbers": [
            f"{tensor.name} ({tensor.dtype})" for tensor in stored.values() if tensor.dtype not in _FLOATS
        ],
    }
    return {what: names for what, names in found.items() if names}


def stored_dtype(stored: Mapping[str, StoredTensor]) -> torch.dtype:
    """The type of the embeddings, which stands for that of a checkpoint where types are mixed."""
    embeddings = next(tensor for name, tensor in stored.items() if name.endswith("embed_tokens.weight"))
    return _FLOATS[embeddings.dtype]


def _natural_dtype(stored: Mapping[str, StoredTensor], device: torch.device) -> torch.dtype:
    dtype = stored_dtype(stored)
    if device.type != "cpu" or dtype.itemsize > 2:
        return dtype
    num_weights = sum(math.prod(tensor.shape) for tensor in stored.values())
    return torch.float32 if num_weights <= LARGEST_WIDENED else torch.bfloat16


def _listed(what: str, names: list[str], limit: int = 8) -> str:
    """The names, or so many of them, that are `what`."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{what}: {', '.join(names[:limit])}{more}"
