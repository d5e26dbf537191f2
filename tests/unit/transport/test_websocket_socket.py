"""The WebSocket that the relay drives itself: what it reads and sends, how it ends, and who looks after it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import random
import select
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong

from hyperpool.pool.handover import ServerReady
from hyperpool.transport import carried
from hyperpool.transport.bridge import BridgeEnd, Bridges
from hyperpool.transport.carried import WebSocketSocket
from hyperpool.transport.frames import WebSocketStream
from hyperpool.transport.framing import FrameReader, apply_mask, make_messages, mask_with_tables
from hyperpool.transport.plain import PlainStream
from hyperpool.wire import messages
from tests.support.fronthouse import QUERY, REPORTED, House, received, startup
from tests.unit.transport.test_websocket_stream import Peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from trio.testing import MockClock


pytestmark = pytest.mark.usefixtures("nothing_left_open")

LARGE = random.Random(1).randbytes(3_000_000)


@contextlib.asynccontextmanager
async def end_and_peer(
    keepalive: float = 0.0, *, client: bool = True
) -> AsyncIterator[tuple[WebSocketSocket, Peer]]:
    """What the relay has, with a task that looks after it, and the other end."""
    left, right = socket.socketpair()
    stream = WebSocketStream(PlainStream(left), client=client, keepalive=keepalive, name="the gateway")
    async with trio.open_nursery() as nursery, PlainStream(right) as other:
        end = Bridges(nursery, contextlib.nullcontext).endpoint(stream)
        assert isinstance(end, WebSocketSocket)
        try:
            yield end, Peer(other, client=not client)
        finally:
            end.close()  # and the nursery ends


def told(poll: select.epoll) -> bool:
    """Whether there was news."""
    return bool(poll.poll(0))


@contextlib.contextmanager
def watching(end: WebSocketSocket) -> Iterator[select.epoll]:
    """The events that the relay would see; those of the beginning are over."""
    with select.epoll() as poll:
        poll.register(end.fileno(), select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        told(poll)
        yield poll


def read(end: WebSocketSocket, size: int = 65536) -> bytes:
    """Read once."""
    buffer = bytearray(size)
    return bytes(buffer[: end.recv_into(buffer)])


def fill(end: WebSocketSocket) -> memoryview:
    """Send until the kernel takes no more; what is left of `LARGE`."""
    rest = memoryview(LARGE)
    while True:
        try:
            rest = rest[end.send(rest) :]
        except BlockingIOError:
            return rest


async def test_bytes_go_both_ways() -> None:
    """In messages of any size, with fragments; what was read is the end of what came."""
    async with end_and_peer() as (end, peer):
        with pytest.raises(BlockingIOError):
            read(end)
        await peer.send(BytesMessage(data=b"ab", message_finished=False), BytesMessage(data=b"c"))
        await peer.send(BytesMessage(data=b""), BytesMessage(data=b"d" * 300))
        assert read(end) == b"abc" + b"d" * 300
        with pytest.raises(BlockingIOError):
            read(end)
        assert end.send(memoryview(b"hello")) == 5
        event = await peer.receive()
        assert isinstance(event, BytesMessage)
        assert event.data == b"hello"


async def test_a_shutdown_is_a_close_frame() -> None:
    """The peer is told that nothing more comes; its end is read then, and nothing can be sent."""
    async with end_and_peer() as (end, peer):
        end.shutdown(socket.SHUT_WR)
        event = await peer.receive()
        assert isinstance(event, CloseConnection)
        assert event.code == 1000
        with pytest.raises(BrokenPipeError):
            end.send(b"more")
        await peer.send(event.response())
        assert read(end) == b""


async def test_a_shutdown_within_a_message() -> None:
    """No frame can stand there, so that what is below ends; whoever closes after that does not fail."""
    async with end_and_peer() as (end, _):
        fill(end)
        end.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokenPipeError):
            end.send(LARGE)


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize("size", [1, 7, 1000, 65536])
async def test_views_of_any_size(size: int, *, client: bool) -> None:
    """A full read leaves the rest for the next one, wherever a message or its header is cut, masked or not."""
    sizes = random.Random(size)
    wanted = LARGE[: 20 * size + 3000]
    async with end_and_peer(client=client) as (end, peer), trio.open_nursery() as nursery:

        async def say() -> None:
            at = 0
            while at < len(wanted):
                count = sizes.choice([1, 50, 125, 126, 3000, 40_000])
                await peer.send(BytesMessage(data=wanted[at : at + count]))
                at += count

        nursery.start_soon(say)
        got = bytearray()
        while len(got) < len(wanted):
            try:
                piece = read(end, size)
            except BlockingIOError:
                await trio.lowlevel.checkpoint()
            else:
                assert 0 < len(piece) <= size
                got += piece
        assert got == wanted


async def test_what_is_not_taken_is_sent_again() -> None:
    """Nothing counts as sent before its messages are; the peer gets every byte once, in whole messages."""
    async with end_and_peer() as (end, peer), trio.open_nursery() as nursery:
        got = bytearray()

        async def listen() -> None:
            while len(got) < len(LARGE):
                event = await peer.receive()
                assert isinstance(event, BytesMessage)
                got.extend(event.data)

        rest = fill(end)
        nursery.start_soon(listen)
        while rest:
            try:
                rest = rest[end.send(rest) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(end.fileno())
        while len(got) < len(LARGE):
            await trio.lowlevel.checkpoint()
        assert got == LARGE


async def test_less_than_what_is_half_sent() -> None:
    """Somebody who forgets what stands half sent is told, instead of the peer getting something else."""
    async with end_and_peer() as (end, _):
        fill(end)
        with pytest.raises(OSError, match="half sent"):
            end.send(b"x")


async def test_pings_are_answered() -> None:
    """By whoever reads, though there is nothing to be read; the last one of several."""
    async with end_and_peer() as (end, peer):
        await peer.send(Ping(payload=b"one"), Ping(payload=b"two"))
        with pytest.raises(BlockingIOError):
            read(end)
        event = await peer.receive()
        assert isinstance(event, Pong)
        assert event.payload == b"two"


async def test_a_pong_never_cuts_a_message() -> None:
    """While one stands half sent, the pong waits, and follows it."""
    async with end_and_peer() as (end, peer):
        rest = fill(end)
        await peer.send(Ping(payload=b"?"))
        with pytest.raises(BlockingIOError):
            read(end)
        kinds = []
        while Pong not in kinds:
            with contextlib.suppress(BlockingIOError):
                rest = rest[end.send(rest) :]
            kinds.append(type(await peer.receive()))
        assert BytesMessage in kinds


@pytest.mark.parametrize(
    ("last", "ending"),
    [
        (
            CloseConnection(code=1011, reason="secret"),
            "the gateway has closed the WebSocket (1011 internal error)",
        ),
        (None, "the connection to the gateway has ended"),
    ],
)
@pytest.mark.parametrize("data", [b"last", b""])
async def test_an_end(last: CloseConnection | None, ending: str, data: bytes) -> None:
    """It is read behind what came before it, and the kernel tells of it; nothing can be sent any more."""
    async with end_and_peer() as (end, peer):
        with watching(end) as poll:
            await peer.send(*([BytesMessage(data=data)] if data else []), *([last] if last else []))
            if last is None:
                await peer.stream.aclose()
            assert told(poll)
            if data:
                assert read(end) == data
                assert told(poll) or last is None  # of the end that the kernel has seen, it has told
            assert read(end) == b""
            assert end.ending == ending
            with pytest.raises(OSError, match=r"closed the WebSocket|has ended"):
                end.send(b"late")


@pytest.mark.parametrize("data", [b"\x82\x03abc", b""])
async def test_a_violation(data: bytes) -> None:
    """What came before is delivered; then comes the error, and the peer is told why."""
    async with end_and_peer() as (end, peer):
        with watching(end) as poll:
            await peer.stream.send_all(data + b"\x81\x02hi")
            assert told(poll)
            if data:
                assert read(end) == b"abc"
                assert told(poll)
            for _ in range(2):
                with pytest.raises(OSError, match="the gateway sent what a WebSocket must not carry: a text"):
                    read(end)
            with pytest.raises(OSError, match="a text message"):
                end.send(b"x")
        event = await peer.receive()
        assert isinstance(event, CloseConnection)
        assert event.code == 1003


async def test_an_end_within_a_frame() -> None:
    """What was cut off is not taken for the end."""
    async with end_and_peer() as (end, peer):
        await peer.stream.send_all(b"\x82\x05cut")
        await peer.stream.aclose()
        assert read(end) == b"cut"
        with pytest.raises(OSError, match="the connection to the gateway ended within a frame"):
            read(end)


@pytest.mark.parametrize(
    ("said", "found"),
    [(b"\x82\x7e\x01", "ended within a frame"), (b"\x82", "ended within a frame"), (b"\x89\x00", "")],
)
async def test_an_end_behind_no_bytes(said: bytes, found: str) -> None:
    """What came along with the end carried nothing: it is found in the same read, as there is one event for both."""
    async with end_and_peer() as (end, peer):
        await peer.stream.send_all(said)
        await peer.stream.aclose()
        if found:
            with pytest.raises(OSError, match=found):
                read(end)
        else:
            assert read(end) == b""


async def test_a_reset() -> None:
    """The error says whose connection it was."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    stream = WebSocketStream(PlainStream(sock), client=True, name="the gateway")
    end = stream.detach()
    assert end is not None
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    other.close()
    with pytest.raises(
        OSError, match="the connection to the gateway broke: Connection reset by peer"
    ) as caught:
        end.recv_into(bytearray(10))
    assert caught.value.errno == errno.ECONNRESET
    end.close()


