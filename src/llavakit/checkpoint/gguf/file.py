"""One GGUF file: metadata, then tensors, read and converted one by one while they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.atomic import atomic_file
from llavakit.checkpoint.reader import StoredTensor

Value = str | bool | int | float | list[int] | list[float] | list[str]


@dataclass(frozen=True)
class Entry:
    """A tensor to be written; `read` gives its values as float32, in the shape that PyTorch has."""

    name: str
    shape: tuple[int, ...]
    type: Type
    read: Callable[[], np.ndarray]


def values(stored: StoredTensor) -> np.ndarray:
    """The values of a stored tensor; widened to float32, which is exact for all types that weights have here."""
    return stored.read().float().numpy()


def write(path: Path, arch: str, metadata: Mapping[str, Value], entries: list[Entry]) -> None:
    """Write `path`, all or nothing; of the tensors one is in memory at a time.

    Raises `CheckpointError` if a value does not fit into its type, or if the disk refuses.
    """
    try:
        with atomic_file(path) as partial:
            writer = gguf.GGUFWriter(partial, arch)
            try:
                _write(writer, metadata, entries)
            finally:
                writer.close()
    except OSError as error:
        raise CheckpointError(f"could not write {path} ({error}); what was there before is untouched") from error


def _write(writer: gguf.GGUFWriter, metadata: Mapping[str, Value], entries: list[Entry]) -> None:
    for key, value in metadata.items():
        _add(writer, key, value)
    for entry in entries:
        shape = gguf.quant_shape_to_byte_shape(entry.shape, entry.type)
        # The writer takes the shape of the bytes, and turns it into that of the numbers again.
        writer.add_tensor_info(entry.name, shape, np.dtype(np.uint8), int(np.prod(shape)), raw_dtype=entry.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for entry in entries:
        writer.write_tensor_data(_converted(entry))


def _add(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)


def _converted(entry: Entry) -> np.ndarray:
    numbers = np.ascontiguousarray(entry.read())
    with np.errstate(over="ignore"):
        written = gguf.quantize(numbers, entry.type)
    if entry.type == Type.F16 and not np.array_equal(np.isfinite(written), np.isfinite(numbers)):
        raise CheckpointError(f"{entry.name} holds values too large for 16-bit numbers of GGUF's kind, float16")
    return written
