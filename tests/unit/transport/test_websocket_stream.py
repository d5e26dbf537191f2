"""The byte stream in a WebSocket's binary messages: Trio's contract, the frames on the wire, pings, and the end."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import check_two_way_stream, wait_all_tasks_blocked
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong

from hyperpool.transport.frames import WebSocketStream
from hyperpool.transport.plain import PlainStream
from tests.support.checkpoints import cancel_everywhere

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock
    from wsproto.events import Event


pytestmark = pytest.mark.usefixtures("nothing_left_open")

Pair = tuple[WebSocketStream, WebSocketStream]


def plain_pair() -> tuple[PlainStream, PlainStream]:
    """Make two ends of one connection."""
    left, right = socket.socketpair()
    return PlainStream(left), PlainStream(right)


async def stream_pair() -> Pair:
    """Make a client's and a server's end of an open WebSocket."""
    left, right = plain_pair()
    return WebSocketStream(left, client=True), WebSocketStream(right, client=False)


async def clogged_pair() -> Pair:
    """Make two ends that both take no more bytes before some are received."""
    left, right = plain_pair()
    for stream, mask in ((left, 0x80), (right, 0)):
        frame = struct.pack("!BBH", 0x82, mask | 126, 4096) + bytes(4 if mask else 0) + bytes(4096)
        with contextlib.suppress(BlockingIOError):
            while True:
                assert stream._socket.send(frame) == len(frame)
    return WebSocketStream(left, client=True), WebSocketStream(right, client=False)


class Peer:
    """The other end of a WebSocket, frame by frame, with wsproto as the referee."""

    def __init__(self, stream: PlainStream, *, client: bool = False) -> None:
        self.stream = stream
        self.protocol = Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER)

    async def send(self, *events: Event) -> None:
        """Send frames."""
        await self.stream.send_all(b"".join(self.protocol.send(event) for event in events))

    async def receive(self) -> Event:
        """Receive the next frame."""
        while True:
            for event in self.protocol.events():
                return event
            data = await self.stream.receive_some()
            assert data, "the connection has ended"
            self.protocol.receive_data(data)

    async def is_silent(self) -> bool:
        """Whether nothing is there to be received."""
        await wait_all_tasks_blocked()
        with trio.move_on_after(0.01) as scope:
            await self.stream.receive_some()
        return scope.cancelled_caught


@contextlib.asynccontextmanager
async def client_and_peer(**options: float) -> AsyncIterator[tuple[WebSocketStream, Peer]]:
    """A client's stream, and what it talks to."""
    left, right = plain_pair()
    async with WebSocketStream(left, client=True, **options) as stream, right:  # type: ignore[arg-type]
        yield stream, Peer(right)


async def test_contract() -> None:
    """It fulfils Trio's contract of two-way streams, also when the peer does not read."""
    await check_two_way_stream(stream_pair, clogged_pair)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536])
async def test_bytes_of_a_sent_frame(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's frame is final, binary, masked, and has the shortest form of the length."""
    monkeypatch.setattr("os.urandom", lambda size: bytes([0xA1, 0xB2, 0xC3, 0xD4])[:size])
    payload = bytes(number % 251 for number in range(length))
    header = {125: b"\x82\xfd", 126: b"\x82\xfe\0\x7e", 65535: b"\x82\xfe\xff\xff", 1: b"\x82\x81"}
    expected = header.get(length, b"\x82\xff\0\0\0\0\0\1\0\0") + b"\xa1\xb2\xc3\xd4"
    expected += bytes(one ^ b"\xa1\xb2\xc3\xd4"[at % 4] for at, one in enumerate(payload))
    left, right = plain_pair()
    async with WebSocketStream(left, client=True, max_message=2**20) as stream, right:
        await stream.send_all(payload)
        assert await right.receive_some(2**20) == expected if length else await Peer(right).is_silent()


async def test_bytes_of_control_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to a ping has its payload; the Close frame has code 1000."""
    monkeypatch.setattr("os.urandom", bytes)
    left, right = plain_pair()
    async with right:
        stream = WebSocketStream(left, client=True)
        await right.send_all(b"\x89\x02hi\x82\x01x")
        assert await stream.receive_some() == b"x"
        await stream.ping()
        await stream.aclose()
        assert (
            await right.receive_some()
            == b"\x8a\x82\0\0\0\0hi" + b"\x89\x80\0\0\0\0" + b"\x88\x82\0\0\0\0\x03\xe8"
        )


async def test_masks_are_fresh() -> None:
    """Two frames of the same bytes are not the same on the wire."""
    async with client_and_peer() as (stream, peer):
        frames = []
        for _ in range(2):
            await stream.send_all(bytes(64))
            frames.append(await peer.stream.receive_some())
        assert frames[0] != frames[1]


@pytest.mark.parametrize("limit", [1, 100, 16384])
async def test_messages_have_at_most_the_length_that_is_set(limit: int) -> None:
    """What is longer goes out in several messages."""
    left, right = plain_pair()
    data = bytes(range(256)) * 160
    received = message = b""
    async with WebSocketStream(left, client=True, max_message=limit) as stream, right:
        peer = Peer(right)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            while len(received) < len(data):
                event = await peer.receive()
                assert isinstance(event, BytesMessage)
                message += event.data
                if event.message_finished:
                    assert len(message) <= limit
                    received, message = received + message, b""
    assert received == data


async def test_early_frames_count() -> None:
    """What came together with the answer to the handshake is received first."""
    left, right = plain_pair()
    async with WebSocketStream(left, client=True, received=b"\x82\x05ear") as stream, right:
        await right.send_all(b"ly\x82\x01!")
        assert await stream.receive_some(4) == b"ear"
        assert await stream.receive_some() == b"ly!"


async def test_a_message_is_not_collected() -> None:
    """The beginning of a long message is received before its end was sent."""
    async with client_and_peer(max_received=2**40) as (stream, peer):
        await peer.stream.send_all(struct.pack("!BBQ", 0x82, 127, 2**33) + b"begin")
        assert await stream.receive_some() == b"begin"


async def test_control_frames_between_fragments() -> None:
    """They are answered, and leave no trace in the bytes."""
    async with client_and_peer() as (stream, peer):
        await peer.send(BytesMessage(data=b"one", message_finished=False), Ping(payload=b"?"))
        await peer.send(BytesMessage(data=b"two", message_finished=False), Pong(payload=b"unasked"))
        await peer.send(BytesMessage(data=b"three"))
        received = b""
        while len(received) < 11:
            received += await stream.receive_some()
        assert received == b"onetwothree"
        assert await peer.receive() == Pong(payload=b"?")


async def test_ends_with_a_close_frame() -> None:
    """Each end's Close frame is the end of the other's stream, and is answered when that is closed."""
    async with client_and_peer() as (stream, peer):
        await peer.send(BytesMessage(data=b"last"), CloseConnection(code=1001, reason="restart"))
        assert await stream.receive_some() == b"last"
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b""
        assert stream.closed_by_peer == (1001, "restart")
        assert stream.ending == "the peer has closed the WebSocket (1001 going away)"
        with pytest.raises(trio.BrokenResourceError, match="closed the WebSocket"):
            await stream.send_all(b"late")
        await stream.aclose()
        event = await peer.receive()
        assert isinstance(event, CloseConnection)
        assert event.code == 1000


async def test_ends_without_a_close_frame() -> None:
    """Many carriers end like that; between two frames it is an end as good as any."""
    async with client_and_peer() as (stream, peer):
        await peer.send(BytesMessage(data=b"last"))
        await peer.stream.aclose()
        assert await stream.receive_some() == b"last"
        assert stream.ending == ""
        assert await stream.receive_some() == b""
        assert stream.ending == "the connection to the peer has ended"


async def test_end_within_a_frame() -> None:
    """What was cut off is not taken for the end."""
    async with client_and_peer() as (stream, peer):
        await peer.stream.send_all(b"\x82\x05cut")
        await peer.stream.aclose()
        assert await stream.receive_some() == b"cut"
        with pytest.raises(trio.BrokenResourceError, match="within a frame"):
            await stream.receive_some()


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x81\x02hi", 1003),  # text
        (b"\x81\x02\xff\xff", 1003),  # text that is not UTF-8
        (b"\x82\x81\0\0\0\0x", 1002),  # masked by a server
        (b"\xc2\x01x", 1002),  # a reserved bit
        (b"\x83\x01x", 1002),  # a reserved kind of data
        (b"\x8b\x00", 1002),  # a reserved kind of control
        (b"\x09\x00", 1002),  # a fragment of a ping
        (b"\x89\x7e\x00\x80" + bytes(128), 1002),  # a ping that is too long
        (b"\x80\x01x", 1002),  # a continuation of nothing
        (b"\x02\x01x\x82\x01y", 1002),  # a message inside of another
        (b"\x82\x7e\x00\x01x", 1002),  # a length in a form that is too long
        (b"\x82\x7f" + b"\xff" * 8, 1002),  # a length beyond all bounds
        (struct.pack("!BBQ", 0x82, 127, 2**20 + 1), 1009),  # a length beyond ours
        (b"\x88\x01\x03", 1002),  # half a code
        (b"\x88\x02\x03\xed", 1002),  # codes that never stand in a frame
        (b"\x88\x02\x00\x01", 1002),
        (b"\x88\x02\x27\x0f", 1002),
        (b"\x88\x03\x03\xe8\xff", 1007),  # a reason that is not UTF-8
        (b"HTTP/1.1 400 Bad Request\r\n", 1002),
    ],
)
async def test_what_must_not_be_there(frames: bytes, code: int) -> None:
    """It breaks the stream, behind what came before it; the peer is told why."""
    async with client_and_peer(max_received=2**20) as (stream, peer):
        await peer.stream.send_all(b"\x82\x06before" + frames)
        assert (await stream.receive_some(6)) == b"before"
        with pytest.raises(trio.BrokenResourceError, match="must not carry"):
            await _receive_all(stream)
        with pytest.raises(trio.BrokenResourceError, match="must not carry"):
            await stream.send_all(b"more")
        event = await peer.receive()
        assert isinstance(event, CloseConnection)
        assert event.code == code
        assert await peer.is_silent()


async def _receive_all(stream: WebSocketStream) -> bytes:
    received = bytearray()
    while data := await stream.receive_some():
        received += data
    return bytes(received)


async def test_fragments_together_are_not_longer_than_allowed() -> None:
    """The bound is one for messages."""
    async with client_and_peer(max_received=1024) as (stream, peer):
        for _ in range(2):
            await peer.send(BytesMessage(data=bytes(512), message_finished=False))
        received = b""
        while len(received) < 1024:
            received += await stream.receive_some()
        await peer.send(BytesMessage(data=b"x"))
        with pytest.raises(trio.BrokenResourceError, match="more than 1024 bytes"):
            await stream.receive_some()


async def test_an_answer_to_a_ping_does_not_keep_from_receiving() -> None:
    """Two peers that both wait for the other to read would wait forever."""
    left, right = plain_pair()
    async with WebSocketStream(left, client=True) as stream, right:
        with contextlib.suppress(BlockingIOError):
            while True:
                left._socket.send(b"\x82\x80\0\0\0\0")
        await right.send_all(b"\x89\x01a\x82\x01x\x89\x01b\x82\x01y")
        with trio.fail_after(5):
            assert await stream.receive_some() == b"xy"


async def test_the_last_of_several_pings_is_answered_once_there_is_room() -> None:
    """RFC 6455, section 5.5.3; a flood of pings costs no memory."""
    left, right = plain_pair()
    async with WebSocketStream(left, client=True) as stream, right:
        with contextlib.suppress(BlockingIOError):
            while True:
                left._socket.send(b"\x82\x80\0\0\0\0")
        await right.send_all(b"".join(b"\x89\x01%d" % number for number in range(10)))
        received = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            await wait_all_tasks_blocked(0.1)
            with trio.fail_after(5):
                while not received.endswith(b"9"):
                    received += _unmasked(await right.receive_some(2**20))
            nursery.cancel_scope.cancel()
        assert received == b"9"


def _unmasked(data: bytes) -> bytes:
    """The payloads of pongs of one byte."""
    found, at = b"", 0
    while (at := data.find(b"\x8a\x81", at)) >= 0:
        found += bytes([data[at + 2] ^ data[at + 6]])
        at += 7
    return found


async def test_a_waiting_pong_goes_out_behind_what_is_being_sent() -> None:
    """Never inside of a frame."""
    async with client_and_peer() as (stream, peer):
        data = bytes(2**21)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            await wait_all_tasks_blocked()
            nursery.start_soon(stream.receive_some)
            await peer.send(Ping(payload=b"now"))
            await wait_all_tasks_blocked()
            received, pongs = 0, 0
            while received < len(data) or not pongs:
                event = await peer.receive()
                received += len(event.data) if isinstance(event, BytesMessage) else 0
                pongs += event == Pong(payload=b"now")
            nursery.cancel_scope.cancel()
        assert (received, pongs) == (len(data), 1)


async def test_pings_when_nothing_moves(autojump_clock: MockClock) -> None:
    """After the time that is set, and again after the answer and as much time."""
    async with client_and_peer(keepalive=57) as (stream, peer), trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        for number in (1, 2):
            assert await peer.receive() == Ping(payload=b"")
            assert trio.current_time() == pytest.approx(57 * number)
            await peer.send(Pong())
        await trio.sleep(30)
        await peer.send(Ping())
        assert await peer.receive() == Pong(payload=b"")
        assert await peer.receive() == Ping(payload=b"")
        assert trio.current_time() == pytest.approx(57 * 3 + 30)
        nursery.cancel_scope.cancel()


async def test_no_pings_unless_wanted(autojump_clock: MockClock) -> None:
    """A keepalive of zero is none."""
    async with client_and_peer() as (stream, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            await trio.sleep(10_000)
            nursery.cancel_scope.cancel()
        assert await peer.is_silent()


async def test_a_peer_that_answers_no_ping_is_gone(autojump_clock: MockClock) -> None:
    """The connection may have died without a sign (half-open)."""
    async with client_and_peer(keepalive=57) as (stream, _):
        with pytest.raises(trio.BrokenResourceError, match="did not answer a ping within 57 s"):
            await stream.receive_some()
        assert trio.current_time() == pytest.approx(114)


async def test_a_peer_that_may_be_busy_with_what_was_sent_is_not_gone(autojump_clock: MockClock) -> None:
    """A database may take its time for a COPY; what stands before it does not read on then, nor answer."""
    async with client_and_peer(keepalive=57) as (stream, peer):
        await stream.send_all(bytes(16385))
        with trio.move_on_after(1000):
            await stream.receive_some()
        assert trio.current_time() == pytest.approx(1000)
        await peer.send(BytesMessage(data=b"done"))
        assert await stream.receive_some() == b"done"
        with pytest.raises(trio.BrokenResourceError, match="did not answer a ping"):
            await stream.receive_some()


async def test_a_peer_that_is_gone_while_it_is_sent_to(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TCP tells that nothing arrives any more: both who sends and who receives find out."""
    silent = 0.0
    monkeypatch.setattr(PlainStream, "unacknowledged_for", property(lambda _stream: silent))
    async with client_and_peer(keepalive=57) as (stream, _), trio.open_nursery() as nursery:
        nursery.start_soon(_send_in_vain, stream)
        with trio.move_on_after(1000):
            await stream.receive_some()
        assert trio.current_time() == pytest.approx(1000)
        silent = 60.0
        with pytest.raises(
            trio.BrokenResourceError, match="acknowledged nothing of what it was sent for 57 s"
        ):
            await stream.receive_some()
        assert trio.current_time() < 1120
        await stream.aclose()


async def _send_in_vain(stream: WebSocketStream) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(bytes(10_000_000))


async def test_time_without_a_receiver_does_not_count(autojump_clock: MockClock) -> None:
    """What was not received for lack of a reader is no sign of a dead peer, and no ping is due at once."""
    async with client_and_peer(keepalive=57) as (stream, peer):
        with trio.move_on_after(60):
            await stream.receive_some()
        await peer.send(Pong())
        await trio.sleep(500)
        await peer.send(BytesMessage(data=b"here"))
        assert await stream.receive_some() == b"here"


async def test_no_ping_into_what_is_being_sent(autojump_clock: MockClock) -> None:
    """A blocked sender says as much as a ping."""
    async with client_and_peer(keepalive=10) as (stream, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(2**22))
            with trio.move_on_after(100) as scope:
                await stream.receive_some()
            nursery.cancel_scope.cancel()
        assert scope.cancelled_caught
        await stream.aclose()
        while event := await _next_event(peer):
            assert isinstance(event, BytesMessage)


async def test_close_does_not_wait_for_a_peer_that_never_answers() -> None:
    """Neither for its Close frame, nor for it to read."""
    stream, other = await clogged_pair()
    async with client_and_peer() as (free, _):
        with trio.fail_after(0.5):
            await free.aclose()
    with trio.fail_after(4):
        await stream.aclose()
    await trio.aclose_forcefully(other)


async def test_close_frees_who_waits() -> None:
    """A blocked sender and a waiting receiver end at once."""
    async with client_and_peer() as (stream, _):

        async def fails(action: object, *args: object) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await action(*args)  # type: ignore[operator]

        with trio.fail_after(0.9):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails, stream.send_all, bytes(2**22))
                nursery.start_soon(fails, stream.receive_some)
                await wait_all_tasks_blocked()
                await stream.aclose()


