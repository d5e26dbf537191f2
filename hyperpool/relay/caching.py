"""The result cache in the relay: answers from memory, answers that are kept, and clients that wait for the same one.

What is decided here is when to look; what may be kept, and for how long, is decided in `hyperpool.cache`.

A client is answered from memory when it has no server and has sent one request, whole (`relay.requests`). If the bytes
are known, `relay.hits` does it with one look into a table; else `ask` reads the request and makes its key. If nothing
is kept under that, the client's own answer is collected on its way (`relay.filling`), and other clients that ask for
the same wait for it.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final

from hyperpool.cache.catalog_writes import Reach
from hyperpool.cache.database import Writing
from hyperpool.cache.flights import Flight
from hyperpool.cache.session import SWITCH
from hyperpool.relay import switch
from hyperpool.relay.filling import Answer, Fill, examine
from hyperpool.relay.requests import CLOSED, READY, SIMPLE, Request, read
from hyperpool.relay.session import Pinned
from hyperpool.relay.tables import IDLE
from hyperpool.sql.reasons import Reason
from hyperpool.wire.scan import length_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hyperpool.cache.lane import Plan
    from hyperpool.cache.store import Entry
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.handover import RelayLane, RelayPool
    from hyperpool.relay.server import ServerConnection

_ENDS: Final = re.compile(rb"(?i)\b(?:commit|end)\b")
"""What a text has in it that commits."""


# -- answers from memory -------------------------------------------------------------------------------------------


def ask(
    client: ClientConnection, lane: RelayLane, buffer: bytes | bytearray, view: memoryview, at: int, end: int
) -> bool:
    """Answer a client from memory, or let it wait for an answer that is on its way.

    Args:
        client: has no server.
        lane: its pool's part of the cache.
        buffer: holds what it has sent.
        view: the same memory.
        at: the first byte, at a message boundary.
        end: behind the last byte.

    Returns:
        Whether it needs no server now. If it does, `ClientConnection.fill` may have been set.
    """
    size = 1 + length_at(buffer, at)
    if end - at < size <= len(client.relay.small_view):
        # The rest may come at once, and nobody holds a server meanwhile.
        client.rest = bytes(view[at:end])
        client.skip = 0
        return True
    hear = client.relay.hear
    if hear is not None:
        hear()
    found = read(client, buffer, at, end)
    if not isinstance(found, Request):
        if found is not None:
            lane.refuse(found)
        return False
    if b"hyperpool" in found.text and _switched(client, lane, found):
        return True
    now = client.relay.now
    pool = client.pool
    if not client.caching:
        lane.refuse(Reason.SESSION_OFF)
        return False
    plan = lane.plan(
        lane.session(client.tracked), found.kind + found.limit, found.text, found.types, found.values
    )
    if plan.reason is not None or plan.stats is None:
        return False
    reader = pool.reader
    if client.outbox or pool.paused or reader is None or reader.read(found.text) is not None:
        return False
    entry = lane.find(plan.key, now)
    if entry is not None:
        if now >= entry.fresh_until:
            client.relay.refresh(client, lane, plan, found, entry)
            lane.database.stats.stale += 1
            plan.stats.stale += 1
        else:
            lane.database.stats.hits += 1
            plan.stats.hits += 1
        serve(client, lane, found, entry)
        return True
    if _joins(client, lane, plan, found, now):
        client.parked = bytes(view[at:end])
        client.notified = False
        return True
    return False


def _joins(client: ClientConnection, lane: RelayLane, plan: Plan, request: Request, now: float) -> bool:
    """Let a client wait for an answer that is on its way, or have its own one collected."""
    database, key, stats = lane.database, plan.key, plan.stats
    if stats is None:
        raise AssertionError("what may be kept is counted")
    database.stats.misses += 1
    stats.misses += 1
    if lane.is_unfit(key, now):
        client.patience = 0.0
        return False
    flight = lane.flights.get(key)
    if flight is not None and database.holds(flight.mark, plan.tables, stats.fingerprint):
        if client.patience <= 0.0:
            client.patience = now + lane.wait
        if now >= client.patience:
            client.patience = 0.0
            return False
        client.flight = flight
        flight.join(client, request, client.patience)
        return True
    late, flight = flight, Flight(key, database.mark())
    lane.flights[key] = flight
    client.patience = 0.0
    client.fill = Fill(lane, plan, request, flight)
    for other in late.land() if late is not None else ():
        # What they wait for is no longer overdue to anybody: they wait for this one.
        reconsider(other)
    return False


def serve(client: ClientConnection, lane: RelayLane, request: Request, entry: Entry) -> None:
    """Answer a client with an entry, as if a server had."""
    answer = request.prefix + entry.answer
    if request.closes or request.flushes:
        answer = answer[: -len(READY)] + (CLOSED if request.closes else b"") + request.end
    _prepared(client, request)
    now = client.relay.now
    client.active = now
    client.patience = 0.0
    entry.used = True
    stats = entry.stats
    stats.bytes += len(answer)
    stats.saved += entry.cost
    totals = lane.database.stats
    totals.bytes += len(answer)
    totals.saved += entry.cost
    counted = client.pool.stats
    counted.queries += 1
    counted.transactions += 1
    counted.received += request.size
    counted.sent += len(answer)
    if request.path is not None:
        lane.lead(
            request.path,
            entry,
            prefix=request.prefix,
            closes=request.closes,
            unnamed=client.unnamed,
        )
    client.transmit(answer)


def _prepared(client: ClientConnection, request: Request) -> None:
    """A request has been answered without a server: the client has prepared what it has prepared."""
    if request.kind == SIMPLE:
        client.unnamed = None
    elif request.name is not None and request.statement is not None:
        if request.name:
            client.remembered().put(request.name, request.statement)
        else:
            client.unnamed = request.statement


def _switched(client: ClientConnection, lane: RelayLane, request: Request) -> bool:
    """Answer what is about ``hyperpool.cache`` (`relay.switch`). Returns whether it was that."""
    if client.tracked.values.get(SWITCH):
        return False
    off = lane.settings is None or lane.settings.off
    found = switch.read(request, caching=client.caching, off=off)
    if found is None:
        return False
    answer, client.caching = found
    _prepared(client, request)
    client.transmit(answer)
    return True


# -- answers that are kept -----------------------------------------------------------------------------------------


def passed(client: ClientConnection, fill: Fill, data: bytes | memoryview, server: ServerConnection) -> None:
    """A part of an answer has been sent to the client that has asked for it.

    Args:
        client: as said.
        fill: its.
        data: the part.
        server: whose answer it is.
    """
    lane = fill.lane
    if lane.settings is None:
        abandon(client)
        return
    fill.take(data)
    if fill.size > lane.settings.max_entry:
        _failed(client, fill, Reason.TOO_LARGE)
        return
    if not fill.is_over():
        return
    answer = examine(fill.request, fill.whole())
    if not isinstance(answer, Answer):
        _failed(client, fill, answer)
        return
    plan, now = fill.plan, client.relay.now
    stats = plan.stats
    if stats is None:
        raise AssertionError("what may be kept is counted")
    started = server.linked
    flight = fill.flight
    # Otherwise the pool leads to another database by now, or a write has passed.
    current = (
        client.pool.cache is lane
        and not server.retiring
        and lane.flights.get(flight.key) is flight
        and lane.database.holds(flight.mark, plan.tables, stats.fingerprint)
    )
    entry = lane.make(plan, stats, answer, (started, now), keep=current)
    if not current:
        lane.database.stats.unstored[Reason.OWN_WRITE] += 1
    _landed(client, fill)
    if fill.renews is not None:
        lane.database.stats.refreshes += 1
        stats.refreshes += 1
    for other, (request, _) in flight.land().items():
        other.flight = None
        other.parked = None
        lane.database.stats.coalesced += 1
        stats.coalesced += 1
        serve(other, lane, request, entry)
        if other.unread and not other.closed:
            other.relay.resume(other)


def abandon(client: ClientConnection) -> None:
    """The answer that a client has asked for will not come to it: who waits for the same asks anew."""
    fill = client.fill
    if fill is not None:
        _landed(client, fill)
        _released(fill)


def _failed(client: ClientConnection, fill: Fill, reason: Reason) -> None:
    """An answer cannot be kept: who waits for it asks a server."""
    lane = fill.lane
    lane.database.stats.unstored[reason] += 1
    if fill.plan.stats is not None:
        fill.plan.stats.last = reason
    lane.unfit(fill.plan.key, client.relay.now)
    if fill.renews is not None and not fill.renews.gone:
        # What it has been is not what it would be now.
        lane.drop(fill.renews)
    _landed(client, fill)
    _released(fill)


def _landed(client: ClientConnection, fill: Fill) -> None:
    client.fill = None
    lane, flight = fill.lane, fill.flight
    if lane.flights.get(flight.key) is flight:
        del lane.flights[flight.key]
    if fill.renews is not None:
        fill.renews.refreshing = False
        lane.refreshes -= 1


def _released(fill: Fill) -> None:
    for other in fill.flight.land():
        reconsider(other)


def reconsider(client: ClientConnection) -> None:
    """A client has waited for another one's answer, and does so no longer: ask for it."""
    parked, client.parked, client.flight = client.parked, None, None
    if parked is None or client.closed:
        return
    client.ask(parked)


