"""The warmer: opens server connections for pools that should have more."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog
import trio

from hyperpool.errors import ConnectFailed, UpstreamError
from hyperpool.pool.handover import AnyPool, ServerFailed, ServerReady
from hyperpool.pool.login import connect
from hyperpool.transport.kinds import Trace
from hyperpool.transport.route import Route
from hyperpool.transport.sockets import address_name
from hyperpool.wire.startup import NEWEST_MINOR, OLDEST_MINOR

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from hyperpool.pool.login import LoggedIn, Way
    from hyperpool.transport.kinds import DialContext
    from hyperpool.transport.route import Target

log = structlog.get_logger("warmer")

_LIFETIME_JITTER: Final = 0.1
_OLD_TIME: Final = 3600.0
"""Seconds for which a server is asked for protocol 3.0 alone, after it took nothing newer: it may be replaced."""


class Permits(Protocol):
    """What several processes agree on, so that they do not have more server connections together than one may have."""

    def take(self, pool: AnyPool, missing: int, now: float) -> int:
        """How many of the server connections that are missing may be opened now.

        For the rest, the warmer looks at the pool again when that has changed.

        Args:
            pool: which one.
            missing: how many, perhaps none.
            now: monotonic seconds.
        """


class Warmer:
    """Takes pools from the demand channel, and gives server connections to the servers channel.

    Args:
        context: for the steps of every pool's transport; may be replaced.
        endpoint: makes of a stream what the relay drives.
        attention: entered while a login is under way, so that the relay does not linger.
        random: a source of numbers in [0, 1), for jitter.

    Attributes:
        traced: called with what was done to open a connection, well or not.
        permits: what other processes leave for this one; None if there are none.
    """

    def __init__(
        self,
        context: DialContext,
        endpoint: Callable[[trio.abc.Stream], socket.socket],
        attention: Callable[[], AbstractContextManager[None]],
        random: Callable[[], float],
    ) -> None:
        self.context = context
        self.traced: Callable[[AnyPool, Trace], None] = lambda _pool, _trace: None
        self._endpoint = endpoint
        self._random = random
        self._attention = attention
        self.permits: Permits | None = None
        self._asked: set[AnyPool] = set()
        self._old: dict[Target, float] = {}
        # Bounded by `_asked`: a pool is in the channel once at most.
        self._send_demand, self._demand = trio.open_memory_channel[AnyPool](float("inf"))

    def demand(self, pool: AnyPool) -> None:
        """Look soon whether `pool` should have more server connections. Never blocks."""
        if pool not in self._asked:
            self._asked.add(pool)
            self._send_demand.send_nowait(pool)

    async def run(self, servers: trio.MemorySendChannel[ServerReady | ServerFailed]) -> None:
        """Open connections until cancelled; then none is left half open."""
        async with trio.open_nursery() as nursery, servers:
            async for pool in self._demand:
                self._asked.discard(pool)
                now = time.monotonic()
                missing = pool.missing(now)
                if self.permits is not None:
                    missing = self.permits.take(pool, missing, now)
                for _ in range(missing):
                    attempt = trio.CancelScope()
                    pool.dialing += 1
                    pool.attempts.add(attempt)
                    nursery.start_soon(self._open, pool, pool.generation, attempt, servers.clone())

    async def _open(
        self,
        pool: AnyPool,
        generation: int,
        attempt: trio.CancelScope,
        servers: trio.MemorySendChannel[ServerReady | ServerFailed],
    ) -> None:
        arrival: ServerReady | ServerFailed = ServerFailed(pool, generation, ConnectFailed("given up"))
        async with servers:
            try:
                with attempt:
                    arrival = await self._arrival(pool, generation)
            finally:
                pool.attempts.discard(attempt)
            try:
                await servers.send(arrival)
            except BaseException:
                if isinstance(arrival, ServerReady):
                    arrival.sock.close()
                raise

    async def _arrival(self, pool: AnyPool, generation: int) -> ServerReady | ServerFailed:
        """Open a connection; cancelled, none is left."""
        try:
            with self._attention():
                login = await self._connect(pool, self._route(pool))
            try:
                return self._ready(pool, generation, login)
            except BaseException:
                await trio.aclose_forcefully(login.stream)
                raise
        except UpstreamError as error:
            return ServerFailed(pool, generation, error)
        except Exception as error:
            log.error("opening a server connection failed", pool=pool.name, exc_info=error)
            return ServerFailed(pool, generation, ConnectFailed(f"internal error: {type(error).__name__}"))

    def _ready(self, pool: AnyPool, generation: int, login: LoggedIn) -> ServerReady:
        lifetime = login.way.route.settings.server_lifetime
        expires = 0.0
        if lifetime:
            # Jitter, so that connections opened together do not all end together.
            expires = time.monotonic() + lifetime * (1 - _LIFETIME_JITTER * self._random())
        sock = self._endpoint(login.stream)
        address, local = _addresses(sock, login.way)
        return ServerReady(
            sock,
            pool,
            generation,
            login.parameters,
            login.pid,
            login.secret,
            expires,
            login.way,
            address,
            local,
        )

    def _route(self, pool: AnyPool) -> Route:
        """The pool's route: the same one as long as nothing that it knows has changed."""
        route: Route | None = pool.route
        if route is None or route.settings is not pool.settings or route.context is not self.context:
            route = pool.route = Route(pool.settings, self.context, time.monotonic)
        route.shown = pool.shown
        return route

    async def _connect(self, pool: AnyPool, route: Route) -> LoggedIn:
        """Log in to a server, and remember of each one whether it has to be asked for protocol 3.0."""
        trace = Trace()
        try:
            login = await connect(route, self._minor_for, trace)
        except Exception:
            self._told(pool, trace)
            raise
        self._told(pool, trace)
        if login.baffled and self._minor_for(login.target) != OLDEST_MINOR:
            self._old[login.target] = time.monotonic() + _OLD_TIME
            host, port = login.target.address
            log.info("server speaks protocol 3.0 alone", host=host, port=port)
        return login

    def _told(self, pool: AnyPool, trace: Trace) -> None:
        """Count what was done, unless it has been given up."""
        for hop in trace.hops:
            pool.stats.hop(hop.kind, hop.seconds, failed=not hop.done)
        self.traced(pool, trace)

    def _minor_for(self, target: Target) -> int:
        return OLDEST_MINOR if time.monotonic() < self._old.get(target, 0.0) else NEWEST_MINOR


def _addresses(sock: socket.socket, way: Way) -> tuple[str, str]:
    """Where a server connection leads to, and where it begins, for people."""
    target = way.target
    if way.route.settings.transport or sock.family == socket.AF_UNSPEC:
        # What stands for a socket leads to a task of ours.
        return target.name, "a transport"
    if sock.family == socket.AF_UNIX:
        return f"unix:{target.port}", "unix"
    try:
        return address_name(sock.family, sock.getpeername()), address_name(sock.family, sock.getsockname())
    except OSError:
        # It has gone already, as will be noticed.
        return target.name, "unknown"
