"""Messages of the extended query protocol, built of raw bytes: texts and names are in the client's encoding.

Source: PostgreSQL documentation, "Message Formats".
"""

from __future__ import annotations

from struct import Struct

from hyperpool.wire import constants as c

_header = Struct("!BI").pack


def query(text: bytes) -> bytes:
    """Build a Query."""
    return _header(c.QUERY, len(text) + 5) + text + b"\0"


def parse(name: bytes, body: bytes) -> bytes:
    """Build a Parse.

    Args:
        name: the statement's name.
        body: what stands behind the name: the text, its terminator, and the parameter types.
    """
    return _header(c.PARSE, len(name) + len(body) + 5) + name + b"\0" + body


def close_statement(name: bytes) -> bytes:
    """Build a Close for a prepared statement."""
    return _header(c.CLOSE, len(name) + 6) + b"S" + name + b"\0"


def describe_statement(name: bytes) -> bytes:
    """Build a Describe for a prepared statement."""
    return _header(c.DESCRIBE, len(name) + 6) + b"S" + name + b"\0"


def bind_nothing(portal: bytes, statement: bytes) -> bytes:
    """Build a Bind without parameters, and with the results as text."""
    return _header(c.BIND, len(portal) + len(statement) + 12) + portal + b"\0" + statement + b"\0" + bytes(6)


def ask(text: bytes, value: bytes) -> bytes:
    """Build what runs a query with one parameter, all as text and without names: Parse up to Sync.

    Args:
        text: the query; the server finds out of which type ``$1`` is.
        value: of the parameter.
    """
    bound = b"\0\0" + bytes(2) + b"\0\1" + len(value).to_bytes(4, "big") + value + bytes(2)
    return b"".join(
        (
            parse(b"", text + b"\0" + bytes(2)),
            _header(c.BIND, len(bound) + 4) + bound,
            _header(c.EXECUTE, 9) + b"\0" + bytes(4),
            _header(c.SYNC, 4),
        )
    )
