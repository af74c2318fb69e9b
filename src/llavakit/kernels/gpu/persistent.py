"""A token through the whole decoder in one launch: persistent.cu, what it needs, and where it can be had."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib.resources import files
from math import ceil, log2
from typing import Any, Protocol
from warnings import warn

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llavakit.kernels.gpu.layers import GpuLayer, GpuModel
from llavakit.kernels.gpu.matrix import CHUNK, GpuMatrix

WARPS = 8  # of a program that compute, and as many that call for what they need
PIECE = 1024  # bytes of a row that are copied at once
AHEAD = 2  # pieces of four rows that are under way for a warp
MOST_SPLITS = 8
LARGEST_GROUP = 4  # query heads of a key head, whose sums fit into registers

Constants = dict[str, int]
Launch = Callable[[bytes, int], None]  # of a Model, and the address of a plan


class Launcher(Protocol):
    """Compiles a source, and gives what launches it."""

    programs: int
    shared_memory: int  # bytes that a program may have

    def __call__(self, source: str, constants: Constants, shared_memory: int) -> Launch: ...


class _Matrix(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("data", "scales")),
        *((name, ctypes.c_int32) for name in ("rows", "row_bytes", "pair_bytes", "bits", "shift")),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("input_norm", "output_norm", "heads_bias", "keys", "values")),
        *((name, _Matrix) for name in ("heads", "out", "gated", "down")),
    ]


class _Model(ctypes.Structure):
    """Before its layers."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("table", "norm", "bias", "cosine", "sine", "query", "hidden", "inner",
                                              "logits", "partial", "arrived", "slots")),
        ("eps", ctypes.c_double),
        ("head", _Matrix),
    ]  # fmt: skip


