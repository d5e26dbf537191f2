"""A client connection in the relay: reads requests, gets a server linked, passes them on."""

from __future__ import annotations

from select import EPOLLIN
from typing import TYPE_CHECKING, Final

from hyperpool.relay import caching, hits, local, untranslated
from hyperpool.relay.connection import HANG_UP
from hyperpool.relay.frontend import Frontend
from hyperpool.relay.system import close_socket, receive
from hyperpool.relay.tables import ANSWERED, IDLE, IGNORED
from hyperpool.wire import constants as wire
from hyperpool.wire.scan import length_at, part

if TYPE_CHECKING:
    from hyperpool.relay.server import ServerConnection

_IN: Final = EPOLLIN
_MOOT: Final = frozenset({wire.COPY_DATA, wire.COPY_DONE, wire.COPY_FAIL, wire.FLUSH})
"""Messages that a server in its idle state ignores: nothing is linked for them."""

_MAX_LEDGER: Final = 16384
"""Requests in flight beyond which a client is not read until the server has caught up."""


class ClientConnection(Frontend):
    """One logged-in client.

    It is *idle* (no server, nothing asked), *waiting* (`parked` holds what it asked; it is in its pool's queue), or
    *linked* (`server` is set; `parked` holds what it asked while the server is being adjusted for it).
    """

    __slots__ = ()

    # -- reading ---------------------------------------------------------------------------------------------------

    def readable(self, mask: int) -> None:
        """Read once, and pass on what came."""
        if mask != _IN or self.parked is not None or self.rest or self.skip:
            self._read(mask)
            return
        if self.server is not None:
            self._read_linked(self.server)
            return
        # From here on, the common case in as few steps as Python takes: an idle client sends one whole Query.
        relay = self.relay
        try:
            end = receive(self.sock, self.raw, relay.small_view)
        except OSError as error:
            self.lost(f"client connection broke: {error.strerror}")
            return
        buffer = relay.buffer
        if 5 <= end <= relay.small_query:
            pool = self.pool
            if pool.fronts is not None:
                if relay.hear is not None:
                    relay.hear()
                if not hits.hit(self, pool.fronts, buffer, end):
                    self.consume(buffer, relay.view, end)
                return
            if pool.idle:
                server = pool.idle[-1]
                if (
                    relay.now - server.idle_since < pool.check_after
                    and self.tracked is server.tracked
                    and not pool.paused
                    and server.take(self, buffer, end)
                ):
                    pool.idle.pop()
                else:
                    self.consume(buffer, relay.view, end)
            elif length_at(buffer, 0) < end and (
                buffer[0] in (wire.QUERY, wire.BIND) or (buffer[0] == wire.PARSE and not buffer[5])
            ):
                # Each needs a server, whatever it is.
                self._wait(part(buffer, 0, end))
            else:
                self.consume(buffer, relay.view, end)
        elif end > 0:
            if end == len(relay.small_view):
                relay.resume(self)
            self.consume(buffer, relay.view, end)
        elif not end:
            self.close("client unexpected eof")

    def _read_linked(self, server: ServerConnection) -> None:
        """Read once; within a block where nothing is outstanding and nothing is watched, in as few steps, too."""
        if self.stalled or self.hung_up or self.gathered is not None or not server.goes_on(self):
            self._read(_IN)
            return
        relay = self.relay
        view = relay.view
        try:
            end = receive(self.sock, self.raw, view)
        except OSError as error:
            self.lost(f"client connection broke: {error.strerror}")
            return
        if end <= 0:
            self.unread = False
            if not end:
                self.close("client unexpected eof")
            return
        self.unread = end == len(view)
        if self.unread:
            relay.resume(self)
        if not (5 < end <= relay.small_query and server.take(self, relay.buffer, end)):
            self._forward(server, relay.buffer, view, 0, end)

    def _read(self, mask: int) -> None:
        """Read once, in any state."""
        if mask & HANG_UP:
            self.hung_up = True
        relay = self.relay
        server = self.server
        if self.parked is not None:
            self.unread = True
            if self.hung_up:
                self.close("client closed connection while waiting for a server")
            return
        if self.stalled:
            self._go_on_after_stall(server)
            return
        if server is None:
            # The beginning of a long message may be there already, from when it had a server.
            view = relay.small_view if len(self.rest) < len(relay.small_view) else relay.view
        elif server.outbox or len(server.ledger.entries) > _MAX_LEDGER:
            self.unread = True
            return
        else:
            view = relay.view
        try:
            end = self.receive(view)
        except OSError as error:
            self.lost(f"client connection broke: {error.strerror}")
            return
        if end > 0:
            if server is None:
                self.consume(relay.buffer, relay.view, end)
            else:
                self._forward(server, relay.buffer, relay.view, 0, end)
        elif end == 0:
            self.close("client unexpected eof")

    def _go_on_after_stall(self, server: ServerConnection | None) -> None:
        if server is not None and server.ledger.owed and not self.paused:
            if not server.ledger.wants_data:
                self.unread = True
                return
            kind = self.rest[0]
            if kind not in IGNORED:
                # What it waits for would never come: the server waits, too, and would end the session for this.
                self.violate(f"unexpected message type 0x{kind:02X} during COPY from stdin")
                return
        self.stalled = self.paused = False
        held, self.rest = self.rest, b""
        if server is None:
            self.consume(held, memoryview(held), len(held))
        else:
            self._forward(server, held, memoryview(held), 0, len(held))
        if not self.closed:
            self.relay.resume(self)

    def consume(self, buffer: bytes | bytearray, view: memoryview, end: int) -> None:
        """Handle `end` bytes of an unlinked client: link a server, or wait for one.

        Args:
            buffer: holds the bytes.
            view: the same memory.
            end: how many bytes.
        """
        at = self.skip
        while end - at >= 5:
            kind, length = buffer[at], length_at(buffer, at)
            if not 4 <= length <= self.relay.max_packet_size:
                self.violate(f"invalid message length {length}")
                return
            if kind not in _MOOT:
                if kind == wire.TERMINATE:
                    self.close("client close request")
                elif kind not in ANSWERED:
                    self.violate(f"invalid frontend message type {kind}")
                elif kind == wire.QUERY and self.relay.extended_only:
                    self.refuse_simple()
                else:
                    self.skip = 0
                    self._ask(buffer, view, at, end)
                return
            at += 1 + length
        self.skip = max(at - end, 0)
        self.dropping = self.skip > 0
        self.rest = bytes(buffer[at:end])

    def _ask(self, buffer: bytes | bytearray, view: memoryview, at: int, end: int) -> None:
        """Get a server for a request, at a message boundary: link one, or wait for one."""
        lane = self.pool.cache
        if lane is not None and lane.settings is not None and caching.ask(self, lane, buffer, view, at, end):
            return
        if buffer[at] == wire.PARSE and self.pool.translates:
            answer = local.answer(self, buffer, at, end)
            if answer:
                self.active = self.relay.now
                self.transmit(answer)
                return
        server = self._idle_server()
        if server is None:
            self._wait(bytes(view[at:end]))
        elif (
            lane is not None and not at and self.tracked is server.tracked and server.take(self, buffer, end)
        ):
            return
        elif self._link(server):
            self._forward(server, buffer, view, at, end)
        else:
            self.parked = bytes(view[at:end])

    def ask(self, request: bytes) -> None:
        """Have something answered that it has sent, and that no server has seen."""
        self._ask(request, memoryview(request), 0, len(request))
        if self.unread and not self.closed:
            self.relay.resume(self)

    def prove(self, request: bytes) -> None:
        """Have a server take the parameters that this client has asked for, and finish its login.

        Args:
            request: what the client has sent already.
        """
        server = self._idle_server()
        if server is None:
            self._wait(request)
        else:
            self.parked = request
            self.serve(server)

    def _idle_server(self) -> ServerConnection | None:
        """An idle server that needs no check; one that needs it is checked, and will be offered to those who wait."""
        pool = self.pool
        if not pool.idle or pool.paused:
            return None
        server = pool.idle.pop()
        if self.relay.now - server.idle_since < pool.check_after:
            return server
        server.check()
        return None

    def _wait(self, request: bytes) -> None:
        """Stand in the queue for a server."""
        pool = self.pool
        self.parked = request
        self.notified = False
        pool.waiting[self] = self.relay.now
        if len(pool.servers) < pool.size:
            self.relay.client_waits(pool)

    def serve(self, server: ServerConnection) -> None:
        """This client has waited long enough: link the server, and pass on what was asked."""
        parked = self.parked
        if (
            parked
            and self.tracked is server.tracked
            and self.proven
            and not self.unread
            and len(parked) <= self.relay.max_packet_size
        ):
            # It has asked one thing, whole, and waits.
            self.parked = None
            if server.take(self, parked, len(parked)):
                return
            self.parked = parked
        if self._link(server):
            self.adjusted({})

    def adjusted(self, refusal: dict[str, str]) -> None:
        """The linked server has been adjusted for this client.

        Args:
            refusal: the fields of the error that it answered with, if it did.
        """
        if refusal:
            message = refusal.get("M", "session parameters were refused")
            self.refuse(message, refusal.get("C", "58000"), refusal.get("H", ""))
            return
        self.proven = True
        greet, self.greet = self.greet, None
        if greet is not None:
            self.initial = self.tracked
            self.transmit(greet(self.tracked))
        server = self.server
        if server is not None and not self.closed:
            self._go_on(server)

    def _go_on(self, server: ServerConnection) -> None:
        """Pass on what was asked, now that the linked server is ready for it."""
        parked = self.parked
        if parked is None:
            raise AssertionError("a client in the queue has asked something")
        self.parked = None
        if parked:
            self._forward(server, parked, memoryview(parked), 0, len(parked))
        if self.server is server and server.ledger.clean and not (self.rest or self.skip):
            server.settle()
        if self.unread and not self.closed:
            self.relay.resume(self)

    def _link(self, server: ServerConnection) -> bool:
        """Take a server connection that nobody else has.

        Returns:
            Whether requests may be sent; if not, `adjusted` is called when they may.
        """
        self.server = server
        server.client = self
        server.linked = self.active = self.relay.now
        server.said = b""
        self.pool.stats.assignments += 1
        if self.pool.session:
            server.begin(self)
        return self.tracked is server.tracked or server.adjust(self)

    def _forward(
        self, server: ServerConnection, buffer: bytes | bytearray, view: memoryview, at: int, end: int
    ) -> None:
        """Pass bytes on to the linked server, and write down what it will have to answer.

        Args:
            server: the linked server.
            buffer: holds the bytes.
            view: the same memory.
            at: the first byte.
            end: behind the last byte.
        """
        if self.gathered is not None:
            self._gather(server, self.gathered, view, at, end)
            return
        ledger = server.ledger
        if server.expected is not None:
            server.expected = None
            ledger.recount()
        # The pooler may ask behind an answer, and a client that has been answered begins anew.
        if not ledger.entries or (server.errand is not None and ledger.own):
            server.asked = self.relay.now
            if server.status == IDLE and not ledger.unsynced:
                server.began = server.asked
        if self.pool.translates:
            goes_on = self.relay.translator.forward(self, buffer, view, at, end)
        else:
            goes_on = untranslated.forward(self, server, buffer, view, at, end)
        if goes_on and server.settled:
            if ledger.entries:
                server.settled = False
            else:
                server.settle()

    def _gather(
        self, server: ServerConnection, gathered: bytearray, view: memoryview, at: int, end: int
    ) -> None:
        """More of a message that is collected."""
        gathered += view[at:end]
        self.skip -= end - at
        if self.skip > 0:
            return
        length = len(gathered) + self.skip
        self.skip = 0
        self.gathered = None
        self.remembered().reserve(-length)
        whole = bytes(gathered)
        self._forward(server, whole, memoryview(whole), 0, len(whole))

    # -- events from elsewhere -------------------------------------------------------------------------------------

    def flushed(self) -> None:
        """The client has taken all: its server may be read again, and what it has sent itself, too."""
        server = self.server
        if server is not None and server.unread:
            server.readable(0)
        if self.unread and not self.closed:
            # The answer that it was to wait for may have been the last that the server had to say.
            self.relay.resume(self)

    def lost(self, reason: str) -> None:
        """The connection broke."""
        self.close(reason)

    def close(self, reason: str, farewell: bytes | None = None) -> None:
        """Close the connection, and part it from its server.

        Args:
            reason: for the log.
            farewell: an ErrorResponse, sent when the client is at a message boundary; b"" when it has been told
                already; None when it knows, and nothing that it was sent is waiting to be read.
        """
        if self.closed:
            return
        self.end()
        self.stop_waiting()
        if self.statements is not None:
            self.statements.clear()
        self.pool.clients -= 1
        server = self.server
        self.relay.forget_client(self, reason, farewell)
        if farewell is None:
            close_socket(self.sock)
        else:
            mid_answer = server is not None and server.skip > 0
            self.relay.see_off(self, b"" if mid_answer else farewell)
        if server is not None:
            self.server = None
            server.client = None
            server.abandoned(mid_message=self.mid_message)

    def stop_waiting(self) -> None:
        """It waits for nobody any more: neither for a server, nor for another client's answer."""
        if self.fill is not None:
            caching.abandon(self)
        if self.flight is not None:
            self.flight.leave(self)
            self.flight = None
            self.patience = 0.0
        since = self.pool.waiting.pop(self, None)
        if since is not None:
            self.pool.stats.add_wait(self.relay.now - since)
