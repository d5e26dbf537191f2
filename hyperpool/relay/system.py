"""The relay's system calls: receive, send, and wait for events.

This is the form in Python; `system.pyx` calls the kernel from C, which `hyperpool.form` prefers. Both behave the same;
tests/unit/relay/test_system.py runs against each.

A *raw* socket is a plain one, known by its file descriptor. What only looks like a socket (TLS, WebSocket) has -1 for
that, and is asked itself.
"""

from __future__ import annotations

import socket
import time
from select import epoll
from typing import TYPE_CHECKING, Final

from hyperpool.transport.sockets import address_name

if TYPE_CHECKING:
    from collections.abc import Callable

monotonic = time.monotonic
"""Seconds; what the relay tells the time by, unless it is given another clock."""

MAX_EVENTS: Final = 256
"""Events that one `Poller.wait` tells of at most."""


def raw_descriptor(sock: socket.socket) -> int:
    """The file descriptor of a plain socket, -1 of anything else."""
    return sock.fileno() if type(sock) is socket.socket else -1


def accept(listening: socket.socket, raw: int) -> tuple[socket.socket, str] | None:  # noqa: ARG001 - for the form in C
    """Accept a connection.

    Args:
        listening: the socket.
        raw: its `raw_descriptor`.

    Returns:
        The connection's socket, which does not block, and where it comes from, for people; None if there is none.

    Raises:
        OSError: the system is full, or the connection has gone already.
    """
    try:
        accepted, address = listening.accept()
    except BlockingIOError:
        return None
    accepted.setblocking(False)
    return accepted, address_name(listening.family, address)


def close_socket(sock: socket.socket) -> None:
    """Close a socket that nobody has made a file of."""
    sock.close()


def receive(sock: socket.socket, raw: int, view: memoryview) -> int:  # noqa: ARG001 - for the form in C
    """Receive into `view`, without waiting.

    Args:
        sock: the socket.
        raw: its `raw_descriptor`.
        view: where to; not empty.

    Returns:
        How many bytes have come; 0 at the end of the stream, -1 when nothing is there.

    Raises:
        OSError: the connection broke.
    """
    try:
        return sock.recv_into(view)
    except BlockingIOError:
        return -1


def send(
    sock: socket.socket,
    raw: int,  # noqa: ARG001 - for the form in C
    data: bytes | bytearray | memoryview,
    end: int,
    flags: int = 0,
) -> int:
    """Send the first `end` bytes of `data`, without waiting.

    Returns:
        How many bytes the socket has taken.

    Raises:
        OSError: the connection broke.
    """
    try:
        return sock.send(data if end == len(data) else memoryview(data)[:end], flags)
    except BlockingIOError:
        return 0


def read(clock: Callable[[], float]) -> float:
    """What a clock shows, in seconds."""
    return clock()


class Poller:
    """An epoll object, and the events that it told of last.

    Attributes:
        closed: it has been closed.
    """

    __slots__ = ("_epoll", "_events")

    def __init__(self) -> None:
        self._epoll = epoll()
        self._events: list[tuple[int, int]] = []

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._epoll.closed

    def fileno(self) -> int:
        """Its file descriptor."""
        return self._epoll.fileno()

    def register(self, fd: int, mask: int) -> None:
        """Wait for events of a file descriptor."""
        self._epoll.register(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        """Wait for other events of it."""
        self._epoll.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        """Wait for no events of it."""
        self._epoll.unregister(fd)

    def close(self) -> None:
        """Close it."""
        self._epoll.close()

    def wait(self, timeout: float) -> int:
        """Wait for events.

        Args:
            timeout: seconds, rounded up to milliseconds; 0 for not at all.

        Returns:
            How many there are.
        """
        self._events = self._epoll.poll(timeout, MAX_EVENTS)
        return len(self._events)

    def rest(self, timeout: float) -> int:
        """Wait for events, for less than a millisecond.

        Args:
            timeout: seconds. In Python, with Linux before 5.11, and behind a filter of system calls that does not know
                what is newer, an event may be seen only when they are over.

        Returns:
            How many there are; 0 also when a signal has come.
        """
        time.sleep(timeout)
        return self.wait(0)

    def forget(self, fd: int) -> None:
        """What was told last of this file descriptor, which has been closed since, is of no connection: of -1."""
        self._events = [(-1 if one == fd else one, mask) for one, mask in self._events]

    def fd(self, number: int) -> int:
        """The file descriptor of an event, counted from 0."""
        return self._events[number][0]

    def mask(self, number: int) -> int:
        """What has happened to it: EPOLLIN and others, as bits."""
        return self._events[number][1]
