"""What the views look at."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from hyperpool.admin.connection import ConsoleConnection
    from hyperpool.admin.faults import Fault
    from hyperpool.admin.operations import Operations
    from hyperpool.cache.results import ResultCache
    from hyperpool.config import Settings
    from hyperpool.frontdoor.listener import Listener
    from hyperpool.frontdoor.peers import Peers
    from hyperpool.pool.login import Way
    from hyperpool.pool.pools import Pools
    from hyperpool.pool.statements import Statement
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.loop import Relay
    from hyperpool.relay.requests import Request
    from hyperpool.relay.server import ServerConnection
    from hyperpool.stats import PoolStats, StatsBook
    from hyperpool.transport.agents import AgentRegistry
    from hyperpool.transport.resolve import Resolver


@attrs.frozen(kw_only=True)
class Surroundings:
    """The pooler, as far as the console sees it.

    Attributes:
        relay: the data plane.
        pools: all pools.
        cache: the result cache.
        settings: gives the settings as they are now.
        operations: what operators have done.
        book: the counters of the last period.
        own: the counters of the console itself.
        consoles: the console's clients, by the process ids of their cancel keys.
        resolver: knows addresses of host names.
        peers: where cancel requests are passed on to.
        listeners: where clients come in.
        way_of: the way to the server behind a socket; None if it is not known.
        config_path: the settings file.
        faults: the newest warnings and errors.
        entries: how many entries the log has got, by level.
        agents: the agents that have connected; None if there is no place for them.
    """

    relay: Relay
    pools: Pools[ServerConnection, ClientConnection]
    cache: ResultCache[ClientConnection, Request, Statement]
    settings: Callable[[], Settings]
    operations: Operations
    book: StatsBook
    own: PoolStats
    resolver: Resolver
    peers: Peers
    listeners: Collection[Listener]
    way_of: Callable[[socket.socket], Way | None]
    config_path: Path
    faults: Iterable[Fault] = ()
    entries: Mapping[str, int] = attrs.field(factory=dict)
    agents: AgentRegistry | None = None
    consoles: dict[int, ConsoleConnection] = attrs.field(factory=dict)

    def wall(self, monotonic: float) -> str:
        """A moment of the relay's clock as pgbouncer shows it: to the second, in UTC."""
        seconds = time.time() - (self.relay.time() - monotonic)
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
