"""A byte stream in the binary messages of a WebSocket, for either end of it.

What is sent is cut into messages of at most 16 KiB; where messages begin and end means nothing, and a message is
never collected. (RFC 6455; that cloudflared, websockify and others carry byte streams like this is why we do.)

There is no task of its own: pings are answered, sent and missed by whoever receives.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from contextlib import suppress
from math import inf
from operator import index
from typing import Final, cast

import trio
from wsproto.frame_protocol import CloseReason, Frame, FrameProtocol, Opcode, ParseFailed, XorMaskerSimple

MAX_MESSAGE_SENT: Final = 16 * 1024
"""Bytes of a message that is sent. cloudflared's end drops what is beyond 16 KiB of a message."""
MAX_MESSAGE_RECEIVED: Final = 1 << 30

_RECEIVE_SIZE: Final = 64 * 1024
_AT_ONCE: Final = 64 * 1024
_GOODBYE: Final = 1.0
"""Seconds that the end may take when the peer does not read."""
_ROOM: Final = 0.02
"""Seconds in which what is below can say whether it takes a control frame at once."""
_PASSES: Final = 16 * 1024
"""Bytes that were sent and not answered, and certainly do not keep the peer from reading what comes after them."""
_LATER: Final = 1.0
"""Seconds until a pong that found no room is tried again."""


