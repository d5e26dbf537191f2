"""Frames: where one message ends and the next begins.

A frame is one type byte, an unsigned big-endian 32-bit length that counts itself but not the type, and the
body. `hyperpool.wire.scan` is the relay's scanner and touches nothing but headers. `FrameReader` collects whole
messages during login, when messages are few and small and their size must be bounded.

Rule 1: a length is checked against its bounds before it is added to anything or memory is taken for it.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from hyperpool.errors import ProtocolError

MAX_STARTUP_PACKET: Final = 10_000
"""Bytes of a startup packet without its length field: PostgreSQL's MAX_STARTUP_PACKET_LENGTH."""

MAX_CLIENT_LOGIN_FRAME: Final = 65_536
"""Largest length field accepted from a client that is not authenticated yet, in bytes. PostgreSQL takes up to
65,535 bytes as a password or token (PG_MAX_AUTH_TOKEN_LENGTH)."""

MAX_SERVER_LOGIN_FRAME: Final = 1 << 20
"""Largest length field accepted from a server during login, in bytes. Its longest messages are errors."""

_unpack_header = Struct("!BI").unpack_from
_unpack_length = Struct("!I").unpack_from


class FrameReader:
    """Collects whole messages out of chunks of a byte stream, within bounds.

    It holds at most one incomplete message and what came in the same chunk. A message that announces more
    than the bound is refused as soon as its header is complete. After an error every further call raises it
    again.

    Args:
        max_frame: the largest length field accepted by `next_frame`, in bytes.
    """

    __slots__ = ("_buffer", "_max_frame")

    def __init__(self, max_frame: int = MAX_CLIENT_LOGIN_FRAME) -> None:
        self._buffer = bytearray()
        self._max_frame = max_frame

    @property
    def empty(self) -> bool:
        """Whether everything that was fed has been taken."""
        return not self._buffer

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes received. Take all messages out before the next call, else the buffer grows."""
        self._buffer += data

    def next_startup_packet(self) -> bytes | None:
        """Take one packet without a type byte, as a frontend sends first.

        Returns:
            The packet without its length field, or None while it is incomplete.

        Raises:
            ProtocolError: its length is less than that of the smallest packet, or more than
                `MAX_STARTUP_PACKET`.
        """
        buffer = self._buffer
        if len(buffer) < 4:
            return None
        (length,) = _unpack_length(buffer)
        if length < 8 or length > MAX_STARTUP_PACKET + 4:
            raise ProtocolError("invalid length of startup packet")
        if len(buffer) < length:
            return None
        packet = bytes(buffer[4:length])
        del buffer[:length]
        return packet

    def next_frame(self) -> tuple[int, bytes] | None:
        """Take one message.

        Returns:
            Its type byte and its body, or None while it is incomplete.

        Raises:
            ProtocolError: its length is less than 4 or more than the bound.
        """
        buffer = self._buffer
        if len(buffer) < 5:
            return None
        kind, length = _unpack_header(buffer)
        if length < 4 or length > self._max_frame:
            raise ProtocolError(f"invalid message length {length} (message type {kind:#04x})")
        if len(buffer) <= length:
            return None
        body = bytes(buffer[5 : length + 1])
        del buffer[: length + 1]
        return kind, body

    def leftover(self) -> bytes:
        """Return the bytes that were fed but not taken, and forget them."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest
