"""Protocol buffers as they lie in a file: numbered fields, each a number, a few bytes, or a run of known length."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A type of field: how it lies in the file (its wire type), and how it becomes a value."""

    wire: int
    value: Callable[[Any], Any]
    repeated: bool = False


NUMBER = Kind(0, int)
BOOL = Kind(0, bool)
FLOAT = Kind(5, lambda raw: struct.unpack("<f", raw)[0])
BYTES = Kind(2, bytes)
TEXT = Kind(2, lambda raw: raw.decode())
MANY_BYTES = Kind(2, bytes, repeated=True)

Schema = Mapping[int, tuple[str, Kind]]


def parse(data: bytes, schema: Schema) -> dict[str, Any]:
    """The named fields of one message; a field that is not in the schema is skipped, one not in the data is absent.

    A message inside a message is read as bytes, to be parsed with a schema of its own. Raises ValueError for data
    that ends too early or is no protocol buffer. Takes no more memory than the data.
    """
    found: dict[str, Any] = {name: [] for name, kind in schema.values() if kind.repeated}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        raw, at = _field(data, at, wire)
        if number not in schema:
            continue
        name, kind = schema[number]
        if wire != kind.wire:
            raise ValueError(f"field {number} ({name}) has wire type {wire} where {kind.wire} is right")
        if kind.repeated:
            found[name].append(kind.value(raw))
        else:
            found[name] = kind.value(raw)
    return found


def _field(data: bytes, at: int, wire: int) -> tuple[int | bytes, int]:
    if wire == 0:
        return _varint(data, at)
    if wire == 2:
        length, at = _varint(data, at)
    elif wire in (1, 5):
        length = 8 if wire == 1 else 4
    else:
        raise ValueError(f"at byte {at} stands a field of wire type {wire}, which does not occur")
    if length > len(data) - at:
        raise ValueError(f"at byte {at} stand {length} bytes announced and {len(data) - at} left")
    return data[at : at + length], at + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, seven bits a byte, the lowest first; every byte but the last has its high bit set."""
    value = 0
    for index, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError(f"the number at byte {at} does not end")
