"""The stream in a WebSocket against everything that a peer may send: any frames in any pieces, and any noise."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs
import trio
from hypothesis import assume, example, given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from hyperpool.transport.frames import WebSocketStream

if TYPE_CHECKING:
    from trio.testing import MemorySendStream

LIMIT = 4096


@attrs.frozen
class Outcome:
    """What came of what a peer sent.

    Attributes:
        received: the bytes of the stream.
        broken: whether it broke, instead of ending.
        closed: whether a Close frame was sent.
    """

    received: bytes
    broken: bool
    closed: bool


def outcome(pieces: list[bytes], max_bytes: int | None = None, limit: int = LIMIT) -> Outcome:
    """Let a peer send something in pieces, and then end the connection."""

    async def run() -> Outcome:
        left, right = memory_stream_pair()
        received, broken = bytearray(), False

        async def send(out: MemorySendStream) -> None:
            for piece in pieces:
                await out.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()
            await out.aclose()

        stream = WebSocketStream(left, client=True, max_received=limit)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, right.send_stream)
            try:
                while data := await stream.receive_some(max_bytes):
                    received += data
            except trio.BrokenResourceError:
                broken = True
        await stream.aclose()
        referee = Connection(ConnectionType.SERVER)
        referee.receive_data(bytes(await right.receive_stream.receive_some(2**20)))
        closed = any(isinstance(event, CloseConnection) for event in referee.events())
        return Outcome(bytes(received), broken, closed)

    return trio.run(run)


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A server's frame."""
    first, size = opcode | (0x80 if final else 0), len(payload)
    if size < 126:
        return struct.pack("!BB", first, size) + payload
    return struct.pack("!BBH", first, 126, size) + payload


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Messages in fragments with control frames between them; and the bytes that they carry."""
    frames, carried = b"", b""
    for fragments in draw(st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=4), max_size=6)):
        for number, payload in enumerate(fragments):
            last = number == len(fragments) - 1
            frames += frame(0 if number else 2, payload, final=last)
            frames += draw(st.sampled_from([b"", frame(9, b"?"), frame(10, b"!" * 125), frame(9, b"") * 3]))
            carried += payload
    return frames, carried


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in pieces."""
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:stop] for start, stop in zip([0, *at], [*at, len(data)], strict=True) if start < stop]


@given(st.data(), messages(), st.none() | st.integers(1, 500))
def test_any_pieces_carry_the_same_bytes(
    data: st.DataObject, sent: tuple[bytes, bytes], size: int | None
) -> None:
    """However frames are cut, and however much is asked for at once."""
    frames, carried = sent
    assert outcome(data.draw(cuts(frames)), size).received == carried


@given(st.data(), messages(), st.binary(min_size=1, max_size=400))
@example(None, (b"", b""), b"\x82\xfe")
@example(None, (frame(2, b"x"), b"x"), frame(8, b"\x03\xe8bye") + b"behind")
def test_noise_behind_frames(data: st.DataObject | None, sent: tuple[bytes, bytes], noise: bytes) -> None:
    """It ends or breaks in the same way however it is cut, behind what came before; nothing else is ever raised."""
    frames, carried = sent
    whole = outcome([frames + noise])
    assert whole.received.startswith(carried)
    assert len(whole.received) <= len(carried) + len(noise)
    if data is not None:
        assert outcome(data.draw(cuts(frames + noise))) == whole
    assert outcome([frames, *(bytes([one]) for one in noise)]) == whole


@given(messages(), st.binary(max_size=400))
def test_the_same_as_wsproto(sent: tuple[bytes, bytes], noise: bytes) -> None:
    """Another implementation finds the same bytes, and breaks at the same place, but it takes text."""
    referee, received, broken = Connection(ConnectionType.CLIENT), b"", False
    referee.receive_data(sent[0] + noise)
    for event in referee.events():
        if isinstance(event, BytesMessage):
            received += event.data
        elif isinstance(event, CloseConnection):
            broken = referee.state is ConnectionState.OPEN
        assume(not isinstance(event, TextMessage))
    found = outcome([sent[0] + noise], limit=2**63)
    assert found.received == received
    assert found.broken or not broken


@given(st.integers(0, 0xFFFF), st.binary(max_size=123))
def test_close_frames(code: int, reason: bytes) -> None:
    """Codes that may stand in a frame, with a reason in UTF-8, are the end; others break the stream."""
    try:
        reason.decode()
        sound = 3000 <= code <= 4999 or 1000 <= code <= 1003 or 1007 <= code <= 1014
    except UnicodeDecodeError:
        sound = False
    assert outcome([frame(8, struct.pack("!H", code) + reason)]) == Outcome(
        b"", broken=not sound, closed=True
    )


@given(st.integers(0, 2**64 - 1))
@example(LIMIT)
@example(LIMIT + 1)
def test_lengths(length: int) -> None:
    """A frame that announces more than is accepted is refused before anything of it has come."""
    if length < 126:
        header = struct.pack("!BB", 0x82, length)
    elif length < 2**16:
        header = struct.pack("!BBH", 0x82, 126, length)
    else:
        header = struct.pack("!BBQ", 0x82, 127, length)
    found = outcome([header + b"x"[:length]])
    assert found.received == (b"x"[:length] if length <= LIMIT else b"")
    assert found.broken == (length not in {0, 1})
