"""Protocol buffers: what is read, and that nothing made to hurt does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.processing.protobuf import BOOL, BYTES, FLOAT, MANY_BYTES, NUMBER, TEXT, parse

SCHEMA = {1: ("name", TEXT), 2: ("score", FLOAT), 3: ("count", NUMBER), 4: ("yes", BOOL), 5: ("parts", MANY_BYTES)}


def test_every_kind_of_field() -> None:
    # Field 1 "é", field 2 -2.0, field 3 300, field 4 true, field 5 twice.
    data = b"\x0a\x02\xc3\xa9" + b"\x15\x00\x00\x00\xc0" + b"\x18\xac\x02" + b"\x20\x01" + b"\x2a\x01a" + b"\x2a\x00"
    assert parse(data, SCHEMA) == {"name": "é", "score": -2.0, "count": 300, "yes": True, "parts": [b"a", b""]}


def test_absent_fields_are_absent_and_unknown_ones_skipped() -> None:
    # Field 9 as a number, as eight bytes, as a run and as four bytes.
    data = b"\x48\x01" + b"\x49" + bytes(8) + b"\x4a\x03abc" + b"\x4d" + bytes(4)
    assert parse(data, SCHEMA) == {"parts": []}
    assert parse(b"\x4a\x03abc", {9: ("run", BYTES)}) == {"run": b"abc"}


def test_the_last_of_a_field_counts() -> None:
    assert parse(b"\x18\x01\x18\x02", SCHEMA)["count"] == 2


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\x0a\x05abc", "5 bytes announced and 3 left"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "9223372036854775807 bytes announced and 0 left"),
        (b"\x15\x00\x00", "4 bytes announced and 2 left"),
        (b"\x18", "number at byte 1 does not end"),
        (b"\x18" + b"\x80" * 100_000, "number at byte 1 does not end"),
        (b"\x80" * 100_000, "number at byte 0 does not end"),
        (b"\x0b\x0b\x0b", "wire type 3, which does not occur"),
        (b"\x18\x01\x1a\x00", r"field 3 \(count\) has wire type 2 where 0 is right"),
        (b"\x0a\x01\xff", "can't decode byte 0xff"),
    ],
)
def test_damage_is_told(data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse(data, SCHEMA)


@given(data=st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        fields = parse(data, SCHEMA)
    except ValueError:
        return
    assert sum(map(len, fields["parts"])) <= len(data)
