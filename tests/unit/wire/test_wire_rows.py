"""Rows, as the console builds them, and as nobody should."""

from __future__ import annotations

import pytest

from hyperpool.admin import tables
from hyperpool.errors import ProtocolError
from hyperpool.wire.rows import data_row_fields, row_description_fields


def test_what_the_console_says_of_rows() -> None:
    """Names, types, values, and nothing."""
    shape = tables.columns("database clients:int4 time:int8")
    described = tables.row_description(shape)[5:]
    assert row_description_fields(described) == [("database", 25), ("clients", 23), ("time", 20)]
    assert data_row_fields(tables.data_rows(shape, [("app", 3, None)])[5:]) == [b"app", b"3", None]


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_description_that_ends_early(cut: int) -> None:
    """Wherever it ends."""
    body = tables.row_description(tables.columns("a"))[5:]
    with pytest.raises(ProtocolError):
        row_description_fields(body[:-cut])


@pytest.mark.parametrize("body", [b"", b"\0\1\0\0", b"\0\1\0\0\0\5abc", b"\0\1\xff\xff\xff\xfe"])
def test_a_row_that_is_none(body: bytes) -> None:
    """Too short, or with a length that makes no sense."""
    with pytest.raises(ProtocolError, match="malformed DataRow"):
        data_row_fields(body)
