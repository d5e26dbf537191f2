"""A byte stream in the binary messages of a WebSocket, for either end of it.

What is sent is cut into messages of at most 16 KiB; where messages begin and end means nothing, and a message is
never collected. (RFC 6455; that cloudflared, websockify and others carry byte streams like this is why we do.)

There is no task of its own: pings are answered, sent and missed by whoever receives.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from operator import index
from typing import TYPE_CHECKING, Final, Protocol, cast, runtime_checkable

import trio
from wsproto.frame_protocol import CloseReason

from hyperpool.transport.bridge import Detachable
from hyperpool.transport.carried import PASSES, WebSocketSocket
from hyperpool.transport.endpoint import explain
from hyperpool.transport.framing import FrameReader, Opcode, Violation, make_frame, make_messages, meaning

if TYPE_CHECKING:
    import socket

MAX_MESSAGE_SENT: Final = 16 * 1024
"""Bytes of a message that is sent. cloudflared's end drops what is beyond 16 KiB of a message."""
MAX_MESSAGE_RECEIVED: Final = 1 << 30

_RECEIVE_SIZE: Final = 64 * 1024
_AT_ONCE: Final = 64 * 1024
_GOODBYE: Final = 1.0
"""Seconds that the end may take when the peer does not read."""
_ROOM: Final = 0.02
"""Seconds in which what is below can say whether it takes a control frame at once."""
_LATER: Final = 1.0
"""Seconds until a pong that found no room is tried again."""


