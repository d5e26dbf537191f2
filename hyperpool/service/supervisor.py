"""The supervisor of several workers: it has them started, and anew when one dies, and has what must be one for all.

It serves no client. It holds the listening sockets, so that connections that come while a worker is started anew wait
for it; and the settings, embedded databases, and the accounts (`service.exchange`). Signals go to it.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
from base64 import b64encode
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import attrs
import structlog
import trio

from hyperpool import __version__
from hyperpool.admin.console import ShutdownMode
from hyperpool.admin.outcomes import ConsoleError
from hyperpool.cache.board import Board, board_size
from hyperpool.config import load
from hyperpool.errors import ConfigError, StartupError
from hyperpool.frontdoor.door import FrontDoor
from hyperpool.frontdoor.listener import Listener, check_addresses, listen_for_each, open_listeners
from hyperpool.service import http
from hyperpool.service.changes import log_set, warn_of_restarts, with_setting
from hyperpool.service.embedded import EmbeddedDatabases
from hyperpool.service.exchange import Exchange
from hyperpool.service.forks import EXIT_FAILED
from hyperpool.service.keeper import Keeper
from hyperpool.service.logs import configure_logging
from hyperpool.service.place import EMBEDDED
from hyperpool.service.report import Periods, log_stats
from hyperpool.service.run import tell
from hyperpool.service.shutdown import SIGNALS, counted
from hyperpool.service.signals import drop
from hyperpool.workers import messages
from hyperpool.workers.messages import Deed, Outcome
from hyperpool.workers.tally import Tally

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from hyperpool.config import Settings
    from hyperpool.service.forks import Forks
    from hyperpool.service.place import Place
    from hyperpool.service.process import Manner
    from hyperpool.service.systemd import Descriptor, Notifier
    from hyperpool.stats import PoolStats
    from hyperpool.transport.passed import PassedSockets
    from hyperpool.workers.link import Link
    from hyperpool.workers.messages import Message

log = structlog.get_logger("supervisor")

_WEB: Final = 0
"""The worker that answers requests over HTTP, for all of them."""

_LOOK: Final = 0.1

_SIGNALS: Final = (*SIGNALS, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Supervisor:
    """Runs `workers` processes; the arguments are those of `service.run.Pooler`.

    Args:
        settings: the whole settings.
        config_path: read again on SIGHUP.
        manner: how the process runs.
        serving: called when all workers serve clients.
        passed: listening sockets that are open already; handed over. Workers share those that stand in the place of
            what the settings say.
        notifier: the way to the service manager.
        place: of the pooler among others.
        forks: where workers come from.
    """

    def __init__(
        self,
        settings: Settings,
        config_path: Path,
        manner: Manner,
        serving: Callable[[], None],
        passed: PassedSockets,
        notifier: Notifier,
        place: Place,
        forks: Forks,
    ) -> None:
        self._settings = settings
        self._at_start = settings
        self._config_path = config_path
        self._manner = manner
        self._serving = serving
        self._passed = passed
        self._notifier = notifier
        self._place = place
        self._nursery: trio.Nursery
        self._count = settings.pooler.workers
        self._embedded = EmbeddedDatabases()
        self._listeners: list[list[Listener]] = []
        self.http: list[socket.socket] = []
        notes = Board(forks.memory, self._count, self._count)
        tally = Tally(forks.memory, board_size(self._count), self._count)
        self._exchange = Exchange(lambda: self._settings, self._count, self._command, notes, tally)
        self._exchange.held = place.follows
        self._keeper = Keeper(forks, self._count, self)
        self._serve_it: set[int] = set()
        self._filled: set[int] = set()
        self._ready = False
        self.ending = False
        self._told_to_end = False
        self._exit_code = 0
        self._needed: Callable[[], bool] = lambda: False
        self._deadline = float("inf")
        self._periods = Periods(lambda: self._settings.pooler, self._counted, log_stats)

    async def run(self) -> int:
        """Start everything, have it serve, and stop everything.

        Raises:
            StartupError: it cannot start.
        """
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            async with AsyncExitStack() as stack:
                stack.callback(self._passed.close)
                self._place.open(self._settings.pooler, self._shut_down, stack)
                self._listen()
                for listener in self.listeners:
                    stack.callback(listener.close)
                self.http = http.listen(self._settings, self._passed)
                for sock in self.http:
                    stack.callback(sock.close)
                for address in self._passed.close():
                    log.warning("a socket that was passed is of no use: it is closed", address=address)
                if await self._embedded.start(self._settings, signals, stack):
                    self._settings = self._embedded.located(self._settings)
                    await self._serve(signals)
            await drop(signals, len(_SIGNALS))
        failure = self._keeper.failure or self._place.failure
        if failure is not None:
            raise failure
        log.info("stopped")
        return self._exit_code

    # -- listening sockets ---------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Open what workers are to listen on.

        Raises:
            StartupError: an address cannot be had; nothing is left open then.
        """
        pooler, passed = self._settings.pooler, self._passed
        if not (pooler.so_reuseport or passed):
            # With that option alone, a port that another process of the same user has would be shared with it.
            check_addresses(pooler)
        several = attrs.evolve(pooler, so_reuseport=True)
        opened = open_listeners(several, passed, take_over=self._manner.take_over)
        try:
            self._listeners = listen_for_each(opened, several, self._count)
        except BaseException:
            for listener in opened:
                listener.close()
            raise

    async def _serve(self, signals: AsyncIterator[int]) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._exchange.run)
            nursery.start_soon(self._periods.run)
            nursery.start_soon(self._tell_how_it_is)
            nursery.start_soon(self._obey, signals)
            for server in self._embedded.servers.values():
                nursery.start_soon(server.keep_running)
            await self._keeper.run()
            while self._needed() and trio.current_time() < self._deadline:  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(_LOOK)
            nursery.cancel_scope.cancel()

    # -- workers, as `service.keeper.Overseer` -------------------------------------------------------------------------

    def sockets(self, worker: int) -> list[socket.socket]:
        """Where clients of a worker come in, and requests over HTTP before them."""
        return [*self._web(worker), *(listener.sock for listener in self._listeners[worker])]

    def _web(self, worker: int) -> list[socket.socket]:
        return self.http if worker == _WEB else []

    def greet(self, worker: int, link: Link, pid: int) -> None:
        """Tell a worker what it must know."""
        self._exchange.greet(
            worker,
            link,
            _packed(self._settings),
            str(self._config_path),
            self._count,
            quiet=self._manner.daemon or self._manner.quiet,
            http=len(self._web(worker)),
        )
        log.info("worker started", worker=worker, pid=pid)

    def gone(self, worker: int) -> None:
        """A worker has ended: what it had is free."""
        self._exchange.gone(worker)
        self._tell_the_last()

    def lost(self) -> None:
        """No worker can be started any more: end, so that whoever looks after this process starts all of them anew."""
        self._exit_code = EXIT_FAILED
        self._shut_down(ShutdownMode.IMMEDIATE)

    def handle(self, worker: int, message: Message) -> None:
        """Do what a worker asks for."""
        if isinstance(message, messages.Ready):
            self._serve_it.add(worker)
            # One that ends already takes nobody's place.
            if len(self._serve_it) == self._count and not (self._keeper.served or self.ending):
                self._keeper.served = True
                self._announce()
                self._place.settle(self)
                self._serving()
        elif isinstance(message, messages.Filled):
            self._filled.add(worker)
            if len(self._filled) == self._count and not self._ready:
                self._ready = True
                # Whoever looks at the unit as soon as it has started must not find nothing.
                self._tell_status()
                log.info("ready")
                self._nursery.start_soon(self._place.take, self._nursery)
        elif isinstance(message, messages.Failed):
            log.error("a worker cannot start", worker=worker, reason=message.reason)
            if not self._keeper.served:
                self._keeper.failure = StartupError(message.reason)
        else:
            self._exchange.handle(worker, message)

    async def _tell_how_it_is(self) -> None:
        """Tell the service manager."""
        watchdog = self._notifier.manager.watchdog
        while True:
            await trio.sleep(min(watchdog / 2, 1.0) if watchdog else 1.0)
            self._notifier.alive()
            self._tell_status()

    def _tell_status(self) -> None:
        clients = counted(self._exchange.figures()[1], "client")
        if self.ending:
            self._notifier.status(f"Draining: {clients} left")
        elif self._ready:
            workers = counted(len(self._keeper.running), "worker")
            self._notifier.status(f"Serving: {clients}, {workers}")

    def _announce(self) -> None:
        names = list(dict.fromkeys(listener.name for listener in self.listeners))
        log.info(
            "listening",
            addresses=", ".join(names),
            workers=self._count,
            version=__version__,
            python=sys.version.split()[0],
            pid=os.getpid(),
        )
        tcp = (listener.name for listener in self.listeners if listener.sock.family != socket.AF_UNIX)
        self._embedded.announce(self._settings, next(tcp, None))

    # -- as `service.place.Incumbent` ----------------------------------------------------------------------------------

    @property
    def listeners(self) -> list[Listener]:
        """Where clients come in."""
        return list({id(one): one for some in self._listeners for one in some}.values())

    @property
    def agents(self) -> list[Descriptor]:
        """An agent connects to one process alone, so that there is nothing for them here."""
        return []

    @property
    def replaced(self) -> frozenset[str]:
        """The roles whose sockets stand in the place of what the settings say."""
        return self._passed.replaced

    def obstacle(self) -> str:
        """Why no other process can follow."""
        return EMBEDDED if self._embedded.servers else ""

    def hold_cache(self, held: bool, /) -> None:
        """Have no worker answer anything from the result cache for now, or let them again."""
        self._exchange.hold_cache(held=held)

    def cancel(self, pid: int, secret: bytes, done: Callable[[], None]) -> None:
        """Cancel what a client of any worker does, or one of the process before."""
        self._exchange.cancel(pid, secret, done)

    def pass_on(self, cancel: Callable[[int, bytes, Callable[[], None]], None]) -> None:
        """Give cancel requests to the process before, too."""
        self._exchange.elsewhere = cancel

    def wait_for(self, needed: Callable[[], bool]) -> None:
        """Do not end as long as this process is needed."""
        self._needed = needed

    def leave(self) -> None:
        """Have all workers end when their clients have left."""
        self._exchange.tell_all(messages.Leave())
        for listener in self.listeners:
            listener.close()
        self._end_workers(now=False)

    def give_up(self) -> None:
        """End at once."""
        self._shut_down(ShutdownMode.IMMEDIATE)

    # -- what is asked of the pooler as a whole ------------------------------------------------------------------------

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        """Do what signals ask for, as in pgbouncer."""
        async for number in signals:
            if number == signal.SIGHUP:
                self._reload(lambda _: None)
            elif number in {signal.SIGUSR1, signal.SIGUSR2}:
                verb = "pause" if number == signal.SIGUSR1 else "resume"
                self._exchange.ask([Deed(verb)], _complain)
            elif self._told_to_end:
                self._shut_down(ShutdownMode.IMMEDIATE)
            else:
                # What the console was asked for before does not count: an orchestrator's signal comes after its hook.
                self._told_to_end = True
                self._shut_down(SIGNALS[signal.Signals(number)])

    def _command(self, statement: Deed, then: Callable[[Outcome], None]) -> bool:
        """Do what a client of the console wants, as for `Exchange`."""
        match statement.verb:
            case "reload":
                self._reload(then)
            case "set":
                self._set(statement.argument, then)
            case "shutdown":
                self._shut_down(ShutdownMode(statement.argument.upper()))
                then(Outcome("SHUTDOWN"))
            case _:
                return False
        return True

    def _shut_down(self, mode: ShutdownMode) -> None:
        """Have all workers end: at once, or each when it has nobody left to wait for."""
        if mode is ShutdownMode.WAIT_FOR_CLIENTS:
            # There may be another process already that serves in the place of this one.
            self.hold_cache(True)
        self._notifier.stopping(self._settings.pooler.drain_timeout)
        self._exchange.tell_all(messages.End(mode.value))
        for listener in self.listeners:
            if mode is ShutdownMode.IMMEDIATE or listener.sock.family != socket.AF_UNIX:
                listener.close()
        self._end_workers(now=mode is ShutdownMode.IMMEDIATE)

    def _end_workers(self, *, now: bool) -> None:
        self.ending = True
        self._deadline = trio.current_time() + (self._settings.pooler.drain_timeout or float("inf"))
        if now:
            self._needed = lambda: False
        self._keeper.end(now=now)
        self._tell_the_last()

    def _tell_the_last(self) -> None:
        """Whoever answers requests over HTTP does so until all others have ended."""
        if self.ending and set(self._keeper.running) == {_WEB}:
            self._exchange.tell_all(messages.Alone())

    def _reload(self, then: Callable[[Outcome], None]) -> None:
        """Take over the settings file as it is now, in all workers; a bad one changes nothing."""
        if self._ready:
            self._notifier.reloading()

        def done(problems: list[str]) -> None:
            if self._ready:
                self._notifier.ready()
            for problem in problems:
                log.error("reload: settings are unchanged", problem=problem)
            if problems:
                message = "RELOAD failed, see logs for additional details"
                then(Outcome("", [], message, "F0000", "\n".join(problems), "nothing has changed"))
            else:
                self._periods.changed()
                log.info("reloaded", config=str(self._config_path))
                then(Outcome("RELOAD"))

        try:
            settings = self._manner.adjusted(load(self._config_path))
        except ConfigError as error:
            done(error.problems)
            return
        warn_of_restarts(settings, self._at_start, self._embedded.servers)
        tell(settings.notes)
        self._take_over(self._embedded.located(settings), done)

    def _set(self, assignment: str, then: Callable[[Outcome], None]) -> None:
        """Change a setting until the next reload, in all workers."""
        key, _, value = assignment.partition("=")

        def done(problems: list[str]) -> None:
            if problems:
                then(Outcome("", [], "SET failed", "08P01", "\n".join(problems)))
            else:
                log_set(key, value)
                then(Outcome(f"SET {assignment}"))

        try:
            settings = with_setting(self._settings, key, value, self._config_path.absolute().parent)
        except ConsoleError as error:
            then(Outcome("", [], str(error), error.sqlstate, error.detail, error.hint))
            return
        self._take_over(settings, done)

    def _take_over(self, settings: Settings, then: Callable[[list[str]], None]) -> None:
        """Take over settings, and have all workers do so.

        Args:
            settings: them.
            then: called with why they cannot be, when all have done it.
        """
        try:
            FrontDoor.prepare(settings)
            configure_logging(settings.pooler)
        except StartupError as error:
            then([str(error)])
            return
        self._settings = settings
        self._exchange.reconfigured()

        def done(outcomes: list[list[Outcome]]) -> None:
            then(sorted({one.error for some in outcomes for one in some if one.error}))

        self._exchange.ask_settings(_packed(settings), done)

    def _counted(self) -> tuple[Mapping[str, PoolStats], int]:
        """What all workers have counted."""
        figures, clients = self._exchange.figures()
        return {name: stats for name, stats in figures.totals.items() if name != "pgbouncer"}, clients


def _packed(settings: Settings) -> str:
    return b64encode(pickle.dumps(settings)).decode()


def _complain(outcomes: list[list[Outcome]]) -> None:
    """Log why a signal could not be obeyed."""
    errors = {one.error for some in outcomes for one in some if one.error}
    if errors and all(one.error for some in outcomes for one in some):
        log.warning("signal ignored", reason="; ".join(sorted(errors)))
