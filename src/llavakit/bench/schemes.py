"""A model of given shapes in a given number format, ready to be measured: the table of formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch

from llavakit.bench.packed_subject import PackedSubject
from llavakit.bench.runner_subject import RunnerSubject, random_quantised
from llavakit.bench.shapes import FLOATS, random_model
from llavakit.bench.subject import Subject, TorchSubject
from llavakit.config import LlavaConfig, nearest
from llavakit.kernels import instruction_set, native, set_num_threads
from llavakit.kernels.graph import KeysValues
from llavakit.quantize import schemes as quantize


def _float(config: LlavaConfig, dtype: torch.dtype) -> Subject:
    return TorchSubject(random_model(config, dtype=dtype))


SCHEMES: Mapping[str, Callable[..., Subject]] = MappingProxyType(
    {
        "float32": partial(_float, dtype=torch.float32),
        "bfloat16": partial(_float, dtype=torch.bfloat16),
        **{name: partial(PackedSubject, scheme=scheme) for name, scheme in quantize.SCHEMES.items()},
    }
)


def make_subject(
    config: LlavaConfig,
    scheme: str,
    *,
    threads: int,
    device: str = "cpu",
    conversations: int = 1,
    length: int = 1,
    kv_cache: KeysValues | None = None,
) -> Subject:
    """On another device than a CPU there has to be room for so many conversations of so many tokens.

    Raises ValueError for an unknown scheme, on a CPU for a packed one where the native kernels are not built, and for a
    `kv_cache` where they are not used.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"there is no scheme called {scheme!r}: {nearest(scheme, list(SCHEMES))}")
    if kv_cache is not None and (device != "cpu" or scheme in FLOATS):
        raise ValueError(
            f"keys and values are kept as {kv_cache} by the native kernels alone, and this is {scheme} on {device}: "
            f"take a quantised scheme on cpu"
        )
    if device != "cpu":
        model = random_quantised(config, scheme, device)
        return RunnerSubject(model, conversations=conversations, length=length)
    if scheme not in FLOATS and native is None:
        raise ValueError(f"{scheme} is measured with the native kernels ({instruction_set()}): take one of {FLOATS}")
    set_num_threads(threads)
    return SCHEMES[scheme](config) if kv_cache is None else SCHEMES[scheme](config, kv_cache=kv_cache)
