"""The frame scanner and the login buffer."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.errors import ProtocolError
from hyperpool.wire.frames import MAX_CLIENT_LOGIN_FRAME, MAX_STARTUP_PACKET, FrameReader
from hyperpool.wire.messages import frame
from hyperpool.wire.scan import hop

PASSING = bytes(1 if kind in b"DTC" else 0 for kind in range(256))

Frames = list[tuple[int, bytes]]
frame_lists = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=8)


def model_of_hop(data: bytes, at: int, end: int, passing: bytes) -> int:
    """Say the same as `hop`, in the words of its documentation."""
    while True:
        header = data[at:end][:5]
        if len(header) < 5:
            return at
        length = int.from_bytes(header[1:], "big")
        if length < 4 or not passing[header[0]]:
            return at
        at += 1 + length
        if at > end:
            return at


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut a byte stream into chunks."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


@pytest.mark.parametrize("kind_of_buffer", [bytes, bytearray, memoryview])
def test_hop_stops_at_the_first_frame_that_is_not_passing(
    kind_of_buffer: type[bytes | bytearray | memoryview],
) -> None:
    """Passing frames are skipped, whatever the buffer is made of; the first other one is returned."""
    rows = frame(ord("T"), b"row description") + frame(ord("D"), b"a row") + frame(ord("C"))
    data = rows + frame(ord("Z"), b"I") + frame(ord("D"), b"after")

    assert hop(kind_of_buffer(data), 0, len(data), PASSING) == len(rows)


def test_hop_starts_anywhere_and_ends_at_the_end() -> None:
    """The scan covers the given range alone, and returns its end when nothing stops it."""
    row = frame(ord("D"), b"a row")
    data = b"rubbish" + row + row + b"not received yet"

    assert hop(data, 7, 7 + 2 * len(row), PASSING) == 7 + 2 * len(row)


@pytest.mark.parametrize("received", range(5))
def test_hop_stops_at_an_incomplete_header(received: int) -> None:
    """A header is not judged before its five bytes are there, not even when the buffer holds stale ones."""
    row = frame(ord("D"), b"a row")

    assert hop(row + row, 0, len(row) + received, PASSING) == len(row)


def test_hop_returns_an_offset_beyond_the_end_for_a_frame_that_streams_on() -> None:
    """Of a long passing frame only the header is needed; the result says where it will end."""
    row = frame(ord("D"), bytes(1000))

    assert hop(row[:100], 0, 100, PASSING) == 1005


def test_hop_takes_lengths_as_unsigned() -> None:
    """The largest length leads far beyond the end, not backwards."""
    assert hop(b"D\xff\xff\xff\xff", 0, 5, PASSING) == 0x1_0000_0000


@pytest.mark.parametrize("length", range(4))
def test_hop_stops_at_a_malformed_length(length: int) -> None:
    """A length that does not even count itself is left to the caller, even in a passing frame."""
    row = frame(ord("D"), b"a row")
    data = row + b"D" + struct.pack("!I", length) + b"rest"

    assert hop(data, 0, len(data), PASSING) == len(row)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(b"DTCZ"), st.sampled_from([0, 3, 4, 5, 9, 60, 0xFFFFFFFF]), st.binary(max_size=56)
        )
    ),
    st.integers(0, 300),
    st.integers(0, 40),
)
def test_hop_agrees_with_its_model(pieces: list[tuple[int, int, bytes]], cut_at: int, at: int) -> None:
    """On any bytes, well-formed or not, from any offset, `hop` does what its documentation says."""
    data = b"".join(struct.pack("!BI", kind, length) + body for kind, length, body in pieces)
    end = min(cut_at, len(data))

    assert hop(data, at, end, PASSING) == model_of_hop(data, at, end, PASSING)


@given(frame_lists, st.lists(st.integers(0, 1000), max_size=20))
def test_any_chunking_gives_the_same_frames(frames: Frames, places: list[int]) -> None:
    """How the network cuts a byte stream does not show in the messages."""
    reader = FrameReader()
    got = []

    for chunk in cut(b"".join(frame(kind, body) for kind, body in frames), places):
        reader.feed(chunk)
        while (message := reader.next_frame()) is not None:
            got.append(message)

    assert got == frames
    assert reader.leftover() == b""


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=10))
def test_any_chunking_of_any_bytes_gives_the_same_end(data: bytes, places: list[int]) -> None:
    """Arbitrary bytes give the same messages and the same error or leftover, however they are cut."""

    def outcome(chunks: list[bytes]) -> tuple[list[object], bytes | str]:
        reader = FrameReader(max_frame=100)
        got: list[object] = []
        error = ""
        for chunk in chunks:
            reader.feed(chunk)
            try:
                if not got and (packet := reader.next_startup_packet()) is not None:
                    got.append(packet)
                while got and (message := reader.next_frame()) is not None:
                    got.append(message)
            except ProtocolError as exc:
                error = str(exc)
        return got, error or reader.leftover()

    assert outcome(cut(data, places)) == outcome([data])


def test_startup_packet_comes_without_its_length() -> None:
    """The packet is complete exactly when its last byte is there; what follows it stays."""
    reader = FrameReader()
    reader.feed(b"\x00\x00\x00\x08\x04\xd2\x16")
    assert reader.next_startup_packet() is None

    reader.feed(b"\x2f\x00\x00")

    assert reader.next_startup_packet() == b"\x04\xd2\x16\x2f"
    assert reader.leftover() == b"\x00\x00"


@pytest.mark.parametrize("length", [0, 3, 4, 7, MAX_STARTUP_PACKET + 5, 0x80000000, 0xFFFFFFFF])
def test_startup_packet_of_an_impossible_length_is_refused(length: int) -> None:
    """The length is refused as soon as it is there, before any of the packet is waited for."""
    reader = FrameReader()
    reader.feed(struct.pack("!I", length))

    with pytest.raises(ProtocolError, match="invalid length of startup packet"):
        reader.next_startup_packet()


@pytest.mark.parametrize(
    "greeting", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"SSH-2.0-x\r\n"]
)
def test_other_protocols_are_refused_at_once(greeting: bytes) -> None:
    """A web browser, a TLS or an SSH client is refused, not waited for."""
    reader = FrameReader()
    reader.feed(greeting)

    with pytest.raises(ProtocolError):
        reader.next_startup_packet()


def test_the_largest_startup_packet_is_accepted() -> None:
    """A packet of exactly PostgreSQL's bound passes."""
    reader = FrameReader()
    reader.feed(struct.pack("!I", MAX_STARTUP_PACKET + 4) + bytes(MAX_STARTUP_PACKET))

    assert reader.next_startup_packet() == bytes(MAX_STARTUP_PACKET)


