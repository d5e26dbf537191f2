"""Passing on what a client sends as it is, where statements and sessions are the client's alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.relay import caching
from hyperpool.relay.connection import HEADER
from hyperpool.relay.tables import ANSWERED, UNANSWERED
from hyperpool.wire import constants as wire

if TYPE_CHECKING:
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.server import ServerConnection


_EXECUTES: Final = frozenset({wire.QUERY, wire.PARSE, wire.EXECUTE, wire.FUNCTION_CALL})


def _note(client: ClientConnection, server: ServerConnection, message: bytes, *, whole: bool) -> None:
    """Take down for the result cache what a message may write.

    Names of statements are the client's alone here, so that an Execute may be of whatever it has ever prepared.
    """
    kind = message[0]
    if kind == wire.EXECUTE:
        caching.note_prepared(server)
    elif kind == wire.PARSE and whole:
        body = message[message.find(0, 5) + 1 :]
        caching.prepared(client, server, body[: body.find(0)])
    elif kind == wire.PARSE:
        caching.prepared(client, server, None)
    else:
        caching.note(client, server, message[5:-1] if kind == wire.QUERY and whole else None)


def forward(
    client: ClientConnection,
    server: ServerConnection,
    buffer: bytes | bytearray,
    view: memoryview,
    start: int,
    end: int,
) -> bool:
    """Pass on what a linked client has sent.

    Args:
        client: the client.
        server: its server.
        buffer: holds the bytes.
        view: the same memory.
        start: the first byte; `client.skip` bytes from there belong to a message that is under way.
        end: behind the last byte.

    Returns:
        Whether the client goes on; False when it leaves, or has broken the protocol.
    """
    ledger = server.ledger
    at = start + client.skip
    leaving = False
    limit = client.relay.max_packet_size
    while end - at >= 5:
        kind, length = HEADER(buffer, at)
        if not 4 <= length <= limit:
            client.violate(f"invalid message length {length}")
            return False
        if kind in ANSWERED:
            if kind == wire.QUERY and client.relay.extended_only:
                client.refuse_simple()
                return False
            if client.pool.cache is not None and kind in _EXECUTES:
                _note(client, server, bytes(view[at : min(at + 1 + length, end)]), whole=at + length < end)
            ledger.request(kind)
        elif kind == wire.TERMINATE:
            leaving = True
            end = at
            break
        elif kind not in UNANSWERED:
            client.violate(f"invalid frontend message type {kind}")
            return False
        at += 1 + length
    if at >= end:
        client.skip = at - end
    else:
        client.skip = 0
        client.rest = bytes(view[at:end])
        end = at
    if end > start:
        client.pool.stats.received += end - start
        server.transmit(view[start:end])
    if leaving:
        client.close("client close request")
    return not leaving
