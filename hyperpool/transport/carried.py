"""A WebSocket that behaves as a non-blocking socket does: the relay drives it as it drives any other.

It stands on a plain socket or a `TlsSocket`. What is received is taken apart in the relay's own buffer, and what is
sent is framed and masked there and then: no task runs for a message, and no byte waits in a buffer in between. What the
relay relies on is kept in the same way as in `hyperpool.transport.endpoint`:

- A read goes on until the kernel has no more, the view is full, or it has seen many frames: then `left` has told that
  more is there. There is nothing to read only if the kernel says so, or frames have carried nothing.
- What is not taken is sent again, with the same bytes in front: what stands half sent is a whole number of messages,
  and none of their bytes counts as sent before all of them are.
- An end or an error that is found behind bytes comes with the next read, and the kernel is made to tell of it.

Control frames go out between messages. Pings are answered by whoever reads; one task, which sleeps, sends them when
nothing moves and finds out that the other end is gone.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final

import trio
from wsproto.frame_protocol import CloseReason

from hyperpool.transport.endpoint import explain
from hyperpool.transport.framing import FrameReader, Opcode, Violation, make_frame, make_messages, meaning
from hyperpool.transport.sockets import unacknowledged_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer, WriteableBuffer

_AT_ONCE: Final = 64 * 1024
"""Bytes that are made messages of at once."""

_MOST_IDLE: Final = 1 << 20
"""Bytes without a pause that carry nothing, at most: whoever sends them keeps the reader busy for nothing."""

_MOST_FRAMES: Final = 1024
"""Frames after which a read stops, so that others have their turn: with one byte each, about five milliseconds."""

PASSES: Final = 16 * 1024
"""Bytes that were sent and not answered, and certainly do not keep the peer from reading what comes after them."""


class WebSocketSocket:
    """What an open WebSocket carries, as the relay wants it. Whoever holds it closes it.

    Args:
        sock: non-blocking; belongs to it from now on.
        reader: has seen all that came before.
        client: whether this end has opened the WebSocket, and so must mask what it sends.
        max_message: bytes of a message that is sent.
        keepalive: as in `WebSocketStream`; 0 for no pings.
        name: what messages call the other end.

    Attributes:
        ending: how it has ended, for people; empty before.
        closed: called when it is closed here; None if nobody wants to know.
        left: called when a read has stopped before the kernel had no more: there will be no event for it. None if
            nobody is there to read again; then a read goes on.
    """

    def __init__(
        self,
        sock: socket.socket,
        reader: FrameReader,
        *,
        client: bool,
        max_message: int,
        keepalive: float,
        name: str,
    ) -> None:
        self._sock = sock
        self._reader = reader
        self._mask = client
        self._max_message = max_message
        self._keepalive = keepalive
        self._name = name
        self._rest = memoryview(b"")
        self._promised = 0
        self._pong: bytes | None = None
        self._late: OSError | None = None
        self._over = False
        self._idle = 0
        self._said_goodbye = False
        self._active = trio.current_time()
        self._looked_after = -inf
        self._pinged: float | None = None
        self._unanswered = 0
        self._scope = trio.CancelScope()
        self.ending = ""
        self.closed: Callable[[], None] | None = None
        self.left: Callable[[], None] | None = None

    def fileno(self) -> int:
        """What tells of readiness; -1 when closed."""
        return self._sock.fileno()

    # -- reading -----------------------------------------------------------------------------------------------------

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:  # noqa: ARG002
        """Read all that there is, as far as it fits; 0 at the end.

        Args:
            buffer: of bytes.
            nbytes: without effect.
            flags: without effect.

        Raises:
            BlockingIOError: nothing is there now.
            OSError: the connection broke, or the peer did what is not allowed.
        """
        view, at, reader = memoryview(buffer), 0, self._reader
        size, receive, enough = len(view), self._sock.recv_into, reader.frames + _MOST_FRAMES
        while at < size and not self._over and self._late is None:
            room = view[at : at + reader.bite]
            try:
                got = receive(room)
            except BlockingIOError:
                self._idle = 0
                break
            except OSError as error:
                self._late = self._cut(error)
                break
            if not got:
                self._end_below()
                break
            at += self._take_in(room, got)
            self._idle = 0 if at else self._idle + got
            if self._idle > _MOST_IDLE:
                self._late = OSError(errno.EPROTO, f"{self._name} sent nothing but control frames")
            if at and got < len(room):
                break  # without a byte to show for it, an end that has come along would not be read again
            if reader.frames >= enough and self.left is not None:
                self.left()
                break
        if self._late is None and not self._over:
            if not at:
                raise BlockingIOError(errno.EAGAIN, "nothing to read")
            return at
        if at:
            self._announce()
        elif self._late is not None:
            raise self._late
        return at

    def _take_in(self, room: memoryview, got: int) -> int:
        """Take the first `got` bytes apart, and put what they carry to the beginning; how much that is."""
        reader = self._reader
        self._active = trio.current_time()
        self._pinged = None
        try:
            reader.feed(room[:got])
        except Violation as error:
            self._late = OSError(errno.EPROTO, f"{self._name} sent what a WebSocket must not carry: {error}")
            self._say_goodbye(error.code)
        pieces, at = reader.payload, 0
        if pieces:
            self._unanswered = 0
            if len(pieces) == 1 and len(pieces[0]) == got and self._mask:
                at = got  # in the middle of a message that is not masked: it is where it belongs
            else:
                for piece in pieces:
                    size = len(piece)
                    room[at : at + size] = piece
                    at += size
            pieces.clear()
        if reader.close is not None:
            self.ending = f"{self._name} has closed the WebSocket ({meaning(reader.close[0])})"
            self._over = True
        elif reader.ping is not None:
            self._pong, reader.ping = reader.ping, None
            self._send_control()
        return at

    def _end_below(self) -> None:
        self.ending = f"the connection to {self._name} has ended"
        self._over = True
        if not self._reader.between_frames:
            self._late = OSError(errno.ECONNRESET, f"the connection to {self._name} ended within a frame")

    def _announce(self) -> None:
        """The end was found behind bytes: as the kernel has no news for whoever waits for events, make some."""
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RD)

    # -- sending -----------------------------------------------------------------------------------------------------

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:  # noqa: ARG002
        """Send as much as the kernel takes; what is left must be in front of what is sent next.

        Args:
            data: of bytes.
            flags: without effect.

        Raises:
            BlockingIOError: nothing was sent.
            OSError: the connection broke, or the peer has closed it.
        """
        if self._late is not None:
            raise self._late
        if self._over or self._said_goodbye:
            raise OSError(errno.EPIPE, self.ending or "the WebSocket is closed")
        view, sent = memoryview(data), 0
        size = len(view)
        if self._promised > size:
            raise OSError(errno.EPROTO, "other bytes are in front than those that stand half sent")
        try:
            while True:
                self._flush()
                sent, self._promised = sent + self._promised, 0
                if self._pong is not None:
                    self._begin_pong()
                elif sent < size:
                    piece = view[sent : sent + _AT_ONCE]
                    self._rest = memoryview(make_messages(piece, self._max_message, mask=self._mask))
                    self._promised = len(piece)
                else:
                    break
        except BlockingIOError:
            if not sent:
                raise
        except OSError as error:
            raise self._cut(error) from error
        self._unanswered += sent
        self._active = trio.current_time()
        return sent

    def shutdown(self, how: int) -> None:
        """Tell the peer that nothing more will be sent: with a Close frame, or, in the middle of a message, without.

        Args:
            how: as for a socket.

        Raises:
            OSError: the connection broke.
        """
        self._say_goodbye(CloseReason.NORMAL_CLOSURE)
        if not self._said_goodbye:
            self._sock.shutdown(how)

    def close(self) -> None:
        """Close, with a Close frame if that can be sent at once."""
        if self._sock.fileno() < 0:
            return
        if self._late is None:
            self._say_goodbye(CloseReason.NORMAL_CLOSURE)
        self._scope.cancel()
        self._sock.close()
        self.left = None
        if self.closed is not None:
            self.closed()

    def break_off(self, reason: str) -> None:
        """End the connection; whoever holds this finds it broken, for this reason."""
        if self._sock.fileno() < 0 or self._late is not None:
            return
        self._say_goodbye(CloseReason.GOING_AWAY)
        self._late = OSError(errno.ECONNABORTED, reason)
        self._scope.cancel()
        self._announce()

    def _flush(self) -> None:
        """Send what stands half sent.

        Raises:
            BlockingIOError: some of it is left.
            OSError: the connection broke.
        """
        while self._rest:
            self._rest = self._rest[self._sock.send(self._rest) :]

    def _begin_pong(self) -> None:
        assert self._pong is not None  # noqa: S101 - whoever calls has looked
        self._rest = memoryview(make_frame(Opcode.PONG, self._pong, mask=self._mask))
        self._pong = None

    def _send_control(self, *, ping: bool = False) -> bool:
        """Send control frames that wait, if the kernel takes them now and no message stands half sent.

        Returns:
            Whether all of them are on their way.
        """
        if self._promised or self._said_goodbye:
            return False
        try:
            self._flush()
            if self._pong is not None:
                self._begin_pong()
                self._flush()
            if ping:
                self._rest = memoryview(make_frame(Opcode.PING, b"", mask=self._mask))
                self._flush()
        except OSError:
            return False  # If it broke, reading will tell.
        return True

    def _say_goodbye(self, code: CloseReason) -> None:
        """Send a Close frame, if that can be done at once."""
        if self._send_control():
            self._said_goodbye = True
            with suppress(OSError):
                self._sock.send(make_frame(Opcode.CLOSE, int(code).to_bytes(2, "big"), mask=self._mask))

    def _cut(self, error: OSError) -> OSError:
        """What is below broke."""
        return OSError(error.errno, f"the connection to {self._name} broke: {explain(error)}")

    # -- looking after it --------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Send pings while nothing moves, and find out that the other end is gone; until it is closed."""
        with self._scope:
            while self._keepalive and self._late is None:
                await trio.sleep_until(self._silent_since() + self._keepalive)
                if trio.current_time() >= self._silent_since() + self._keepalive:
                    self._look_after()

    def _silent_since(self) -> float:
        """Since when the peer could have been heard, and was not."""
        moved = self._active if self._pinged is None else self._pinged
        return max(moved, self._looked_after)

    def _look_after(self) -> None:
        """Nothing has moved for a while."""
        reason = self._failing()
        if reason and not self._is_unread():
            self._late = OSError(errno.ETIMEDOUT, f"{self._name} {reason}: the connection is dead")
            self._announce()
            return
        self._looked_after = trio.current_time()
        if self._send_control(ping=True) and self._pinged is None:
            self._pinged = self._looked_after

    def _failing(self) -> str:
        """What the peer has not done in time; empty if there is no such thing."""
        if self._pinged is not None and self._unanswered <= PASSES:
            return f"did not answer a ping within {self._keepalive:g} s"
        if unacknowledged_for(self._sock) >= self._keepalive:
            return f"acknowledged nothing of what it was sent for {self._keepalive:g} s"
        return ""

    def _is_unread(self) -> bool:
        """Whether something has come that nobody has read yet, as when a client is slow: the pong may be behind it."""
        if pending := getattr(self._sock, "pending", None):
            with suppress(OSError, ValueError):
                if pending():
                    return True
        try:
            return bool(socket.socket.recv(self._sock, 1, socket.MSG_PEEK))
        except OSError:
            return False
