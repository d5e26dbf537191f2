"""A socket pair's end, as supervisor and worker use it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from hyperpool.errors import ProtocolError
from hyperpool.workers.messages import HEADER, Decoder, encode

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hyperpool.workers.messages import Message

_READ: Final = 65536
_MAX_HELD: Final = 512 * 1024**2
"""Bytes that may wait for the other side; beyond that, it is as good as dead."""


class Link:
    """Sends messages without waiting, and receives them.

    Args:
        sock: one end of a socket pair; the link owns it from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._held: deque[bytes] = deque()
        self._size = 0
        self._more = trio.Event()
        self._failure: ProtocolError | None = None
        self._failed = trio.CancelScope()

    def post(self, message: Message) -> None:
        """Send a message: now, if it can be, else when the other side reads. Nothing happens after the end."""
        if self._failure is not None:
            return
        frame = encode(message)
        sent = 0
        if not self._held:
            try:
                sent = self._sock.send(frame)
            except BlockingIOError:
                pass
            except OSError:
                # Whoever receives finds out.
                return
        if sent < len(frame):
            self._held.append(frame[sent:])
            self._size += len(frame) - sent
            self._more.set()
            if self._size > _MAX_HELD:
                self._fail(ProtocolError("it takes no messages"))

    async def run(self, handle: Callable[[Message], None]) -> None:
        """Give messages to `handle` until the other side has gone. Cancelled, it leaves the socket open.

        Raises:
            ProtocolError: the other side sends what is no message, or takes nothing; or `handle` has raised it.
        """
        with self._failed:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read(handle)
                nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    def _fail(self, failure: ProtocolError) -> None:
        self._failure = failure
        self._held.clear()
        self._failed.cancel()

    async def _read(self, handle: Callable[[Message], None]) -> None:
        decoder = Decoder()
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                data = self._sock.recv(_READ)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            try:
                for message in decoder.feed(data):
                    handle(message)
            except ProtocolError as error:
                # In a nursery, it would come out in a group.
                self._fail(error)
                return

    async def _write(self) -> None:
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._held:
                await trio.lowlevel.wait_writable(self._sock)
                try:
                    sent = self._sock.send(self._held[0])
                except BlockingIOError:
                    continue
                except OSError:
                    # Whoever receives finds out.
                    self._held.clear()
                    self._size = 0
                    break
                self._size -= sent
                rest = self._held.popleft()[sent:]
                if rest:
                    self._held.appendleft(rest)

    def close(self) -> None:
        """Close the socket; the other side finds out."""
        self._sock.close()


def receive_one(sock: socket.socket) -> Message | None:
    """Wait for one message, and read nothing behind it; None if the other side has gone.

    Args:
        sock: blocking.
    """
    head = _exactly(sock, HEADER)
    body = b"" if head is None else _exactly(sock, int.from_bytes(head, "big"))
    if head is None or body is None:
        return None
    return Decoder().feed(head + body)[0]


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            return None
        data += part
    return data
