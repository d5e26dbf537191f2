"""Moving bytes between two streams until one of them ends.

Where both streams can hand their sockets over, the bytes go from one to the other without a stream in between: a read
takes what is there into one buffer that all share, and as a rule the other side takes that at once. Only what it does
not take is kept, and the task waits. So bulk costs few system calls and copies, and idle streams hold no memory.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio

from hyperpool.transport.bridge import Detachable
from hyperpool.transport.carried import WebSocketSocket
from hyperpool.transport.plain import PlainStream

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

_PIECE: Final = 64 * 1024
"""Bytes that are received at once from a stream, at most."""

_VIEW: Final = memoryview(bytearray(256 * 1024))
"""Where sockets are read to; nothing is left in it when a task waits."""

_TURN: Final = 16
"""Reads after which other tasks have their turn; they have it earlier when a WebSocket's frames have taken long."""

_LAST_WORDS: Final = 2.0
"""Seconds that one side's last bytes may take when the other side takes no more."""


@attrs.define
class Traffic:
    """What was moved.

    Attributes:
        inward: bytes from the tunnel to its target.
        outward: bytes from the target to the tunnel.
        ended_by: which side ended it: "peer" or "target".
        reason: why, if that side did not only close.
    """

    inward: int = 0
    outward: int = 0
    ended_by: str = ""
    reason: str = ""


async def forward(tunnel: trio.abc.Stream, target: trio.abc.Stream, traffic: Traffic) -> None:
    """Move bytes both ways until one side ends; what it said before has been passed on then.

    A WebSocket cannot be closed in one direction only, so the end of one direction is the end of both. No more than
    one piece per direction is held: a side that does not read stops the other one.

    Args:
        tunnel: one side; stays the caller's, to be closed.
        target: the other side; likewise.
        traffic: counts as it goes.
    """
    if not (isinstance(tunnel, Detachable) and isinstance(target, PlainStream)):
        await _both_ways(_stream_copier(tunnel, target), _stream_copier(target, tunnel), traffic)
        return
    carrying = tunnel.detach()
    if carrying is None:
        # Something has come that nobody has received yet.
        await _both_ways(_stream_copier(tunnel, target), _stream_copier(target, tunnel), traffic)
        return
    with closing(carrying), closing(target.detach()) as sock:
        async with trio.open_nursery() as nursery:
            if isinstance(carrying, WebSocketSocket):
                nursery.start_soon(carrying.watch)
            await _both_ways(_socket_copier(carrying, sock), _socket_copier(sock, carrying), traffic)
            nursery.cancel_scope.cancel()


_Copier: TypeAlias = "Callable[[Callable[[int], None]], Awaitable[str | None]]"
"""Moves bytes in one direction until the source ends, or the sink takes no more; calls with how many.

It returns why the source has ended (empty if it was closed), and None if it was the sink.
"""


async def _both_ways(inward: _Copier, outward: _Copier, traffic: Traffic) -> None:
    def count_in(count: int) -> None:
        traffic.inward += count

    def count_out(count: int) -> None:
        traffic.outward += count

    gone = ""

    async def run(copier: _Copier, count: Callable[[int], None], name: str, other: str) -> None:
        nonlocal gone
        reason = await copier(count)
        if reason is not None:
            if not traffic.ended_by:
                traffic.ended_by, traffic.reason = name, reason
            nursery.cancel_scope.cancel()
        else:
            # What the sink said before it went may still be on its way.
            gone = gone or other
            nursery.cancel_scope.deadline = trio.current_time() + _LAST_WORDS

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, inward, count_in, "peer", "target")
        nursery.start_soon(run, outward, count_out, "target", "peer")
    traffic.ended_by = traffic.ended_by or gone


def _stream_copier(source: trio.abc.Stream, sink: trio.abc.Stream) -> _Copier:
    async def copy(count: Callable[[int], None]) -> str | None:
        try:
            while data := await source.receive_some(_PIECE):
                try:
                    await sink.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return None
                count(len(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            return str(error)
        return ""

    return copy


def _socket_copier(source: socket.socket, sink: socket.socket) -> _Copier:
    left = False

    def leave() -> None:
        nonlocal left
        left = True

    async def copy(count: Callable[[int], None]) -> str | None:
        nonlocal left
        reads = 0
        if isinstance(source, WebSocketSocket):
            source.left = leave
        while True:
            left = False
            try:
                got = source.recv_into(_VIEW)
            except BlockingIOError:
                if left:
                    # So far, its frames have carried nothing.
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(source.fileno())
                reads = 0
                continue
            except OSError as error:
                return error.strerror or str(error)
            if not got:
                return ""
            try:
                await _send_all(sink, _VIEW[:got])
            except OSError:
                return None
            count(got)
            reads += 1
            if left or reads == _TURN or got == len(_VIEW):
                await trio.lowlevel.checkpoint()
                reads = 0

    return copy


async def _send_all(sink: socket.socket, data: memoryview) -> None:
    """Send all of it; does not wait if all of it is taken at once.

    Raises:
        OSError: the connection broke.
    """
    rest: memoryview | None = None
    while data:
        try:
            data = data[sink.send(data) :]
        except BlockingIOError:
            if rest is None:
                # Others read into the same buffer meanwhile.
                data = rest = memoryview(bytes(data))
            await trio.lowlevel.wait_writable(sink.fileno())
