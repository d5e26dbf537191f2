"""From settings to a running pooler, and back to nothing.

::

    embedded PostgreSQL ─▶ listeners ─▶ nursery: relay, intake of clients and servers, warmer, sweeps, accept loops
                                                 until a signal says otherwise
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
from contextlib import AsyncExitStack, closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import attrs
import structlog
import trio

from hyperpool import FORM, WHY_PURE, __version__
from hyperpool.admin.connection import Consoles
from hyperpool.admin.console import ShutdownMode
from hyperpool.admin.operations import Mode, Operations
from hyperpool.admin.outcomes import ConsoleError
from hyperpool.admin.surroundings import Surroundings
from hyperpool.cache.results import ResultCache
from hyperpool.config import load
from hyperpool.config.tls import TlsFault
from hyperpool.errors import ConfigError, StartupError
from hyperpool.frontdoor.acceptor import Acceptor
from hyperpool.frontdoor.door import FrontDoor
from hyperpool.frontdoor.guest import start_login
from hyperpool.frontdoor.inquiries import Inquiries
from hyperpool.frontdoor.listener import open_listeners
from hyperpool.frontdoor.orders import CancelOrder, PeerOrder
from hyperpool.frontdoor.peers import Peers
from hyperpool.pool.authquery import AuthQueries
from hyperpool.pool.handover import ServerFailed, ServerReady
from hyperpool.pool.pools import Pools
from hyperpool.pool.warmer import Warmer
from hyperpool.relay.loop import Relay
from hyperpool.relay.options import RelayOptions
from hyperpool.relay.parameters import ParameterTracker
from hyperpool.service import http
from hyperpool.service.cancels import Canceller
from hyperpool.service.changes import log_set, set_failed, warn_of_restarts, with_setting
from hyperpool.service.embedded import EmbeddedDatabases
from hyperpool.service.herald import Herald
from hyperpool.service.logs import FAULTS, REPEATS, configure_logging
from hyperpool.service.place import Parts, Place, keeps_answers
from hyperpool.service.process import Manner
from hyperpool.service.report import Periods, log_stats
from hyperpool.service.shutdown import SIGNALS, Shutdown
from hyperpool.service.signals import drop
from hyperpool.service.systemd import Notifier, ServiceManager
from hyperpool.service.tracing import Tracing, start_tracing
from hyperpool.service.watchdog import prove_life
from hyperpool.stats import PoolStats
from hyperpool.transport.bridge import Bridges
from hyperpool.transport.kinds import DialContext
from hyperpool.transport.nameservers import make_resolver
from hyperpool.transport.passed import PassedSockets
from hyperpool.transport.sockets import TcpOptions
from hyperpool.tunnel.reception import Reception

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from hyperpool.admin.team import Team
    from hyperpool.config import PoolerSettings, Settings
    from hyperpool.frontdoor.listener import Listener
    from hyperpool.pool.login import Way
    from hyperpool.pool.statements import Statement
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.requests import Request
    from hyperpool.relay.server import ServerConnection
    from hyperpool.service.handover import Predecessor

log = structlog.get_logger("pooler")

_SIGNALS: Final = (*SIGNALS, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_PLAIN: Final = Manner()
_SWEEP: Final = 0.1
_SWEEPS_PER_MAINTENANCE: Final = 10
_CHANNEL: Final = 64
"""Connections that may be on their way to the relay; a sender waits beyond that."""


class Pooler:
    """The process: owns the relay, the pools and all tasks.

    Args:
        settings: the whole settings.
        config_path: read again on SIGHUP.
        manner: how the process runs.
        serving: called when clients are served.
        passed: listening sockets that are open already; handed over.
        notifier: the way to the service manager.
        predecessor: the process that this one follows; None for none.
        beside: the number of a process that has no control socket, and is told to end once this one serves; 0 for none.
    """

    def __init__(
        self,
        settings: Settings,
        config_path: Path,
        manner: Manner = _PLAIN,
        serving: Callable[[], None] = lambda: None,
        passed: PassedSockets | None = None,
        notifier: Notifier | None = None,
        predecessor: Predecessor | None = None,
        beside: int = 0,
    ) -> None:
        self._settings = settings
        self._passed = passed or PassedSockets()
        self._notifier = notifier or Notifier(ServiceManager())
        caches = keeps_answers(settings)
        self._place = Place(self._notifier, predecessor, manner.command, beside, caches=caches)
        self._serving = serving
        self._manner = manner
        self._at_start = settings
        self._config_path = config_path
        self._embedded = EmbeddedDatabases()
        self._listeners: list[Listener] = []
        self._http: list[socket.socket] = []
        self._tracing: Tracing | None = None
        self._pools: Pools[ServerConnection, ClientConnection]
        self._cache: ResultCache[ClientConnection, Request, Statement]
        self._relay: Relay
        self._warmer: Warmer
        self._door: FrontDoor
        self._ways: WeakKeyDictionary[socket.socket, Way] = WeakKeyDictionary()
        self._reception: Reception | None = None
        self._periods = Periods(lambda: self._settings.pooler, self._counted, self._tell_period)
        self._operations: Operations
        self._around: Surroundings
        self._consoles: Consoles
        self._shutdown: Shutdown
        self._herald: Herald
        self._agent_listeners: list[trio.SocketListener] = []
        self._told_to_end = False

    async def run(self) -> int:
        """Start everything, serve, and stop everything. Signals are obeyed from the first moment to the last."""
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            async with AsyncExitStack() as stack:
                # First of all: what is most likely to fail. Clients that come early wait in the backlog.
                stack.callback(self._passed.close)
                self._place.open(self._settings.pooler, self.shut_down, stack)
                self._listeners = open_listeners(
                    self._settings.pooler, self._passed, take_over=self._manner.take_over
                )
                for listener in self._listeners:
                    stack.callback(listener.close)
                self._agent_listeners = await self._listen_for_agents(stack)
                self._tracing = start_tracing(self._settings.pooler)
                if self._tracing is not None:
                    stack.push_async_callback(self._tracing.close)
                self._http = http.listen(self._settings, self._passed)
                for sock in self._http:
                    stack.callback(sock.close)
                for address in self._passed.close():
                    log.warning("a socket that was passed is of no use: it is closed", address=address)
                if await self._embedded.start(self._settings, signals, stack):
                    self._settings = self._embedded.located(self._settings)
                    if self._reception is not None:
                        # It outlives the streams through agents, so that these can be closed in good order.
                        nursery = await stack.enter_async_context(trio.open_nursery())
                        stack.callback(nursery.cancel_scope.cancel)
                        nursery.start_soon(self._reception.run, self._agent_listeners)
                    await self._serve(signals)
            await drop(signals, len(_SIGNALS))
        if self._place.failure is not None:
            raise self._place.failure
        log.info("stopped")
        return 0

    async def _listen_for_agents(self, stack: AsyncExitStack) -> list[trio.SocketListener]:
        settings = self._settings.agents
        if settings is None:
            return []
        self._reception = Reception(settings)
        listeners = await self._reception.listen(self._passed)
        for listener in listeners:
            stack.push_async_callback(listener.aclose)
        names = ", ".join(f"{address}:{settings.listen_port}" for address in settings.listen_addr)
        log.info("listening for agents", addresses=names, tls=bool(settings.tls_cert_file))
        return listeners

    def _open_console(self, peers: Peers, context: DialContext) -> None:
        self._operations = Operations(self._relay, self._pools, lambda: self._settings)
        self._around = Surroundings(
            relay=self._relay,
            pools=self._pools,
            cache=self._cache,
            settings=lambda: self._settings,
            operations=self._operations,
            book=self._periods.book,
            own=PoolStats(),
            resolver=context.resolver,
            peers=peers,
            listeners=self._listeners,
            way_of=self._ways.get,
            config_path=self._config_path,
            faults=FAULTS,
            entries=FAULTS.levels,
            agents=None if self._reception is None else self._reception.registry,
        )
        self._consoles = Consoles(self._around, self)
        self._door.console = self._consoles

    # -- parts -------------------------------------------------------------------------------------------------------

    async def _serve(self, signals: AsyncIterator[int]) -> None:
        settings = self._settings
        portion = settings.portion
        self._cache = ResultCache(portion.at_least_one(settings.pooler.cache_size), random.random)
        self._pools = Pools(settings, random.random, self._cache)
        tracker = ParameterTracker(settings.pooler.track_extra_parameters)
        numbers = portion.number + 1, portion.among
        self._relay = Relay(RelayOptions.of(settings), tracker, numbers=numbers)
        resolver = make_resolver(settings.pooler)
        agents = None if self._reception is None else self._reception.registry
        context = DialContext(options=TcpOptions.of(settings.pooler), resolver=resolver, agents=agents)
        # Bounded by the logins that may be under way at once.
        send_cancels, cancels = trio.open_memory_channel[CancelOrder | PeerOrder](float("inf"))
        send_servers, servers = trio.open_memory_channel[ServerReady | ServerFailed](_CHANNEL)
        self._relay.cancel = lambda server: send_cancels.send_nowait(CancelOrder(server))
        queries = AuthQueries(lambda: self._warmer.context, self._relay.attention, random.random)
        inquiries = Inquiries(queries)
        self._door = FrontDoor(settings, self._relay, self._pools, send_cancels.send_nowait, inquiries.ask)
        peers = Peers(lambda: self._settings)
        canceller = Canceller(
            self._relay, self._ways.get, peers, lambda: self._settings.pooler.cancel_wait_timeout
        )
        self._open_console(peers, context)
        with closing(self._relay):
            async with trio.open_nursery() as nursery:
                bridges = Bridges(nursery, self._relay.attention)
                self._warmer = Warmer(context, bridges.endpoint, self._relay.attention, random.random)
                self._relay.demand = self._warmer.demand
                if self._tracing is not None:
                    self._tracing.attach(self._door, self._warmer, self._relay.slow)
                nursery.start_soon(self._relay.run)
                nursery.start_soon(self._take_servers, servers)
                nursery.start_soon(canceller.run, cancels)
                nursery.start_soon(self._warmer.run, send_servers)
                nursery.start_soon(queries.run)
                nursery.start_soon(inquiries.run)
                nursery.start_soon(self._sweep)
                nursery.start_soon(self._periods.run)
                for server in self._embedded.servers.values():
                    nursery.start_soon(server.keep_running)
                acceptors = [
                    Acceptor(self._relay, listener, partial(start_login, self._door))
                    for listener in self._listeners
                ]
                self._shutdown = Shutdown(self._relay, self._pools, self._door, self._operations, acceptors)
                self._join(nursery, send_cancels.send_nowait)
                self._herald = self._fill_pools(nursery)
                for acceptor in acceptors:
                    acceptor.start()
                self._announce()
                self._place.settle(self._parts(send_cancels.send_nowait))
                self._serving()
                self._herald.look(self._shutdown)
                nursery.start_soon(self._obey, signals)
                nursery.start_soon(prove_life, self._relay, self._notifier)
                nursery.start_soon(
                    self._place.hold, http.serve, self._consoles, self._http, self._is_ready, self._team()
                )
                await self._until_shut_down(self._shutdown)
                nursery.cancel_scope.cancel()

    def _fill_pools(self, nursery: trio.Nursery) -> Herald:
        """Have servers opened ahead of time. Returns who tells when that is done."""
        warm = self._pools.warm()
        for pool in warm:
            self._warmer.demand(pool)
        return Herald(self._notifier, self._relay, self._pools, warm, lambda: self._ready(nursery))

    def _team(self) -> Team | None:
        """All processes of the pooler; None if this is the only one."""
        return None

    async def _until_shut_down(self, shutdown: Shutdown) -> None:
        """Wait for the end, and tell everybody of it; also when this is cancelled."""
        try:
            await shutdown.over.wait()
        finally:
            self._consoles.shut_down("the pooler is shutting down")
            self._relay.shut_down(
                iter(self._pools), "terminating connection because the pooler is shutting down"
            )

    def _join(self, nursery: trio.Nursery, cancel: Callable[[CancelOrder], None]) -> None:
        """Agree with other processes, before the first client comes; one that is alone has none."""

    async def _take_servers(self, servers: trio.MemoryReceiveChannel[ServerReady | ServerFailed]) -> None:
        try:
            async for arrival in servers:
                if isinstance(arrival, ServerReady):
                    if arrival.way is not None:
                        self._ways[arrival.sock] = arrival.way
                    self._relay.adopt_server(arrival)
                else:
                    self._relay.adopt_failure(arrival)
        finally:
            with suppress(trio.WouldBlock, trio.EndOfChannel):
                while True:
                    late = servers.receive_nowait()
                    if isinstance(late, ServerReady):
                        late.sock.close()

    async def _sweep(self) -> None:
        while True:
            for _ in range(_SWEEPS_PER_MAINTENANCE):
                await trio.sleep(_SWEEP)
                # Nobody can be blamed for what takes long while the pooler is suspended.
                suspended = self._operations.mode is Mode.SUSPENDED
                self._relay.sweep(iter(()) if suspended else iter(self._pools))
                self._door.access.sweep()
                self._consoles.sweep()
                self._shutdown.look()
                self._herald.look(self._shutdown)
            self._herald.tell(self._shutdown)
            if not suspended:
                self._relay.maintain(iter(self._pools))
                self._pools.prune(self._relay.now)
            REPEATS.sweep()

    def _ready(self, nursery: trio.Nursery) -> None:
        """All is as it should be at the start, or it is known what is not."""
        log.info("ready")
        nursery.start_soon(self._place.take, nursery)

    def _is_ready(self) -> bool:
        return self._herald.is_ready

    def _parts(self, cancel: Callable[[CancelOrder], None]) -> Parts:
        return Parts(
            settings=self._ending_settings,
            relay=self._relay,
            door=self._door,
            shutdown=self._shutdown,
            listeners=self._listeners,
            reception=self._reception,
            agents=[listener.socket for listener in self._agent_listeners],
            http=self._http,
            replaced=self._passed.replaced,
            embedded=bool(self._embedded.servers),
            hold_cache=lambda held: self._pools.hold_cache(held=held),
            order=cancel,
        )

    def _counted(self) -> tuple[Mapping[str, PoolStats], int]:
        return self._pools.totals(), len(self._relay.clients)

    def _tell_period(self, done: PoolStats, period: float, clients: int) -> None:
        log_stats(done, period, clients)

    # -- life cycle ----------------------------------------------------------------------------------------------------

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        """Do what signals ask for, as in pgbouncer."""
        async for number in signals:
            if number == signal.SIGHUP:
                self.reload()
            elif number in {signal.SIGUSR1, signal.SIGUSR2}:
                self._pause_or_resume(pause=number == signal.SIGUSR1)
            elif self._told_to_end:
                self.shut_down(ShutdownMode.IMMEDIATE)
            else:
                # What the console was asked for before does not count: an orchestrator's signal comes after its hook.
                self._told_to_end = True
                self.shut_down(SIGNALS[signal.Signals(number)])

    def _pause_or_resume(self, *, pause: bool) -> None:
        try:
            if pause:
                self._operations.pause()
            else:
                self._operations.resume()
        except ConsoleError as error:
            log.warning("signal ignored", reason=str(error))

    def shut_down(self, mode: ShutdownMode) -> None:
        """End the pooler, as `admin.console.Process`."""
        if mode is ShutdownMode.WAIT_FOR_CLIENTS:
            # There may be another process already that serves in the place of this one.
            self._pools.hold_cache(held=True)
        self._notifier.stopping(self._settings.pooler.drain_timeout)
        self._shutdown.begin(mode, self._ending_settings())

    def _ending_settings(self) -> PoolerSettings:
        """What holds for the end: a process closes its portion of the clients that are closed in a second.

        Its listeners are as they were opened.
        """
        pooler = self._settings.pooler
        return attrs.evolve(
            pooler,
            drain_rate=self._settings.portion.at_least_one(pooler.drain_rate),
            listen_backlog=self._at_start.pooler.listen_backlog,
        )

    def set(self, key: str, value: str) -> None:
        """Change a setting until the next reload, as `admin.console.Process`."""
        settings = with_setting(self._settings, key, value, self._config_path.absolute().parent)
        problems = self._apply(settings)
        if problems:
            raise set_failed(problems)
        log_set(key, value)

    def reload(self) -> list[str]:
        """Take over the settings file as it is now, as `admin.console.Process`; a bad one changes nothing."""
        with self._herald.reload():
            return self._reload()

    def _reload(self) -> list[str]:
        try:
            settings = self._manner.adjusted(load(self._config_path))
        except ConfigError as error:
            problems = error.problems
        else:
            warn_of_restarts(settings, self._at_start, self._embedded.servers)
            problems = self._apply(self._embedded.located(settings))
            tell(settings.notes)
        for problem in problems:
            log.error("reload: settings are unchanged", problem=problem)
        if not problems:
            self._periods.changed()
            log.info("reloaded", config=str(self._config_path))
        return problems

    def _apply(self, settings: Settings) -> list[str]:
        """Take over settings.

        Returns:
            Why they cannot be; they have changed nothing then.
        """
        try:
            tls = self._door.prepare(settings)
            gate = None if settings.agents is None else Reception.prepare(settings.agents)
            # Nothing has changed up to here, and nothing fails behind it.
            configure_logging(settings.pooler)
        except StartupError as error:
            return [str(error)]
        except TlsFault as fault:
            return [f"agents.tls_{fault.part}: {fault.problem}"]
        except ConfigError as error:
            return error.problems
        self._settings = settings
        if self._reception is not None and settings.agents is not None and gate is not None:
            self._reception.configure(settings.agents, gate)
        self._door.configure(settings, tls)
        self._relay.configure(RelayOptions.of(settings))
        options = TcpOptions.of(settings.pooler)
        context = self._warmer.context
        context.resolver.max_ttl = settings.pooler.dns_max_ttl
        context.resolver.nxdomain_ttl = settings.pooler.dns_nxdomain_ttl
        self._warmer.context = attrs.evolve(context, options=options)
        for listener in self._listeners:
            listener.configure(options)
        outdated, removed = self._pools.reload(settings)
        for pool in removed:
            self._relay.dissolve(pool)
        for pool in outdated:
            for server in list(pool.servers):
                server.retire("database configuration changed", outdated=True)
            self._relay.scatter(pool)
        for pool in self._pools:
            for server in pool.servers:
                server.reconfigured()
        for pool in self._pools.warm():
            self._warmer.demand(pool)
        return []

    def _announce(self) -> None:
        names = dict.fromkeys(listener.name for listener in self._listeners)
        log.info(
            "listening",
            addresses=", ".join(names),
            version=__version__,
            form=FORM,
            python=sys.version.split()[0],
            pid=os.getpid(),
        )
        if WHY_PURE:
            log.info("what relays bytes is not compiled, and takes more CPU", reason=WHY_PURE)
        tcp = (listener.name for listener in self._listeners if listener.sock.family != socket.AF_UNIX)
        self._embedded.announce(self._settings, next(tcp, None))


def tell(notes: tuple[str, ...]) -> None:
    """Log what the settings say and the pooler does not do."""
    for note in notes:
        log.warning("settings", note=note)
