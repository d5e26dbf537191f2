"""A worker: a process that serves clients together with others, below a supervisor."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from hyperpool.admin.statistics import counts, packed
from hyperpool.cache.board import Board, board_size
from hyperpool.config.settings import Portion
from hyperpool.errors import StartupError
from hyperpool.frontdoor.listener import open_listeners
from hyperpool.service.logs import be_quiet, configure_logging
from hyperpool.service.member import Member, Parts, unpacked
from hyperpool.service.process import Manner
from hyperpool.service.run import Pooler
from hyperpool.transport.passed import CLIENTS, HTTP, PassedSocket, PassedSockets
from hyperpool.workers import messages
from hyperpool.workers.link import Link, receive_one
from hyperpool.workers.tally import Tally

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from mmap import mmap

    from hyperpool.config import Settings
    from hyperpool.frontdoor.orders import CancelOrder
    from hyperpool.stats import PoolStats
    from hyperpool.workers.messages import Welcome

log = structlog.get_logger("worker")

_EXIT_STARTUP: Final = 1


class WorkerPooler(Pooler):
    """A pooler that shares its limits with others.

    Args:
        welcome: what it begins with.
        link: to the supervisor.
        listening: sockets on which clients come in; handed over.
        memory: what workers share.
    """

    def __init__(
        self, welcome: Welcome, link: Link, listening: Sequence[socket.socket], memory: mmap
    ) -> None:
        super().__init__(
            unpacked(welcome.settings, Portion(welcome.number, welcome.workers)),
            Path(welcome.config_path),
            Manner(quiet=welcome.quiet),
            lambda: link.post(messages.Ready()),
            PassedSockets(
                PassedSocket(sock, HTTP if place < welcome.http else CLIENTS, fixed=True)
                for place, sock in enumerate(listening)
            ),
        )
        self._welcome = welcome
        self._board = Board(memory, welcome.workers, welcome.number)
        self._tally = Tally(memory, board_size(welcome.workers), welcome.workers)
        self._link = link
        self._member: Member

    async def run(self) -> int:
        """Serve until the supervisor says otherwise, or has gone."""
        never, signals = trio.open_memory_channel[int](0)
        async with AsyncExitStack() as stack:
            self._listeners = open_listeners(self._settings.pooler, self._passed)
            for listener in self._listeners:
                stack.callback(listener.close)
            self._http = self._passed.fixed(HTTP)
            for sock in self._http:
                stack.callback(sock.close)
            with never, signals:
                await self._serve(signals)
        return 0

    def _join(self, nursery: trio.Nursery, cancel: Callable[[CancelOrder], None]) -> None:
        parts = Parts(
            self._consoles.around,
            self._door,
            self._warmer,
            self._consoles,
            self._take_over,
            self.shut_down,
            cancel,
            self._board,
            self._tally,
            lambda held: self._pools.hold_cache(held=held),
            self._place.leave,
        )
        self._member = Member(self._link, self._welcome, parts)
        if self._http:
            self._shutdown.needed = lambda: not self._member.alone
        nursery.start_soon(self._member.run)
        nursery.start_soon(self._keep_books)

    def _team(self) -> Member:
        return self._member

    def _take_over(self, settings: Settings) -> list[str]:
        problems = self._apply(settings)
        if not problems:
            self._periods.changed()
        return problems

    async def _keep_books(self) -> None:
        """Tell the supervisor what has been counted, and what is no longer needed."""
        told: dict[str, list[Any]] = {}
        while True:
            for _ in range(10):
                await trio.sleep(0.1)
                self._member.sweep()
            counted = {row[0]: row for row in packed(counts(self._consoles.around))}
            news = [row for name, row in counted.items() if told.get(name) != row]
            self._link.post(messages.Counted(news, len(self._relay.clients)))
            told = counted

    def _ready(self, nursery: trio.Nursery) -> None:  # noqa: ARG002 - nothing else is started
        """The pools are filled, or it is known why not."""
        self._link.post(messages.Filled())

    def _announce(self) -> None:
        """The supervisor does it."""

    def _tell_period(self, done: PoolStats, period: float, clients: int) -> None:
        """The supervisor does it, for all workers."""


def work(sock: socket.socket, listening: Sequence[socket.socket], memory: mmap) -> int:
    """Run a worker.

    Args:
        sock: one end of a socket pair; the supervisor has the other one.
        listening: sockets on which clients come in. All are handed over.
        memory: what workers share.

    Returns:
        The exit code.
    """
    welcome = receive_one(sock)
    if not isinstance(welcome, messages.Welcome):
        return _EXIT_STARTUP
    link = Link(sock)
    if welcome.quiet:
        be_quiet()
    try:
        pooler = WorkerPooler(welcome, link, listening, memory)
        configure_logging(unpacked(welcome.settings, Portion()).pooler)
        return trio.run(pooler.run)
    except StartupError as error:
        link.post(messages.Failed(str(error)))
        return _EXIT_STARTUP
    except Exception as error:
        log.critical("a worker failed", worker=welcome.number, exc_info=error)
        return _EXIT_STARTUP
    finally:
        link.close()
