"""Packed matrices in the places of a model's own: surgery from outside, the model's code knows nothing of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from llavakit.kernels.packed import packed_bytes
from llavakit.model import Llava
from llavakit.quantize.calibrate import Inputs
from llavakit.quantize.linear import PackedMatrix, QuantizedEmbedding, QuantizedLinear, TiedHead
from llavakit.quantize.schemes import SCHEMES, Scheme
from llavakit.quantize.search import quantize_matrix

_EMBEDDINGS = "language.embed_tokens"


def matrices(model: Llava) -> Iterator[tuple[str, nn.Linear | nn.Embedding]]:
    """By name, every matrix that a scheme speaks of."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) or name == _EMBEDDINGS:
            yield name, module


def make_room(model: Llava, scheme: Scheme) -> dict[str, PackedMatrix]:
    """Put packed matrices without content where a model has its own, on the same device; returns them by name."""
    made: dict[str, PackedMatrix] = {}
    for name, module in list(matrices(model)):
        rows, cols = module.weight.shape
        where = module.weight.device
        if isinstance(module, nn.Embedding):
            made[name] = QuantizedEmbedding(rows, cols, scheme.grid(name), where)
        else:
            made[name] = QuantizedLinear(rows, cols, scheme.grid(name), bias=module.bias, device=where)
        model.set_submodule(name, made[name])
    if model.language.lm_head is None:
        model.language.lm_head = TiedHead(model.language.embed_tokens)
    return made


@torch.no_grad()
def quantize_model(model: Llava, scheme: Scheme, inputs: Inputs | None = None) -> Llava:
    """Quantise a model in memory, in place."""
    weights = {name: module.weight.detach() for name, module in matrices(model)}
    for name, place in make_room(model, scheme).items():
        place.packed = quantize_matrix(weights.pop(name), place.grid, (inputs or {}).get(name)).data
    return model


def scheme_of(model: Llava) -> str | None:
    """The name of the scheme by which a model is quantised; None for one that is not."""
    found = {name: part.grid for name, part in model.named_modules() if isinstance(part, PackedMatrix)}
    for name, scheme in SCHEMES.items():
        if found and all(scheme.grid(place) == grid for place, grid in found.items()):
            return name
    return None


def num_weights(model: Llava) -> int:
    """How many numbers a model learned, quantised or not."""
    packed = [part for part in model.modules() if isinstance(part, PackedMatrix)]
    return sum(part.rows * part.cols for part in packed) + sum(weight.numel() for weight in model.parameters())


def bytes_in(model: Llava, scheme: Scheme) -> int:
    """Bytes of the weights of a model, which may be on `meta`, once it is quantised; what stays as it is in 16 bits."""
    packed, rest = 0, sum(weight.numel() for weight in model.parameters())
    for name, module in matrices(model):
        grid = scheme.grid(name)
        packed += packed_bytes(*module.weight.shape, grid.kind, grid.group)
        rest -= module.weight.numel()
    return packed + 2 * rest