def scatter(pool: RelayPool, clients: Iterable[ClientConnection]) -> None:
    """A pool leads elsewhere from now on: who waits for an answer from where it led asks anew."""
    for client in [one for one in clients if one.pool is pool and one.flight is not None]:
        if client.flight is not None:
            client.flight.leave(client)
            client.patience = 0.0
            reconsider(client)


def overdue(lane: RelayLane, now: float) -> list[ClientConnection]:
    """Clients that have waited for another one's answer for long enough: each is to be reconsidered."""
    return [client for flight in lane.flights.values() for client in flight.overdue(now)]


# -- writes --------------------------------------------------------------------------------------------------------


def is_harmless(client: ClientConnection, lane: RelayLane, text: bytes) -> bool:
    """Whether a text writes nothing, when it is sent to a server that owes nothing and has the client's settings."""
    writing = Writing()
    lane.note(writing, lane.session(client.tracked), text, resolved=True)
    return not writing


def note(client: ClientConnection, server: ServerConnection, text: bytes | None) -> None:
    """A text is about to be executed on a server: take down what it may write.

    Args:
        client: whose it is.
        server: its server.
        text: the SQL; None if nobody knows it.
    """
    writing = server.writes = _added(client, server, server.writes, text)
    if writing is not None and (text is None or _ENDS.search(text)):
        writing.ends = True


