"""What a peer of the HTTP server may hold: how many connections there are, and how long one may take.

hypercorn bounds the time in which a request's head has to come. What it does not bound is here: the number of
connections, and the time of a peer that does not read what it has asked for. Nobody has to show a token for those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MOST: Final = 64
"""Connections at a time."""

READS_WITHIN: Final = 20.0
"""Seconds in which a peer has to take `_PIECE` bytes."""

_PIECE: Final = 1 << 20
"""Each piece is a turn of all tasks more."""


class Guest(trio.abc.HalfCloseableStream):
    """A connection that does not wait for its peer for ever.

    Args:
        stream: what it is made of; belongs to it from now on.

    Attributes:
        socket: of the connection.
        served: when it was accepted, or was last sent something; seconds on Trio's clock.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket
        self.served = trio.current_time()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it.

        Raises:
            trio.BrokenResourceError: the peer is gone, or does not read.
            trio.ClosedResourceError: it was ended.
        """
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            with trio.move_on_after(READS_WITHIN) as scope:
                await self._stream.send_all(view[start : start + _PIECE])
            if scope.cancelled_caught:
                self.end()
                raise trio.BrokenResourceError("the peer does not read")
        self.served = trio.current_time()

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See `trio.abc.ReceiveStream`."""
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        """See `trio.abc.HalfCloseableStream`."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    def end(self) -> None:
        """Close it at once, whatever is under way."""
        self.socket.close()


class Guests:
    """Those who are there.

    Args:
        serve: serves one of them to its end.
    """

    def __init__(self, serve: Callable[[Guest], Awaitable[None]]) -> None:
        self._serve = serve
        self._there: set[Guest] = set()

    async def welcome(self, stream: trio.SocketStream) -> None:
        """Serve a connection; whoever has been served least lately makes room for it, if there is none."""
        if len(self._there) >= MOST:
            last = min(self._there, key=lambda guest: guest.served)
            self._there.discard(last)
            last.end()
        guest = Guest(stream)
        self._there.add(guest)
        try:
            await self._serve(guest)
        finally:
            self._there.discard(guest)
            guest.end()

    async def end_with(self) -> None:
        """Wait to be cancelled, and end all connections then: what is being sent would not stop by itself."""
        try:
            await trio.sleep_forever()
        finally:
            for guest in self._there:
                guest.end()
