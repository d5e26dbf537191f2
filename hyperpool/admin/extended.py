"""Messages of the extended query protocol as a console client sends them, and what is kept of them. Sans-IO.

Source: PostgreSQL documentation, "Message Formats".
"""

from __future__ import annotations

from struct import Struct, error
from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.admin import statements
from hyperpool.admin.outcomes import ConsoleError, Done
from hyperpool.errors import ProtocolError
from hyperpool.wire import constants as wire
from hyperpool.wire import messages, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyperpool.admin.statements import Statement
    from hyperpool.admin.tables import Column

_TEXT: Final = 25
_UNKNOWN: Final = 705
_INTEGERS: Final = {20: 8, 21: 2, 23: 4, 26: 4}
"""OIDs of int8, int2, int4 and oid, and how many bytes they have."""
_TEXTS: Final = frozenset({_TEXT, 1042, 1043, 19, _UNKNOWN, 0})
"""OIDs of text, bpchar, varchar, name and unknown: in binary as in text."""

_int16 = Struct("!h")
_int32 = Struct("!i")
_uint32 = Struct("!I")


@attrs.frozen
class Prepared:
    """A prepared statement.

    Attributes:
        statement: as parsed.
        oids: the type of each of its parameters.
    """

    statement: Statement
    oids: tuple[int, ...]


@attrs.define
class Portal:
    """A statement that is bound.

    Attributes:
        statement: with its parameters put in.
        shape: the columns of its result, None for none.
        formats: the format of each column.
        done: what has come of it, once it has been executed.
        sent: how many rows the client has had.
    """

    statement: Statement
    shape: tuple[Column, ...] | None
    formats: tuple[int, ...]
    done: Done | None = None
    sent: int = 0


@attrs.frozen
class BindFields:
    """The fields of a Bind: the names, each parameter with its format, and the formats of the results."""

    portal: str
    statement: str
    parameters: tuple[tuple[int, bytes | None], ...]
    formats: tuple[int, ...]


class _Fields:
    """Reads the fields of a message one after the other."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def string(self) -> str:
        found, self._at = text.take_cstring(self._body, self._at)
        return found

    def number(self, kind: Struct) -> int:
        try:
            found: int = kind.unpack_from(self._body, self._at)[0]
        except error:
            raise ProtocolError("insufficient data left in message") from None
        self._at += kind.size
        return found

    def count(self) -> int:
        found = self.number(_int16)
        if found < 0:
            raise ProtocolError("invalid number of fields in message")
        return found

    def value(self) -> bytes | None:
        length = self.number(_int32)
        if length < 0:
            return None
        found = self._body[self._at : self._at + length]
        if len(found) != length:
            raise ProtocolError("insufficient data left in message")
        self._at += length
        return found

    def end(self) -> None:
        if self._at != len(self._body):
            raise ProtocolError("invalid message format")


def parse_fields(body: bytes) -> tuple[str, str, tuple[int, ...]]:
    """The name, the text and the given parameter types of a Parse.

    Raises:
        ProtocolError: it is malformed, as for all messages here.
    """
    fields = _Fields(body)
    name, query = fields.string(), fields.string()
    oids = tuple(fields.number(_uint32) for _ in range(fields.count()))
    fields.end()
    return name, query, oids


def bind_fields(body: bytes) -> BindFields:
    """The fields of a Bind."""
    fields = _Fields(body)
    portal, statement = fields.string(), fields.string()
    formats = tuple(fields.number(_int16) for _ in range(fields.count()))
    values = tuple(fields.value() for _ in range(fields.count()))
    results = tuple(fields.number(_int16) for _ in range(fields.count()))
    fields.end()
    return BindFields(
        portal, statement, tuple(zip(_spread(formats, len(values)), values, strict=True)), results
    )


def execute_fields(body: bytes) -> tuple[str, int]:
    """The portal of an Execute and the most rows that it wants, 0 for all."""
    fields = _Fields(body)
    name, limit = fields.string(), fields.number(_int32)
    fields.end()
    return name, max(limit, 0)


def kind_and_name(body: bytes) -> tuple[str, str]:
    """Of a Describe or Close: ``S`` for a prepared statement or ``P`` for a portal, and its name."""
    kind, fields = chr(body[0]) if body else "", _Fields(body[1:])
    if kind not in {"S", "P"}:
        raise ProtocolError("invalid DESCRIBE or CLOSE message subtype")
    name = fields.string()
    fields.end()
    return kind, name


def prepare(statement: Statement, oids: Sequence[int]) -> Prepared:
    """Settle the types of a statement's parameters: as given, or text."""
    count = max(statements.parameters_of(statement), len(oids))
    given = [*oids, *(0,) * (count - len(oids))]
    return Prepared(statement, tuple(_TEXT if oid in {0, _UNKNOWN} else oid for oid in given))


def bind(prepared: Prepared, fields: BindFields) -> Statement:
    """Put the parameters of a Bind in.

    Raises:
        ConsoleError: they are too few or too many, NULL, or in a form that is not understood.
    """
    if len(fields.parameters) != len(prepared.oids):
        raise ConsoleError(
            f"bind message supplies {len(fields.parameters)} parameters, but prepared statement"
            f' "{fields.statement}" requires {len(prepared.oids)}'
        )
    values = [
        _parameter(oid, form, value)
        for oid, (form, value) in zip(prepared.oids, fields.parameters, strict=True)
    ]
    return statements.bind(prepared.statement, values)


def result_formats(formats: Sequence[int], shape: Sequence[Column] | None) -> tuple[int, ...]:
    """The format of each column of a result.

    Raises:
        ConsoleError: there are more formats than columns, or fewer.
    """
    if shape is None:
        return ()
    try:
        return _spread(formats, len(shape))
    except ProtocolError as problem:
        raise ConsoleError(str(problem)) from None


def parameter_description(oids: Sequence[int]) -> bytes:
    """Build a ParameterDescription."""
    return messages.frame(
        wire.PARAMETER_DESCRIPTION, _int16.pack(len(oids)) + b"".join(map(_uint32.pack, oids))
    )


def _spread(formats: Sequence[int], count: int) -> tuple[int, ...]:
    """One format for each of `count` values: none stands for text, and one for all."""
    if any(form not in {0, 1} for form in formats):
        raise ProtocolError("unsupported format code")
    if len(formats) == count:
        return tuple(formats)
    if len(formats) > 1:
        raise ProtocolError(f"found {len(formats)} format codes for {count} values")
    return (formats[0] if formats else 0,) * count


def _parameter(oid: int, form: int, value: bytes | None) -> str:
    if value is None:
        raise ConsoleError("a parameter of the admin console must not be NULL", "22004")
    if form == 0 or oid in _TEXTS:
        return text.decode(value)
    if _INTEGERS.get(oid) == len(value):
        return str(int.from_bytes(value, "big", signed=True))
    raise ConsoleError(
        f"a parameter of the type with OID {oid} is not understood in binary",
        "0A000",
        hint="send it as text, or as an integer",
    )
