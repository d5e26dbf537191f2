"""Requests that the result cache may answer: one query, whole, with nothing before or behind it.

=======================================  ==================================================================
Query                                    the simple protocol
(Parse,) Bind, (Describe,) Execute, Sync the extended protocol, also with a Close of the portal behind Execute
(Parse,) Describe a statement, Sync      a driver wants to know parameters and columns
Parse, Describe, Flush                   asyncpg does so
=======================================  ==================================================================

The portal is the unnamed one. Its Execute may ask for a number of rows: behind it, the portal ends with Sync.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.pool.statements import LONGEST_NAME, PREFIX
from hyperpool.sql.reasons import Reason
from hyperpool.wire import constants as wire
from hyperpool.wire import extended, messages
from hyperpool.wire.scan import length_at

if TYPE_CHECKING:
    from hyperpool.cache.fronts import Path
    from hyperpool.pool.statements import Statement
    from hyperpool.relay.client import ClientConnection

SIMPLE: Final = b"Q"
PLAIN: Final = b"E"
DESCRIBED: Final = b"R"
DESCRIPTION: Final = b"D"
"""What an answer consists of: all of the simple protocol, rows alone, rows behind their description, a description."""

PARSED: Final = bytes((wire.PARSE_COMPLETE, 0, 0, 0, 4))
CLOSED: Final = bytes((wire.CLOSE_COMPLETE, 0, 0, 0, 4))
READY: Final = messages.ready_for_query()

_SYNC: Final = b"S\0\0\0\4"
_FLUSH: Final = b"H\0\0\0\4"
_DESCRIBE_PORTAL: Final = b"D\0\0\0\6P\0"
_EXECUTE: Final = b"E\0\0\0\x09\0\0\0\0\0"
_CLOSE_PORTAL: Final = b"C\0\0\0\6P\0"
_TAILS: Final = {
    _EXECUTE + _SYNC: (PLAIN, False),
    _DESCRIBE_PORTAL + _EXECUTE + _SYNC: (DESCRIBED, False),
    _EXECUTE + _CLOSE_PORTAL + _SYNC: (PLAIN, True),
    _DESCRIBE_PORTAL + _EXECUTE + _CLOSE_PORTAL + _SYNC: (DESCRIBED, True),
}
"""What may stand behind a Bind, what its answer consists of, and whether a Close is among it."""


class Request:
    """One query of a client that has no server.

    Attributes:
        kind: what its answer consists of.
        text: the SQL.
        types: of its parameters, as in Parse behind the text.
        values: of its parameters, and the formats of all, as in Bind behind the names.
        name: the name that a statement is given by it; None for none.
        statement: that is prepared or used; None for the simple protocol.
        closes: a Close is to be answered, too.
        limit: how many rows are asked for, as Execute has it; empty for all.
        flushes: it ends with Flush in place of Sync.
        path: what tells the request from others of clients with the same settings; None if it has to be read anew.
        size: bytes that it has.
    """

    __slots__ = (
        "closes",
        "flushes",
        "kind",
        "limit",
        "name",
        "path",
        "size",
        "statement",
        "text",
        "types",
        "values",
    )

    def __init__(self, kind: bytes, text: bytes, size: int) -> None:
        self.kind = kind
        self.text = text
        self.size = size
        self.types = b""
        self.values = b""
        self.name: bytes | None = None
        self.statement: Statement | None = None
        self.closes = False
        self.limit = b""
        self.flushes = False
        self.path: Path | None = None

    @property
    def prefix(self) -> bytes:
        """What its answer begins with, before what is common to all requests of its kind."""
        return b"" if self.name is None else PARSED

    @property
    def end(self) -> bytes:
        """What its answer ends with."""
        return b"" if self.flushes else READY

    def alone(self) -> bytes:
        """The messages that ask the same of a server that knows nothing of the client."""
        if self.statement is None:
            return extended.query(self.text)
        parse = extended.parse(b"", self.statement.body)
        if self.kind == DESCRIPTION:
            return parse + extended.describe_statement(b"") + _SYNC
        execute = _EXECUTE[:6] + self.limit if self.limit else _EXECUTE
        tail = _DESCRIBE_PORTAL + execute if self.kind == DESCRIBED else execute
        return parse + messages.frame(wire.BIND, b"\0\0" + self.values) + tail + _SYNC


_ENDS: Final = (wire.QUERY, wire.SYNC, wire.FUNCTION_CALL)


def cancel_waiting(client: ClientConnection) -> None:
    """A client cancels a request that no server has seen: answer it, if it is a whole one."""
    parked = client.parked
    if parked is None:
        return
    reason = "canceling statement due to user request"
    if not is_whole(parked):
        client.close("client canceled a pipeline that waited", messages.error_response(reason, "57014"))
        return
    client.stop_waiting()
    client.parked = b"" if client.server is not None else None
    client.transmit(messages.error_response(reason, "57014", severity="ERROR") + READY)
    if client.unread and not client.closed:
        client.relay.resume(client)


def is_whole(parked: bytes) -> bool:
    """Whether bytes of a client are one request that is answered with one ReadyForQuery at its end."""
    at = last = ends = 0
    while len(parked) - at >= 5:
        last, length = parked[at], length_at(parked, at)
        ends += last in _ENDS
        at += 1 + length
    return at == len(parked) and ends == 1 and last in _ENDS


def read(client: ClientConnection, buffer: bytes | bytearray, at: int, end: int) -> Request | Reason | None:
    """Read what a client has sent.

    Args:
        client: has no server.
        buffer: holds the bytes.
        at: the first one, at a message boundary.
        end: behind the last one.

    Returns:
        The request; or why it is none for the cache; or None if that need not be counted.
    """
    kind, length = buffer[at], length_at(buffer, at)
    stop = at + 1 + length
    if stop > end:
        return None
    if kind == wire.QUERY:
        if client.relay.extended_only:
            return None
        if stop != end:
            return Reason.PIPELINE
        if buffer.find(0, at + 5, end) != end - 1:
            # The server shall say so.
            return Reason.PROTOCOL
        request = Request(SIMPLE, bytes(buffer[at + 5 : end - 1]), end - at)
        request.path = client.tracked, None, bytes(buffer[at:end])
        return request
    if kind == wire.PARSE:
        return _parsed(client, buffer, at, stop, end)
    if kind in (wire.BIND, wire.DESCRIBE):
        nul = _behind_name(buffer, at, stop)
        if nul < 0:
            return Reason.PROTOCOL
        name = bytes(buffer[at + 6 : nul])
        own = client.statements
        statement = client.unnamed if not name else own.names.get(name) if own is not None else None
        if statement is None or statement.flavor != client.tracked.flavor or not statement.body:
            return Reason.PROTOCOL
        found = _used(statement, buffer, at, nul, end)
        if isinstance(found, Request) and name and kind == wire.BIND:
            found.path = client.tracked, statement, bytes(buffer[nul:end])
        return found
    return None


def _parsed(
    client: ClientConnection, buffer: bytes | bytearray, at: int, stop: int, end: int
) -> Request | Reason | None:
    """A request that begins with Parse."""
    nul = buffer.find(0, at + 5, stop)
    if end - stop < 5 or nul < 0 or buffer.find(0, nul + 1, stop) < 0 or buffer[stop] == wire.SYNC:
        return None
    name, body = bytes(buffer[at + 5 : nul]), bytes(buffer[nul + 1 : stop])
    uses = _behind_name(buffer, stop, end)
    if uses < 0 or bytes(buffer[stop + 6 : uses]) != name:
        return Reason.PIPELINE
    statement = _statement(client, name, body)
    if statement is None:
        return Reason.PROTOCOL
    found = _used(statement, buffer, stop, uses, end)
    if isinstance(found, Request):
        found.name = name
        if not (name or found.flushes):
            found.path = client.tracked, None, bytes(buffer[at:end])
    return found


def _statement(client: ClientConnection, name: bytes, body: bytes) -> Statement | None:
    """What a Parse makes, if the pooler may have it; the client does not have it yet."""
    pool = client.pool
    flavor = client.tracked.flavor
    if not name:
        before = client.unnamed
        same = before is not None and before.body == body and before.flavor == flavor
        return before if same else pool.statements.unnamed(body, flavor)
    own = client.remembered()
    taken = name in own.names or len(name) > LONGEST_NAME or not name.isascii() or name.startswith(PREFIX)
    if taken or not pool.settings.max_prepared_statements:
        return None
    known = pool.statements.find(body, flavor)
    if not own.fits(name, len(body), known):
        return None
    return pool.statements.intern(body, flavor, own.holders)


def _behind_name(buffer: bytes | bytearray, at: int, end: int) -> int:
    """The end of the statement's name in a Bind for the unnamed portal, or in a Describe of a statement; or -1."""
    kind, length = buffer[at], length_at(buffer, at)
    wanted = 0 if kind == wire.BIND else ord("S") if kind == wire.DESCRIBE else -1
    stop = at + 1 + length
    if stop > end or stop < at + 7 or buffer[at + 5] != wanted:
        return -1
    return buffer.find(0, at + 6, stop)


def _used(statement: Statement, buffer: bytes | bytearray, at: int, nul: int, end: int) -> Request | Reason:
    """A request that goes on with the Bind or the Describe of a statement.

    Args:
        statement: the statement.
        buffer: holds the bytes.
        at: where Bind or Describe begins.
        nul: where the name of the statement ends.
        end: behind the last byte.
    """
    stop = at + 1 + length_at(buffer, at)
    tail = bytes(buffer[stop:end])
    limit = b""
    if buffer[at] == wire.DESCRIBE:
        kind, closes = DESCRIPTION, False
        if tail not in (_SYNC, _FLUSH) or nul + 1 != stop:
            return Reason.PIPELINE
    else:
        shape = _TAILS.get(tail)
        if shape is None:
            start = (len(_DESCRIBE_PORTAL) if tail.startswith(_DESCRIBE_PORTAL) else 0) + 6
            limit = tail[start : start + 4]
            shape = _TAILS.get(tail[:start] + bytes(4) + tail[start + 4 :])
        if shape is None:
            limited = _EXECUTE[:5] in tail and _EXECUTE not in tail
            return Reason.ROW_LIMIT if limited else Reason.PIPELINE
        kind, closes = shape
    body = statement.body
    text = statement.text
    request = Request(kind, text, end - at)
    request.types = body[len(text) + 1 :]
    request.statement = statement
    request.closes = closes
    request.limit = limit
    request.flushes = tail == _FLUSH
    if kind != DESCRIPTION:
        request.values = bytes(buffer[nul + 1 : stop])
    return request