def prepared(client: ClientConnection, server: ServerConnection, name: bytes, text: bytes | None) -> None:
    """A text is about to be prepared on a server where names are the client's alone.

    Args:
        client: whose it is.
        server: its server.
        name: the statement's name.
        text: the SQL; None if nobody knows it.
    """
    lane = client.pool.cache
    if lane is not None and text is not None:
        session = lane.session(client.tracked)
        if (b"\\" in text and not session.conforming) or not (session.utf8 or text.isascii()):
            # It is read now, and not as it might be when it is executed.
            text = None
    ledger = server.ledger
    server.prepared.prepare(name, text, certain=not (ledger.midway or ledger.skipping))


def note_prepared(client: ClientConnection, server: ServerConnection, name: bytes) -> None:
    """What has been `prepared` is about to be executed; see `note`."""
    for text in server.prepared.meant(name):
        note(client, server, text)


def _added(
    client: ClientConnection, server: ServerConnection, writing: Writing | None, text: bytes | None
) -> Writing | None:
    """What a text may write, added to what has been taken down; None for nothing."""
    lane = client.pool.cache
    if lane is None:
        return writing
    if writing is None:
        writing = Writing()
    if text is None:
        writing.add(None, Reach.SCHEMA)
    else:
        suspicion = server.suspicion
        settled = server.asking is None and (suspicion is None or not suspicion.touches_settings)
        why = Reason.IN_TRANSACTION if server.status != IDLE else Reason.PINNED if server.pinned else None
        lane.note(
            writing,
            lane.session(client.tracked),
            text,
            resolved=settled and lane.settings is not None and not server.retiring,
            temporary=bool(server.pinned & Pinned.TEMPORARY),
            why=None if lane.settings is None else why,
        )
    return writing or None


def written(server: ServerConnection) -> None:
    """What a server has been asked to write may be there for all to see: drop what depends on it.

    It is called before its client is told so, and may be called too often.
    """
    lane, writing = server.pool.cache, server.writes
    if lane is not None and writing is not None:
        lane.database.written(writing)
    if not server.ledger.entries:
        server.writes = None


def parted(server: ServerConnection) -> Callable[[], None] | None:
    """A server is given up, and what it has been asked to write may be there, or be there later.

    Returns:
        What to call when its connection has ended; None if it is at nothing that matters.
    """
    lane, writing = server.pool.cache, server.writes
    if lane is None or writing is None:
        return None
    lane.database.written(writing)
    if not server.ledger.entries:
        return None
    lane.database.doubt(writing)
    return partial(lane.database.written, writing)


def visible(server: ServerConnection) -> None:
    """A part of an answer is about to be sent, and a transaction may have been committed within it."""
    lane, writing = server.pool.cache, server.writes
    if lane is not None and writing is not None:
        lane.database.visible(writing)
