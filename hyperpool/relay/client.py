"""A client connection in the relay: reads requests, gets a server linked, passes them on."""

from __future__ import annotations

from select import EPOLLIN
from typing import TYPE_CHECKING, Final

from hyperpool.relay.connection import HANG_UP, HEADER, Connection
from hyperpool.wire import constants as wire
from hyperpool.wire import messages

if TYPE_CHECKING:
    from hyperpool.relay.handover import ClientReady
    from hyperpool.relay.loop import Relay
    from hyperpool.relay.parameters import ParameterSet
    from hyperpool.relay.server import ServerConnection

_ANSWERED: Final = frozenset(
    {
        wire.QUERY,
        wire.PARSE,
        wire.BIND,
        wire.DESCRIBE,
        wire.EXECUTE,
        wire.CLOSE,
        wire.SYNC,
        wire.FUNCTION_CALL,
        wire.COPY_DONE,
        wire.COPY_FAIL,
    }
)
_UNANSWERED: Final = frozenset({wire.COPY_DATA, wire.FLUSH})
_MOOT: Final = frozenset({wire.COPY_DATA, wire.COPY_DONE, wire.COPY_FAIL, wire.FLUSH})
"""Messages that a server in its idle state ignores: nothing is linked for them."""

_MAX_LEDGER: Final = 16384
"""Requests in flight beyond which a client is not read until the server has caught up."""