async def test_a_close() -> None:
    """The peer is told, if that can be done at once, and not in the middle of a message."""
    async with end_and_peer() as (end, peer):
        end.close()
        end.close()
        event = await peer.receive()
        assert isinstance(event, CloseConnection)
        assert event.code == 1000
    async with end_and_peer() as (end, peer):
        fill(end)
        end.close()
        got = b""
        while data := await peer.stream.receive_some():
            got += data
        assert len(got) % (16384 + 8)  # the last message is not whole, and nothing is behind it


async def test_a_silent_peer_is_pinged(autojump_clock: MockClock) -> None:
    """After so long without a byte; an answer is a sign of life, and what is sent puts the ping off."""
    async with end_and_peer(keepalive=10) as (end, peer):
        for _ in range(3):
            began = trio.current_time()
            event = await peer.receive()
            assert isinstance(event, Ping)
            assert trio.current_time() - began == pytest.approx(10)
            await peer.send(event.response())
            with pytest.raises(BlockingIOError):
                read(end)
        await trio.sleep(6)
        end.send(b"x")
        assert isinstance(await peer.receive(), BytesMessage)
        began = trio.current_time()
        assert isinstance(await peer.receive(), Ping)
        assert trio.current_time() - began == pytest.approx(10)


async def test_a_dead_peer_is_found_out(autojump_clock: MockClock) -> None:
    """When no ping is answered, the reader is told, though nothing has come."""
    async with end_and_peer(keepalive=10) as (end, _):
        with watching(end) as poll:
            await trio.sleep(19)
            assert not told(poll)
            await trio.sleep(2)
            assert told(poll)
            with pytest.raises(OSError, match="the gateway did not answer a ping within 10 s"):
                read(end)


