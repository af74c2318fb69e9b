"""A weight matrix as the kernels of a GPU read it: plain numbers, or codes of 8 or 4 bits with scales of their groups.

A chunk is what one step of a sum reads of a row. Two columns of 4 bits share a byte, and they stand half a chunk apart:
byte j of a chunk of 256 columns has column j in its low half and column 128 + j in its high one. So either half of the
bytes is multiplied with columns that follow one another, and nothing is shuffled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float16, Int32
from torch import Tensor
from torch.nn import functional as F

from llavakit.kernels.packed import BITS, CENTER, NF4_LEVELS, Packed, unpack

CHUNK = 256  # columns; a multiple of every group


@dataclass(frozen=True)
class GpuMatrix:
    """`rows` outputs and `cols` inputs. Plain where `bits` is 16, whatever numbers they are; else codes:

        4 bits    scale * (code - 8); two codes in a byte
        8 bits    scale * code, which has a sign

    `scales` are float16, two in a word: of a group of the left half of a chunk in its lower half, and of the group as
    far into the right one in its upper half. Those of a row and of the next take turns, because a kernel reads both,
    and their number is even, because it copies 16 bytes at once.
    """

    data: Tensor
    rows: int
    cols: int
    bits: int = 16
    group: int = CHUNK // 2
    scales: Int32[Tensor, "pairs words 2"] | None = None

    @property
    def width(self) -> int:
        """Columns of a row as it lies in memory; of codes with padding, up to whole chunks."""
        return self.cols if self.bits == 16 else -(-self.cols // CHUNK) * CHUNK

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def values(self) -> Float[Tensor, "rows cols"]:
        """The matrix itself; of codes in float32."""
        if self.bits == 16:
            return self.data
        numbers = self.data
        if self.bits == 4:
            numbers = numbers.unflatten(1, (-1, CHUNK // 2))
            numbers = torch.cat((numbers & 15, numbers >> 4), dim=2).flatten(1)
            numbers = numbers.float() - CENTER["int4"]
        words = self.scales.transpose(1, 2).flatten(0, 1)[: self.rows, : self.width // self.group // 2].contiguous()
        halves = words.view(torch.float16).float().unflatten(1, (self.width // CHUNK, -1, 2))
        scales = halves.transpose(2, 3).flatten(1).repeat_interleave(self.group, dim=1)
        return (numbers * scales)[:, : self.cols]


def plain_matrix(*weights: Float[Tensor, "_ cols"]) -> GpuMatrix:
    """One matrix below the other."""
    data = weights[0] if len(weights) == 1 else torch.cat(weights)
    return GpuMatrix(data, *data.shape)


def can_code(packed: Packed) -> bool:
    """Whether a matrix of this kind has a place here; those with offsets have none."""
    return packed.kind != "int4z"


def coded_matrix(*packed: Packed) -> GpuMatrix:
    """The same numbers in the order of a GPU, one matrix below the other.

    nf4 becomes 8 bits, whose numbers hold its levels, with scales over 127: to look up sixteen numbers for every weight
    takes a GPU longer than to read another half byte.
    """
    parts = [_coded(one) for one in packed]
    data, words = (torch.cat(some) for some in zip(*parts, strict=True))
    scales = F.pad(words, (0, words.shape[1] % 2, 0, len(words) % 2)).unflatten(0, (-1, 2)).transpose(1, 2).contiguous()
    return GpuMatrix(data, len(data), packed[0].cols, 8 if data.dtype == torch.int8 else 4, packed[0].group, scales)


def _coded(packed: Packed) -> tuple[Tensor, Tensor]:
    """Data of `GpuMatrix`, and the words of its scales, row by row."""
    assert can_code(packed)
    codes, scales, _ = unpack(packed)
    codes = F.pad(codes, (0, -packed.cols % CHUNK), value=CENTER[packed.kind])
    scales = F.pad(scales, (0, codes.shape[1] // packed.group - scales.shape[1]))
    if BITS[packed.kind] == 8:
        data = (codes.int() - CENTER[packed.kind]).to(torch.int8)
    elif packed.kind == "nf4":
        data = torch.tensor(NF4_LEVELS, dtype=torch.int8, device=codes.device)[codes.int()]
        scales = (scales.float() / 127).half()
    else:
        halves = codes.unflatten(1, (-1, 2, CHUNK // 2))
        data = (halves[:, :, 0] | halves[:, :, 1] << 4).flatten(1)
    return data, _words(scales, packed.group)


def _words(numbers: Float16[Tensor, "rows groups"], group: int) -> Int32[Tensor, "rows words"]:
    halves = numbers.unflatten(1, (-1, 2, CHUNK // 2 // group)).transpose(2, 3)
    return halves.reshape(-1).view(torch.int32).view(len(numbers), -1)
