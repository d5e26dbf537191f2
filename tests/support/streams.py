"""Streams under test: Trio's own checks for every kind, what a bridge takes apart, and ways to hold streams up."""

from __future__ import annotations

import socket
from contextlib import suppress
from select import EPOLLET, EPOLLIN, EPOLLOUT, epoll
from typing import TYPE_CHECKING, TypeAlias, cast

import trio
from trio.testing import check_half_closeable_stream, check_two_way_stream

from hyperpool.transport.bridge import CAPACITY
from hyperpool.transport.plain import PlainStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hyperpool.transport.bridge import BridgeEnd

    StreamPair: TypeAlias = tuple[trio.abc.Stream, trio.abc.Stream]
    StreamMaker: TypeAlias = Callable[[], Awaitable[StreamPair]]


async def check_stream(
    maker: StreamMaker, clogged: StreamMaker | None, *, half_closeable: bool = False
) -> None:
    """Run Trio's checks of the stream contract, in both directions.

    Args:
        maker: makes two connected streams.
        clogged: makes two connected streams on which `send_all` blocks on both sides.
        half_closeable: they are `trio.abc.HalfCloseableStream`.
    """
    if half_closeable:
        await check_half_closeable_stream(maker, clogged)  # type: ignore[arg-type]  # the caller knows
    else:
        await check_two_way_stream(maker, clogged)


def clogged(maker: StreamMaker) -> StreamMaker:
    """Make a maker of clogged streams: both directions are filled until nothing is taken any more.

    Args:
        maker: makes two connected streams.
    """

    async def make() -> StreamPair:
        pair = await maker()
        async with trio.open_nursery() as nursery:
            for stream in pair:
                nursery.start_soon(fill, stream)
        return pair

    return make


async def fill(stream: trio.abc.Stream, limit: int = 1 << 28) -> int:
    """Send until the stream takes no more for a while: for tests with `autojump_clock`, so that this is no guess.

    A send that is cut off leaves a stream that wants to be read: for filling, not for messages.

    Returns:
        About how many bytes it took.
    """
    taken = 0
    piece = bytes(65536)
    while taken < limit:
        with trio.move_on_after(0.05):
            await stream.send_all(piece)
            taken += len(piece)
            continue
        return taken
    raise AssertionError(f"the stream takes {limit} bytes that nobody reads")


async def socket_pair(buffer: int = 0) -> StreamPair:
    """Two connected streams over a socketpair.

    Args:
        buffer: bytes that the kernel may hold for each direction, about; 0 for its default.
    """
    await trio.lowlevel.checkpoint()
    pair = socket.socketpair()
    if buffer:
        for sock in pair:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    return PlainStream(pair[0]), PlainStream(pair[1])


class Opaque(trio.abc.Stream):
    """A stream of which nothing else is known: it cannot be detached, nor closed by halves.

    Args:
        below: what it is about; belongs to it from now on.
    """

    def __init__(self, below: trio.abc.Stream) -> None:
        self.below = below

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        await self.below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room."""
        await self.below.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive."""
        return await self.below.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close."""
        await self.below.aclose()


class OpaqueByHalves(Opaque, trio.abc.HalfCloseableStream):
    """As `Opaque`, and can be closed by halves."""

    async def send_eof(self) -> None:
        """Send nothing more."""
        assert isinstance(self.below, trio.abc.HalfCloseableStream)
        await self.below.send_eof()


class _OneAtATime:
    """What two tasks must not do at once."""

    def __init__(self) -> None:
        self._busy = False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError("another task does the same")
        self._busy = True

    def __exit__(self, *_exception: object) -> None:
        self._busy = False


class EndStream(trio.abc.HalfCloseableStream):
    """The relay's end of a bridge as a stream, so that the contract of streams can be checked through a bridge.

    It learns of readiness as the relay does: by edge-triggered epoll.

    Args:
        end: what the relay would drive; belongs to it from now on.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._news = {mask: epoll() for mask in (EPOLLIN, EPOLLOUT)}
        self._open = True
        self._eof = False
        self._sending = _OneAtATime()
        self._receiving = _OneAtATime()

    async def _wait(self, mask: int) -> None:
        news = self._news[mask]
        with suppress(FileExistsError):
            news.register(self._end.fileno(), EPOLLIN | mask | EPOLLET)
        await trio.lowlevel.wait_readable(news.fileno())
        if self._open:
            news.poll(0)

    def _check(self) -> None:
        if not self._open:
            raise trio.ClosedResourceError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check()
            if self._eof:
                raise trio.ClosedResourceError
            rest = memoryview(data)
            while rest:
                self._check()
                try:
                    rest = rest[self._end.send(rest) :]
                except BlockingIOError:
                    await self._wait(EPOLLOUT)
                except OSError as error:
                    raise trio.BrokenResourceError(error.strerror) from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room: the end itself tells that only to those whose bytes it did not take."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check()
            if self._eof:
                raise trio.ClosedResourceError
            end = cast("BridgeEnd", self._end)
            while len(end._outbox) >= CAPACITY and end._error is None:
                end._refused = True
                await self._wait(EPOLLOUT)
                self._check()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be positive")
        with self._receiving:
            await trio.lowlevel.checkpoint()
            while True:
                self._check()
                try:
                    return self._end.recv(max_bytes or 65536)
                except BlockingIOError:
                    await self._wait(EPOLLIN)
                except OSError as error:
                    raise trio.BrokenResourceError(error.strerror) from error

    async def send_eof(self) -> None:
        """Send nothing more."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check()
            self._eof = True
            self._end.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Close."""
        if self._open:
            self._open = False
            self._end.close()
            for news in self._news.values():
                trio.lowlevel.notify_closing(news.fileno())
                news.close()
        await trio.lowlevel.checkpoint()