async def test_a_slow_reader_is_not_a_dead_peer(autojump_clock: MockClock) -> None:
    """What nobody has read yet may have the pong behind it."""
    async with end_and_peer(keepalive=10) as (end, peer):
        await peer.send(BytesMessage(data=b"unread"))
        await trio.sleep(100)
        assert read(end) == b"unread"


async def test_a_busy_peer_is_not_a_dead_one(autojump_clock: MockClock) -> None:
    """What was sent and not answered may keep it from reading the ping."""
    async with end_and_peer(keepalive=10) as (end, peer):
        assert end.send(bytes(20_000)) == 20_000
        await trio.sleep(100)
        with pytest.raises(BlockingIOError):
            read(end)
        await peer.send(BytesMessage(data=b"answer"))
        assert read(end) == b"answer"
        await trio.sleep(30)
        with pytest.raises(OSError, match="did not answer a ping"):
            read(end)


async def test_a_peer_that_is_gone_while_it_is_sent_to(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No ping can be sent, as a message stands half sent; TCP tells that nothing arrives any more."""
    silent = 0.0
    monkeypatch.setattr(carried, "unacknowledged_for", lambda _sock: silent)
    async with end_and_peer(keepalive=10) as (end, _):
        fill(end)
        with watching(end) as poll:
            await trio.sleep(100)
            assert not told(poll)
            silent = 10.5
            await trio.sleep(11)
            assert told(poll)
        with pytest.raises(OSError, match="the gateway acknowledged nothing of what it was sent for 10 s"):
            read(end)


async def test_what_cannot_be_taken_apart() -> None:
    """Over what is no socket, or with bytes that came early, the stream goes on to be one, behind a bridge."""
    one, other = trio.testing.memory_stream_pair()
    left, right = socket.socketpair()
    early = WebSocketStream(PlainStream(left), client=True, received=b"\x82\x01x")
    for stream in (WebSocketStream(one, client=True), early):
        assert stream.detach() is None
    async with trio.open_nursery() as nursery:
        end: object = Bridges(nursery, contextlib.nullcontext).endpoint(early)
        assert isinstance(end, BridgeEnd)
        await wait_all_tasks_blocked()
        buffer = bytearray(10)
        assert buffer[: end.recv_into(buffer)] == b"x"
        end.close()
    right.close()
    await other.aclose()


async def test_a_flood_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that sends control frames without a pause does not keep the relay for good."""
    async with end_and_peer() as (end, _):
        flood, reads = b"\x8a\x02??" * 16384, itertools.count()

        def receive(room: memoryview) -> int:
            assert next(reads) < 300, "it reads for ever"
            room[:] = flood[: len(room)]
            return len(room)

        monkeypatch.setattr(end, "_sock", Endless(end._sock, receive))
        with pytest.raises(OSError, match="nothing but control frames"):
            read(end)


async def test_a_flood_of_small_messages() -> None:
    """A read ends before it has taken long; who reads is told that there is more, and in the end all of it has come."""
    async with end_and_peer() as (end, peer), trio.open_nursery() as nursery:
        more: list[int] = []
        end.left = lambda: more.append(end._reader.frames)
        wanted = LARGE[:60_000]
        nursery.start_soon(peer.stream.send_all, b"".join(b"\x82\x01%c" % byte for byte in wanted))
        got, reads = b"", 0
        while len(got) < len(wanted):
            await wait_all_tasks_blocked()
            before, told_before = end._reader.frames, len(more)
            with contextlib.suppress(BlockingIOError):
                got += read(end, 262144)
            frames = end._reader.frames - before
            # The first bite is taken before it is known what comes.
            assert frames <= (5462 if not reads else 1366)
            assert len(more) - told_before <= (frames >= 1024)
            reads += 1
        assert got == wanted
        assert len(more) > 30


def test_bites_follow_the_size_of_messages() -> None:
    """Small ones are read little by little, large ones in few calls."""
    reader = FrameReader(masked=False, max_message=1 << 20)
    assert reader.bite == 16384
    reader.feed(b"\x82\x01x" * 1000)
    assert reader.bite == 4096
    for size in (8192, 16384, 32768):
        reader.feed(make_messages(memoryview(LARGE[:32000]), 16384, mask=False))
        assert reader.bite == size
    reader.feed(make_messages(memoryview(LARGE[:32000]), 200, mask=False))
    assert reader.bite == 4096


async def test_a_relay_reads_all_of_it() -> None:
    """There is no event for what a read has left: the relay comes back by itself, after the others."""
    house = House()
    left, right = socket.socketpair()
    right.setblocking(False)
    end = WebSocketStream(PlainStream(left), client=True, name="the gateway").detach()
    assert end is not None
    pool = house.pool()
    pool.dialing += 1
    house.relay.adopt_server(ServerReady(end, pool, pool.generation, dict(REPORTED), 1, b"s3cr", expires=0.0))
    client = house.connect(startup(), QUERY)
    house.relay.turn()
    rows = [messages.frame(ord("D"), b"\0\1\0\0\0\4%04d" % number) for number in range(1000)]
    answer = b"".join(rows) + messages.frame(ord("C"), b"SELECT 1000\0") + messages.ready_for_query()
    rest = b"".join(b"\x82\x01%c" % byte for byte in answer)
    got = received(client).partition(messages.ready_for_query())[2]
    for _ in range(100):
        with contextlib.suppress(BlockingIOError):
            rest = rest[right.send(rest) :] if rest else b""
        house.relay.turn()
        got += received(client)
        if got.endswith(messages.ready_for_query()):
            break
    assert got == answer
    house.close()
    right.close()


class Endless:
    """A socket that always has something."""

    def __init__(self, sock: socket.socket, receive: Callable[[memoryview], int]) -> None:
        self._sock = sock
        self.recv_into = receive

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1000])
def test_masks_without_a_compiled_part(size: int) -> None:
    """Are the same."""
    data, key = LARGE[:size], b"\x01\x80\xff\x5a"
    assert mask_with_tables(memoryview(data), key) == apply_mask(data, key)
