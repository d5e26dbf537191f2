"""Moving bytes between a tunnel and a target."""

from __future__ import annotations

import os
import random
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Literal, TypeAlias

import pytest
import trio
import trio.testing

from hyperpool.transport.frames import WebSocketStream
from hyperpool.transport.framing import Opcode, make_frame
from hyperpool.transport.plain import PlainStream
from hyperpool.tunnel.forward import Traffic, forward
from tests.support.checkpoints import cancel_everywhere, no_descriptor_left

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind: TypeAlias = Literal["streams", "sockets", "websocket", "early"]
KINDS: tuple[Kind, ...] = ("streams", "sockets", "websocket", "early")
"""In memory; plain sockets; a WebSocket; one that has received something before, and keeps its stream."""


@pytest.fixture(autouse=True)
def _no_descriptor_left() -> Iterator[None]:
    with no_descriptor_left():
        yield


def plain_pair() -> tuple[PlainStream, PlainStream]:
    """Both ends of a connection."""
    left, right = socket.socketpair()
    return PlainStream(left), PlainStream(right)


class Way:
    """A peer, the tunnel that it is connected by, a target, and the server that this leads to.

    Args:
        kind: of what they are.
    """

    def __init__(self, kind: Kind) -> None:
        self.peer: trio.abc.Stream
        self.tunnel: trio.abc.Stream
        self.server: trio.abc.Stream
        self.target: trio.abc.Stream
        if kind == "streams":
            self.peer, self.tunnel = trio.testing.memory_stream_pair()
            self.server, self.target = trio.testing.memory_stream_pair()
            return
        outside, inside = plain_pair()
        self.server, self.target = plain_pair()
        if kind == "sockets":
            self.peer, self.tunnel = outside, inside
            return
        # An empty message is something, and carries nothing.
        received = b"\x82\x80key!" if kind == "early" else b""
        self.peer = WebSocketStream(outside, client=True)
        self.tunnel = WebSocketStream(inside, client=False, received=received)

    async def forward(self, traffic: Traffic) -> None:
        """Move bytes, and close what the mover does not close."""
        try:
            await forward(self.tunnel, self.target, traffic)
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self.target)
                await trio.aclose_forcefully(self.tunnel)

    async def close(self) -> None:
        """Close the outer ends."""
        for end in (self.peer, self.server):
            await trio.aclose_forcefully(end)


async def receive_all(stream: trio.abc.Stream) -> bytes:
    """Everything up to the end, or up to where it breaks."""
    found = b""
    try:
        while data := await stream.receive_some():
            found += data
    except trio.BrokenResourceError:
        pass
    return found


@pytest.mark.parametrize("kind", KINDS)
async def test_both_ways_until_one_ends(kind: Kind) -> None:
    """Bytes arrive as they are; the end of one side is the end of both, behind its last bytes."""
    way, traffic = Way(kind), Traffic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(way.forward, traffic)
        await way.peer.send_all(b"question")
        assert await way.server.receive_some() == b"question"
        await way.server.send_all(b"FATAL")
        await way.server.aclose()
        assert await receive_all(way.peer) == b"FATAL"
    assert (traffic.inward, traffic.outward, traffic.ended_by) == (8, 5, "target")
    await way.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_peer_that_goes(kind: Kind) -> None:
    """The target hears of it behind what the peer said last."""
    way, traffic = Way(kind), Traffic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(way.forward, traffic)
        await way.peer.send_all(b"last words")
        await way.peer.aclose()
        assert await receive_all(way.server) == b"last words"
    assert (traffic.inward, traffic.outward, traffic.ended_by) == (10, 0, "peer")
    await way.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_much_in_both_directions_at_once(kind: Kind) -> None:
    """Megabytes arrive unchanged, in pieces of any size, also where a reader is slow."""
    way, traffic, dice = Way(kind), Traffic(), random.Random(7)
    up, down = dice.randbytes(3_000_001), dice.randbytes(2_000_003)
    found: dict[str, bytes] = {}

    async def send(stream: trio.abc.Stream, data: bytes) -> None:
        at = 0
        while at < len(data):
            size = dice.choice((1, 100, 5000, 300_000))
            await stream.send_all(data[at : at + size])
            at += size

    async def receive(stream: trio.abc.Stream, size: int, name: str) -> None:
        data = bytearray()
        while len(data) < size:
            piece = await stream.receive_some(dice.choice((10_000, 100_000)))
            assert piece
            data += piece
        found[name] = bytes(data)

    async with trio.open_nursery() as outer:
        outer.start_soon(way.forward, traffic)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, way.peer, up)
            nursery.start_soon(send, way.server, down)
            nursery.start_soon(receive, way.server, len(up), "up")
            nursery.start_soon(receive, way.peer, len(down), "down")
        outer.cancel_scope.cancel()
    assert found == {"up": up, "down": down}
    assert (traffic.inward, traffic.outward) == (len(up), len(down))
    await way.close()


