"""A model of given shapes in a given number format, ready to be measured: the table of formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch

from llavakit.bench.shapes import random_model
from llavakit.bench.subject import Subject, TorchSubject
from llavakit.config import LlavaConfig, nearest


def _float(config: LlavaConfig, dtype: torch.dtype) -> Subject:
    return TorchSubject(random_model(config, dtype=dtype))


SCHEMES: Mapping[str, Callable[[LlavaConfig], Subject]] = MappingProxyType(
    {
        "float32": partial(_float, dtype=torch.float32),
        "bfloat16": partial(_float, dtype=torch.bfloat16),
    }
)


def make_subject(config: LlavaConfig, scheme: str, *, threads: int) -> Subject:
    """Raises ValueError for an unknown scheme."""
    if scheme not in SCHEMES:
        raise ValueError(f"there is no scheme called {scheme!r}: {nearest(scheme, list(SCHEMES))}")
    torch.set_num_threads(threads)
    return SCHEMES[scheme](config)
