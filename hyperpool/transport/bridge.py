"""The bridge: what makes a byte stream of any kind an endpoint that the relay drives like a socket.

::

    relay ── send ──▶ outbox ──▶ task ── send_all ──▶ stream
    relay ◀─ recv ─── inbox  ◀── task ◀─ receive_some ── stream

The relay's side is synchronous and in memory, as it runs in the thread that runs the tasks: sending wakes the task that
sends on, without a system call, and what arrives is announced by an eventfd, which is what the relay's epoll watches.
(With a socketpair between them each message would cost four more system calls and a trip through Trio's poll.)

- Both directions are bounded: a full outbox does not take bytes (`BlockingIOError`), and nothing is received while the
  inbox is full. So each side feels when the other one is slow, and a bridge holds at most `CAPACITY` bytes per
  direction and one piece that is under way.
- The end of the stream is the end (0 bytes); a broken stream is an `OSError` with the stream's own reason. What came
  before either is delivered first.
- Closing it sends what it has taken, then closes the stream, within `_FAREWELL` seconds, also when it is cancelled.
- While bytes go through, the relay must let Trio run instead of lingering: `Bridges` holds its attention from the first
  byte until none has come for `_QUIET` seconds. An answer that takes longer than that may find the relay lingering.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, cast, runtime_checkable

import structlog
import trio

from hyperpool.transport.ending import ending_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

log = structlog.get_logger("bridge")

CAPACITY: Final = 256 * 1024
"""Bytes that each direction holds at most, apart from the piece that is being sent or has just come."""

_READ: Final = 128 * 1024
"""Bytes that are received at once, at most."""

_PIECE: Final = 64
"""Bytes that a piece counts for beside its own: there may be many small ones."""

_FAREWELL: Final = 5.0
"""Seconds that it may take to send what is left, and to close the stream."""

_QUIET: Final = 0.05
"""Seconds without a byte after which the relay may linger again."""

_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


@runtime_checkable
class Detachable(Protocol):
    """A stream that is a socket underneath, or behaves like one."""

    def detach(self) -> socket.socket | None:
        """Hand over what the relay can drive; the stream behaves as if closed from then on.

        Returns:
            None if that cannot be done now: the stream stays as it is.
        """


@runtime_checkable
class Watched(Protocol):
    """What the relay drives, and what needs somebody who looks after it."""

    async def watch(self) -> None:
        """Look after it until it is closed."""


class _Sleeper:
    """Where one task waits until synchronous code wakes it."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    async def sleep(self) -> None:
        """Wait for `wake`."""
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        """Let the task go on, if it waits."""
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)


