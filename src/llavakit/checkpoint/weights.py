"""A model from a folder: built without memory, then given the stored tensors, no key missing, none left over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.aligned import PACKED
from llavakit.checkpoint.contents import NO_PARTS, Contents, Parts, read_contents
from llavakit.checkpoint.memory import check_memory
from llavakit.checkpoint.reader import StoredTensor
from llavakit.checkpoint.save import overflows
from llavakit.model import Llava
from llavakit.model.empty import empty
from llavakit.quantize.apply import make_room
from llavakit.quantize.schemes import find_scheme

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
    compute float16 many times more slowly. What is not packed in a quantised model becomes float32.
    Weights that need no conversion stay mapped from their file. Raises `CheckpointError` naming every key at fault, and
    `TooLittleMemory` where the model does not fit.
    """
    contents = read_contents(folder, parts)
    model, device = empty_model(contents), torch.device(device)
    check_fit(model, contents.tensors, folder)
    dtype = _dtype_of_quantised(dtype, folder) if contents.scheme else dtype or _natural_dtype(contents.tensors, device)
    if device.type == "cpu":
        check_memory(contents, dtype, folder)
    fill(model, contents.tensors, device=device, dtype=dtype, source=folder)
    return model.eval()


def empty_model(contents: Contents) -> Llava:
    """The model that the tensors are for, without memory."""
    model = empty(contents.config)
    if contents.scheme:
        make_room(model, find_scheme(contents.scheme))
    return model


def fill(
    model: nn.Module,
    stored: Mapping[str, StoredTensor],
    *,
    device: torch.device,
    dtype: torch.dtype,
    source: Path,
) -> None:
    """Give a model made on `meta` its tensors, `stored` by the model's own names; strict about names and shapes."""
    check_fit(model, stored, source)
    model.load_state_dict(
        {name: _as(tensor.read(), name, dtype).to(device) for name, tensor in stored.items()}, assign=True
    )


def _as(weight: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """A weight in another type; raises `CheckpointError` where that would make numbers infinite. Codes stay codes."""
    if not weight.is_floating_point():
        return weight
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
    state = model.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    found = {
        "missing": [name for name in expected if name not in stored],
        "not used": [tensor.name for name, tensor in stored.items() if name not in expected],
        "of another shape than the configuration says": [
            f"{tensor.name} {list(tensor.shape)} instead of {list(expected[name])}"
            for name, tensor in stored.items()
            if name in expected and tensor.shape != expected[name]
        ],
        "not floating-point numbers": [
            f"{tensor.name} ({tensor.dtype})"
            for name, tensor in stored.items()
            if tensor.dtype not in _FLOATS and not (tensor.dtype == PACKED and _is_packed(state.get(name)))
        ],
        "not packed, but numbers of their own": [
            f"{tensor.name} ({tensor.dtype})"
            for name, tensor in stored.items()
            if tensor.dtype in _FLOATS and _is_packed(state.get(name))
        ],
    }
    return {what: names for what, names in found.items() if names}


def _is_packed(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.dtype == torch.uint8


def stored_dtype(stored: Mapping[str, StoredTensor]) -> torch.dtype:
    """The type of the embeddings, which stands for that of a checkpoint of mixed types; quantised, the norm's."""
    embeddings = (tensor for name, tensor in stored.items() if name.endswith("embed_tokens.weight"))
    return _FLOATS[(next(embeddings, None) or stored["language.norm.weight"]).dtype]


def _dtype_of_quantised(wanted: torch.dtype | None, folder: Path) -> torch.dtype:
    """What is beside the packed matrices: float32, which their products are in."""
    if wanted not in (None, torch.float32):
        raise CheckpointError(f"{folder} is quantised, and computes in float32 beside: leave out the other --dtype")
    return torch.float32


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
