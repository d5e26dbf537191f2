"""Tables on the wire."""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.numeric import NumericBinaryLoader

from hyperpool.admin.tables import Kind, columns, data_rows, row_description

_SHAPE = columns("name size:int4 total:int8 sum:numeric key:bytea")


def _values(frame: bytes) -> list[bytes | None]:
    (count,) = struct.unpack_from("!h", frame, 5)
    values: list[bytes | None] = []
    at = 7
    for _ in range(count):
        (length,) = struct.unpack_from("!i", frame, at)
        at += 4
        values.append(None if length < 0 else frame[at : at + length])
        at += max(length, 0)
    assert at == len(frame)
    return values


def test_columns_are_described() -> None:
    """Each with its type's OID and size, and the format that was asked for."""
    (name, size) = columns("name size:int4")
    assert (name.kind, size.kind) == (Kind.TEXT, Kind.INT4)
    assert row_description((name, size), (0, 1)) == (
        b"T\0\0\0\x34\0\x02"
        b"name\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"
        b"size\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x01"
    )


def test_rows_as_text() -> None:
    """NULL has no bytes."""
    row = ("é", 1, -2, 10**20, b"\0\xff")
    assert _values(data_rows(_SHAPE, [row])) == ["é".encode(), b"1", b"-2", str(10**20).encode(), b"\\x00ff"]
    assert _values(data_rows(_SHAPE, [(None,) * 5])) == [None] * 5


def test_rows_in_binary() -> None:
    """As PostgreSQL's types have it; what does not fit into an int4 is the largest one."""
    rows = data_rows(_SHAPE, [("a", 1 << 40, -2, 0, b"k")], (1,) * 5)
    assert _values(rows) == [b"a", b"\x7f\xff\xff\xff", b"\xff" * 7 + b"\xfe", bytes(8), b"k"]


def test_a_row_must_have_as_many_values_as_columns() -> None:
    """A mistake in a view is no malformed message."""
    with pytest.raises(ValueError, match="shorter"):
        data_rows(_SHAPE, [("a",)])


@given(st.integers(-(10**30), 10**30) | st.integers(0, 4).map(lambda power: 10 ** (4 * power)))
def test_numerics_in_binary_mean_the_same(number: int) -> None:
    """For a driver that reads them."""
    (value,) = _values(data_rows(columns("n:numeric"), [(number,)], (1,)))
    load: Any = NumericBinaryLoader(1700).load
    assert load(value) == Decimal(number)
