"""LoRA adapters (Hu et al. 2021) as PEFT stores them, added to the weights they were trained on."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.reader import StoredTensor, Tensors
from llavakit.checkpoint.rename import by_our_names, rename
from llavakit.checkpoint.tables import Table

ADAPTER = "adapter_model"
ADAPTER_CONFIG_FILE = "adapter_config.json"
PREFIX = "base_model.model."
_PAIR = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")
_SAVED_WHOLE = re.compile(r"\.(?:modules_to_save|base_layer)(?:\.default)?(?=\.)")
_REFUSED = {
    "use_dora": "weight-decomposed adapters (DoRA)",
    "fan_in_fan_out": "transposed weights",
    "layer_replication": "repeated layers",
}


@dataclass(frozen=True)
class Adapter:
    """What an adapter adds: pairs of small matrices by the weight they belong to, and weights stored whole."""

    pairs: Mapping[str, tuple[StoredTensor, StoredTensor, float]]  # by foreign name: A, B and their scale
    whole: Tensors


def read_adapter(stored: Tensors, config: Mapping[str, Any], source: str) -> Adapter:
    """An adapter's file and its adapter_config.json; raises `CheckpointError` for what cannot be added to a weight."""
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise CheckpointError(f"{source} is an adapter of type {kind!r}, and only LORA is read")
    for key, meaning in _REFUSED.items():
        if config.get(key):
            raise CheckpointError(f"{source} uses {meaning} ({key}), which llavakit does not read")
    halves: dict[str, dict[str, StoredTensor]] = {}
    whole: Tensors = {}
    for name, tensor in stored.items():
        name = name.removeprefix(PREFIX)
        if found := _PAIR.fullmatch(name):
            halves.setdefault(found[1], {})[found[2]] = tensor
        else:
            whole[_SAVED_WHOLE.sub("", name)] = tensor
    pairs = {}
    for module, half in halves.items():
        if half.keys() != {"A", "B"}:
            raise CheckpointError(f"{source} has only one of the two matrices of {module}")
        a, b = half["A"], half["B"]
        if len(a.shape) != 2 or len(b.shape) != 2 or not a.shape[0] == b.shape[1] > 0:
            raise CheckpointError(f"{source}: the matrices of {module} are {a.shape} and {b.shape}, which do not fit")
        pairs[f"{module}.weight"] = (a, b, _scale(config, module, a.shape[0]))
    return Adapter(pairs, whole)


@dataclass(frozen=True)
class Adapted(StoredTensor):
    """A weight with its adapter in it, W + scale B A, computed in float32 when it is read."""

    weight: StoredTensor
    a: StoredTensor
    b: StoredTensor
    scale: float


def add(weight: StoredTensor, a: StoredTensor, b: StoredTensor, scale: float) -> Adapted:
    """A weight and the adapter made for it; raises `CheckpointError` if they do not fit."""
    if weight.shape != (b.shape[0], a.shape[1]):
        wanted = [b.shape[0], a.shape[1]]
        raise CheckpointError(f"the adapter of {weight.name} is for {wanted}, not for {list(weight.shape)}")

    def read() -> Tensor:
        return torch.addmm(weight.read().float(), b.read().float(), a.read().float(), alpha=scale)

    return Adapted(weight.name, weight.shape, "F32", read, weight, a, b, scale)


def add_adapter(tensors: Tensors, adapter: Adapter, table: Table, source: str) -> Tensors:
    """The tensors, by our names, with an adapter's pairs added and its whole weights in their places."""
    changed = dict(tensors)
    for name, (a, b, scale) in adapter.pairs.items():
        row = rename(name, table)
        ours = row.ours if row else name
        if ours not in tensors:
            raise CheckpointError(f"{source} changes {name}, which the base does not have")
        changed[ours] = add(tensors[ours], a, b, scale)
    return changed | by_our_names(adapter.whole, table)


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / r, with the exceptions that a configuration may make for single modules."""
    alpha = float(_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    found = (value for key, value in (patterns or {}).items() if module == key or module.endswith(f".{key}"))
    return next(found, default)
