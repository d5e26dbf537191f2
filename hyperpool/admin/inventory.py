"""The views of what there is: SHOW DATABASES, POOLS, USERS, LISTS and so on."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, TypeVar

from hyperpool.admin.sockets import server_state
from hyperpool.admin.tables import columns
from hyperpool.config import DatabaseSettings, PoolMode, UserSettings
from hyperpool.config.settings import FALLBACK
from hyperpool.relay.client import ClientConnection
from hyperpool.relay.server import ServerConnection
from hyperpool.relay.session import names_of
from hyperpool.transport.route import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.tables import Row
    from hyperpool.config import PoolerSettings

DATABASES: Final = columns(
    "name host port:int4 database force_user pool_size:int4 min_pool_size:int4 reserve_pool_size:int4"
    " server_lifetime:int4 pool_mode load_balance_hosts max_connections:int4 current_connections:int4"
    " max_client_connections:int4 current_client_connections:int4 paused:int4 disabled:int4"
)
POOLS: Final = columns(
    "database user cl_active:int4 cl_waiting:int4 cl_active_cancel_req:int4 cl_waiting_cancel_req:int4 sv_active:int4"
    " sv_active_cancel:int4 sv_being_canceled:int4 sv_idle:int4 sv_used:int4 sv_tested:int4 sv_login:int4 maxwait:int4"
    " maxwait_us:int4 pool_mode load_balance_hosts"
)
USERS: Final = columns(
    "name pool_size reserve_pool_size pool_mode max_user_connections:int4 current_connections:int4"
    " max_user_client_connections:int4 current_client_connections:int4"
)
PEERS: Final = columns("peer_id:int4 host port:int4 pool_size:int4")
PEER_POOLS: Final = columns(
    "peer_id:int4 cl_active_cancel_req:int4 cl_waiting_cancel_req:int4 sv_active_cancel:int4 sv_login:int4"
)
LISTS: Final = columns("list items:int4")
MEM: Final = columns("name size:int4 used:int4 free:int4 memtotal:int4")
DNS_HOSTS: Final = columns("hostname ttl:int8 addrs")
DNS_ZONES: Final = columns("zonename serial:int8 count:int4")
PINS: Final = columns("database user client_id:int4 server_id:int4 addr remote_pid:int4 reasons age:int4")
TRANSPORTS: Final = columns("database user transport sv_connections:int4 sv_login:int4 last_error")
HOPS: Final = columns("database user hop:int4 name time:int8 facts error")
WORKERS: Final = columns("worker:int4 pid:int4 clients:int4 servers:int4 pools:int4 cpu_time:int8")
TUNNELS: Final = columns("agent agents:int4 waiting:int4 connections:int4")

T = TypeVar("T")

_CONSOLE: Final = "pgbouncer"
_CONSOLE_POOL_SIZE: Final = 2
"""pgbouncer's, for its own database."""
_NO_SETTINGS: Final = UserSettings()


def databases(around: Surroundings) -> Iterator[Row]:
    """SHOW DATABASES: the entries of the settings, the names that ``*`` has stood for, and the console."""
    servers, logged_in = Counter[str](), Counter[str]()
    for pool in around.pools:
        servers[pool.settings.database] += pool.connections
        logged_in[pool.settings.database] += pool.clients
    paused, disabled = around.pools.paused, around.pools.disabled
    names = {*around.settings().databases, *servers, *paused, *disabled, _CONSOLE} - {FALLBACK}
    for name in sorted(names):
        entry = _console_entry(around) if name == _CONSOLE else around.settings().find_database(name)
        if entry is not None:
            current = len(around.consoles) if name == _CONSOLE else logged_in[name]
            yield _database(
                around.settings().pooler,
                name,
                entry,
                (servers[name], current),
                (int(name in paused), int(name in disabled)),
            )


def _console_entry(around: Surroundings) -> DatabaseSettings:
    """The console, as if it stood in the settings; pgbouncer shows it so."""
    port = around.settings().pooler.listen_port
    return DatabaseSettings(
        host="",
        port=port,
        user=_CONSOLE,
        pool_size=_CONSOLE_POOL_SIZE,
        min_pool_size=0,
        reserve_pool_size=0,
        pool_mode=PoolMode.STATEMENT,
        max_db_connections=0,
        max_db_client_connections=0,
    )