class BridgeEnd:
    """The relay's end of a bridge: as much of a non-blocking socket as the relay uses.

    Whoever holds it closes it. Readiness is edge-triggered, on `fileno`.

    Args:
        stirred: called whenever bytes move.

    Attributes:
        ending: how the stream has ended, for people, if it can tell; empty before.
    """

    family = socket.AF_UNSPEC

    def __init__(self, stirred: Callable[[], None]) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stirred = stirred
        self._scope = trio.CancelScope(shield=True)
        self._inbox: deque[bytes | bytearray] = deque()
        self._held = 0
        self._start = 0
        self._room = _Sleeper()
        self._outbox = bytearray()
        self._work = _Sleeper()
        self._refused = False
        self._finished = False
        self._sent_all = False
        self._leaving = False
        self._over = False
        self._error: OSError | None = None
        self.ending = ""

    # -- the relay's side ----------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """What tells of readiness; -1 when closed."""
        return self._fd

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:  # noqa: ARG002
        """Read all that there is, as far as it fits; 0 at the end of the stream.

        Raises:
            BlockingIOError: nothing is there now.
            OSError: the stream broke, with its reason.
        """
        inbox = self._inbox
        if not inbox:
            return self._ending()
        size = nbytes or len(buffer)
        filled = 0
        while inbox and filled < size:
            piece, start = inbox[0], self._start
            taken = min(len(piece) - start, size - filled)
            whole = taken == len(piece)
            buffer[filled : filled + taken] = piece if whole else memoryview(piece)[start : start + taken]
            filled += taken
            self._start += taken
            if self._start == len(piece):
                self._start = 0
                self._held -= len(piece) + _PIECE
                del inbox[0]
        if self._held < CAPACITY:
            self._room.wake()
        if self._over and not inbox:
            self._tell()  # The end is news of its own.
        return filled

    def recv(self, size: int, flags: int = 0) -> bytes:  # noqa: ARG002
        """Read at most so many bytes; as `recv_into`."""
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(buffer)])

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:  # noqa: ARG002
        """Take as much as there is room for.

        Raises:
            BlockingIOError: there is none now.
            OSError: the stream broke, with its reason, or nothing can be sent any more.
        """
        if self._finished:
            self._refuse()
        outbox = self._outbox
        room = CAPACITY - len(outbox)
        size = len(data)
        if size > room:
            self._refused = True
            if not room:
                raise BlockingIOError(errno.EAGAIN, "the bridge is full")
            data, size = memoryview(data)[:room], room
        outbox += data
        self._work.wake()
        self._stirred()
        return size

    def shutdown(self, how: int) -> None:
        """Send nothing more (``SHUT_WR``, ``SHUT_RDWR``): the stream is told, if it can be closed by halves."""
        if how != socket.SHUT_RD:
            self._finished = True
            self._work.wake()

    def close(self) -> None:
        """Close; what has been taken is still sent."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        os.close(fd)
        self._inbox.clear()
        self._leave()

    def setblocking(self, flag: bool) -> None:
        """It never blocks.

        Raises:
            ValueError: it shall.
        """
        if flag:
            raise ValueError("a bridge cannot block")

    def getpeername(self) -> str:
        """A bridge has no address."""
        return ""

    def _refuse(self) -> NoReturn:
        """Nothing can be sent any more."""
        if self._fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        raise self._error or OSError(errno.EPIPE, os.strerror(errno.EPIPE))

    def _ending(self) -> int:
        """Nothing is left to read: the end, or not yet."""
        if self._fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if not self._over:
            raise BlockingIOError(errno.EAGAIN, "nothing to read")
        if self._error is not None:
            raise self._error
        return 0

    # -- the tasks' side -----------------------------------------------------------------------------------------------

    async def pump(self, stream: trio.abc.Stream) -> None:
        """Move bytes until this end is closed; then close the stream.

        Cancelled, it behaves as if it were closed: it sends what was taken first, within `_FAREWELL` seconds.
        """
        try:
            async with trio.open_nursery() as around:
                around.start_soon(self._heed_cancellation)
                with self._scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._receive, stream)
                        await self._send(stream)
                        self._sent_all = True
                        if self._leaving:
                            self._scope.cancel()
                around.cancel_scope.cancel()
        finally:
            self._finish(OSError(errno.ECONNABORTED, "the bridge was taken down"))
            with (
                suppress(*_BROKEN),
                trio.CancelScope(shield=True, deadline=trio.current_time() + _FAREWELL),
            ):
                await stream.aclose()

    async def _heed_cancellation(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._leave()

    def _leave(self) -> None:
        """Nobody reads any more: send what is left, and end."""
        self._leaving = self._finished = True
        self._work.wake()
        if self._sent_all:
            self._scope.cancel()
        else:
            self._scope.deadline = trio.current_time() + _FAREWELL

    async def _receive(self, stream: trio.abc.Stream) -> None:
        inbox = self._inbox
        try:
            while data := await stream.receive_some(_READ):
                inbox.append(data)
                self._held += len(data) + _PIECE
                self._tell()
                self._stirred()
                while self._held >= CAPACITY:
                    await self._room.sleep()
        except _BROKEN as error:
            self._finish(_as_os_error(error))
        else:
            self.ending = ending_of(stream)
            self._over = True
            self._tell()

    async def _send(self, stream: trio.abc.Stream) -> None:
        try:
            while True:
                while data := self._outbox:
                    self._outbox = bytearray()
                    if self._refused:
                        self._refused = False
                        self._tell()
                    await stream.send_all(data)
                if self._finished:
                    break
                await self._work.sleep()
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
        except _BROKEN as error:
            # What the other side has said before it broke may still be on its way.
            self._error = _as_os_error(error)
            self._finished = True
            self._tell()
            self._scope.deadline = trio.current_time() + _FAREWELL

    def _finish(self, error: OSError) -> None:
        """Nothing will come any more."""
        if not self._over:
            self._over = self._finished = True
            self._error = self._error or error
            self._work.wake()
            self._tell()

    def _tell(self) -> None:
        """Make an event."""
        if self._fd >= 0:
            os.eventfd_write(self._fd, 1)


class Bridges:
    """Makes endpoints of streams; one for the whole pooler.

    Args:
        nursery: runs the bridges' tasks; cancelled, each of them says what is left to say and closes its stream.
        attention: entered while bytes go through bridges, so that the relay does not linger.
    """

    def __init__(
        self, nursery: trio.Nursery, attention: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._nursery = nursery
        self._attention = attention
        self._moves = 0
        self._held = ExitStack()
        self._watched = False

    def endpoint(self, stream: trio.abc.Stream) -> socket.socket:
        """What the relay drives: what is below the stream if that is enough, else one end of a bridge.

        Args:
            stream: belongs to the endpoint from now on.

        Returns:
            A non-blocking socket, or what behaves like one.
        """
        sock = stream.detach() if isinstance(stream, Detachable) else None
        if sock is not None:
            if isinstance(sock, Watched):
                self._nursery.start_soon(sock.watch)
            return sock
        end = BridgeEnd(self._stirred)
        self._nursery.start_soon(self._run, end, stream)
        return cast("socket.socket", end)

    async def _run(self, end: BridgeEnd, stream: trio.abc.Stream) -> None:
        """A mistake in a stream costs that stream, and nothing else."""
        try:
            await end.pump(stream)
        except Exception as error:
            log.error("a bridge failed", stream=repr(stream), exc_info=error)

    def _stirred(self) -> None:
        self._moves += 1
        if not self._watched:
            self._watched = True
            self._held.enter_context(self._attention())
            self._nursery.start_soon(self._watch)

    async def _watch(self) -> None:
        """Hold the relay's attention until all has been quiet for a while."""
        with self._held:
            seen = -1
            while seen != self._moves:
                seen = self._moves
                await trio.sleep(_QUIET)
            self._watched = False


def _as_os_error(error: Exception) -> OSError:
    """A broken stream's reason, as the relay expects it."""
    return OSError(errno.ECONNRESET, str(error) or os.strerror(errno.ECONNRESET))