@runtime_checkable
class Measured(Protocol):
    """A stream over TCP."""

    @property
    def unacknowledged_for(self) -> float:
        """Seconds for which nothing has been acknowledged of what is on its way; 0 when nothing is."""


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
        name: what messages call the other end.
        keepalive: seconds after which a ping is sent while somebody receives and nothing moves in either direction;
            0 for none. It is never sent into what this end is sending. (A ping that meets a frame which cloudflared is
            sending may end up inside of that.) When nothing at all arrives in as much time after it, the stream breaks;
            not if much was sent that the peer has not answered yet, as that may keep it from reading the ping.

    Attributes:
        heard: the `trio.current_time` at which something was received last, a pong for instance.
        active: the time at which something was received or sent last.
        listening: the time since which somebody receives; infinite while nobody does.
        closed_by_peer: the code and reason of the peer's Close frame; None before there is one.
        ending: how the stream has ended, for people; empty before.
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
        name: str = "the peer",
    ) -> None:
        self._below = below
        self._name = name
        self._client = client
        self._reader = FrameReader(masked=not client, max_message=max_received)
        self._max_message = max_message
        self._keepalive = keepalive
        self._early = received
        self._ended = False
        self._broken = ""
        self._torn = False
        self._open = True
        self._sending = False
        self._receiving = False
        self._writing = trio.Lock()
        self._ping_unsent = False
        self._pong_unsent: bytes | None = None
        self._pong_due = -inf
        self._pinged: float | None = None
        self._looked_after = -inf
        self._unanswered = 0
        self._close_sent = False
        self.heard = self.active = trio.current_time()
        self.listening = inf
        self.closed_by_peer: tuple[int, str] | None = None
        self.ending = ""

    # -- sending -----------------------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`. Cancelled midway, the only sound use of the stream is to close it.

        Raises:
            trio.BrokenResourceError: what is below broke, or the peer has closed the WebSocket.
        """
        self._check_sendable()
        self._sending = True
        try:
            if not data:
                await trio.lowlevel.checkpoint()
                return
            await self._acquire()
            try:
                rest = memoryview(data)
                while rest:
                    piece, rest = rest[:_AT_ONCE], rest[_AT_ONCE:]
                    self._unanswered += len(piece)
                    await self._write(make_messages(piece, self._max_message, mask=self._client))
                    if self._ping_unsent or self._pong_unsent is not None:
                        await self._write(self._control_frames())
            finally:
                self._writing.release()
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
            if self._reader.payload or self._early or self._ended or self._broken:
                await trio.lowlevel.checkpoint()
            if self._pong_unsent is not None and self.listening >= self._pong_due:
                await self._answer()
            if self._early:
                early, self._early = self._early, b""
                await self._take_in(early)
            while not (self._reader.payload or self._ended or self._broken):
                data = await self._receive_below()
                self._check_open()
                self.heard = self.active = trio.current_time()
                self._pinged = None
                if data:
                    await self._take_in(bytes(data))
                else:
                    self._end_below()
            return self._next_payload(max_bytes)
        finally:
            self._receiving = False
            self.listening = inf

    def detach(self) -> socket.socket | None:
        """Hand over what the relay can drive; from now on the stream behaves as if closed.

        Returns:
            None when there is no socket below, or something has come that was not received yet: it stays open then.
        """
        self._check_open()
        untold = self._early or self._reader.payload or self._reader.ping or self._ended or self._broken
        unsaid = self._torn or self._ping_unsent or self._pong_unsent is not None or self._sending
        if untold or unsaid or self._receiving or not isinstance(self._below, Detachable):
            return None
        sock = self._below.detach()
        if sock is None:
            return None
        self._open = False
        end = WebSocketSocket(
            sock,
            self._reader,
            client=self._client,
            max_message=self._max_message,
            keepalive=self._keepalive,
            name=self._name,
        )
        return cast("socket.socket", end)

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

    async def _acquire(self) -> None:
        """Become the owner of `_writing`; without a checkpoint if nobody is, as what comes next has one."""
        if self._writing.locked():
            await self._writing.acquire()
        else:
            self._writing.acquire_nowait()

    def _control_frames(self) -> bytes:
        """Those that have been waiting."""
        frames = b""
        if self._pong_unsent is not None:
            frames += make_frame(Opcode.PONG, self._pong_unsent, mask=self._client)
            self._pong_unsent = None
        if self._ping_unsent:
            frames += make_frame(Opcode.PING, b"", mask=self._client)
            self._ping_unsent = False
        return frames

    async def _write(self, frames: bytes) -> None:
        """Send whole frames; for the owner of `_writing`."""
        if self._close_sent or self._torn:
            raise trio.BrokenResourceError(self._broken or "the WebSocket is closed")
        self._torn = True
        try:
            await self._below.send_all(frames)
        except trio.BrokenResourceError as error:
            raise trio.BrokenResourceError(self._broken or self._cut(error)) from error
        self._torn = False
        self.active = trio.current_time()

    async def _send_control(self) -> None:
        """Send the control frames that wait, if the peer takes them now; never in part, even when cancelled.

        It does not wait for the peer to read, which may itself wait for us to receive.
        """
        if not self._writing.locked():
            async with self._writing:
                with trio.move_on_after(_ROOM):
                    await self._below.wait_send_all_might_not_block()
                    await self._write_shielded(self._control_frames())
        self._pong_due = trio.current_time() + _LATER

    async def _write_shielded(self, frames: bytes) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _GOODBYE):
            await self._write(frames)

    async def _send_close(self, code: CloseReason) -> None:
        """Send a Close frame, if the peer takes it soon and nothing stands half sent before it."""
        if self._close_sent or self._torn or self._writing.locked():
            return
        with trio.move_on_after(_GOODBYE), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self._writing:
                await self._write(make_frame(Opcode.CLOSE, int(code).to_bytes(2, "big"), mask=self._client))
                self._close_sent = True

    async def _receive_below(self) -> bytes | bytearray:
        """Receive from below; when nothing comes for long, see to pings."""
        while True:
            with trio.CancelScope(deadline=self._next_look()):
                try:
                    return await self._below.receive_some(min(self._reader.bite, _RECEIVE_SIZE))
                except trio.BrokenResourceError as error:
                    raise trio.BrokenResourceError(self._cut(error)) from error
            await self._look_after()

    def _silent_since(self) -> float:
        """Since when the peer could have been heard by somebody who receives, and was not."""
        moved = self.active if self._pinged is None else self._pinged
        return max(moved, self.listening, self._looked_after)

    def _next_look(self) -> float:
        """The time at which something is to be done if nothing was received before."""
        at = self._silent_since() + self._keepalive if self._keepalive else inf
        return at if self._pong_unsent is None else min(at, self._pong_due)

    async def _look_after(self) -> None:
        """Nothing was received for a while: send what waits, and find out whether the peer is still there."""
        now = trio.current_time()
        if self._keepalive and now >= self._silent_since() + self._keepalive:
            if failing := self._failing():
                reason = f"{self._name} {failing}: the connection is dead"
                await self._break(CloseReason.GOING_AWAY, reason)
                raise trio.BrokenResourceError(reason)
            self._looked_after = now
            # What is being sent waits for the peer, and tells as much as a ping would.
            self._ping_unsent = not self._writing.locked()
        ping = self._ping_unsent
        await self._send_control()
        if ping and not self._ping_unsent and self._pinged is None:
            self._pinged = now

    def _failing(self) -> str:
        """What the peer has not done in time; empty if there is no such thing."""
        if self._pinged is not None and self._unanswered <= PASSES:
            return f"did not answer a ping within {self._keepalive:g} s"
        if isinstance(self._below, Measured) and self._below.unacknowledged_for >= self._keepalive:
            return f"acknowledged nothing of what it was sent for {self._keepalive:g} s"
        return ""

    async def _take_in(self, data: bytes) -> None:
        """Take in what was received."""
        reader, before = self._reader, len(self._reader.payload)
        try:
            reader.feed(data)
        except Violation as error:
            await self._break(error.code, f"{self._name} sent what a WebSocket must not carry: {error}")
        if len(reader.payload) > before:
            self._unanswered = 0
        if reader.close is not None:
            self.closed_by_peer = reader.close
            self.ending = f"{self._name} has closed the WebSocket ({meaning(reader.close[0])})"
            self._ended = True
        elif reader.ping is not None:
            self._pong_unsent, reader.ping, self._pong_due = reader.ping, None, -inf
            await self._answer()

    async def _answer(self) -> None:
        """Answer the newest ping, or put that off while the peer does not read."""
        # Whether the connection broke, receiving will tell, behind what came before.
        with suppress(trio.BrokenResourceError):
            await self._send_control()

    async def _break(self, code: CloseReason, reason: str) -> None:
        """Give the stream up; what was received before can still be had."""
        self._broken = reason
        await self._send_close(code)

    def _end_below(self) -> None:
        """What is below has ended."""
        if not self._reader.between_frames:
            self._broken = f"the connection to {self._name} ended within a frame"
        self.ending = f"the connection to {self._name} has ended"
        self._ended = True

    def _cut(self, error: trio.BrokenResourceError) -> str:
        """What to say when what is below broke."""
        cause = error.__cause__
        reason = str(error) or (explain(cause) if isinstance(cause, OSError) else "no reason is known")
        return f"the connection to {self._name} broke: {reason}"

    def _next_payload(self, max_bytes: int | None) -> bytes:
        payload = self._reader.payload
        if not payload:
            if self._broken:
                raise trio.BrokenResourceError(self._broken)
            return b""
        found = payload[0] if len(payload) == 1 else b"".join(payload)
        payload.clear()
        if max_bytes is not None and len(found) > max_bytes:
            payload.append(memoryview(found)[max_bytes:])
            found = found[:max_bytes]
        return bytes(found)

    def _check_open(self) -> None:
        if not self._open:
            raise trio.ClosedResourceError("this stream was already closed")

    def _check_sendable(self) -> None:
        self._check_open()
        if self._sending:
            raise trio.BusyResourceError("another task is sending data on this stream")
        if self._broken or self.closed_by_peer is not None:
            raise trio.BrokenResourceError(self._broken or self.ending)