class ClientConnection(Connection):
    """One logged-in client.

    It is *idle* (no server, nothing asked), *waiting* (`parked` holds what it asked; it is in its pool's queue), or
    *linked* (`server` is set).

    Attributes:
        pool: where its servers come from.
        server: the server connection that serves it now.
        parked: bytes read before a server was there; None unless waiting.
        tracked: the session parameters that this client expects.
        pid: the process id of its cancel key.
        secret: the secret of its cancel key.
        address: where it comes from, for logs.
    """

    __slots__ = ("address", "parked", "pid", "pool", "secret", "server", "tracked")

    def __init__(self, relay: Relay, ready: ClientReady) -> None:
        super().__init__(relay, ready.sock)
        self.pool = ready.pool
        self.tracked: ParameterSet = ready.tracked
        self.pid = ready.pid
        self.secret = ready.secret
        self.address = ready.address
        self.server: ServerConnection | None = None
        self.parked: bytes | None = None

    def __repr__(self) -> str:
        return f"<client {self.pool.name}@{self.address}>"

    # -- reading ---------------------------------------------------------------------------------------------------

    def readable(self, mask: int) -> None:
        """Read once, and pass on what came."""
        if mask != EPOLLIN or self.server is not None or self.parked is not None or self.rest or self.skip:
            self._read(mask)
            return
        # From here on, the common case in as few steps as Python takes: an idle client sends one whole Query.
        relay = self.relay
        try:
            end = self.sock.recv_into(relay.small_view)
        except BlockingIOError:
            return
        except OSError as error:
            self.lost(f"client connection broke: {error.strerror}")
            return
        buffer = relay.buffer
        if 5 <= end <= relay.small_query and buffer[0] == wire.QUERY and HEADER(buffer)[1] == end - 1:
            pool = self.pool
            idle = pool.idle
            if idle and relay.now - idle[-1].idle_since < pool.check_after and not pool.paused:
                server = idle.pop()
                self._link(server)
                pool.stats.received += end
                server.ledger.entries.append(wire.QUERY)
                server.transmit(relay.view[:end])
            else:
                self._ask(relay.view[:end])
        elif end:
            if end == len(relay.small_view):
                relay.resume(self)
            self.consume(buffer, relay.view, end)
        else:
            self.close("client unexpected eof")

    def _read(self, mask: int) -> None:
        """Read once, in any state."""
        if mask & HANG_UP:
            self.hung_up = True
        relay = self.relay
        server = self.server
        if server is None:
            if self.parked is not None:
                self.unread = True
                if self.hung_up:
                    self.close("client closed connection while waiting for a server")
                return
            view = relay.small_view
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
                self._forward(server, relay.buffer, relay.view[:end])
        elif end == 0:
            self.close("client unexpected eof")

    def consume(self, buffer: bytes | bytearray, view: memoryview, end: int) -> None:
        """Handle `end` bytes of an unlinked client: link a server, or wait for one.

        Args:
            buffer: holds the bytes.
            view: the same memory.
            end: how many bytes.
        """
        at = self.skip
        while end - at >= 5:
            kind, length = HEADER(buffer, at)
            if not 4 <= length <= self.relay.max_packet_size:
                self.violate(f"invalid message length {length}")
                return
            if kind not in _MOOT:
                if kind == wire.TERMINATE:
                    self.close("client close request")
                elif kind not in _ANSWERED:
                    self.violate(f"invalid frontend message type {kind}")
                else:
                    self.skip = 0
                    self._ask(view[at:end])
                return
            at += 1 + length
        self.skip = max(at - end, 0)
        self.dropping = self.skip > 0
        self.rest = bytes(buffer[at:end])

    def _ask(self, request: memoryview) -> None:
        """Get a server for a request, at a message boundary: link one, or wait for one."""
        pool = self.pool
        if pool.idle and not pool.paused:
            server = pool.idle.pop()
            if self.relay.now - server.idle_since < pool.check_after:
                self._link(server)
                self._send(server, request)
                return
            server.check()
        self.parked = bytes(request)
        pool.waiting[self] = self.relay.now
        if len(pool.servers) < pool.size:
            self.relay.client_waits(pool)

    def serve(self, server: ServerConnection) -> None:
        """This client has waited long enough: link the server, and pass on what was asked."""
        parked = self.parked
        if parked is None:
            raise AssertionError("a client in the queue has asked something")
        self.parked = None
        self._link(server)
        self._send(server, parked)
        if self.unread and not self.closed:
            self.relay.resume(self)

    def _link(self, server: ServerConnection) -> None:
        """Take a server connection that nobody else has."""
        self.server = server
        server.client = self
        if self.tracked is not server.tracked:
            server.adjust(self.tracked)

    def _send(self, server: ServerConnection, request: bytes | memoryview) -> None:
        """Pass the first bytes on to a server that was linked for them."""
        if request[0] == wire.QUERY and HEADER(request)[1] == len(request) - 1:
            self.pool.stats.received += len(request)
            server.ledger.entries.append(wire.QUERY)
            server.transmit(request)
        else:
            self._forward(server, request, memoryview(request))

    def _forward(
        self, server: ServerConnection, buffer: bytes | bytearray | memoryview, view: memoryview
    ) -> None:
        """Pass bytes on to the linked server, and write down what it will have to answer.

        Args:
            server: the linked server.
            buffer: the bytes, or more than them: `view` tells how many.
            view: the bytes.
        """
        ledger = server.ledger
        at = self.skip
        end = len(view)
        leaving = False
        limit = self.relay.max_packet_size
        while end - at >= 5:
            kind, length = HEADER(buffer, at)
            if not 4 <= length <= limit:
                self.violate(f"invalid message length {length}")
                return
            if kind in _ANSWERED:
                ledger.request(kind)
            elif kind == wire.TERMINATE:
                leaving = True
                end = at
                break
            elif kind not in _UNANSWERED:
                self.violate(f"invalid frontend message type {kind}")
                return
            at += 1 + length
        if at >= end:
            self.skip = at - end
        else:
            self.skip = 0
            self.rest = bytes(view[at:end])
            end = at
        if end:
            self.pool.stats.received += end
            server.transmit(view[:end])
        if leaving:
            self.close("client close request")
        elif server.settled:
            if ledger.entries:
                server.settled = False
            else:
                server.settle()

    # -- events from elsewhere -------------------------------------------------------------------------------------

    def flushed(self) -> None:
        """The client has taken all: its server may be read again."""
        server = self.server
        if server is not None and server.unread:
            server.readable(0)

    def lost(self, reason: str) -> None:
        """The connection broke."""
        self.close(reason)

    def cancel_waiting(self) -> None:
        """The client cancels a request that no server has seen: answer it, if it is a whole one."""
        parked = self.parked
        if parked is None:
            return
        at = 0
        last = 0
        syncs = 0
        while len(parked) - at >= 5:
            last, length = HEADER(parked, at)
            syncs += last in (wire.QUERY, wire.SYNC, wire.FUNCTION_CALL)
            at += 1 + length
        reason = "canceling statement due to user request"
        if at != len(parked) or syncs != 1 or last not in (wire.QUERY, wire.SYNC, wire.FUNCTION_CALL):
            self.close("client canceled a pipeline that waited", messages.error_response(reason, "57014"))
            return
        self._stop_waiting()
        self.parked = None
        self.transmit(messages.error_response(reason, "57014", severity="ERROR") + messages.ready_for_query())
        if self.unread and not self.closed:
            self.relay.resume(self)

    def violate(self, what: str) -> None:
        """The client broke the protocol: tell it, as PostgreSQL does, and close."""
        self.close(f"protocol violation: {what}", messages.error_response(what, "08P01"))

    def refuse(self, message: str, sqlstate: str, hint: str = "") -> None:
        """Close with a FATAL error of our own."""
        self.close(message, messages.error_response(message, sqlstate, hint=hint))

    def close(self, reason: str, farewell: bytes | None = None) -> None:
        """Close the connection, and part it from its server.

        Args:
            reason: for the log.
            farewell: an ErrorResponse, sent when the client is at a message boundary; b"" when it has been told
                already; None when it knows, and nothing that it was sent is waiting to be read.
        """
        if self.closed:
            return
        self.closed = True
        self._stop_waiting()
        self.pool.clients -= 1
        server = self.server
        self.relay.forget_client(self, reason)
        if farewell is None:
            self.sock.close()
        else:
            mid_answer = server is not None and server.skip > 0
            self.relay.see_off(self, b"" if mid_answer else farewell)
        if server is not None:
            self.server = None
            server.client = None
            server.abandoned(mid_message=self.skip > 0)

    def _stop_waiting(self) -> None:
        since = self.pool.waiting.pop(self, None)
        if since is not None:
            self.pool.stats.waited += self.relay.now - since
