"""Keeps workers running: starts them, starts one anew that has died, and kills one that hangs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import structlog
import trio

from hyperpool.errors import StartupError
from hyperpool.service.spawned import Backoff, Spawned

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from hyperpool.service.spawned import Source
    from hyperpool.workers.link import Link
    from hyperpool.workers.messages import Message

log = structlog.get_logger("supervisor")

_HUNG: Final = 30.0
"""Seconds of silence after which a worker hangs: it says something each second."""

_LOOK: Final = 1.0

_LATE: Final = 5.0
"""Seconds after which this process itself has not run."""


class Overseer(Protocol):
    """What is told of workers."""

    def sockets(self, worker: int) -> Sequence[socket.socket]:
        """Where clients of a worker come in."""

    def greet(self, worker: int, link: Link, pid: int) -> None:
        """A worker has been started: it is to be told what it must know."""

    def handle(self, worker: int, message: Message) -> None:
        """A worker says something.

        Raises:
            ProtocolError: it must not; it is killed.
        """

    def gone(self, worker: int) -> None:
        """A worker has ended."""

    def lost(self) -> None:
        """None that dies could be started anew any more: all are to be told to end."""


class Keeper:
    """Runs workers.

    Args:
        forks: where they come from.
        count: how many there are.
        overseer: is told of them.

    Attributes:
        running: those whose process is there.
        served: all have served clients: from now on, one that dies is started anew.
        failure: why they could not be started.
    """

    def __init__(self, forks: Source, count: int, overseer: Overseer) -> None:
        self._forks = forks
        self._count = count
        self._overseer = overseer
        self._heard: dict[int, float] = {}
        self._ending = trio.Event()
        self._stopped = trio.CancelScope()
        self.running: dict[int, Spawned] = {}
        self.served = False
        self.failure: StartupError | None = None

    async def run(self) -> None:
        """Keep them running until they have ended as they have been told to, or cannot be started."""
        with self._stopped:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_forks)
                nursery.start_soon(self._kill_those_that_hang)
                async with trio.open_nursery() as workers:
                    for worker in range(self._count):
                        workers.start_soon(self._keep, worker)
                nursery.cancel_scope.cancel()

    def end(self, *, now: bool) -> None:
        """None is started any more.

        Args:
            now: those that are there should end, and are killed when they do not.
        """
        self._ending.set()
        if now:
            for spawned in self.running.values():
                spawned.hasten()

    async def _keep(self, worker: int) -> None:
        """Run a worker, and start it anew when it has died."""
        backoff = Backoff()
        while not self._ending.is_set():
            started = trio.current_time()
            try:
                code: int | str = await self._run(worker)
            except OSError as error:
                code = f"cannot be started: {error.strerror or error}"
            except StartupError as error:
                self._fail(error)
                return
            if self._ending.is_set():
                return
            if not self.served:
                self._fail(
                    StartupError(f"a worker has ended ({code}) before it could serve; the log may tell why")
                )
                return
            pause = backoff.after(trio.current_time() - started)
            log.error(
                "a worker has died, and its clients with it: it is started anew",
                worker=worker,
                exit=code,
                seconds=pause,
            )
            with trio.move_on_after(pause):
                await self._ending.wait()

    def _fail(self, failure: StartupError) -> None:
        """Give up; what a worker has said itself counts."""
        self.failure = self.failure or failure
        self._stopped.cancel()

    async def _run(self, worker: int) -> int:
        spawned = self.running[worker] = Spawned(self._forks, self._overseer.sockets(worker))
        # One that hangs before it has said anything hangs, too.
        self._heard[worker] = trio.current_time()
        try:
            return await spawned.run(
                lambda link: self._overseer.greet(worker, link, spawned.pid), partial(self._hear, worker)
            )
        finally:
            del self.running[worker], self._heard[worker]
            self._overseer.gone(worker)

    def _hear(self, worker: int, message: Message) -> None:
        self._heard[worker] = trio.current_time()
        self._overseer.handle(worker, message)

    async def _kill_those_that_hang(self) -> None:
        while True:
            before = trio.current_time()
            await trio.sleep(_LOOK)
            now = trio.current_time()
            if now - before > _LATE:
                # What they have said meanwhile may not have been read yet.
                self._heard = dict.fromkeys(self._heard, now)
            for worker, heard in self._heard.items():
                silent = now - heard
                if silent > _HUNG:
                    log.error("a worker hangs: it is killed", worker=worker, silent=round(silent))
                    self.running[worker].kill()

    async def _watch_forks(self) -> None:
        await trio.lowlevel.wait_readable(self._forks.ended)
        log.critical("the process that starts workers has ended: so does the pooler")
        self._overseer.lost()