async def test_nothing_follows_a_frame_that_was_sent_in_part() -> None:
    """After a send that was cancelled, neither data nor a Close frame is put where its rest should be."""
    async with client_and_peer() as (stream, peer):
        with trio.move_on_after(0.05) as scope:
            await stream.send_all(bytes(2**22))
        assert scope.cancelled_caught
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"more")
        await stream.aclose()
        while isinstance(event := await _next_event(peer), BytesMessage):
            assert set(event.data) <= {0}
        assert event is None


async def _next_event(peer: Peer) -> Event | None:
    try:
        return await peer.receive()
    except AssertionError:
        return None


async def test_cancelled_anywhere_nothing_is_lost() -> None:
    """A cancelled receive has taken nothing; pings between are answered in the end."""

    async def receive() -> None:
        received = b""
        async with client_and_peer(keepalive=57) as (stream, peer):
            await peer.send(Ping(payload=b"a"), BytesMessage(data=b"one"), Ping(payload=b"b"))
            await peer.send(BytesMessage(data=b"two"))
            cancelled = True
            try:
                received += await stream.receive_some()
                cancelled = False
            finally:
                if cancelled:
                    with trio.CancelScope(shield=True):
                        while len(received) < 6:
                            received += await stream.receive_some()
                        assert received == b"onetwo"
                        assert await peer.receive() == Pong(payload=b"b")

    assert await cancel_everywhere(receive) > 3


async def test_two_at_once_are_refused() -> None:
    """As for every stream of Trio."""
    async with client_and_peer() as (stream, _), trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.receive_some()
        nursery.cancel_scope.cancel()


async def test_a_slow_reader_holds_the_sender_back() -> None:
    """No buffer grows: what is not received stays in the kernel."""
    left, right = await stream_pair()
    sent = 0
    async with left, right, trio.open_nursery() as nursery:

        async def send() -> None:
            nonlocal sent
            while True:
                await left.send_all(bytes(65536))
                sent += 65536

        nursery.start_soon(send)
        await wait_all_tasks_blocked(0.05)
        held = sent
        assert held < 2**21
        await right.receive_some(1)
        assert sum(map(len, right._reader.payload)) <= 65536
        nursery.cancel_scope.cancel()
