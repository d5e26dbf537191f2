"""What clients and servers have in common in the relay: a socket, and bytes that it did not take yet."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from hyperpool.relay.system import raw_descriptor, receive, send

if TYPE_CHECKING:
    import socket

    from hyperpool.relay.loop import Relay

HANG_UP: Final = 0x2018
"""EPOLLRDHUP | EPOLLHUP | EPOLLERR"""

MAX_PARTIAL: Final = 65536
"""Bytes of a message that is inspected whole (ParameterStatus, ErrorResponse); a longer one passes uninspected."""


class Connection:
    """An established connection, driven by readiness events.

    Events are edge-triggered: not reading is backpressure, and costs no system call. Whoever stops reading sets
    `unread`, and whoever lets reading go on calls `readable`.

    Attributes:
        fd: the socket's file descriptor.
        raw: the same, if it is a plain socket that is open; else -1 (see `relay.system`).
        flow: how many reads without a break have found much; see `EventLoop.poll`.
        polled: it streams: nothing tells of what there is to read.
        outbox: bytes that the socket did not take; while there are any, the other side is not read.
        skip: how many of the next bytes belong to a message whose beginning has been handled.
        dropping: those bytes are dropped, not forwarded.
        rest: the beginning of a message that cannot be handled before more of it has come.
        unread: the socket may hold bytes that nobody will be told about again.
        queued: it is in the relay's list of connections to read again.
        hung_up: the peer has shut down its side.
        closed: the socket is closed.
        since: monotonic time of the login, in seconds.
        number: of the connection; no other one ever gets it.
    """

    __slots__ = (
        "closed",
        "dropping",
        "fd",
        "flow",
        "hung_up",
        "number",
        "outbox",
        "polled",
        "queued",
        "raw",
        "relay",
        "rest",
        "since",
        "skip",
        "sock",
        "unread",
    )

    def __init__(self, relay: Relay, sock: socket.socket) -> None:
        self._set_up(relay, sock)

    def _set_up(self, relay: Relay, sock: socket.socket) -> None:
        """What `__init__` does; compiled, it takes a fraction of the time from here, and each login needs it twice."""
        self.relay = relay
        self.sock = sock
        self.raw = raw_descriptor(sock)
        self.fd = self.raw if self.raw >= 0 else sock.fileno()
        self.flow = 0
        self.polled = False
        self.outbox: bytes | memoryview = b""
        self.skip = 0
        self.rest = b""
        self.dropping = False
        self.unread = False
        self.queued = False
        self.hung_up = False
        self.closed = False
        self.since = relay.now
        self.number = relay.unique()

    def speak(self, sock: socket.socket) -> None:
        """Go on with another socket around the same descriptor: one with TLS."""
        self.sock = sock
        self.raw = raw_descriptor(sock)

    def end(self) -> None:
        """Its socket is about to be closed, or somebody else's: the descriptor's number means another one soon."""
        if self.polled:
            self.relay.listen(self)
        self.closed = True
        self.raw = -1

    def transmit(self, data: bytes | memoryview, flags: int = 0) -> None:
        """Send, and keep what the socket does not take. A broken connection is closed after the current event."""
        self.transmit_part(data, len(data), flags)

    def transmit_part(self, data: bytes | bytearray | memoryview, end: int, flags: int = 0) -> None:
        """The same for the first `end` bytes of `data`."""
        if self.outbox:
            self.outbox = bytes(self.outbox) + bytes(data[:end])
            return
        try:
            sent = send(self.sock, self.raw, data, end, flags)
        except OSError as error:
            self.relay.doom(self, error)
            return
        if sent != end:
            self.outbox = bytes(data[sent:end])
            self.relay.watch_writable(self)

    def writable(self) -> None:
        """The socket takes bytes again."""
        outbox = self.outbox
        if outbox:
            try:
                sent = send(self.sock, self.raw, outbox, len(outbox))
            except OSError as error:
                self.relay.doom(self, error)
                return
            if sent != len(outbox):
                self.outbox = memoryview(outbox)[sent:]
                return
        self.outbox = b""
        self.relay.unwatch_writable(self)
        self.flushed()

    def receive(self, view: memoryview) -> int:
        """Read once into `view`, behind the bytes in `rest`, which are moved to its beginning.

        Returns:
            How many bytes `view` holds now; 0 at the end of the stream, -1 when nothing was there.

        Raises:
            OSError: the connection broke.
        """
        held = len(self.rest)
        if held:
            view[:held] = self.rest
            view = view[held:]
        got = receive(self.sock, self.raw, view)
        if got <= 0:
            self.flow = 0
            if got:
                self.unread = False
            return got
        if got >= self.relay.much:
            self.flow += 1
            if self.flow == self.relay.stream:
                self.relay.poll(self)
        else:
            self.flow = 0
        if held:
            self.rest = b""
        # An edge says "there was news", once: a full read, or the news of a hang-up, may leave more to be read.
        more = got == len(view) or self.hung_up
        self.unread = more
        if more:
            self.relay.resume(self)
        return held + got

    @abstractmethod
    def readable(self, mask: int) -> None:
        """The socket has bytes, or has been shut down; `mask` holds the epoll events, 0 when resumed."""

    @abstractmethod
    def flushed(self) -> None:
        """The outbox is empty again."""

    @abstractmethod
    def lost(self, reason: str) -> None:
        """The connection broke or behaves in a way that makes it useless: close it."""
