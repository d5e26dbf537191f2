"""The relay's event loop: one Trio task that owns an epoll object and drives every established connection.

It waits for its epoll object in Trio. Woken, it handles events with plain synchronous code until there are none, and
then *lingers*: it waits a little longer in its own epoll object, because a trip through Trio's scheduler costs more
than a query. However busy it is, it gives Trio a checkpoint once per slice, so that the control plane is never
starved. While the control plane talks to somebody (`attention`), it does not linger at all.

Rules:

1.  Everything here runs in one thread, and nothing but `run` awaits. Between two events every structure is consistent.
2.  A connection that breaks while another one is being handled is closed after that event (`doom`).
3.  An exception that escapes a connection's handler closes that connection, and no other.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import contextmanager
from select import EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import TYPE_CHECKING, Final

import structlog
import trio

from hyperpool.relay.system import Poller, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hyperpool.relay.connection import Connection

log = structlog.get_logger("relay")

_IN: Final = EPOLLIN
_OUT: Final = EPOLLOUT
_READ: Final = EPOLLIN | EPOLLRDHUP | EPOLLET
_QUIET: Final = int(EPOLLET)

_SHORT_SLICE: Final = 0.002
"""Seconds that a slice has at most while the control plane is talking to somebody."""


class EventLoop:
    """Waits for events, and has connections handle them.

    Args:
        clock: monotonic seconds.
        numbers: the first number of a connection, and the step to the next one.

    Attributes:
        now: the time of the newest wakeup, monotonic seconds.
        wakeups: how many there have been.
        much: bytes that a read finds in the middle of a long answer, or of a COPY, at least.
        stream: so many reads in a row that have found much make a stream, which is polled; see `poll`.
        beat: seconds between two looks at streams, less than a millisecond.
        hear: called before a client is answered from memory, to take in what other processes of the pooler have
            written; None if there are none.
    """

    def __init__(self, clock: Callable[[], float], numbers: tuple[int, int] = (1, 1)) -> None:
        self._clock = clock
        self._number, self._step = numbers
        self.now = clock()
        self.wakeups = 0
        self.much = 4096
        self.stream = 32
        self.beat = 0.00003
        self.hear: Callable[[], None] | None = None
        self._linger = 0.0
        self._slice = 0.0
        self._epoll = Poller()
        self._turning = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, EPOLLIN | EPOLLET)
        self._connections: dict[int, Connection] = {}
        self._again: deque[Connection] = deque()
        self._doomed: list[tuple[Connection, OSError]] = []
        self._attention = 0
        self._suspended: dict[Connection, None] | None = None
        self._polled: dict[Connection, None] = {}
        self._due = 0.0

    def close(self) -> None:
        """Close the epoll object."""
        if not self._epoll.closed:
            self._epoll.close()
            os.close(self._wake)

    def time(self) -> float:
        """Monotonic seconds, as of now."""
        return read(self._clock)

    def unique(self) -> int:
        """A number that nobody else gets."""
        number = self._number
        self._number += self._step
        return number

    async def run(self) -> None:
        """Relay until cancelled; connections stay as they are then."""
        fileno = self._epoll.fileno()
        while True:
            await trio.lowlevel.wait_readable(fileno)
            while self.turn():
                await trio.lowlevel.checkpoint()

    def turn(self) -> bool:
        """Handle events until there are none for the time of a linger, or the slice is over.

        Returns:
            Whether there may be more to do at once.
        """
        self._turning = True
        try:
            return self._turn()
        finally:
            self._turning = False

    def _turn(self) -> bool:
        poller = self._epoll
        clock = self._clock
        connections = self._connections
        again = self._again
        polled = self._polled
        end = read(clock) + (min(self._slice, _SHORT_SLICE) if self._attention else self._slice)
        timeout = 0.0
        while True:
            rests = bool(polled) and not again
            count = poller.rest(self.beat) if rests else poller.wait(timeout)
            self.now = now = read(clock)
            self.wakeups += 1
            for number in range(count):
                connection = connections.get(poller.fd(number))
                if connection is None:
                    continue
                mask = poller.mask(number)
                try:
                    if mask == _IN:
                        connection.readable(_IN)
                        continue
                    if mask & _OUT:
                        connection.writable()
                    if mask != _OUT and not connection.closed and not self._is_suspended(connection):
                        connection.readable(mask)
                except Exception as error:  # noqa: BLE001 - rule 3
                    self._crashed(connection, error)
            if again:
                self._read_again()
            if polled and now >= self._due:
                self._due = now + self.beat
                self._poll()
            if self._doomed:
                self._bury()
            if not count and not again and (self._attention or not (rests or polled)):
                return bool(polled)
            if now >= end:
                return True
            timeout = 0.0 if again or self._attention else self._linger

    def _read_again(self) -> None:
        again = self._again
        for _ in range(len(again)):
            connection = again.popleft()
            connection.queued = False
            if not connection.closed:
                try:
                    connection.readable(0)
                except Exception as error:  # noqa: BLE001 - rule 3
                    self._crashed(connection, error)

    def poll(self, connection: Connection) -> None:
        """A connection streams: look at it every now and then, instead of being told whenever there is more.

        Whoever sends a long answer, or a COPY, does so in small pieces, and each would wake the relay, and then the
        other end. What has gathered after a moment takes as little time as one of them. Other connections' events are
        told of meanwhile. It is over with the first look that does not find much.
        """
        if self._suspended is not None:
            connection.flow = 0
            return
        self._polled[connection] = None
        connection.polled = True
        self._due = self.now + self.beat
        self._watch(connection)

    def listen(self, connection: Connection) -> None:
        """Tell the connection again whenever there is more, also of what is there already; nothing if it is told."""
        connection.flow = 0
        if connection.polled:
            connection.polled = False
            del self._polled[connection]
            self._watch(connection)

    def _poll(self) -> None:
        for connection in list(self._polled):
            if connection.polled and not connection.queued:
                try:
                    connection.readable(0)
                except Exception as error:  # noqa: BLE001 - rule 3
                    self._crashed(connection, error)
                if not connection.flow or (connection.unread and not connection.queued):
                    self.listen(connection)

    def _bury(self) -> None:
        while self._doomed:
            connection, error = self._doomed.pop()
            connection.lost(f"connection broke: {error.strerror}")

    def _crashed(self, connection: Connection, error: Exception) -> None:
        log.error(
            "a connection's handler failed: the connection is closed",
            connection=repr(connection),
            exc_info=error,
        )
        connection.lost("internal error")

    def _guard(self, connection: Connection, action: Callable[..., None], *arguments: object) -> None:
        """Do something with a connection, under rule 3."""
        try:
            action(*arguments)
        except Exception as error:  # noqa: BLE001 - rule 3
            self._crashed(connection, error)

    @contextmanager
    def attention(self) -> Iterator[None]:
        """While inside, the control plane is talking to somebody: the relay does not linger, and slices are short."""
        self._attention += 1
        try:
            yield
        finally:
            self._attention -= 1

    # -- suspending --------------------------------------------------------------------------------------------------

    def suspend(self, connections: Iterator[Connection]) -> None:
        """Read these connections no more, until `unsuspend`; what they have been sent still goes out."""
        for connection in list(self._polled):
            self.listen(connection)
        self._suspended = dict.fromkeys(connections)
        for connection in self._suspended:
            self._watch(connection)
        # What was to be read again is read when this is over: then everything is.
        again = list(self._again)
        self._again.clear()
        for connection in again:
            connection.queued = connection not in self._suspended
            if connection.queued:
                self._again.append(connection)

    def unsuspend(self) -> None:
        """Read everything again."""
        suspended, self._suspended = self._suspended or {}, None
        for connection in suspended:
            if not connection.closed:
                self._watch(connection)
                self.resume(connection)

    def _is_suspended(self, connection: Connection) -> bool:
        return self._suspended is not None and connection in self._suspended

    def flushed(self) -> bool:
        """Whether no suspended connection has anything left to take."""
        return not any(connection.outbox for connection in self._suspended or ())

    # -- what connections ask for ------------------------------------------------------------------------------------

    def resume(self, connection: Connection) -> None:
        """Read the connection again, after the events at hand."""
        if not connection.queued and not self._is_suspended(connection):
            connection.queued = True
            self._again.append(connection)
            self._nudge()

    def doom(self, connection: Connection, error: OSError) -> None:
        """Close the connection, after the event at hand."""
        self._doomed.append((connection, error))
        self._nudge()

    def _nudge(self) -> None:
        """See to it that what was put off is done, also when a task of the control plane has put it off."""
        if not self._turning:
            os.eventfd_write(self._wake, 1)

    def watch_writable(self, connection: Connection) -> None:
        """Tell the connection when its socket takes bytes again."""
        self._epoll.modify(connection.fd, self._reading(connection) | _OUT)

    def unwatch_writable(self, connection: Connection) -> None:
        """No longer."""
        self._epoll.modify(connection.fd, self._reading(connection))

    def _reading(self, connection: Connection) -> int:
        return _QUIET if connection.polled or self._is_suspended(connection) else _READ

    def _watch(self, connection: Connection) -> None:
        """Whether to tell of what can be read has changed."""
        if connection.outbox:
            self.watch_writable(connection)
        else:
            self.unwatch_writable(connection)

    def attend(self, listener: Connection) -> None:
        """Tell a listening socket in each wakeup in which somebody waits to be accepted (level-triggered)."""
        if self._connections.get(listener.fd) is listener:
            self._epoll.modify(listener.fd, _IN)
        else:
            self._register(listener, _IN)

    def neglect(self, listener: Connection) -> None:
        """Tell it nothing, until `attend`: to be told again takes no memory, of which there may be none."""
        self._epoll.modify(listener.fd, _QUIET)

    def unwatch(self, connection: Connection) -> None:
        """Tell the connection nothing more: its socket is about to be closed, and may be open elsewhere."""
        self._epoll.unregister(connection.fd)

    def _register(self, connection: Connection, mask: int = _READ) -> None:
        if connection.fd not in self._connections:
            # The number may have been another one's, of which there is still something to be told.
            self._epoll.forget(connection.fd)
            self._epoll.register(connection.fd, mask)
        self._connections[connection.fd] = connection
