"""A worker's process, as its supervisor sees it."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import structlog
import trio

from hyperpool.errors import ProtocolError
from hyperpool.workers.link import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hyperpool.workers.messages import Message

log = structlog.get_logger("supervisor")

_PATIENCE: Final = 5.0
"""Seconds that a process may take to end when it has hung up, or should have."""

_LONG: Final = 10.0
_FIRST: Final = 0.1
_LONGEST: Final = 5.0


class Backoff:
    """How long to wait before a worker is started anew: not at all, unless it has died soon after its start."""

    def __init__(self) -> None:
        self._delay = 0.0

    def after(self, lived: float) -> float:
        """The pause, in seconds, for one that has lived for so many seconds."""
        self._delay = 0.0 if lived >= _LONG else min(max(self._delay * 2, _FIRST), _LONGEST)
        return self._delay


class Source(Protocol):
    """Where processes come from, as `service.forks.Forks`.

    Attributes:
        ended: a descriptor that is readable when it has come to its end.
    """

    ended: int

    def start(self, sockets: Sequence[socket.socket]) -> int:
        """Start a process, and return its id."""

    def exit_code(self, pid: int) -> int:
        """The exit code of one that has ended."""


class Spawned:
    """Runs a worker's process.

    Args:
        forks: where it comes from.
        listening: the sockets on which its clients come in.

    Attributes:
        pid: its process id.
    """

    def __init__(self, forks: Source, listening: Sequence[socket.socket]) -> None:
        self._forks = forks
        self._listening = listening
        self._late = trio.Event()
        self._ended = -1
        self.pid = 0

    def hasten(self) -> None:
        """It should end now; it is killed when it does not."""
        self._late.set()

    def kill(self) -> None:
        """End it at once."""
        if self._ended >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._ended, signal.SIGKILL)

    async def run(self, greet: Callable[[Link], None], handle: Callable[[Message], None]) -> int:
        """Run it to its end. Cancelled, it kills the process.

        Args:
            greet: called when it can be sent messages.
            handle: called with what it sends.

        Returns:
            Its exit code; the number of the signal that has ended it, negative.

        Raises:
            OSError: it cannot be started.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self.pid = self._forks.start([theirs, *self._listening])
            self._ended = os.pidfd_open(self.pid)
            try:
                await self._watch(ours, greet, handle)
            finally:
                self.kill()
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.wait_readable(self._ended)
                os.close(self._ended)
                self._ended = -1
                code = self._forks.exit_code(self.pid)
        return code

    async def _watch(
        self, wire: socket.socket, greet: Callable[[Link], None], handle: Callable[[Message], None]
    ) -> None:
        link = Link(wire)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._kill_when_late)
            greet(link)
            async with trio.open_nursery() as talking:
                talking.start_soon(self._talk, link, handle)
                await trio.lowlevel.wait_readable(self._ended)
                # So does the link, whoever may have inherited the other end. What has been sent is read before.
                wire.shutdown(socket.SHUT_RD)
            nursery.cancel_scope.cancel()

    async def _talk(self, link: Link, handle: Callable[[Message], None]) -> None:
        try:
            await link.run(partial(self._hear, handle))
        except ProtocolError as error:
            log.error("a worker does not keep to the protocol: it is killed", pid=self.pid, reason=str(error))
            self.kill()
        self._late.set()

    @staticmethod
    def _hear(handle: Callable[[Message], None], message: Message) -> None:
        """What one worker says is no reason for all others to end, whatever it is."""
        try:
            handle(message)
        except ProtocolError:
            raise
        except Exception as error:
            log.error("what a worker says cannot be handled", message=type(message).__name__, exc_info=error)
            raise ProtocolError(f"{type(message).__name__} cannot be handled") from error

    async def _kill_when_late(self) -> None:
        await self._late.wait()
        await trio.sleep(_PATIENCE)
        self.kill()
