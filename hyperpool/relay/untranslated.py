"""Passing on what a client sends as it is, where statements and sessions are the client's alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hyperpool.pool.statements import text_of
from hyperpool.relay import caching
from hyperpool.relay.tables import ANSWERED, UNANSWERED
from hyperpool.wire import constants as wire
from hyperpool.wire.scan import length_at

if TYPE_CHECKING:
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.server import ServerConnection


_NOTED: Final = frozenset({wire.QUERY, wire.PARSE, wire.BIND, wire.CLOSE, wire.FUNCTION_CALL})

_BEGINNING: Final = 1024
"""Bytes of a Bind that are looked into: its names."""

_PREPARES: Final = re.compile(rb"(?i)prepare|deallocate")
"""What a text has in it that gives names another meaning."""


def _note(client: ClientConnection, server: ServerConnection, message: bytes, *, whole: bool) -> None:
    """Take down for the result cache what a message may write: its beginning at least.

    Names of statements are the client's alone here.
    """
    kind = message[0]
    if kind in (wire.PARSE, wire.BIND):
        start = 5 if kind == wire.PARSE else message.find(0, 5) + 1
        nul = message.find(0, start) if start else -1
        name = message[start:nul]
        if nul >= 0 and kind == wire.BIND:
            caching.note_prepared(client, server, name)
        elif kind == wire.BIND:
            caching.note(client, server, None)
        elif nul < 0:
            server.prepared.lose_track()
        else:
            end = message.find(0, nul + 1) if whole else -1
            text = message[nul + 1 : end] if end >= 0 else None
            if text is not None and _PREPARES.search(text):
                server.prepared.lose_track()
            caching.prepared(client, server, name, text)
    elif kind == wire.CLOSE:
        if whole and message[5:6] == b"S" and not server.ledger.midway:
            server.prepared.close(message[6:-1])
    else:
        text = message[5:-1] if kind == wire.QUERY and whole else None
        if text is None or _PREPARES.search(text):
            server.prepared.lose_track()
        caching.note(client, server, text)


def _say(server: ServerConnection, kind: int, message: bytes) -> None:
    """Keep the text of a query, as far as it is there: names of statements stand for nothing that is known here."""
    if kind == wire.QUERY:
        server.said = message[5:].removesuffix(b"\0")
    elif kind == wire.PARSE:
        server.said = text_of(message[message.find(0, 5) + 1 :])
    elif kind == wire.FUNCTION_CALL or (kind == wire.BIND and message[message.find(0, 5) + 1 :][:1] != b"\0"):
        server.said = b""


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
        kind, length = buffer[at], length_at(buffer, at)
        if not 4 <= length <= limit:
            client.violate(f"invalid message length {length}")
            return False
        if kind in ANSWERED:
            if kind == wire.QUERY and client.relay.extended_only:
                client.refuse_simple()
                return False
            if client.pool.cache is not None and kind in _NOTED:
                stop = at + _BEGINNING if kind == wire.BIND else at + 1 + length
                _note(client, server, bytes(view[at : min(stop, end)]), whole=at + length < end)
            if client.pool.keeps_texts:
                _say(server, kind, bytes(view[at : min(at + 1 + length, end)]))
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