class PersistentDecoder:
    """The scores behind one token; its key and value are written into their place, as `GpuDecoder` does it."""

    def __init__(self, model: GpuModel, *, launcher: Launcher) -> None:
        sizes, layers, matrices = model.sizes, model.layers, model.matrices
        table, (dim, inner) = model.table, (model.table.shape[1], layers[0].down.cols)
        splits = min(MOST_SPLITS, max(1, launcher.programs // sizes.num_kv_heads))

        def room(number: int, dtype: torch.dtype = table.dtype) -> Tensor:
            return torch.zeros(number, dtype=dtype, device=table.device)

        self._logits = room(model.head.rows)
        buffers = {
            "query": room(sizes.num_heads * sizes.head_dim), "hidden": room(dim), "inner": room(inner),
            "logits": self._logits, "arrived": room(1, torch.int32),
            "partial": room(sizes.num_heads * splits * (sizes.head_dim + 4), torch.float32),
        }  # fmt: skip
        described = _Model(
            table=table.data_ptr(), norm=model.norm.data_ptr(), bias=_address(model.bias),
            cosine=model.cosine.data_ptr(), sine=model.sine.data_ptr(), slots=layers[0].keys.shape[1], eps=sizes.eps,
            head=_matrix(model.head), **{name: buffer.data_ptr() for name, buffer in buffers.items()},
        )  # fmt: skip
        self._described = bytes(described) + b"".join(bytes(_layer(layer)) for layer in layers)
        self._kept = model, buffers  # their addresses are in it
        constants = {
            "LAYERS": len(layers), "DROP_AFTER": model.drop_after, "DIM": dim, "INNER": inner, "HEADS": sizes.num_heads,
            "KV_HEADS": sizes.num_kv_heads, "HEAD_DIM": sizes.head_dim, "BLOCK": sizes.block, "HEADER": sizes.header,
            "SPLITS": splits, "WARPS": WARPS, "AHEAD": AHEAD, "PIECE": PIECE,
            "SCALES": max(0 if matrix.bits == 16 else 16 * PIECE // matrix.group for matrix in matrices),
            "IS_HALF": int(table.dtype == torch.float16),
        }  # fmt: skip
        most_sums = max(_pieces(matrix, launcher.programs) * 4 for matrix in matrices)
        stages, shared = _stages(constants, launcher.shared_memory, most_sums)
        if stages < 2:
            raise RuntimeError(f"its {launcher.shared_memory} bytes of shared memory hold no two pieces for each warp")
        source = files(__package__).joinpath("persistent.cu").read_text()
        self._launch = launcher(source, {**constants, "STAGES": stages}, shared)

    def __call__(self, plan: Int[Tensor, "1 numbers"]) -> Float[Tensor, "1 vocab"]:
        """What it gives holds until the next call."""
        self._launch(self._described, plan.data_ptr())
        return self._logits[None]


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _matrix(matrix: GpuMatrix) -> _Matrix:
    data, scales = matrix.data, matrix.scales
    return _Matrix(
        data.data_ptr(), _address(scales), matrix.rows, data[0].nbytes, 0 if scales is None else scales[0].nbytes,
        matrix.bits, int(log2(matrix.group)),
    )  # fmt: skip


def _layer(layer: GpuLayer) -> _Layer:
    return _Layer(
        layer.input_norm.data_ptr(), layer.output_norm.data_ptr(), _address(layer.heads_bias), layer.keys.data_ptr(),
        layer.values.data_ptr(), *map(_matrix, layer.matrices),
    )  # fmt: skip


def _pieces(matrix: GpuMatrix, programs: int) -> int:
    """That a program multiplies, at most."""
    return ceil(ceil(matrix.rows / 4) / programs) * ceil(matrix.data[0].nbytes / PIECE)


def _stages(constants: Constants, shared_memory: int, most_sums: int) -> tuple[int, int]:
    """How many pieces of four rows a warp has room for, and the bytes of shared memory that a program has then."""
    heads = constants["HEADS"] * constants["HEAD_DIM"]
    widest = -(-max(constants["DIM"], constants["INNER"], heads) // CHUNK) * CHUNK
    group = constants["HEADS"] // constants["KV_HEADS"]
    activations = max(2 * widest, 4 * WARPS * group * (constants["HEAD_DIM"] + 4))
    aside = activations + 4 * (widest // 128 + widest // 16 + WARPS + most_sums)
    stage = 4 * PIECE + constants["SCALES"] + 16
    stages = (shared_memory - aside) // (WARPS * stage)
    return stages, aside + WARPS * stages * stage


def persistent_decoder(model: GpuModel) -> PersistentDecoder | None:
    """Where it can be had; else the kernels of `GpuDecoder` compute single tokens too, only slower.

    It needs copies and barriers that cards have since Hopper (9.0), and 16-bit numbers.
    """
    device = model.table.device
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (9, 0) or not _fits(model):
        return None
    try:
        return PersistentDecoder(model, launcher=OnCard(device))
    except Exception as error:  # whatever a compiler, a driver or the absence of either brings
        warn(f"Tokens are decoded by five kernels a layer, because one for all of them failed: {error}", stacklevel=2)
        return None


def _fits(model: GpuModel) -> bool:
    """Shapes and types, and that everything begins where 16 bytes can be read at once."""
    norms = [norm for layer in model.layers for norm in (layer.input_norm, layer.output_norm)]
    read = [model.table, model.norm, *norms, *(matrix.data for matrix in model.matrices)]
    return (
        model.table.dtype in (torch.bfloat16, torch.float16)
        and model.sizes.head_dim in (64, 128)
        and model.sizes.num_heads // model.sizes.num_kv_heads <= LARGEST_GROUP
        and all(weights.data_ptr() % 16 == 0 for weights in read)
    )


class OnCard:
    """Compiles by NVRTC and launches through the driver, by the bindings that come along with torch."""

    def __init__(self, device: torch.device) -> None:
        about = torch.cuda.get_device_properties(device)
        self._device, self._architecture = device, f"sm_{about.major}{about.minor}a"
        self.programs, self.shared_memory = about.multi_processor_count, about.shared_memory_per_block_optin

    def __call__(self, source: str, constants: Constants, shared_memory: int) -> Launch:
        from cuda.bindings import driver

        code = compiled(source, constants, self._architecture)
        threads, programs = 2 * constants["WARPS"] * 32, self.programs
        with torch.cuda.device(self._device):
            module = _checked(driver.cuModuleLoadData(code))
            kernel = _checked(driver.cuModuleGetFunction(module, b"decode_token"))
            wanted = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _checked(driver.cuFuncSetAttribute(kernel, wanted, shared_memory))
            if not _checked(driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(kernel, threads, shared_memory)):
                raise RuntimeError("this card has no room for it")

        def launch(model: bytes, plan: int) -> None:
            given = ctypes.create_string_buffer(model, len(model)), ctypes.c_int64(plan)
            places = (ctypes.c_void_p * 2)(*map(ctypes.addressof, given))
            stream = torch.cuda.current_stream(self._device).cuda_stream
            # All programs have to be there at once, because they wait for one another: that is what cooperative means.
            done = driver.cuLaunchCooperativeKernel(
                kernel, programs, 1, 1, threads, 1, 1, shared_memory, stream, ctypes.addressof(places)
            )
            _checked(done)

        return launch


def compiled(source: str, constants: Constants, architecture: str) -> bytes:
    """Machine code for a card, say "sm_90a"."""
    from cuda.bindings import nvrtc

    text = files(__package__).joinpath("hopper.cuh").read_text() + source
    program = _checked(nvrtc.nvrtcCreateProgram(text.encode(), b"persistent.cu", 0, [], []))
    options = [f"-arch={architecture}", "-std=c++17", "--prec-div=false"]
    options += [f"-D{name}={value}" for name, value in constants.items()]
    result, *_ = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        _checked(nvrtc.nvrtcGetProgramLog(program, log))
        raise RuntimeError(f"NVRTC: {log.decode()}")
    code = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, code))
    return code


def _checked(result: tuple[Any, ...]) -> Any:
    """What a call of the bindings gives behind its error code."""
    error, *values = result
    if error.value != 0:
        raise RuntimeError(f"CUDA: {error.name}")
    return values[0] if values else None
