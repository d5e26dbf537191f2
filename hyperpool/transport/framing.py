"""The frames of a WebSocket as bytes (RFC 6455, section 5): made from a byte stream, and taken apart into one.

No I/O. What is received is passed on as slices of what was read, without a copy; wsproto, which copies each byte four
times, takes about twice the processor time for a large result. It is the referee in the tests. Masking is done by
websockets, in C: on one machine, 16 KiB take 1.2 microseconds, and 31 with wsproto's tables.
"""

from __future__ import annotations

import os
from enum import IntEnum
from struct import Struct
from typing import Final

from wsproto.frame_protocol import CloseReason, XorMaskerSimple

_LONG_LENGTH: Final = Struct("!BBH")
_LONGEST_LENGTH: Final = Struct("!BBQ")
_FINAL: Final = 0x80
_MASKED: Final = 0x80
_RESERVED: Final = 0x70
_CONTROL: Final = 0x08
_MAX_CONTROL: Final = 125

_FIRST_BITE: Final = 16 * 1024
_SMALLEST_BITE: Final = 4 * 1024
_LARGEST_BITE: Final = 256 * 1024
_SMALL: Final = 256
"""Bytes of a frame, on average, below which its cost is that of a frame, and not that of its bytes."""


class Opcode(IntEnum):
    """What a frame is."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class Violation(Exception):
    """The peer sent what must not be there.

    Args:
        message: what it was.
        code: why the WebSocket is closed, in its own Close frame.
    """

    def __init__(self, message: str, code: CloseReason = CloseReason.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


def mask_with_tables(data: bytes | bytearray | memoryview, mask: bytes | bytearray) -> bytes:
    """Mask, or unmask: each byte XOR one of the mask's four, in turn (section 5.3)."""
    return bytes(XorMaskerSimple(bytes(mask)).process(bytearray(data)))


try:
    from websockets import speedups
except ImportError:  # there is no compiled part for this platform
    apply_mask = mask_with_tables
else:
    apply_mask = speedups.apply_mask


def make_frame(opcode: Opcode, payload: bytes | memoryview, *, mask: bool) -> bytes:
    """A final frame.

    Args:
        opcode: its kind.
        payload: what it carries.
        mask: whether it is masked, as a client's must be, with a key that nobody can foresee (section 10.3).
    """
    header = _header(opcode, len(payload), _MASKED if mask else 0)
    if not mask:
        return b"".join((header, payload))
    key = os.urandom(4)
    return b"".join((header, key, apply_mask(payload, key)))


def _header(opcode: Opcode, size: int, bit: int) -> bytes:
    """The beginning of a final frame of so many bytes, up to its key."""
    if size < 126:
        return bytes((_FINAL | opcode, bit | size))
    if size < 1 << 16:
        return _LONG_LENGTH.pack(_FINAL | opcode, bit | 126, size)
    return _LONGEST_LENGTH.pack(_FINAL | opcode, bit | 127, size)


def make_messages(data: memoryview, limit: int, *, mask: bool) -> bytes:
    """Bytes of a stream as binary messages.

    Args:
        data: the bytes.
        limit: how many of them a message may have.
        mask: as for `make_frame`.
    """
    if len(data) <= limit:
        return make_frame(Opcode.BINARY, data, mask=mask)
    if mask:
        pieces = (data[at : at + limit] for at in range(0, len(data), limit))
        return b"".join([make_frame(Opcode.BINARY, piece, mask=True) for piece in pieces])
    whole, over = divmod(len(data), limit)
    full = _header(Opcode.BINARY, limit, 0)
    parts: list[bytes | memoryview] = []
    for at in range(0, whole * limit, limit):
        parts += (full, data[at : at + limit])
    if over:
        parts += (_header(Opcode.BINARY, over, 0), data[-over:])
    return b"".join(parts)


def meaning(code: int) -> str:
    """The code of a Close frame, in words where it has some; the reason is the peer's text, and not to be shown."""
    try:
        return f"{code} {CloseReason(code).name.replace('_', ' ').lower()}"
    except ValueError:
        return str(code)


