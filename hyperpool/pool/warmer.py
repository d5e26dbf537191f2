"""The warmer: opens server connections for pools that should have more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog
import trio

from hyperpool.errors import ConnectFailed, UpstreamError
from hyperpool.pool.handover import AnyPool, ServerFailed, ServerReady
from hyperpool.pool.login import connect
from hyperpool.wire.startup import NEWEST_MINOR, OLDEST_MINOR

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from hyperpool.config import PoolSettings
    from hyperpool.pool.login import LoggedIn
    from hyperpool.transport.sockets import TcpOptions

log = structlog.get_logger("warmer")

_LIFETIME_JITTER: Final = 0.1
_OLD_TIME: Final = 3600.0
"""Seconds for which a server is asked for protocol 3.0 alone, after it took nothing newer: it may be replaced."""


class Warmer:
    """Takes pools from the demand channel, and gives server connections to the servers channel.

    Args:
        options: for TCP connections; may be replaced.
        attention: entered while a login is under way, so that the relay does not linger.
        random: a source of numbers in [0, 1), for jitter.
    """

    def __init__(
        self,
        options: TcpOptions,
        attention: Callable[[], AbstractContextManager[None]],
        random: Callable[[], float],
    ) -> None:
        self.options = options
        self._random = random
        self._attention = attention
        self._asked: set[AnyPool] = set()
        self._old: dict[tuple[str, int], float] = {}
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
                for _ in range(pool.missing(time.monotonic())):
                    pool.dialing += 1
                    nursery.start_soon(self._open, pool, servers.clone())

    async def _open(self, pool: AnyPool, servers: trio.MemorySendChannel[ServerReady | ServerFailed]) -> None:
        settings = pool.settings
        generation = pool.generation
        async with servers:
            try:
                with self._attention():
                    login = await self._connect(settings)
            except UpstreamError as error:
                await servers.send(ServerFailed(pool, generation, error))
                return
            except Exception as error:
                log.error("opening a server connection failed", pool=pool.name, exc_info=error)
                failure = ConnectFailed(f"internal error: {type(error).__name__}")
                await servers.send(ServerFailed(pool, generation, failure))
                return
            sock = login.stream.detach()
            expires = 0.0
            if settings.server_lifetime:
                # Jitter, so that connections opened together do not all end together.
                expires = time.monotonic() + settings.server_lifetime * (
                    1 - _LIFETIME_JITTER * self._random()
                )
            try:
                await servers.send(
                    ServerReady(sock, pool, generation, login.parameters, login.pid, login.secret, expires)
                )
            except BaseException:
                sock.close()
                raise

    async def _connect(self, settings: PoolSettings) -> LoggedIn:
        """Log in to a server, and remember by its address whether it has to be asked for protocol 3.0."""
        where = settings.host, settings.port
        old = time.monotonic() < self._old.get(where, 0.0)
        login = await connect(settings, self.options, OLDEST_MINOR if old else NEWEST_MINOR)
        if not old and login.minor == OLDEST_MINOR:
            self._old[where] = time.monotonic() + _OLD_TIME
            log.info("server speaks protocol 3.0 alone", host=settings.host, port=settings.port)
        return login
