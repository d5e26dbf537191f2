"""Connections that come to an end: peers that are sent a last message, servers that end what they are at."""

from __future__ import annotations

import socket
from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from hyperpool.relay.connection import HANG_UP
from hyperpool.relay.transient import TransientConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.relay.loop import Relay

_LEAVE_TIME: Final = 2.0
"""Seconds that a peer has to take its last message."""

_LEAVE_BYTES: Final = 1 << 20
"""Bytes that a peer may send meanwhile."""

_PARTING_TIME: Final = 60.0
"""Seconds that a server has to end what it is at."""


class _DroppingConnection(TransientConnection):
    """A peer of which nothing is wanted any more: what it sends is dropped, until it closes."""

    __slots__ = ()

    def readable(self, mask: int) -> None:
        """Drop what the peer sends."""
        if mask & HANG_UP:
            self.hung_up = True
        try:
            got = self.receive(self.relay.view)
        except OSError as error:
            self.lost(f"broke: {error.strerror}")
            return
        self._dropped(got)

    @abstractmethod
    def _dropped(self, got: int) -> None:
        """So many bytes have been dropped; 0 at the end of the stream, -1 when nothing was there."""


class LeavingConnection(_DroppingConnection):
    """A peer that is sent a last message and then closed, in a way that lets the message arrive.

    Closing a socket that holds unread bytes makes the kernel reset the connection, and the reset destroys what the
    peer has not read yet. So what it still sends is read and dropped until it closes, for a while.

    Args:
        relay: the data plane.
        sock: handed over.
        farewell: the last message.
        outbox: what the socket has not taken of earlier messages.
    """

    __slots__ = ("_left",)

    def __init__(self, relay: Relay, sock: socket.socket, farewell: bytes, outbox: bytes = b"") -> None:
        super().__init__(relay, sock, relay.now + _LEAVE_TIME)
        self._left = _LEAVE_BYTES
        self.outbox = outbox
        self.transmit(farewell)
        if not self.outbox:
            self.flushed()

    def _dropped(self, got: int) -> None:
        self._left -= max(got, 0)
        if got == 0 or self._left <= 0:
            self.lost("left")

    def flushed(self) -> None:
        """The last message is on its way."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.relay.doom(self, error)

    def timed_out(self) -> None:
        """It has had its time."""
        self.lost("timed out")

    def gone(self, reason: str) -> None:
        """Nothing else to do."""


class PartingConnection(_DroppingConnection):
    """A server connection that has been given up while the server was at work.

    PostgreSQL goes on, and looks whether somebody is still there when it is done. So it is told that nobody is, and its
    end tells when that was; what it sends is dropped.

    Args:
        relay: the data plane.
        sock: handed over.
        then: called when it has ended, or has had its time.
    """

    __slots__ = ("_then",)

    def __init__(self, relay: Relay, sock: socket.socket, then: Callable[[], None]) -> None:
        super().__init__(relay, sock, relay.now + _PARTING_TIME)
        self._then = then
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            relay.doom(self, error)

    def _dropped(self, got: int) -> None:
        if got == 0:
            self.lost("ended")

    def flushed(self) -> None:
        """What it was sent last does not matter any more."""

    def timed_out(self) -> None:
        """It has had its time."""
        self.lost("timed out")

    def gone(self, reason: str) -> None:  # noqa: ARG002 - any end is an end
        """What it was at is done."""
        self._then()