class WebSocketStream(trio.abc.Stream):
    """The bytes that an open WebSocket carries.

    The end of the stream is the peer's Close frame, or the end of what is below between two frames: many carriers end
    without one. Text messages, and whatever the RFC does not allow, break the stream, after a Close frame that says
    why. Pings are answered while somebody receives; of several that came at once, the last one.

    Args:
        below: carries the frames; it belongs to this stream from now on.
        client: whether this end has opened the WebSocket, and so must mask what it sends.
        received: what was read from below already.
        max_message: bytes of a message that is sent.
        max_received: bytes of a message that is received.
        keepalive: seconds after which a ping is sent while somebody receives and nothing moves in either direction;
            0 for none. It is never sent into what this end is sending. (A ping that meets a frame which cloudflared is
            sending may end up inside of that.) When nothing at all arrives in as much time after it, the stream breaks;
            not if much was sent that the peer has not answered yet, as that may keep it from reading the ping.

    Attributes:
        heard: the `trio.current_time` at which something was received last, a pong for instance.
        active: the time at which something was received or sent last.
        listening: the time since which somebody receives; infinite while nobody does.
        closed_by_peer: the code and reason of the peer's Close frame; None before there is one.
    """

    def __init__(
        self,
        below: trio.abc.Stream,
        *,
        client: bool,
        received: bytes = b"",
        max_message: int = MAX_MESSAGE_SENT,
        max_received: int = MAX_MESSAGE_RECEIVED,
        keepalive: float = 0.0,
    ) -> None:
        self._below = below
        self._client = client
        self._protocol = FrameProtocol(client, [])
        self._max_message = max_message
        self._max_received = max_received
        self._keepalive = keepalive
        self._message_size = 0
        self._frame_size = 0
        self._payload: deque[bytes | memoryview] = deque()
        self._ended = False
        self._broken = ""
        self._torn = False
        self._open = True
        self._sending = False
        self._receiving = False
        self._writing = trio.Lock()
        self._ping_unsent = False
        self._pong_unsent: bytes | None = None
        self._pinged: float | None = None
        self._looked_after = -inf
        self._unanswered = 0
        self._close_sent = False
        self.heard = self.active = trio.current_time()
        self.listening = inf
        self.closed_by_peer: tuple[int, str] | None = None
        if received:
            self._protocol.receive_bytes(received)

    # -- sending -----------------------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`. Cancelled midway, the only sound use of the stream is to close it.

        Raises:
            trio.BrokenResourceError: what is below broke, or the peer has closed the WebSocket.
        """
        self._check_sendable()
        self._sending = True
        try:
            async with self._writing:
                await trio.lowlevel.checkpoint()
                rest = memoryview(data)
                while rest:
                    self._unanswered += len(rest[:_AT_ONCE])
                    await self._write(self._frames(rest[:_AT_ONCE]))
                    rest = rest[_AT_ONCE:]
                    if self._ping_unsent or self._pong_unsent is not None:
                        await self._write(self._control_frames())
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until what is below takes more data."""
        self._check_sendable()
        self._sending = True
        try:
            async with self._writing:
                await self._below.wait_send_all_might_not_block()
        finally:
            self._sending = False

    async def ping(self) -> None:
        """Ask the peer for a sign of life; it is for somebody who receives to take note of it in `heard`.

        It is sent behind what is being sent, and not at all while the peer does not read.
        """
        self._check_open()
        self._ping_unsent = True
        await self._send_control()

    # -- receiving ---------------------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at least one byte, or b"" at the end of the stream. Cancelled, it has received nothing.

        Raises:
            trio.BrokenResourceError: what is below broke, the peer did something that is not allowed, or it did not
                answer a ping.
        """
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        self._check_open()
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving data on this stream")
        self._receiving = True
        self.listening = trio.current_time()
        try:
            await trio.lowlevel.checkpoint()
            await self._take_frames()
            while not (self._payload or self._ended or self._broken):
                data = await self._receive_below()
                self._check_open()
                self.heard = self.active = trio.current_time()
                self._pinged = None
                if data:
                    self._protocol.receive_bytes(bytes(data))
                    await self._take_frames()
                else:
                    self._end_below()
            return self._next_payload(max_bytes)
        finally:
            self._receiving = False
            self.listening = inf

    # -- the end -----------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close, with a Close frame if the peer takes it soon; cancelled, without.

        It does not wait for the peer's Close frame, which many never send.
        """
        if not self._open:
            await trio.lowlevel.checkpoint()
            return
        self._open = False
        try:
            if not self._broken:
                await self._send_close(CloseReason.NORMAL_CLOSURE)
        finally:
            with trio.move_on_after(_GOODBYE):
                await self._below.aclose()

    # -- parts -------------------------------------------------------------------------------------------------------

    def _frames(self, data: memoryview) -> bytearray:
        """`data` as binary messages."""
        frames = bytearray()
        mask = 0x80 if self._client else 0
        for at in range(0, len(data), self._max_message):
            payload = data[at : at + self._max_message]
            size = len(payload)
            # FIN and the opcode of a binary message, then the shortest form of the length (RFC 6455, section 5.2).
            if size < 126:
                frames += struct.pack("!BB", 0x82, mask | size)
            elif size < 1 << 16:
                frames += struct.pack("!BBH", 0x82, mask | 126, size)
            else:
                frames += struct.pack("!BBQ", 0x82, mask | 127, size)
            if mask:
                key = os.urandom(4)
                frames += key
                # What it is given is copied first, whatever kind of buffer it is.
                frames += XorMaskerSimple(key).process(cast("bytearray", payload))
            else:
                frames += payload
        return frames

    def _control_frames(self) -> bytearray:
        frames = bytearray()
        if self._pong_unsent is not None:
            frames += self._protocol.pong(self._pong_unsent)
            self._pong_unsent = None
        if self._ping_unsent:
            frames += self._protocol.ping()
            self._ping_unsent = False
        return frames

    async def _write(self, frames: bytes | bytearray) -> None:
        """Send whole frames; for the owner of `_writing`."""
        if self._close_sent or self._torn:
            raise trio.BrokenResourceError(self._broken or "the WebSocket is closed")
        self._torn = True
        try:
            await self._below.send_all(frames)
        except trio.BrokenResourceError as error:
            raise trio.BrokenResourceError(self._broken or str(error)) from error
        self._torn = False
        self.active = trio.current_time()

    async def _send_control(self) -> None:
        """Send the control frames that wait, if the peer takes them now; never in part, even when cancelled.

        It does not wait for the peer to read, which may itself wait for us to receive.
        """
        if self._writing.locked():
            return
        async with self._writing:
            with trio.move_on_after(_ROOM):
                await self._below.wait_send_all_might_not_block()
                await self._write_shielded(self._control_frames())

    async def _write_shielded(self, frames: bytearray) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _GOODBYE):
            await self._write(frames)

    async def _send_close(self, code: CloseReason) -> None:
        """Send a Close frame, if the peer takes it soon and nothing stands half sent before it."""
        if self._close_sent or self._torn or self._writing.locked():
            return
        with trio.move_on_after(_GOODBYE), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self._writing:
                await self._write(self._protocol.close(code))
                self._close_sent = True

    async def _receive_below(self) -> bytes | bytearray:
        """Receive from below; when nothing comes for long, see to pings."""
        while True:
            with trio.CancelScope(deadline=self._next_look()):
                return await self._below.receive_some(_RECEIVE_SIZE)
            await self._look_after()

    def _silent_since(self) -> float:
        """Since when the peer could have been heard by somebody who receives, and was not."""
        moved = self.active if self._pinged is None else self._pinged
        return max(moved, self.listening, self._looked_after)

    def _next_look(self) -> float:
        """The time at which something is to be done if nothing was received before."""
        at = self._silent_since() + self._keepalive if self._keepalive else inf
        return at if self._pong_unsent is None else min(at, trio.current_time() + _LATER)

    async def _look_after(self) -> None:
        """Nothing was received for a while: send what waits, and find out whether the peer is still there."""
        now = trio.current_time()
        if self._keepalive and now >= self._silent_since() + self._keepalive:
            if self._pinged is not None and self._unanswered <= _PASSES:
                reason = (
                    f"the peer did not answer a ping within {self._keepalive:g} s: the connection is dead"
                )
                await self._break(CloseReason.GOING_AWAY, reason)
                raise trio.BrokenResourceError(reason)
            self._looked_after = now
            # What is being sent waits for the peer, and tells as much as a ping would.
            self._ping_unsent = not self._writing.locked()
        ping = self._ping_unsent
        await self._send_control()
        if ping and not self._ping_unsent and self._pinged is None:
            self._pinged = now

    async def _take_frames(self) -> None:
        """Take in what the frames that are there carry."""
        if self._ended or self._broken:
            return
        try:
            self._scan_frames()
        except ParseFailed as error:
            await self._break(error.code, f"the peer sent what a WebSocket must not carry: {error}")
        if self._pong_unsent is not None and not self._ended:
            # Whether the connection broke, receiving will tell, behind what came before.
            with suppress(trio.BrokenResourceError):
                await self._send_control()

    def _scan_frames(self) -> None:
        for frame in self._protocol.received_frames():
            if frame.opcode is Opcode.BINARY:
                self._take_payload(frame)
            elif frame.opcode is Opcode.PING:
                self._pong_unsent = cast("bytes", frame.payload)
            elif frame.opcode is Opcode.CLOSE:
                code, reason = cast("tuple[int, str]", frame.payload)
                self.closed_by_peer = (int(code), reason)
                self._ended = True
            elif frame.opcode is Opcode.TEXT:
                raise ParseFailed("a text message", CloseReason.UNSUPPORTED_DATA)
        self._check_announced()

    def _take_payload(self, frame: Frame) -> None:
        """Take in a part of a frame of data, or all of it."""
        payload = cast("bytes", frame.payload)
        self._check_announced()
        self._frame_size += len(payload)
        self._check_size(self._message_size + self._frame_size)
        if frame.frame_finished:
            self._message_size = 0 if frame.message_finished else self._message_size + self._frame_size
            self._frame_size = 0
        if payload:
            self._unanswered = 0
            self._payload.append(payload)

    def _check_announced(self) -> None:
        """Refuse a frame by its header; wsproto tells in no other way how long a frame will be."""
        header = self._protocol._frame_decoder.header  # noqa: SLF001
        if header is not None and not header.opcode.iscontrol():
            self._check_size(self._message_size + header.payload_len)

    def _check_size(self, size: int) -> None:
        if size > self._max_received:
            raise ParseFailed(
                f"a message of more than {self._max_received} bytes (max_received)",
                CloseReason.MESSAGE_TOO_BIG,
            )

    async def _break(self, code: CloseReason, reason: str) -> None:
        """Give the stream up; what was received before can still be had."""
        self._broken = reason
        await self._send_close(code)

    def _end_below(self) -> None:
        """What is below has ended."""
        decoder = self._protocol._frame_decoder  # noqa: SLF001 - wsproto tells it in no other way
        if decoder.header is not None or len(decoder.buffer):
            self._broken = "the connection ended within a frame"
        self._ended = True

    def _next_payload(self, max_bytes: int | None) -> bytes:
        if not self._payload:
            if self._broken:
                raise trio.BrokenResourceError(self._broken)
            return b""
        if max_bytes is None:
            found = bytes(self._payload[0]) if len(self._payload) == 1 else b"".join(self._payload)
            self._payload.clear()
            return found
        first = self._payload.popleft()
        if len(first) > max_bytes:
            self._payload.appendleft(memoryview(first)[max_bytes:])
        return bytes(first[:max_bytes])

    def _check_open(self) -> None:
        if not self._open:
            raise trio.ClosedResourceError("this stream was already closed")

    def _check_sendable(self) -> None:
        self._check_open()
        if self._sending:
            raise trio.BusyResourceError("another task is sending data on this stream")
        if self._broken or self.closed_by_peer is not None:
            raise trio.BrokenResourceError(self._broken or "the peer has closed the WebSocket")
