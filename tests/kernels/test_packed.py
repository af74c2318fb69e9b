"""The layout: what goes in comes out, padding is nothing, and every byte lies where the kernels look for it."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.kernels.packed import (
    BITS,
    CENTER,
    GROUPS,
    NF4_LEVELS,
    Packed,
    dequantize,
    gather_rows,
    pack,
    packed_bytes,
    record_bytes,
    unpack,
)

KINDS = sorted(BITS)
shapes = st.tuples(st.integers(1, 50), st.integers(1, 300))


def value(kind: str, code: int, scale: float, offset: float) -> float:
    if kind == "int4z":
        return scale * code + offset
    if kind == "nf4":
        return scale * NF4_LEVELS[code] / 127
    return scale * (code - (8 if kind == "int4" else 128))


@settings(max_examples=60, deadline=None)
@given(shape=shapes, kind=st.sampled_from(KINDS), group=st.sampled_from(GROUPS), seed=st.integers(0, 2**20))
def test_unpack_is_the_inverse_of_pack(
    drawn: Callable, shape: tuple[int, int], kind: str, group: int, seed: int
) -> None:
    codes, scales, offsets = drawn(*shape, kind, group, seed)
    packed = pack(codes, scales, offsets, kind=kind, group=group)
    back = unpack(packed)
    assert torch.equal(back[0], codes) and torch.equal(back[1], scales)
    assert back[2] is None if offsets is None else torch.equal(back[2], offsets)
    assert len(packed.data) == packed.panels * packed.records * record_bytes(kind, group)
    assert len(packed.data) % 64 == 0 and packed.data.data_ptr() % 64 == 0


@settings(max_examples=40, deadline=None)
@given(shape=shapes, kind=st.sampled_from(KINDS), group=st.sampled_from(GROUPS), seed=st.integers(0, 2**20))
def test_values_are_what_the_kinds_say(
    drawn: Callable, shape: tuple[int, int], kind: str, group: int, seed: int
) -> None:
    codes, scales, offsets = drawn(*shape, kind, group, seed)
    packed = pack(codes, scales, offsets, kind=kind, group=group)
    values = dequantize(packed)
    for row in range(0, shape[0], 7):
        for col in range(0, shape[1], 11):
            group_of = row, col // group
            expected = value(
                kind, int(codes[row, col]), float(scales[group_of]), 0 if offsets is None else float(offsets[group_of])
            )
            assert float(values[row, col]) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    ids = torch.randint(0, shape[0], (9,), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(gather_rows(packed, ids), values[ids])


@pytest.mark.parametrize("kind", ["int4", "int4z", "nf4"])
def test_where_four_bits_lie(kind: str) -> None:
    """Row 18 is row 2 of the second panel; column 77 of groups of 32 is column 13 of its second record."""
    codes = torch.full((20, 128), CENTER[kind], dtype=torch.uint8)
    codes[18, 77] = 3
    scales = torch.arange(20 * 4).view(20, 4).half()
    packed = pack(codes, scales, scales + 100 if kind == "int4z" else None, kind=kind, group=32)
    record = packed.data[3 * record_bytes(kind, 32) :][: record_bytes(kind, 32)]
    line, place = divmod(77 - 64, 8)  # 13 = 8 + 5: second line, and of its first four columns one further
    byte = int(record[64 * line + 4 * 2 + place % 4])
    assert (byte >> 4 if place >= 4 else byte & 15) == 3
    numbers = record[2 * 32 * 16 // 2 :].view(torch.float16)
    assert numbers[2] == 18 * 4 + 2 and numbers[16 + 2] == 18 * 4 + 3  # groups 2 and 3 of the row
    assert kind != "int4z" or numbers[32 + 2] == 18 * 4 + 2 + 100
    assert numbers[4:16].eq(0).all()  # rows that there are not


def test_where_eight_bits_lie() -> None:
    codes = torch.full((20, 300), 128, dtype=torch.uint8)
    codes[18, 261] = 3
    packed = pack(codes, torch.ones(20, 3).half(), kind="int8", group=128)
    record = packed.data[3 * record_bytes("int8", 128) :][: record_bytes("int8", 128)]
    line, place = divmod(261 - 256, 4)
    assert int(record[64 * line + 4 * 2 + place]) == 3
    assert record[: 2 * 128 * 16].eq(128).sum() == 2 * 128 * 16 - 1  # all else, padding too, is the centre


def test_levels_are_those_of_normal_float() -> None:
    """Quantiles of the normal distribution, eight above zero and seven below (Dettmers et al. 2023, appendix E)."""
    normal = NormalDist()
    above = [normal.inv_cdf(0.9677083 + (0.5 - 0.9677083) * step / 8) for step in range(8)]
    below = [-normal.inv_cdf(0.9677083 + (0.5 - 0.9677083) * step / 7) for step in range(7)]
    assert tuple(round(127 * level / above[0]) for level in sorted([*above, 0.0, *below])) == NF4_LEVELS


def test_what_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="a group of 48 columns cannot be packed: it has to be 32 or 128"):
        record_bytes("int4", 48)
    with pytest.raises(ValueError, match="there is no kind 'int3'"):
        record_bytes("int3", 32)
    with pytest.raises(ValueError, match="is empty"):
        packed_bytes(0, 5, "int4", 32)
    with pytest.raises(ValueError, match="16 x 64 of int4 in groups of 32 are 576 bytes, not"):
        Packed(torch.zeros(575, dtype=torch.uint8), 16, 64, "int4", 32)
