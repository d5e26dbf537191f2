"""The views of connections: SHOW CLIENTS, SERVERS, SOCKETS, ACTIVE_SOCKETS, BUSY and FDS."""

from __future__ import annotations

import heapq
import socket
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from hyperpool.admin.tables import columns
from hyperpool.frontdoor.console import peer_credentials
from hyperpool.relay.tables import IDLE
from hyperpool.transport.endpoint import tls_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.admin.connection import ConsoleConnection
    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.tables import Row
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.connection import Connection
    from hyperpool.relay.server import ServerConnection

_STANDARD: Final = (
    "type user database replication state addr port:int4 local_addr local_port:int4 connect_time request_time"
    " wait:int4 wait_us:int4 close_needed:int4 ptr link remote_pid:int4 tls application_name"
    " prepared_statements:int4 id:int4"
)
SOCKETS: Final = columns(_STANDARD)
DEBUG: Final = columns(
    f"{_STANDARD} recv_pos:int4 pkt_pos:int4 pkt_remain:int4 send_pos:int4 send_remain:int4 pkt_avail:int4"
    " send_avail:int4"
)
FDS: Final = columns(
    "fd:int4 task user database addr port:int4 cancel:int8 link:int4 client_encoding std_strings datestyle timezone"
    " password scram_client_key:bytea scram_server_key:bytea"
)
BUSY: Final = columns(
    "database user client_id:int4 addr application_name state time:int8 server_id:int4 server_addr remote_pid:int4"
)

BUSIEST: Final = 50
"""Rows of SHOW BUSY."""

_FD_PARAMETERS: Final = ("client_encoding", "standard_conforming_strings", "DateStyle", "TimeZone")


def clients(around: Surroundings) -> Iterator[Row]:
    """SHOW CLIENTS: the clients, those of the console included."""
    for client in around.relay.clients.values():
        yield _client(around, client, _client_state(client))
    for console in around.consoles.values():
        yield _console(around, console, "active")


def servers(around: Surroundings) -> Iterator[Row]:
    """SHOW SERVERS: the server connections that are logged in."""
    for server in _servers(around):
        yield _server(around, server, server_state(around, server))


def sockets(around: Surroundings) -> Iterator[Row]:
    """SHOW SOCKETS: clients and servers, with what is in their buffers."""
    for client in around.relay.clients.values():
        state = "cl_waiting" if client.parked is not None and client.server is None else "cl_active"
        yield (*_client(around, client, state), *_buffers(client))
    for console in around.consoles.values():
        yield (*_console(around, console, "cl_active"), *_buffers(console))
    for server in _servers(around):
        state = server_state(around, server)
        prefixed = "sv_login" if state == "new" else f"sv_{state}"
        yield (*_server(around, server, prefixed), *_buffers(server))


def active_sockets(around: Surroundings) -> Iterator[Row]:
    """SHOW ACTIVE_SOCKETS: those that have something in their buffers."""
    for row in sockets(around):
        if any(row[len(SOCKETS) :]):
            yield row


def busy(around: Surroundings) -> Iterator[Row]:
    """SHOW BUSY: the clients that wait for a server or have one, those first that have been at it for longest.

    It costs little with many clients: those that are idle are not looked at.
    """
    now = around.relay.time()
    found = chain(_waiting(around), _linked(around))
    for since, _, client, state in heapq.nsmallest(BUSIEST, found, key=itemgetter(0, 1)):
        server = client.server
        yield (
            *(client.pool.settings.database, client.user, client.number, client.address),
            *(client.tracked.values.get("application_name", ""), state, max(int((now - since) * 1e6), 0)),
            *((None, None, None) if server is None else (server.number, server.address, server.pid)),
        )


def _waiting(around: Surroundings) -> Iterator[tuple[float, int, ClientConnection, str]]:
    for pool in around.pools:
        # They wait in order.
        for client, since in islice(pool.waiting.items(), BUSIEST):
            yield since, client.number, client, "waiting"


def _linked(around: Surroundings) -> Iterator[tuple[float, int, ClientConnection, str]]:
    for server in _servers(around):
        client = server.client
        if client is None:
            continue
        if server.ledger.entries:
            yield max(server.asked, server.linked), client.number, client, "active"
        else:
            state = "idle in session" if server.status == IDLE else "idle in transaction"
            yield client.active, client.number, client, state


def fds(around: Surroundings) -> Iterator[Row]:
    """SHOW FDS: the file descriptors, without the secrets that pgbouncer hands to its successor with them."""
    secrets = (None, None, None)
    for listener in around.listeners:
        if listener.sock.fileno() >= 0:
            address, port = _address(around, listener.sock.getsockname())
            yield (
                listener.sock.fileno(),
                "pooler",
                None,
                None,
                address,
                port,
                None,
                0,
                *(None,) * 4,
                *secrets,
            )
    for client in around.relay.clients.values():
        link = client.server.fd if client.server is not None else 0
        address, port, _, _ = _addresses(around, client.sock)
        yield (*_fd(client, "client", client.user, (address, port), link), *secrets)
    for server in _servers(around):
        link = server.client.fd if server.client is not None else 0
        address, port, _, _ = _server_addresses(around, server)
        yield (*_fd(server, "server", server.pool.settings.user, (address, port), link), *secrets)


def server_state(around: Surroundings, server: ServerConnection) -> str:
    """Where a server connection is, in pgbouncer's words."""
    pool = server.pool
    if server.client is not None:
        return "active"
    if server in pool.conditioning:
        if server.purpose == "cancel":
            return "being_canceled"
        return "tested" if server.worked else "new"
    return "idle" if around.relay.time() - server.idle_since < pool.check_after else "used"


def _servers(around: Surroundings) -> Iterator[ServerConnection]:
    for pool in around.pools:
        yield from pool.servers


def _client_state(client: ClientConnection) -> str:
    if client.parked is not None and client.server is None:
        return "waiting"
    return "idle" if client.server is None else "active"


def _client(around: Surroundings, client: ClientConnection, state: str) -> Row:
    pool, server = client.pool, client.server
    since = pool.waiting.get(client)
    if since is None and server is not None and server.ledger.entries:
        since = max(server.asked, server.linked)
    statements = len(client.statements.names) if client.statements is not None else 0
    return (
        *("C", client.user, pool.settings.database, _replication(pool.settings.replication), state),
        *_addresses(around, client.sock),
        *_times(around, client, client.active, since),
        0,
        *(_pointer(client), _pointer(server), _peer_pid(client.sock), tls_name(client.sock)),
        *(client.tracked.values.get("application_name", ""), statements, client.number),
    )


def _server(around: Surroundings, server: ServerConnection, state: str) -> Row:
    settings = server.pool.settings
    since = max(server.asked, server.linked) if server.ledger.entries else None
    return (
        *("S", settings.user, settings.database, _replication(settings.replication), state),
        *_server_addresses(around, server),
        *_times(around, server, server.linked, since),
        int(bool(server.retiring)),
        *(_pointer(server), _pointer(server.client), server.pid, tls_name(server.sock)),
        *(server.tracked.values.get("application_name", ""), len(server.statements), server.number),
    )


def _console(around: Surroundings, console: ConsoleConnection, state: str) -> Row:
    since = console.active if console.is_waiting else None
    return (
        *("C", console.user, "pgbouncer", "none", state),
        *_addresses(around, console.sock),
        *_times(around, console, console.active, since),
        0,
        *(_pointer(console), "", _peer_pid(console.sock), tls_name(console.sock)),
        *(console.application_name, 0, console.number),
    )


def _times(
    around: Surroundings, connection: Connection, requested: float, since: float | None
) -> tuple[str, str, int, int]:
    waited = 0 if since is None else int((around.relay.time() - since) * 1e6)
    return (around.wall(connection.since), around.wall(requested), *divmod(max(waited, 0), 1_000_000))


def _buffers(connection: Connection) -> tuple[int, ...]:
    """Our connections have no buffer of their own: what is there is the rest of a message, or waits to be sent."""
    held = len(connection.rest)
    return (held, 0, connection.skip, 0, 0, held, len(connection.outbox))


def _fd(
    connection: ClientConnection | ServerConnection, task: str, user: str, where: tuple[str, int], link: int
) -> Row:
    known = connection.tracked.values
    values = (known.get(name) for name in _FD_PARAMETERS)
    return (connection.fd, task, user, connection.pool.settings.database, *where, None, link, *values)


def _replication(mode: str) -> str:
    if not mode:
        return "none"
    return "logical" if mode == "database" else "physical"


def _pointer(connection: Connection | None) -> str:
    return "" if connection is None else hex(id(connection))


def _addresses(around: Surroundings, sock: socket.socket) -> tuple[str, int, str, int]:
    try:
        return (*_address(around, sock.getpeername()), *_address(around, sock.getsockname()))
    except OSError:
        return "unknown", 0, "unknown", 0


def _server_addresses(around: Surroundings, server: ServerConnection) -> tuple[str, int, str, int]:
    way = around.way_of(server.sock)
    if way is not None and way.route.settings.transport:
        # The socket leads to a task of ours; what counts is where that goes, as far as it is known.
        return (*way.target.address, "", 0)
    address, port, local, local_port = _addresses(around, server.sock)
    if address == "unix" and way is not None:
        return "unix", way.target.port, "unix", way.target.port
    return address, port, local, local_port


def _address(around: Surroundings, name: object) -> tuple[str, int]:
    if isinstance(name, tuple) and len(name) >= 2:
        return str(name[0]), int(name[1])
    return "unix", around.settings().pooler.listen_port


def _peer_pid(sock: socket.socket) -> int:
    return peer_credentials(sock)[0] if sock.family == socket.AF_UNIX else 0