def _database(
    pooler: PoolerSettings,
    name: str,
    entry: DatabaseSettings,
    current: tuple[int, int],
    states: tuple[int, int],
) -> Row:
    servers, clients = current
    host, port = entry.host, entry.port if isinstance(entry.port, int) else entry.port[0]
    if entry.transport:
        host, port = Target(host, port, entry.transport).address
    return (
        name,
        host or None,
        port,
        entry.dbname or name,
        entry.user,
        _first(entry.pool_size, pooler.default_pool_size),
        _first(entry.min_pool_size, pooler.min_pool_size),
        _first(entry.reserve_pool_size, pooler.reserve_pool_size),
        int(_first(entry.server_lifetime, pooler.server_lifetime)),
        None if entry.pool_mode is None else entry.pool_mode.value,
        entry.load_balance_hosts if "," in entry.host else None,
        _first(entry.max_db_connections, pooler.max_db_connections),
        servers,
        _first(entry.max_db_client_connections, pooler.max_db_client_connections),
        clients,
        *states,
    )


def pools(around: Surroundings) -> Iterator[Row]:
    """SHOW POOLS."""
    now = around.relay.time()
    for pool in around.pools:
        settings = pool.settings
        states = Counter(server_state(around, server) for server in pool.servers)
        canceled = sum(server.cancels for server in pool.servers)
        oldest = next(iter(pool.waiting.values()), now)
        yield (
            settings.database,
            settings.user,
            pool.clients - len(pool.waiting),
            len(pool.waiting) + pool.logins,
            *(canceled, 0, states["active"], canceled, states["being_canceled"], states["idle"]),
            *(states["used"], states["tested"], states["new"] + pool.dialing),
            *divmod(max(int((now - oldest) * 1e6), 0), 1_000_000),
            settings.pool_mode.value,
            settings.load_balance_hosts if "," in settings.host else None,
        )
    waiting = sum(console.is_waiting for console in around.consoles.values())
    yield (
        *("pgbouncer", "pgbouncer", len(around.consoles) - waiting, waiting),
        *((0,) * 11),
        *(PoolMode.STATEMENT.value, None),
    )


def users(around: Surroundings) -> Iterator[Row]:
    """SHOW USERS: those of the settings and of the ``auth_file``, and those that have logged in."""
    settings = around.settings()
    servers = Counter[str]()
    for pool in around.pools:
        servers[pool.settings.user] += pool.connections
    logged_in = Counter(client.user for client in around.relay.clients.values())
    logged_in.update(console.user for console in around.consoles.values())
    for name in sorted({*settings.credentials, *settings.users, *servers, *logged_in, "pgbouncer"}):
        entry = settings.users.get(name, _NO_SETTINGS)
        yield (
            name,
            *("" if size is None else f"{size:9d}" for size in (entry.pool_size, entry.reserve_pool_size)),
            None if entry.pool_mode is None else entry.pool_mode.value,
            _first(entry.max_user_connections, settings.pooler.max_user_connections),
            servers[name],
            _first(entry.max_user_client_connections, settings.pooler.max_user_client_connections),
            logged_in[name],
        )


def peers(around: Surroundings) -> Iterator[Row]:
    """SHOW PEERS."""
    settings = around.settings()
    for number, peer in sorted(settings.peers.items()):
        size = settings.pooler.default_pool_size if peer.pool_size is None else peer.pool_size
        yield number, peer.host, peer.port, size


def peer_pools(around: Surroundings) -> Iterator[Row]:
    """SHOW PEER_POOLS: the peers that cancel requests have been passed on to."""
    for number, (waiting, dialing, sent) in sorted(around.peers.counts().items()):
        yield number, sent, waiting + dialing, sent, dialing


