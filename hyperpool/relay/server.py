"""A server connection in the relay: passes answers on, and knows when it may serve somebody else."""

from __future__ import annotations

from contextlib import suppress
from select import EPOLLIN
from typing import TYPE_CHECKING, Final

from hyperpool.config import PoolMode
from hyperpool.relay import caching
from hyperpool.relay import replay as replays
from hyperpool.relay.connection import HANG_UP
from hyperpool.relay.failures import Failures
from hyperpool.relay.ledger import FAKE, LOST, SKIP
from hyperpool.relay.session import Pinned
from hyperpool.relay.system import receive
from hyperpool.relay.tables import (
    ASYNCHRONOUS,
    EXTENDED,
    FAILED,
    IDLE,
    MAX_MESSAGE,
    NOTHING,
    SIMPLE,
    WATCHED,
    WHOLE,
)
from hyperpool.wire import constants as wire
from hyperpool.wire import messages
from hyperpool.wire.scan import hop, length_at

if TYPE_CHECKING:
    import socket

    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.session import Suspicion

_IN: Final = EPOLLIN
_RESETS: Final = frozenset({b"RESET\0", b"SET\0", b"DISCARD ALL\0"})
"""What CommandComplete says when parameters may be what the server's session began with."""

_LEADS_BACK: Final = frozenset({b"RESET\0", b"DISCARD ALL\0"})
"""What CommandComplete says when they certainly are."""

_FORGETS: Final = {b"DEALLOCATE ALL\0": False, b"DISCARD ALL\0": True}
"""What CommandComplete says when all prepared statements are gone, and whether everything else is, too."""


