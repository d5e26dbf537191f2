"""Answers from memory for clients whose bytes are known: what most hits of the result cache are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperpool.relay.requests import CLOSED, READY
from hyperpool.wire import constants as wire
from hyperpool.wire.scan import text_at

if TYPE_CHECKING:
    from hyperpool.cache.fronts import Fronts
    from hyperpool.relay.client import ClientConnection


def hit(client: ClientConnection, fronts: Fronts, buffer: bytearray, end: int) -> bool:
    """Answer a client whose bytes are known, if the answer is fresh.

    Args:
        client: has no server.
        fronts: its pool's ways to entries.
        buffer: holds what it has sent, from the beginning.
        end: behind the last byte.

    Returns:
        Whether it has been answered.
    """
    kind = buffer[0]
    if kind == wire.BIND:
        own = client.statements
        name = None if own is None or end < 7 or buffer[5] else text_at(buffer, 6, end)
        statement = None if name is None or own is None else own.names.get(name)
        if name is None or statement is None:
            return False
        front = fronts.find(client.tracked, statement, buffer, 6 + len(name), end)
    else:
        front = fronts.find(client.tracked, None, buffer, 0, end)
    if front is None or not client.caching or client.outbox:
        return False
    entry = front.entry
    now = client.relay.now
    pool = client.pool
    if now >= entry.fresh_until or pool.paused:
        return False
    answer = entry.answer
    if front.prefix:
        answer = front.prefix + answer
    if front.closes:
        answer = answer[: -len(READY)] + CLOSED + READY
    if kind != wire.BIND:
        client.unnamed = front.unnamed
    client.active = now
    entry.used = True
    size = len(answer)
    entry.stats.hit(size, entry.cost)
    entry.totals.hit(size, entry.cost)
    pool.stats.answered_from_memory(end, size)
    client.transmit_part(answer, size)
    return True
