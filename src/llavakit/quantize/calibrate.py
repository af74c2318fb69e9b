"""What the matrices of a model are multiplied with, when it reads what it will read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from llavakit.model import Llava
from llavakit.quantize.moments import Moments
from llavakit.quantize.schemes import Scheme

Inputs = Mapping[str, Moments]  # by the name of the matrix they go into; those that nothing was seen of are not in it


@contextmanager
def recorded(model: Llava, scheme: Scheme) -> Iterator[Inputs]:
    """While this is open, all that goes into a matrix of few bits is counted.

    Matrices side by side read the same input and share its moments.
    """
    seen: dict[str, Moments] = {}
    latest: list[tuple[Tensor, Moments]] = []

    def record(name: str, module: nn.Linear, given: tuple[Tensor]) -> None:
        if latest and latest[0][0] is given[0]:
            seen[name] = latest[0][1]
            return
        if name not in seen:
            seen[name] = Moments(module.in_features)
        seen[name].add(given[0].detach().flatten(0, -2))
        latest[:] = [(given[0], seen[name])]

    hooks = [
        module.register_forward_pre_hook(partial(record, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not scheme.grid(name).is_exact
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