def test_startup_packet_waits_for_its_length() -> None:
    """Less than a length is no packet and no error."""
    reader = FrameReader()
    reader.feed(b"\x00\x00\x00")

    assert reader.next_startup_packet() is None


@pytest.mark.parametrize("length", [0, 1, 2, 3, MAX_CLIENT_LOGIN_FRAME + 1, 0x80000000, 0xFFFFFFFF])
def test_frame_of_an_impossible_length_is_refused(length: int) -> None:
    """The length is refused as soon as the header is there, and again on every further call."""
    reader = FrameReader()
    reader.feed(b"p" + struct.pack("!I", length))

    for _ in range(2):
        with pytest.raises(ProtocolError, match="invalid message length"):
            reader.next_frame()


@pytest.mark.parametrize("max_frame", [4, 100, MAX_CLIENT_LOGIN_FRAME])
def test_frame_of_exactly_the_bound_is_accepted(max_frame: int) -> None:
    """The bound counts what the length field counts: itself and the body."""
    body = bytes(max_frame - 4)
    reader = FrameReader(max_frame)
    reader.feed(frame(ord("p"), body))

    assert reader.next_frame() == (ord("p"), body)


def test_leftover_is_handed_over_once() -> None:
    """What was not taken goes to the next owner of the connection, and leaves the buffer."""
    reader = FrameReader()
    reader.feed(frame(ord("p"), b"x") + b"Q\x00")
    reader.next_frame()

    assert (reader.leftover(), reader.leftover()) == (b"Q\x00", b"")
