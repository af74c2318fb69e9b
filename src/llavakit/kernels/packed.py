"""A matrix of small numbers as the kernels read it, in memory and in files alike: a file is mapped and used as it is.

Rows are padded to panels of 16, columns to records of two groups; a group is the columns of a row that share a scale.
Panels follow one another, in each of them its records. A record is

    codes of its first group, then of its second, in lines of 64 bytes:
        4 bits: columns k..k+7 in one line; byte 4r + j has column k+j of row r of the panel in its low half and
                column k+4+j in its high half
        8 bits: columns k..k+3 in one line; byte 4r + j has column k+j of row r
    64 bytes of scales:  16 rows of the first group in float16, then of the second
    64 bytes of offsets: so too, for int4z alone

so that a line is one register of AVX-512: a whole panel takes part in each multiplication, and nothing is shuffled.
A code's value is

    int4    scale * (code - 8)
    int4z   scale * code + offset
    nf4     scale * NF4_LEVELS[code] / 127
    int8    scale * (code - 128), where no code is 0: so the dot product of two such numbers cannot overflow
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Float, Float16, Int, UInt8
from torch import Tensor

Kind = Literal["int4", "int4z", "nf4", "int8"]

PANEL = 16  # rows
LINE = 64  # bytes
GROUPS = (32, 128)

# Bits of a code, and the code that padding is filled with.
BITS = MappingProxyType({"int4": 4, "int4z": 4, "nf4": 4, "int8": 8})
CENTER = MappingProxyType({"int4": 8, "int4z": 8, "nf4": 7, "int8": 128})

# The 16 values of NormalFloat (Dettmers et al. 2023), times 127: whole, so that they multiply as int8 does.
NF4_LEVELS = (-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127)


@dataclass(frozen=True)
class Packed:
    """A matrix of `rows` outputs and `cols` inputs; `data` may be mapped from a file."""

    data: UInt8[Tensor, " bytes"]
    rows: int
    cols: int
    kind: Kind
    group: int

    def __post_init__(self) -> None:
        needed = packed_bytes(self.rows, self.cols, self.kind, self.group)
        if self.data.dtype != torch.uint8 or self.data.shape != (needed,):
            raise ValueError(
                f"{self.rows} x {self.cols} of {self.kind} in groups of {self.group} are {needed:,} bytes, "
                f"not {list(self.data.shape)} of {self.data.dtype}"
            )

    @property
    def panels(self) -> int:
        return -(-self.rows // PANEL)

    @property
    def records(self) -> int:
        """In each panel."""
        return -(-self.cols // (2 * self.group))

    @property
    def groups(self) -> int:
        """In each row, without those that are only padding."""
        return -(-self.cols // self.group)


def record_bytes(kind: Kind, group: int) -> int:
    """Bytes of two groups of a panel; raises ValueError for a kind or group that there is not."""
    if kind not in BITS:
        raise ValueError(f"there is no kind {kind!r} of packed matrix: known are {', '.join(BITS)}")
    if group not in GROUPS:
        raise ValueError(f"a group of {group} columns cannot be packed: it has to be {' or '.join(map(str, GROUPS))}")
    return _code_bytes(kind, group) + (2 * LINE if kind == "int4z" else LINE)


def packed_bytes(rows: int, cols: int, kind: Kind, group: int) -> int:
    """Bytes of a whole matrix, a multiple of 64."""
    if rows < 1 or cols < 1:
        raise ValueError(f"a matrix of {rows} x {cols} cannot be packed: it is empty")
    return -(-rows // PANEL) * -(-cols // (2 * group)) * record_bytes(kind, group)


def pack(
    codes: UInt8[Tensor, "rows cols"],
    scales: Float16[Tensor, "rows groups"],
    offsets: Float16[Tensor, "rows groups"] | None = None,
    *,
    kind: Kind,
    group: int,
) -> Packed:
    """The matrix of these codes. A last group may be shorter than the others."""
    assert (offsets is not None) == (kind == "int4z"), "int4z has offsets, and nothing else has"
    rows, cols = codes.shape
    size, end = record_bytes(kind, group), _code_bytes(kind, group)
    panels, records = -(-rows // PANEL), -(-cols // (2 * group))
    padded = torch.full((panels * PANEL, records * 2 * group), CENTER[kind], dtype=torch.uint8)
    padded[:rows, :cols] = codes
    # A step is four columns of sixteen rows; two of them make a line of 4 bits, one of 8.
    steps = padded.view(panels, PANEL, records, -1, 4).permute(0, 2, 3, 1, 4)
    lines = steps if BITS[kind] == 8 else steps[:, :, 0::2] | steps[:, :, 1::2] << 4
    numbers = [scales] if offsets is None else [scales, offsets]
    parts = [lines.reshape(panels, records, end), *(_lined_up(each, panels, records) for each in numbers)]
    data = torch.cat(parts, dim=2)
    assert data.shape[2] == size
    return Packed(data.view(-1), rows, cols, kind, group)


def unpack(
    packed: Packed,
) -> tuple[UInt8[Tensor, "rows cols"], Float16[Tensor, "rows groups"], Float16[Tensor, "rows groups"] | None]:
    """Codes, scales and offsets: the inverse of `pack`."""
    return _rows(packed, None)


def dequantize(packed: Packed) -> Float[Tensor, "rows cols"]:
    """The matrix as float32."""
    return _values(packed, *_rows(packed, None))


def gather_rows(packed: Packed, ids: Int[Tensor, " n"]) -> Float[Tensor, "n cols"]:
    """Some of the rows as float32: what an embedding table is asked for."""
    return _values(packed, *_rows(packed, ids))


def _values(packed: Packed, codes: Tensor, scales: Tensor, offsets: Tensor | None) -> Tensor:
    scales = scales.float().repeat_interleave(packed.group, dim=1)[:, : packed.cols]
    if packed.kind == "int4z":
        return scales * codes + offsets.float().repeat_interleave(packed.group, dim=1)[:, : packed.cols]
    if packed.kind == "nf4":
        return scales * whole_numbers(codes, "nf4") / 127
    return scales * whole_numbers(codes, packed.kind)


def whole_numbers(codes: UInt8[Tensor, "*shape"], kind: Kind) -> Float[Tensor, "*shape"]:
    """What the kernels multiply activations with: codes without their centre, levels for nf4; whole, in float32."""
    if kind == "nf4":
        return torch.tensor(NF4_LEVELS, dtype=torch.float32, device=codes.device)[codes.int()]
    return codes.float() if kind == "int4z" else codes.float() - CENTER[kind]


def _rows(packed: Packed, ids: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Codes, scales and offsets of the rows `ids`, or of all."""
    data = packed.data.view(packed.panels, packed.records, -1)
    end = _code_bytes(packed.kind, packed.group)
    steps = data[:, :, :end].view(packed.panels, packed.records, -1, PANEL, 4)
    steps = _chosen(steps.permute(0, 3, 1, 2, 4), ids, packed.rows)
    if BITS[packed.kind] == 4:
        steps = torch.stack((steps & 15, steps >> 4), dim=-2)
    codes = steps.flatten(1)[:, : packed.cols]
    numbers = [
        _chosen(halves.contiguous().view(torch.float16).unflatten(2, (2, PANEL)).permute(0, 3, 1, 2), ids, packed.rows)
        for halves in data[:, :, end:].split(LINE, dim=2)
    ]
    scales, *offsets = (number.flatten(1)[:, : packed.groups] for number in numbers)
    return codes, scales, offsets[0] if offsets else None


def _chosen(panels: Tensor, ids: Tensor | None, rows: int) -> Tensor:
    """Rows out of panels of them: those of `ids`, or all without the padding."""
    return panels.flatten(0, 1)[:rows] if ids is None else panels[ids // PANEL, ids % PANEL]


def _code_bytes(kind: Kind, group: int) -> int:
    """Of a record: where its scales begin."""
    return 2 * group * PANEL * BITS[kind] // 8


def _lined_up(numbers: Tensor, panels: int, records: int) -> Tensor:
    """Of each record the 64 bytes of its scales or offsets; those of padding are zero."""
    padded = torch.zeros(panels * PANEL, records * 2, dtype=torch.float16)
    padded[: numbers.shape[0], : numbers.shape[1]] = numbers
    return padded.view(panels, PANEL, records, 2).permute(0, 2, 3, 1).reshape(panels, records, -1).view(torch.uint8)