def lists(around: Surroundings) -> Iterator[Row]:
    """SHOW LISTS: how many there are of everything."""
    relay, settings = around.relay, around.settings()
    names, under_way = around.resolver.counts()
    used = len(relay.clients) + len(around.consoles)
    yield from (
        ("databases", sum(1 for _ in databases(around))),
        ("users", sum(1 for _ in users(around))),
        ("peers", len(settings.peers)),
        ("pools", sum(1 for _ in around.pools) + 1),
        ("peer_pools", len(around.peers.counts())),
        ("free_clients", max(settings.pooler.max_client_conn - used, 0)),
        ("used_clients", used),
        ("login_clients", relay.population - len(relay.clients)),
        ("free_servers", sum(len(pool.idle) for pool in around.pools)),
        ("used_servers", sum(len(pool.servers) - len(pool.idle) for pool in around.pools)),
        ("dns_names", names),
        ("dns_zones", 0),
        ("dns_queries", under_way),
        ("dns_pending", 0),
    )


def mem(around: Surroundings) -> Iterator[Row]:
    """SHOW MEM: what the pooler itself holds; objects by the size of the object alone."""
    relay = around.relay
    buffer = len(relay.buffer)
    yield "relay_buffer", buffer, 1, 0, buffer
    budget = relay.budget
    yield "prepared_statement_texts", 1, budget.used, max(budget.limit - budget.used, 0), budget.used
    for name, count, size in (
        ("client_cache", len(relay.clients), ClientConnection.__basicsize__),
        ("server_cache", sum(len(pool.servers) for pool in around.pools), ServerConnection.__basicsize__),
    ):
        yield name, size, count, 0, size * count
    held = sum(len(connection.outbox) + len(connection.rest) for connection in relay.established())
    yield "outbox_bytes", 1, held, 0, held


def dns_hosts(around: Surroundings) -> Iterator[Row]:
    """SHOW DNS_HOSTS: host names, and the addresses that are known of them."""
    for name, ttl, addresses in around.resolver.known():
        yield name, int(ttl), ",".join(addresses)


def dns_zones(around: Surroundings) -> Iterator[Row]:
    """SHOW DNS_ZONES: zones are not watched, so there are none."""
    del around
    return iter(())


def pins(around: Surroundings) -> Iterator[Row]:
    """SHOW PINS: the clients that keep their server connection, and why."""
    now = around.relay.time()
    for pool in around.pools:
        for server in pool.servers:
            client = server.client
            if client is not None and server.pinned:
                yield (
                    *(pool.settings.database, client.user, client.number, server.number),
                    *(client.address, server.pid, names_of(server.pinned), int(now - server.linked)),
                )


def transports(around: Surroundings) -> Iterator[Row]:
    """SHOW TRANSPORTS: how each pool reaches its servers, and why it could not the last time."""
    for pool in around.pools:
        settings = pool.settings
        steps = ",".join(step.KIND for step in settings.transport) or (
            "unix" if settings.host.startswith("/") else "tcp"
        )
        error = pool.backoff.error
        yield (
            *(settings.database, settings.user, steps, len(pool.servers), pool.dialing),
            "" if error is None else str(error),
        )


def hops(around: Surroundings) -> Iterator[Row]:
    """SHOW HOPS: what was done to open each pool's newest server connection, in order; times are in microseconds."""
    for pool in around.pools:
        settings, route = pool.settings, pool.route
        for number, hop in enumerate(() if route is None else route.trace.hops, 1):
            facts = " ".join(f"{name}={value}" for name, value in hop.facts.items())
            yield (
                *(settings.database, settings.user, number, hop.name),
                *(int(hop.seconds * 1e6), facts, hop.error),
            )


def workers(around: Surroundings) -> Iterator[Row]:
    """SHOW WORKERS: the processes that serve clients; their time on processors is in microseconds."""
    servers = sum(len(pool.servers) for pool in around.pools)
    yield (
        *(around.settings().portion.number, os.getpid(), len(around.relay.clients), servers),
        *(sum(1 for _ in around.pools), int(time.process_time() * 1e6)),
    )


def tunnels(around: Surroundings) -> Iterator[Row]:
    """SHOW TUNNELS: the agents that have connected from private networks, and what they carry."""
    if around.agents is None:
        return
    for name, (agents, waiting, connections) in sorted(around.agents.counts().items()):
        yield name, agents, waiting, connections


def _first(own: T | None, common: T) -> T:
    return common if own is None else own
