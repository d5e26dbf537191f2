"""A worker's process, as its supervisor sees it."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog
import trio

from hyperpool.errors import ProtocolError
from hyperpool.workers.link import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hyperpool.service.forks import Forks
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


class Spawned:
    """Runs a worker's process.

    Args:
        forks: where it comes from.
        listening: the sockets on which its clients come in.

    Attributes:
        pid: its process id.
    """

    def __init__(self, forks: Forks, listening: Sequence[socket.socket]) -> None:
        self._forks = forks
        self._listening = listening
        self._late = trio.Event()
        self.pid = 0

    def hasten(self) -> None:
        """It should end now; it is killed when it does not."""
        self._late.set()

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

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
            ended = os.pidfd_open(self.pid)
            try:
                await self._watch(ended, Link(ours), greet, handle)
            finally:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(ended, signal.SIGKILL)
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.wait_readable(ended)
                os.close(ended)
                code = self._forks.exit_code(self.pid)
        return code

    async def _watch(
        self, ended: int, link: Link, greet: Callable[[Link], None], handle: Callable[[Message], None]
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._kill_when_late, ended)
            greet(link)
            try:
                # All that it has said is heard, also what it has said last.
                await link.run(handle)
            except ProtocolError as error:
                log.error(
                    "a worker does not keep to the protocol: it is killed", pid=self.pid, reason=str(error)
                )
                self.kill()
            self._late.set()
            await trio.lowlevel.wait_readable(ended)
            nursery.cancel_scope.cancel()

    async def _kill_when_late(self, ended: int) -> None:
        await self._late.wait()
        await trio.sleep(_PATIENCE)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(ended, signal.SIGKILL)
