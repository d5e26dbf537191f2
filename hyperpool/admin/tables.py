"""Tables of the console and their form on the wire, as text or binary. Sans-IO.

The types are those that pgbouncer announces: ``text``, ``int4``, ``int8``, ``numeric`` and ``bytea``.
"""

from __future__ import annotations

import enum
from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from hyperpool.wire import constants as wire
from hyperpool.wire import messages, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Value: TypeAlias = "str | int | bytes | None"
Row: TypeAlias = "tuple[Value, ...]"

_int16 = Struct("!h").pack
_int32 = Struct("!i").pack
_int64 = Struct("!q").pack
_column = Struct("!IhIhih").pack
_numeric = Struct("!hhHh").pack

_NULL: Final = _int32(-1)
_MAX_INT4: Final = 0x7FFFFFFF
_NEGATIVE: Final = 0x4000
_BASE: Final = 10_000
"""Of the digits of a numeric in binary (PostgreSQL, numeric.c, NBASE)."""


class Kind(enum.Enum):
    """A column's type: its OID and its size in bytes, -1 for one that varies (PostgreSQL, pg_type.dat)."""

    TEXT = (25, -1)
    INT4 = (23, 4)
    INT8 = (20, 8)
    NUMERIC = (1700, -1)
    BYTEA = (17, -1)


@attrs.frozen
class Column:
    """A column of a table."""

    name: str
    kind: Kind = Kind.TEXT


def columns(spelling: str) -> tuple[Column, ...]:
    """Columns, spelled ``name`` for text and ``name:int4`` for another type, with white space between them."""
    found = []
    for word in spelling.split():
        name, _, kind = word.partition(":")
        found.append(Column(name, Kind[kind.upper()] if kind else Kind.TEXT))
    return tuple(found)


def row_description(shape: Sequence[Column], formats: Sequence[int] = ()) -> bytes:
    """Build a RowDescription.

    Args:
        shape: the columns.
        formats: for each column 0 for text or 1 for binary; empty for text everywhere.
    """
    parts = [_int16(len(shape))]
    for number, column in enumerate(shape):
        oid, size = column.kind.value
        parts += (
            text.cstring(column.name),
            _column(0, 0, oid, size, -1, formats[number] if formats else 0),
        )
    return messages.frame(wire.ROW_DESCRIPTION, b"".join(parts))


def data_rows(shape: Sequence[Column], rows: Iterable[Row], formats: Sequence[int] = ()) -> bytes:
    """Build the DataRow messages of a table; the arguments are those of `row_description`."""
    binary = formats or (0,) * len(shape)
    count = _int16(len(shape))
    made = []
    for row in rows:
        parts = [count]
        for column, value, form in zip(shape, row, binary, strict=True):
            if value is None:
                parts.append(_NULL)
            else:
                written = _binary(column.kind, value) if form else _text(value)
                parts += (_int32(len(written)), written)
        made.append(messages.frame(wire.DATA_ROW, b"".join(parts)))
    return b"".join(made)


def _text(value: str | int | bytes) -> bytes:
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    return text.encode(str(value).replace("\0", ""))


def _binary(kind: Kind, value: str | int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return _text(value)
    if kind is Kind.INT4:
        return _int32(min(value, _MAX_INT4))
    if kind is Kind.INT8:
        return _int64(value)
    if kind is Kind.NUMERIC:
        return _binary_numeric(value)
    return _text(value)


def _binary_numeric(value: int) -> bytes:
    """A whole number as PostgreSQL's numeric_send writes it: digits of base 10,000, the highest first."""
    rest = abs(value)
    digits = []
    while rest:
        rest, digit = divmod(rest, _BASE)
        digits.append(digit)
    weight = len(digits) - 1
    digits.reverse()
    while digits and not digits[-1]:
        digits.pop()
    sign = _NEGATIVE if value < 0 else 0
    header = _numeric(len(digits), max(weight, 0), sign, 0)
    return header + b"".join(map(_int16, digits))
