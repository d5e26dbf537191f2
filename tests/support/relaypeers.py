"""The two kinds of peers of a simulated relay: clients and servers, as a test sees them."""

from __future__ import annotations

import fcntl
import re
import socket
import termios
from typing import TYPE_CHECKING, Final

import attrs

from tests.support.pglanguage import split_frames

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperpool.relay.server import ServerConnection
    from tests.support.pgmodel import Backend

ALL: Final = 1 << 20
"""As many bytes as there are."""

_TAG: Final = re.compile(rb"<c(\d+)q\d+>")
_MOOT: Final = b"dcfH"
_ASYNCHRONOUS: Final = b"NSA"


def make_pair(*, small: bool) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that do not block; small ones take a few kilobytes only."""
    pair = socket.socketpair()
    for sock in pair:
        sock.setblocking(False)
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return pair


def unread_bytes(sock: socket.socket) -> int:
    """How many bytes the kernel holds for a reader."""
    return int.from_bytes(fcntl.ioctl(sock, termios.FIONREAD, bytes(4)), "little")


def _send(sock: socket.socket, data: bytearray, limit: int) -> int:
    """Send the beginning of `data` and remove it there. Returns how much was sent, -1 when the peer has gone."""
    try:
        count = sock.send(data[:limit]) if data else 0
    except BlockingIOError:
        return 0
    except OSError:
        return -1
    del data[:count]
    return count


def _receive(sock: socket.socket, limit: int) -> bytes | None:
    """Receive. Returns None when nothing is there, b"" when the peer has gone."""
    try:
        return sock.recv(limit)
    except BlockingIOError:
        return None
    except OSError:
        return b""


@attrs.define(eq=False)
class SimClient:
    """A client as the test sees it.

    Attributes:
        number: names it in its tags.
        sock: the test's end of its connection.
        address: its name in the relay.
        pid: the process id of its cancel key.
        secret: the secret of its cancel key.
        parameters: what it asked for at startup.
        pending: bytes that it is going to send.
        sent: bytes that it has sent.
        received: bytes that it has received.
        reading: it takes what comes.
        left: the test has closed it, or made it say goodbye.
        hostile: it has broken the protocol.
        eof: the relay has closed it.
        void: spans of `sent` that were canceled before a server saw them.
        questions: how many tags it has used.
    """

    number: int
    sock: socket.socket
    address: str
    pid: int
    secret: bytes
    parameters: Mapping[str, str]
    pending: bytearray = attrs.field(factory=bytearray)
    sent: bytearray = attrs.field(factory=bytearray)
    received: bytearray = attrs.field(factory=bytearray)
    reading: bool = True
    left: bool = False
    hostile: bool = False
    eof: bool = False
    void: list[tuple[int, int]] = attrs.field(factory=list)
    questions: int = 0

    def tag(self) -> str:
        """A new tag."""
        self.questions += 1
        return f"c{self.number}q{self.questions}"

    def send(self, limit: int = ALL) -> bool:
        """Send up to `limit` of the pending bytes. Returns whether anything was sent."""
        head = bytes(self.pending[:limit])
        count = -1 if self.left or self.eof else _send(self.sock, self.pending, limit)
        if count < 0:
            self.pending.clear()
        else:
            self.sent += head[:count]
        return count > 0

    def receive(self, limit: int = ALL) -> bool:
        """Take up to `limit` bytes. Returns whether there was anything new; fails on another client's tag."""
        if self.left or self.eof or not self.reading:
            return False
        data = _receive(self.sock, limit)
        if data is None:
            return False
        if not data:
            self.eof = True
            self.sock.close()
            return True
        fresh = max(len(self.received) - 20, 0)
        self.received += data
        for match in _TAG.finditer(self.received, fresh):
            assert int(match[1]) == self.number, f"client {self.number} sees {match[0]!r}"
        return True


@attrs.define(eq=False)
class SimServer:
    """A server as the test sees it.

    Attributes:
        sock: the test's end of its connection.
        conn: the relay's end.
        backend: the session.
        out: bytes that it is going to send.
        pushed: how many bytes it has sent.
        ends: for each frame that it has made, the offset after it, and whether it answers something.
        gone: its connection is closed, by either side.
        user: the client that it has served last.
        resets: how many resets it had run when that client got it.
    """

    sock: socket.socket
    conn: ServerConnection
    backend: Backend
    out: bytearray = attrs.field(factory=bytearray)
    pushed: int = 0
    ends: list[tuple[int, bool]] = attrs.field(factory=list)
    gone: bool = False
    user: SimClient | None = None
    resets: int = 0

    def collect(self) -> None:
        """Put what the backend has said behind what is going to be sent."""
        at = self.pushed + len(self.out)
        for one in split_frames(bytes(self.backend.output))[0]:
            at += len(one)
            self.ends.append((at, one[:1] not in _ASYNCHRONOUS and b"\0VFATAL\0" not in one))
        self.out += self.backend.output
        self.backend.output.clear()

    def pull(self, limit: int = ALL) -> bool:
        """Read up to `limit` bytes, and handle them. Returns whether there was anything."""
        data = None if self.gone else _receive(self.sock, limit)
        if data is None:
            return False
        if not data:
            self.die()
            return True
        self.backend.receive(data)
        self.collect()
        return True

    def push(self, limit: int = ALL) -> bool:
        """Send up to `limit` bytes. Returns whether anything was sent, or closed because all was said."""
        if self.gone:
            return False
        count = _send(self.sock, self.out, limit)
        self.pushed += max(count, 0)
        if count < 0 or (self.backend.ended and not self.out):
            self.die()
        return count > 0 or self.gone

    def die(self) -> None:
        """Close the connection."""
        if not self.gone:
            self.gone = True
            self.sock.close()

    def owes(self) -> str:
        """Why nobody else should get this server now; "" when it is in its idle state."""
        backend = self.backend
        for state in ("sleeping", "copying", "skipping", "implicit"):
            if getattr(backend, state):
                return state
        if backend.block != "I":
            return f"transaction status {backend.block}"
        consumed = self.pushed - unread_bytes(self.conn.sock)
        if any(answers and end > consumed for end, answers in self.ends):
            return "an answer is on its way"
        coming = self.sock.recv(ALL, socket.MSG_PEEK) if unread_bytes(self.sock) else b""
        frames, rest = split_frames(bytes(backend.input) + coming + bytes(self.conn.outbox))
        if rest or any(one[0] not in _MOOT for one in frames):
            return "a request is on its way"
        return ""
