"""Products with packed matrices on CPUs: native kernels, chosen at run time by what the processor has.

Where they are not built, and on other devices, their torch twins run in their place.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from llavakit.kernels import twin
from llavakit.kernels.halves import Halves
from llavakit.kernels.packed import Packed, gather_rows
from llavakit.kernels.threads import check_threads, cores

try:
    import llavakit.kernels._native as native
except ModuleNotFoundError:
    native, _WHY = None, "not built, for want of a C++ compiler when llavakit was installed"
except ImportError as error:
    native, _WHY = None, str(error)

if native and native.threads() > cores():
    native.set_threads(cores())  # it knows the cores, but not how much of their time there is

__all__ = ["Packed", "gather_rows", "instruction_set", "matmul", "native", "num_threads", "set_num_threads"]


def instruction_set() -> str:
    """What the native kernels run with: amx-int8, avx512-vnni, avx-vnni, avx2 or portable; or "none: " and why.

    The best that the processor has, unless the environment variable LLAVAKIT_ISA names another: ValueError where
    it names one that is not there.
    """
    return native.instruction_set() if native else f"none: {_WHY}"


def num_threads() -> int:
    """How many threads the kernels compute with: at first as many as this process may use cores."""
    return native.threads() if native else torch.get_num_threads()


def set_num_threads(count: int) -> None:
    """Compute with so many threads, here and in torch. ValueError for more than there are cores.

    Results of the native kernels do not depend on it.
    """
    check_threads(count)
    torch.set_num_threads(count)
    if native:
        native.set_threads(count)


def matmul(packed: Packed, x: Float[Tensor, "m cols"]) -> Float[Tensor, "m rows"]:
    """x times the transposed matrix, as `torch.nn.functional.linear` has it; activations become int8 in groups."""
    if native is None or x.device.type != "cpu" or len(x) == 0:
        return twin.matmul(packed, x)
    to = torch.empty(len(x), packed.rows)
    native.matmul(native_matrix(packed), x.detach().float().contiguous(), to)
    return to


def native_matrix(packed: Packed | Halves, bias: Float[Tensor, " rows"] | None = None) -> native.Matrix:
    """What the native module knows a matrix by. It holds no reference: the caller keeps `packed` and `bias` alive."""
    return native.matrix(packed.data, packed.rows, packed.cols, packed.kind, packed.group, bias)