class FrameReader:
    """Takes the frames of one direction apart.

    Args:
        masked: whether the peer must mask, as a client, or must not.
        max_message: bytes that a message may have.

    Attributes:
        payload: pieces of the byte stream that nobody has taken yet.
        ping: the payload of the newest ping that nobody has taken yet.
        close: the code and reason of the peer's Close frame; nothing is looked at behind it.
        frames: how many have been taken apart. Each costs three microseconds or more, however few bytes it has.
        bite: bytes that should be read at once: few while frames are small, so that it never takes long to take them
            apart; many while they are large.
    """

    def __init__(self, *, masked: bool, max_message: int) -> None:
        self.payload: list[bytes | memoryview] = []
        self.ping: bytes | None = None
        self.close: tuple[int, str] | None = None
        self.frames = 0
        self.bite = _FIRST_BITE
        self._masked = masked
        self._max_message = max_message
        self._header = b""
        self._in_frame = False
        self._opcode = 0
        self._final = False
        self._left = 0
        self._key = b""
        self._control = bytearray()
        self._in_message = False
        self._message_size = 0

    @property
    def between_frames(self) -> bool:
        """Whether the end of the connection would cut nothing off."""
        return not self._in_frame and not self._header

    def feed(self, data: bytes | memoryview) -> None:
        """Take in what was received, in pieces of any size. Pieces of `payload` may be slices of it.

        Raises:
            Violation: it is not allowed. What came before has been taken in.
        """
        frames, size = self.frames, len(data)
        if self._header:
            data, self._header = self._header + data, b""
        view, at, end = memoryview(data), 0, len(data)
        while at < end and self.close is None:
            if not self._in_frame:
                begin = self._read_header(data, at)
                if begin == at:
                    self._header = bytes(view[at:])
                    break
                at = begin
            if self._left and at < end:
                piece = view[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self._take(piece)
            if not self._left:
                self._end_frame()
        if (self.frames - frames) * _SMALL > size:
            self.bite = _SMALLEST_BITE
        elif size >= self.bite:
            self.bite = min(2 * self.bite, _LARGEST_BITE)

    def _read_header(self, data: bytes | memoryview, at: int) -> int:
        """Read a frame's header; returns where it ends, or where it begins if it is not complete."""
        have = len(data) - at
        if have < 2:
            return at
        first, second = data[at], data[at + 1]
        opcode, size = first & 0x0F, second & 0x7F
        self._check_start(first, second)
        begin = at + 2
        if size > _MAX_CONTROL:
            width = 2 if size == 126 else 8
            begin += width
            if have < 2 + width:
                return at
            size = int.from_bytes(data[at + 2 : begin], "big")
            if size >> 63 or size < (126 if width == 2 else 1 << 16):
                raise Violation("a frame whose length is written in a form that is not allowed")
        if not opcode & _CONTROL and self._message_size + size > self._max_message:
            raise Violation(
                f"a message of more than {self._max_message} bytes (max_received)",
                CloseReason.MESSAGE_TOO_BIG,
            )
        if self._masked:
            if len(data) < begin + 4:
                return at
            self._key = bytes(data[begin : begin + 4])
            begin += 4
        self._opcode, self._final, self._left, self._in_frame = opcode, bool(first & _FINAL), size, True
        return begin

    def _check_start(self, first: int, second: int) -> None:
        """Check a frame's first two bytes."""
        opcode = first & 0x0F
        if first & _RESERVED:
            raise Violation("a frame with reserved bits")
        if bool(second & _MASKED) != self._masked:
            raise Violation("a frame without a mask" if self._masked else "a frame with a mask")
        if opcode & _CONTROL:
            if opcode not in {Opcode.CLOSE, Opcode.PING, Opcode.PONG}:
                raise Violation("a control frame of an unknown kind")
            if not first & _FINAL or second & 0x7F > _MAX_CONTROL:
                raise Violation("a control frame that is too long or in parts")
        elif opcode == Opcode.TEXT:
            raise Violation("a text message", CloseReason.UNSUPPORTED_DATA)
        elif opcode not in {Opcode.BINARY, Opcode.CONTINUATION}:
            raise Violation("a frame of an unknown kind")
        elif self._in_message != (opcode == Opcode.CONTINUATION):
            raise Violation("a message inside of another" if self._in_message else "a part of no message")

    def _take(self, piece: memoryview) -> None:
        """Take in a part of the current frame."""
        plain: bytes | memoryview = piece
        if self._masked:
            plain = apply_mask(piece, self._key)
            turn = len(piece) % 4  # the frame's next piece begins at another byte of the key
            self._key = self._key[turn:] + self._key[:turn]
        if self._opcode & _CONTROL:
            self._control += plain
        else:
            self._message_size += len(piece)
            self.payload.append(plain)

    def _end_frame(self) -> None:
        self.frames += 1
        self._in_frame = False
        if not self._opcode & _CONTROL:
            self._in_message = not self._final
            if self._final:
                self._message_size = 0
            return
        payload, self._control = bytes(self._control), bytearray()
        if self._opcode == Opcode.PING:
            self.ping = payload
        elif self._opcode == Opcode.CLOSE:
            self.close = read_close(payload)


def read_close(payload: bytes) -> tuple[int, str]:
    """The code and reason of a Close frame (section 7.4); 1005 stands for none.

    Raises:
        Violation: it is not allowed.
    """
    if not payload:
        return int(CloseReason.NO_STATUS_RCVD), ""
    code = int.from_bytes(payload[:2], "big")
    # Others are not assigned, or are never sent; 1014 is in IANA's registry, "WebSocket Close Code Number".
    if len(payload) < 2 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise Violation("a Close frame with an invalid code")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise Violation(
            "a Close frame whose reason is not UTF-8", CloseReason.INVALID_FRAME_PAYLOAD_DATA
        ) from None
