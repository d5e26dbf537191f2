"""Preparing statements without a server: what a pool has prepared once need not be prepared again to say so.

A driver that prepares a statement and waits for the answer would need a server for that alone, and a program that
drives many connections in one thread would stand still until there is one. The statement is prepared on a server when
it is used there (`relay.translate`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperpool.pool.statements import LONGEST_NAME
from hyperpool.wire import constants as wire
from hyperpool.wire import messages
from hyperpool.wire.scan import length_at

if TYPE_CHECKING:
    from hyperpool.pool.statements import ClientStatements, Statement
    from hyperpool.relay.client import ClientConnection

_PARSED = bytes((wire.PARSE_COMPLETE, 0, 0, 0, 4))
_READY = messages.ready_for_query()


def answer(client: ClientConnection, buffer: bytes | bytearray, at: int, end: int) -> bytes:
    """Answer requests of a client that has no server, if all that they do is to prepare what is known.

    Args:
        client: a client of a pool that translates; its names are changed if there is an answer.
        buffer: holds the requests.
        at: where they begin, at a message boundary.
        end: behind the last byte.

    Returns:
        What to send to it; b"" if a server has to be asked.
    """
    found: dict[bytes, Statement] = {}
    answers = b""
    synced = False
    own = client.remembered()
    while end - at >= 5:
        kind, length = buffer[at], length_at(buffer, at)
        stop = at + 1 + length
        if stop > end or kind not in {wire.PARSE, wire.SYNC}:
            return b""
        synced = kind == wire.SYNC
        if synced:
            answers += _READY
        else:
            statement = _known(client, own, buffer, at, stop, found)
            if statement is None:
                return b""
            answers += _PARSED
        at = stop
    if at != end or not synced:
        return b""
    own.put_aside(0)
    for name, statement in found.items():
        own.put(name, statement)
    client.pool.stats.client_parses += len(found)
    return answers


def _known(
    client: ClientConnection,
    own: ClientStatements,
    buffer: bytes | bytearray,
    at: int,
    stop: int,
    found: dict[bytes, Statement],
) -> Statement | None:
    """The statement of a Parse, if the client may have it and a server has prepared it; it is put into `found`."""
    nul = buffer.find(0, at + 5, stop)
    name = bytes(buffer[at + 5 : nul])[:LONGEST_NAME]
    pool = client.pool
    if nul < 0 or not name or name in own.names or name in found or not pool.settings.max_prepared_statements:
        return None
    statement = pool.statements.find(bytes(buffer[nul + 1 : stop]), client.tracked.flavor)
    if (
        statement is None
        or statement in own.holders
        or statement in found.values()
        or not own.fits(name, len(statement.body), statement)
    ):
        return None
    version = pool.statements.version
    if any(
        server.statements.version == version and statement in server.statements.certain
        for server in pool.servers
    ):
        found[name] = statement
        return statement
    return None
