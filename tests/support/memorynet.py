"""A network in memory: dialing ends at a scripted server, and no real I/O is in flight.

So the clock of a test may jump, and each run has the same checkpoints.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, cast

import trio
from trio.testing import memory_stream_pair

from hyperpool.config.transports import TcpStep
from hyperpool.transport.kinds import KINDS, DialContext, Kind
from hyperpool.transport.resolve import Resolver
from hyperpool.transport.route import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest
    from trio.testing import MemoryReceiveStream, MemorySendStream

    from hyperpool.config import PoolSettings
    from hyperpool.transport.sockets import TcpOptions

    MemoryStream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]
    Script = Callable[["PeerEnd"], Awaitable[object]]


def dial_context(options: TcpOptions) -> DialContext:
    """What steps are given, with a resolver of its own."""
    return DialContext(options=options, resolver=Resolver(15.0, 15.0))


class FakeSocket:
    """What is left of a stream when it is detached: something that must be closed once."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.closed = False

    def getpeername(self) -> tuple[str, int]:
        """Where it leads to."""
        return "192.0.2.1", 5432

    def getsockname(self) -> tuple[str, int]:
        """Where it begins."""
        return "192.0.2.2", 40000

    def close(self) -> None:
        """Close it."""
        self.closed = True


class ClientEnd(trio.abc.Stream):
    """The dialer's end of a connection; stands in for `PlainStream`.

    Attributes:
        closed: `close` was called.
        detached: the socket that it was turned into, if it was.
    """

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream
        self.closed = False
        self.detached: FakeSocket | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Not used."""
        raise AssertionError("nobody waits for room")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive."""
        return bytes(await self._stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        """Close."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close; the server sees the end."""
        self.closed = True
        self._stream.send_stream.close()
        self._stream.receive_stream.close()

    def detach(self) -> FakeSocket:
        """Hand the socket over."""
        self.detached = FakeSocket()
        return self.detached

    @property
    def released(self) -> bool:
        """Nobody has to close anything any more."""
        return self.closed or (self.detached is not None and self.detached.closed)


class PeerEnd:
    """The server's end of a connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def send(self, *parts: bytes) -> None:
        """Send, part by part."""
        for part in parts:
            await self._stream.send_all(part)

    async def read(self, size: int) -> bytes:
        """Read exactly so many bytes."""
        while len(self._buffer) < size:
            data = await self._stream.receive_some()
            if not data:
                raise EOFError("the client closed the connection")
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def read_packet(self) -> bytes:
        """Read a packet without a type byte, and return it whole."""
        length = await self.read(4)
        return length + await self.read(struct.unpack("!I", length)[0] - 4)

    async def read_message(self) -> tuple[bytes, bytes]:
        """Read a message; returns its type byte and its body."""
        kind, length = struct.unpack("!cI", await self.read(5))
        return kind, await self.read(length - 4)

    async def close(self) -> None:
        """Close."""
        await self._stream.aclose()

    async def wait_closed(self) -> bytes:
        """Read until the client closes; returns what else it has sent."""
        while data := await self._stream.receive_some():
            self._buffer += data
        return bytes(self._buffer)


def sends(*parts: bytes) -> Script:
    """A server that answers the StartupMessage with these parts, and then waits for the client to leave."""

    async def script(server: PeerEnd) -> None:
        await server.read_packet()
        await server.send(*parts)

    return script


class MemoryNetwork:
    """Stands in for the step ``tcp``.

    Args:
        nursery: runs the servers; they outlive a cancelled dialer.
        script: what a server does with a connection; afterwards it waits until the client closes, then closes, too.

    Attributes:
        dialed: where it was asked to connect to, and with which options.
        ends: the dialer's end of each connection.
    """

    def __init__(self, nursery: trio.Nursery, script: Script) -> None:
        self._nursery = nursery
        self.script = script
        self.dialed: list[tuple[str, int, TcpOptions]] = []
        self.ends: list[ClientEnd] = []

    async def open(self, step: TcpStep, below: trio.abc.Stream | None, context: DialContext) -> ClientEnd:
        """Connect to a new server."""
        self.dialed.append((step.host, step.port, context.options))
        await trio.lowlevel.checkpoint()
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._serve, PeerEnd(theirs))
        self.ends.append(ClientEnd(ours))
        return self.ends[-1]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on, all TCP connections to servers lead here."""
        monkeypatch.setitem(cast("dict[str, Kind]", KINDS), "tcp", Kind(TcpStep, self.open))

    @staticmethod
    def route(settings: PoolSettings, options: TcpOptions) -> Route:
        """The way to the servers of a pool."""
        return Route(settings, dial_context(options))

    async def _serve(self, end: PeerEnd) -> None:
        try:
            await self.script(end)
            await end.wait_closed()
        except (EOFError, trio.BrokenResourceError):
            pass
        await end.close()

    @property
    def held(self) -> list[ClientEnd]:
        """The connections that somebody still has to close."""
        return [end for end in self.ends if not end.released]
