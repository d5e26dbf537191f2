"""What a server says about rows: RowDescription and DataRow.

Source: PostgreSQL documentation, "Message Formats".
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from hyperpool.errors import ProtocolError
from hyperpool.wire.text import take_cstring

_uint16 = Struct("!H").unpack_from
_int32 = Struct("!i").unpack_from
_uint32 = Struct("!I").unpack_from

_OF_A_COLUMN: Final = 18
"""Bytes behind the name: table, attribute, type, size, modifier, format."""


def row_description_fields(body: bytes) -> list[tuple[str, int]]:
    """The columns of a RowDescription: names and the types' oids.

    Raises:
        ProtocolError: it is malformed.
    """
    if len(body) < 2:
        raise ProtocolError("malformed RowDescription")
    at, columns = 2, []
    for _ in range(_uint16(body)[0]):
        name, at = take_cstring(body, at)
        if len(body) < at + _OF_A_COLUMN:
            raise ProtocolError("malformed RowDescription")
        columns.append((name, int(_uint32(body, at + 6)[0])))
        at += _OF_A_COLUMN
    return columns


def data_row_fields(body: bytes) -> list[bytes | None]:
    """The values of a DataRow.

    Raises:
        ProtocolError: it is malformed.
    """
    if len(body) < 2:
        raise ProtocolError("malformed DataRow")
    at, values = 2, []
    for _ in range(_uint16(body)[0]):
        if len(body) < at + 4:
            raise ProtocolError("malformed DataRow")
        (length,) = _int32(body, at)
        at += 4
        if length < -1 or len(body) < at + max(length, 0):
            raise ProtocolError("malformed DataRow")
        values.append(None if length < 0 else body[at : at + length])
        at += max(length, 0)
    return values
