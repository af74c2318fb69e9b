"""Native CPU kernels behind plain functions of tensors, chosen at run time by what the processor has.

Where they are not built, the torch twins of `twin.py` run in their place.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from llavakit.kernels import twin

try:
    import llavakit.kernels._native as native
except ModuleNotFoundError:
    native, _WHY = None, "not built, for want of a C++ compiler when llavakit was installed"
except ImportError as error:
    native, _WHY = None, str(error)


def instruction_set() -> str:
    """What the native kernels run with: avx512-vnni, avx-vnni, avx2 or portable; or "none: " and why.

    The best that the processor has, unless the environment variable LLAVAKIT_ISA names another: ValueError where
    it names one that is not there.
    """
    return native.instruction_set() if native else f"none: {_WHY}"


def num_threads() -> int:
    """How many threads the kernels compute with: at first as many as this process has cores."""
    return native.threads() if native else torch.get_num_threads()


def set_num_threads(count: int) -> None:
    """Compute with so many threads. Results do not depend on it. ValueError for more than there are cores."""
    if native:
        native.set_threads(count)
    else:
        torch.set_num_threads(count)


def rms_norm(x: Float[Tensor, "rows dim"], weight: Float[Tensor, " dim"], eps: float) -> Float[Tensor, "rows dim"]:
    """Rows by their root mean square (Zhang and Sennrich 2019)."""
    if native is None:
        return twin.rms_norm(x, weight, eps)
    to = torch.empty_like(x, memory_format=torch.contiguous_format)
    native.rms_norm(x.detach().contiguous(), weight.detach().contiguous(), eps, to)
    return to