class ServerConnection(Failures):
    """One server connection that is logged in."""

    __slots__ = ()

    def _link(self, client: ClientConnection, expected: bytes) -> None:
        now = self.relay.now
        if self.client is None:
            client.server = self
            self.client = client
            self.linked = client.active = now
            self.pool.stats.assignments += 1
        else:
            self.asked = now
            self.settled = False
        self.expected = expected

    # -- reading ---------------------------------------------------------------------------------------------------

    def readable(self, mask: int) -> None:
        """Read once, and pass on what came."""
        client = self.client
        if mask != _IN or client is None or client.outbox or self.rest or self.skip:
            self._read(mask)
            return
        relay = self.relay
        try:
            end = receive(self.sock, self.raw, relay.view)
        except OSError as error:
            self.lost(f"server connection broke: {error.strerror}")
            return
        if end <= 0:
            if not end:
                self.lost(_end(self.sock))
            return
        if end == len(relay.view):
            self.unread = True
            relay.resume(self)
        # The common case, in as few steps as Python takes: the whole answer to one request, and nothing else.
        expected, self.expected = self.expected, None
        if expected is not None and not (self.held or client.skip):
            at = hop(relay.buffer, 0, end, expected)
            buffer = relay.buffer
            status = (
                buffer[at + 5]
                if at + 6 == end and buffer[at] == wire.READY_FOR_QUERY and length_at(buffer, at) == 5
                else wire.IN_FAILED_TRANSACTION
            )
            if status == wire.IN_TRANSACTION or (status == wire.IDLE and self.status != wire.IDLE):
                if self._answered_in_block(client, status, end):
                    return
            elif status == wire.IDLE:
                self.ledger.fulfilled()
                pool = self.pool
                elapsed = relay.now - self.linked
                pool.stats.answered(end, elapsed)
                if elapsed > pool.slow:
                    relay.slow.tell(self, client, elapsed)
                self.replay = None
                self.status = IDLE
                self.unnamed = None  # Others may have it before this client does again.
                self.client = client.server = None
                client.active = relay.now
                client.transmit_part(relay.view, end)
                fill = client.fill
                if fill is not None:
                    fill.ended = True
                    caching.passed(client, fill, relay.view[:end], self)
                if client.unread:
                    relay.resume(client)
                self._offer()
                return
        if expected is not None:
            self.flow = 0
            self.ledger.recount()
        self._scan(end)

    def _answered_in_block(self, client: ClientConnection, status: int, end: int) -> bool:
        """The whole answer to one request that has begun a transaction block, or came within one, or has ended it.

        Args:
            client: has asked.
            status: what the server is in now.
            end: how many bytes of the buffer are the answer.

        Returns:
            Whether it has been passed on; it is not where somebody must look into it.
        """
        pool = self.pool
        if self.writes is not None or client.fill is not None or not pool.blocks:
            return False
        relay = self.relay
        stats = pool.stats
        self.ledger.fulfilled()
        self.replay = None
        self.status = status
        self.answered = client.active = now = relay.now
        elapsed = now - max(self.asked, self.linked)
        stats.add_query(elapsed)
        stats.sent += end
        if elapsed > pool.slow:
            relay.slow.tell(self, client, elapsed)
        client.transmit_part(relay.view, end)
        if status == wire.IDLE:
            stats.add_transaction(now - max(self.began, self.linked))
            if self.statements.passing:
                self.statements.doubt_passing()
            self.finish()
        elif client.unread and not client.outbox:
            relay.resume(client)
        return True

    def _read(self, mask: int) -> None:
        """Read once, in any state."""
        if mask & HANG_UP:
            self.hung_up = True
        client = self.client
        if client is not None and client.outbox:
            self.unread = True
            return
        if self.expected is not None:
            self.expected = None
            self.ledger.recount()
        try:
            end = self.receive(self.relay.view)
        except OSError as error:
            self.lost(f"server connection broke: {error.strerror}")
            return
        if end > 0:
            self._scan(end)
        elif end == 0:
            self.lost(_end(self.sock))

    def _scan(self, end: int) -> None:
        """Go through the first `end` bytes of the buffer, frame by frame, and send the client what is its own."""
        relay = self.relay
        buffer = relay.buffer
        ledger = self.ledger
        entries = ledger.entries
        at = self.skip
        start = at if self.dropping else 0
        pieces: list[bytes | memoryview] = []
        simple = SIMPLE if self.suspicion is None and not self.begun else WATCHED
        while True:
            if entries and entries[0] >= FAKE and at <= end:
                pieces += (relay.view[start:at], ledger.fakes())
                start = at
            head = entries[0] if entries else 0
            at = hop(buffer, at, end, NOTHING if ledger.surplus else _passing(head, simple))
            if end - at < 5:
                break
            kind, length = buffer[at], length_at(buffer, at)
            stop = at + 1 + length
            if not 4 <= length <= MAX_MESSAGE or (kind == wire.READY_FOR_QUERY and length != 5):
                self.lost(f"server broke the protocol: message {chr(kind)!r} of length {length}")
                return
            if stop > end and length < relay.max_partial and (self._collects(kind) or head & SKIP):
                break
            described = self.described
            verdict = self._take(kind, head, at, stop, whole=stop <= end)
            if self.closed:
                return
            if described and self.described:
                # What stands behind it is no reason to send the pipeline once more: it goes first.
                pieces += (relay.view[start:at], described)
                start = at
                self.described = b""
                self.replay = None
            if (ledger.lost and self._give_up(pieces, start, stop, end)) or (
                kind == wire.READY_FOR_QUERY and self.status != IDLE and self._refuse_block(pieces, start, at)
            ):
                return
            if verdict:
                pieces.append(relay.view[start:at])
                if verdict.__class__ is bytes:
                    pieces.append(verdict)
                start = stop
            at = stop
        if at - end > MAX_MESSAGE:
            self.lost("server broke the protocol: message too long")
            return
        self._pass_on(pieces, start, at, end)
        if self.settled:
            self.settle()
        elif self.client is None:
            self._check_idle()

    def _collects(self, kind: int) -> bool:
        """Whether a message is looked into: what is there of it is kept until all of it has come."""
        watched = self.suspicion is not None or self.begun
        return kind in WHOLE or (kind == wire.COMMAND_COMPLETE and bool(watched))

    def _take(self, kind: int, head: int, at: int, stop: int, *, whole: bool) -> int | bytes:
        """A message that the scan does not pass over.

        Returns:
            What to do with it: 0 to forward, SKIP to drop, or the bytes to send instead.
        """
        if kind == wire.READY_FOR_QUERY:
            return self._ready(head, self.relay.buffer[at + 5])
        if not whole and kind in WHOLE:
            # Longer than what is collected: it passes uninspected, and nothing is known of the server's state.
            self.retire(f"server sent a {chr(kind)!r} message that is too long to look into")
            return self.ledger.response(kind) if kind == wire.ERROR_RESPONSE else head & SKIP
        if kind in ASYNCHRONOUS:
            return self._asynchronous(kind, head, at, stop)
        self.settled = False
        if kind == wire.ERROR_RESPONSE:
            return self._error(head, at, stop)
        if kind == wire.PARAMETER_DESCRIPTION and whole and not head & SKIP:
            replay = self.replay
            if replay is not None and replays.fits(replay, self.ledger):
                # A statement whose result has changed says so only behind its parameters (postgres.c).
                self.described = bytes(self.relay.buffer[at:stop])
                return self.ledger.response(kind) or SKIP
        elif kind == wire.COMMAND_COMPLETE and self.suspicion is not None:
            self._completed(bytes(self.relay.buffer[at + 5 : stop]))
        elif kind == wire.COMMAND_COMPLETE and self.begun and not head & SKIP:
            self.has_reset = self.has_reset or bytes(self.relay.buffer[at + 5 : stop]) in _LEADS_BACK
        elif kind == wire.DATA_ROW and self.errand is not None and head & SKIP:
            if whole:
                self.errand.row(bytes(self.relay.buffer[at + 5 : stop]))
            else:
                self.errand.error = {
                    "C": "53400",
                    "M": "a parameter of the session is too long to be followed",
                }
        return self.ledger.response(kind)

    def _pass_on(self, pieces: list[bytes | memoryview], start: int, at: int, end: int) -> None:
        """Send `pieces`, and the buffer from `start` to the last frame boundary (or to its end, within a frame)."""
        relay = self.relay
        if at >= end:
            self.skip = at - end
            self.dropping = start > end
        else:
            self.skip = 0
            self.dropping = False
            self.rest = bytes(relay.buffer[at:end])
            end = at
        client = self.client
        if client is None:
            # The next client must not get the end of a message whose beginning nobody got.
            self.dropping = self.skip > 0
            return
        data: bytes | memoryview = relay.view[start:end]
        if pieces:
            data = b"".join((*pieces, data))
        if data:
            if self.writes is not None and (self.status == IDLE or self.writes.ends):
                caching.visible(self)
            self.pool.stats.sent += len(data)
            client.transmit(data)
            if client.fill is not None:
                caching.passed(client, client.fill, data, self)
        if client.unread and not self.outbox and not client.outbox:
            relay.resume(client)

    def _ready(self, head: int, status: int) -> int | bytes:
        """ReadyForQuery. Returns what to do with it: 0 to forward, SKIP to drop, or what to send instead."""
        self.status = status
        ledger = self.ledger
        surplus = ledger.surplus
        verdict = ledger.ready()
        head = head if ledger.surplus == surplus else 0
        # In doubt, nobody can tell which answer is the last one: the server stays with its client for good.
        self.settled = status == IDLE and not ledger.entries and not ledger.doubt
        pool = self.pool
        if self.writes is not None and status == IDLE:
            caching.written(self)
        if verdict:
            errand = self.errand
            if errand is not None and errand.behind:
                errand.behind -= 1
            elif errand is not None and head & 0xFF == wire.QUERY:
                self.errand = None
                errand.then(errand)
            elif self.client is not None and head & 0xFF == wire.QUERY:
                self.client.tracked = self.tracked
                if not ledger.entries:
                    self.restoring = b""
            return verdict
        self.replay = None
        client = self.client
        if head == wire.QUERY:
            self._settle_unnamed(None)
        if status == IDLE and self.statements.passing:
            self.statements.doubt_passing()
        stats = pool.stats
        self.answered = answered = self.relay.now
        elapsed = answered - max(self.asked, self.linked)
        stats.add_query(elapsed)
        if elapsed > pool.slow:
            self.relay.slow.tell(self, self.client, elapsed)
        if status == IDLE:
            stats.add_transaction(answered - max(self.began, self.linked))
        if client is not None:
            client.active = self.answered
            if client.fill is not None:
                client.fill.ended = True
        if (
            self.has_reset
            and status != FAILED
            and not (ledger.entries or (client is not None and client.mid_message))
        ):
            # What the client has sent since may be a COPY, or half a message: then it is behind that.
            self.begin_again()
            return 0
        return 0 if self.suspicion is None else self._suspects_answered(self.suspicion, client, status)

    def _suspects_answered(
        self, suspicion: Suspicion, client: ClientConnection | None, status: int
    ) -> int | bytes:
        """ReadyForQuery behind texts that may have changed the session. Returns as `_ready` does."""
        suspicion.deallocations.ready(self.ledger.settled)
        # A COPY behind them ignores the Sync that came with them: then it is a later one.
        if suspicion.restores and suspicion.resetting <= self.ledger.settled:
            if client is not None and suspicion.has_reset and status != FAILED:
                if client.mid_message:
                    # All other messages would have waited; this one PostgreSQL reads to its end, and ignores.
                    client.violate("unexpected CopyData message outside of COPY")
                    return SKIP
                return self.restore(client, suspicion) + messages.ready_for_query(bytes((status,)))
            suspicion.not_reset()
        return 0

    def _refuse_block(self, pieces: list[bytes | memoryview], start: int, at: int) -> bool:
        """In statement mode, close a client that has begun a transaction block; what it sent behind is not answered."""
        client = self.client
        if client is None or self.pool.settings.pool_mode is not PoolMode.STATEMENT:
            return False
        self._pass_on(pieces, start, at, at)
        client.refuse("transaction blocks not allowed in statement pooling mode", "08P01")
        return True

    def _give_up(self, pieces: list[bytes | memoryview], start: int, stop: int, end: int) -> bool:
        """End a client of which nobody can tell what will be answered; it is told first why its COPY has failed."""
        if not self.pool.translates:
            return False
        self._pass_on(pieces, start, stop, min(stop, end))
        self.lost(LOST)
        return True

    def _asynchronous(self, kind: int, head: int, at: int, stop: int) -> int:
        """A message that answers nothing. Returns what to do with it: 0 to forward, SKIP to drop."""
        if kind == wire.PARAMETER_STATUS:
            name, value = messages.parameter_status_fields(bytes(self.relay.buffer[at + 5 : stop]))
            self.tracked = self.relay.tracker.changed(self.tracked, name, value)
            if self.client is not None and not head & SKIP:
                self.client.tracked = self.tracked
            if self.restoring and self.begun:
                # Nobody knew what the client has reset: it has not been told of it.
                return 0
        elif kind == wire.NOTIFICATION_RESPONSE:
            # Who listened on this server may be another client, unless this one keeps it: then it is for nobody.
            return 0 if self.pool.session or self.may_listen() else SKIP
        return head & SKIP

    def _completed(self, tag: bytes) -> None:
        """CommandComplete, after texts that may have deallocated statements."""
        client, suspicion = self.client, self.suspicion
        if client is None or suspicion is None:
            return
        own = client.remembered()
        if tag in _RESETS and suspicion.resetting == self.ledger.settled + 1:
            suspicion.has_reset = True
        elif tag == b"ROLLBACK\0":
            suspicion.has_reset = False
        if tag == b"DEALLOCATE\0":
            name, replaced = suspicion.deallocations.one_done()
            if not replaced:
                own.put(name, None)
            if name:
                self._gone({name})
        everything = _FORGETS.get(tag)
        if everything is not None:
            # Not all are gone: what was prepared behind it may be there already.
            self.statements.doubt_all()
            later = suspicion.deallocations.all_done()
            for name in [name for name in own.names if name not in later]:
                own.put(name, None)
            self._gone({change.name for change in self.ledger.changes if change is not None and change.name})
            if everything:
                self.tracked = self.relay.tracker.reported_alone(self.tracked, self.pool.reported)

    def _gone(self, names: set[bytes]) -> None:
        """The server has deallocated what these names meant: no error in what comes brings it back."""
        for change in self.ledger.changes:
            if change is not None and change.name in names:
                # What the name means to those behind has been sent, too.
                names.remove(change.name)
                change.before = None

    # -- the end ---------------------------------------------------------------------------------------------------

    def flushed(self) -> None:
        """The server has taken all: its client may be read again."""
        client = self.client
        if client is not None and client.unread:
            client.readable(0)

    def lost(self, reason: str) -> None:
        """The connection broke, or the server misbehaves."""
        reason = self.retiring if self.failing else reason
        if self.client is None and self.idle_since <= self.since and not self.closed:
            # It has never served anybody: opening the next one at once would be a storm of logins.
            self.pool.backoff.lost(self.relay.now)
        self.close(reason)

    def close(self, reason: str) -> None:
        """Close the connection; a client that it serves is told, and closed, too."""
        if self.closed:
            return
        self.end()
        written = caching.parted(self)
        self._pin(Pinned(0))
        self.pool.forget(self)
        if self.errand is not None and self.errand.purpose == "catalog" and not self.outdated:
            self._catalog_unanswered()
        if self.ledger.clean and not self.outbox and self.status == IDLE:
            with suppress(OSError):
                self.sock.send(messages.TERMINATE)
        if written is None:
            self.sock.close()
        self.relay.forget_server(self, reason)
        if written is not None:
            self.relay.let_end(self.sock, written)
        client, self.client = self.client, None
        if client is not None:
            client.server = None
            told = self.failing or self.skip
            client.close(reason, b"" if told else messages.error_response(reason, "08006"))


def _passing(head: int, simple: bytes) -> bytes:
    """What passes uninspected while the request `head` is answered; `simple` if it is a Query."""
    if head == wire.QUERY:
        return simple
    return EXTENDED if head == wire.EXECUTE else NOTHING


def _end(sock: socket.socket) -> str:
    """Why nothing comes any more; what is no socket may know more than that."""
    told = getattr(sock, "ending", "")
    return f"server connection lost: {told}" if told else "server closed the connection"
