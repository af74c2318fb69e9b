"""A model without memory: its shapes alone, to be given tensors, or to be measured."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from llavakit.config import LlavaConfig
from llavakit.model.llava import Llava


def empty(config: LlavaConfig) -> Llava:
    """The model on `meta`. First weights are not drawn: for numbers that nobody sees torch would load its compiler."""
    with torch.device("meta"), _NothingDrawn():
        return Llava(config)


class _NothingDrawn(TorchFunctionMode):
    """Passes over what draws numbers, whether of torch's functions or of a tensor's own."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