@pytest.mark.parametrize("kind", ["streams", "sockets"])
async def test_last_words_of_a_target_that_takes_no_more(kind: Kind) -> None:
    """A server that has closed its end may have said why; that arrives although nothing can be sent to it."""
    way, traffic = Way(kind), Traffic()
    if isinstance(way.server, trio.StapledStream):
        await way.server.receive_stream.aclose()
    else:
        assert isinstance(way.server, PlainStream)
        sock = way.server.detach()
        sock.shutdown(socket.SHUT_RD)
        way.server = PlainStream(sock)
    await way.peer.send_all(b"question")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(way.forward, traffic)
        await trio.testing.wait_all_tasks_blocked()
        await way.server.send_all(b"FATAL")
        if isinstance(way.server, trio.StapledStream):
            await way.server.send_stream.aclose()
        else:
            await way.server.aclose()
        assert await receive_all(way.peer) == b"FATAL"
    assert traffic.inward == 0
    await way.close()


@pytest.mark.parametrize("kind", ["streams", "sockets"])
async def test_no_last_words(kind: Kind, autojump_clock: trio.testing.MockClock) -> None:
    """It is not waited for forever."""
    way = Way(kind)
    if isinstance(way.server, trio.StapledStream):
        await way.server.receive_stream.aclose()
    else:
        assert isinstance(way.server, PlainStream)
        sock = way.server.detach()
        sock.shutdown(socket.SHUT_RD)
        way.server = PlainStream(sock)
    await way.peer.send_all(b"question")
    traffic = Traffic()
    with trio.fail_after(10):
        await way.forward(traffic)
    assert traffic.ended_by == "target"
    await way.close()


async def test_backpressure_of_streams() -> None:
    """A peer that does not read stops the target: no more than one piece is held."""
    peer, tunnel = trio.testing.lockstep_stream_pair()
    server, target = trio.testing.lockstep_stream_pair()
    sent = 0

    async def talk() -> None:
        nonlocal sent
        while True:
            await server.send_all(b"x" * 1000)
            sent += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(forward, tunnel, target, Traffic())
        nursery.start_soon(talk)
        await trio.testing.wait_all_tasks_blocked()
        assert sent <= 1
        for _ in range(5):
            assert await peer.receive_some() == b"x" * 1000
        await trio.testing.wait_all_tasks_blocked()
        assert sent <= 6
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["sockets", "websocket"])
async def test_backpressure_of_sockets(kind: Kind) -> None:
    """What is held is what the kernel holds, and one piece: the target is not read on."""
    way, traffic, sent = Way(kind), Traffic(), 0

    async def talk() -> None:
        nonlocal sent
        while True:
            await way.server.send_all(b"x" * 4096)
            sent += 4096

    async with trio.open_nursery() as nursery:
        nursery.start_soon(way.forward, traffic)
        nursery.start_soon(talk)
        await trio.testing.wait_all_tasks_blocked()
        stopped = sent
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert sent == stopped < 4 << 20
        received = 0
        while received < stopped:
            received += len(await way.peer.receive_some())
        await trio.testing.wait_all_tasks_blocked()
        assert sent > stopped
        nursery.cancel_scope.cancel()
    await way.close()


async def test_others_have_their_turn() -> None:
    """A source that always has more, and a sink that takes everything, do not keep the thread."""
    way = Way("sockets")
    turns = 0

    async def flood() -> None:
        while True:
            await way.server.send_all(b"x" * 100_000)

    async def drain() -> None:
        while True:
            await way.peer.receive_some()

    async with trio.open_nursery() as nursery:
        for work in (flood, drain):
            nursery.start_soon(work)
        nursery.start_soon(way.forward, Traffic())
        for _ in range(100):
            await trio.lowlevel.checkpoint()
            turns += 1
        nursery.cancel_scope.cancel()
    assert turns == 100
    await way.close()


@pytest.mark.parametrize("payload", [b"", b"x"])
async def test_others_have_their_turn_among_small_frames(payload: bytes) -> None:
    """Many frames that carry little do not keep the thread either, and none of them is forgotten."""
    way, traffic = Way("websocket"), Traffic()
    seen: set[int] = set()
    assert isinstance(way.peer, WebSocketStream)
    sock = way.peer.detach()
    assert sock is not None
    whole = payload * 3000 + b"middle" + payload * 3000 + b"end"
    small = make_frame(Opcode.BINARY, payload, mask=True) * 3000
    middle, end = (make_frame(Opcode.BINARY, word, mask=True) for word in (b"middle", b"end"))
    frames = small + middle + small + end
    async with trio.open_nursery() as nursery:
        with closing(sock):
            assert os.write(sock.fileno(), frames) == len(frames)
            nursery.start_soon(way.forward, traffic)
            while traffic.inward < len(whole):
                seen.add(traffic.inward)
                await trio.lowlevel.checkpoint()
            assert await way.server.receive_some(10_000) == whole
        nursery.cancel_scope.cancel()
    await way.close()
    assert len(seen) >= 2


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_anywhere(kind: Kind) -> None:
    """Both ends are closed, whenever it is told to stop."""

    async def once() -> None:
        way = Way(kind)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(way.forward, Traffic())
                await way.peer.send_all(b"question")
                assert await way.server.receive_some()
                await way.server.send_all(b"answer")
                assert await way.peer.receive_some()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await way.close()

    assert await cancel_everywhere(once) >= 5
