"""The relay: the data plane, with every client and server connection that is logged in, and how they come and go."""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING, Final

import structlog

from hyperpool.errors import ConnectFailed
from hyperpool.pool.statements import MemoryBudget
from hyperpool.relay import caching, refreshing
from hyperpool.relay.census import Census
from hyperpool.relay.client import ClientConnection
from hyperpool.relay.connection import MAX_PARTIAL
from hyperpool.relay.following import MAX_SETTINGS
from hyperpool.relay.leaving import LeavingConnection, PartingConnection
from hyperpool.relay.requests import cancel_waiting
from hyperpool.relay.server import ServerConnection
from hyperpool.relay.slow import SlowLog
from hyperpool.relay.supply import Supply
from hyperpool.relay.system import monotonic
from hyperpool.relay.timeouts import sweep_clients, sweep_servers, sweep_waiting
from hyperpool.relay.translate import Translator
from hyperpool.transport.carried import WebSocketSocket
from hyperpool.transport.endpoint import tls_name
from hyperpool.wire import cancelkeys

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from hyperpool.cache.lane import Plan
    from hyperpool.cache.store import Entry
    from hyperpool.pool.handover import ServerFailed, ServerReady
    from hyperpool.relay.connection import Connection
    from hyperpool.relay.handover import ClientReady, RelayLane, RelayPool
    from hyperpool.relay.options import RelayOptions
    from hyperpool.relay.parameters import ParameterTracker
    from hyperpool.relay.requests import Request
    from hyperpool.relay.transient import TransientConnection

log = structlog.get_logger("relay")

_UNLINKED_READ: Final = 8192
"""Bytes read from a client before a server is linked: what it may make the pooler hold while it waits."""


class Relay(Supply):
    """The data plane.

    Args:
        options: its settings.
        tracker: the session parameters that are followed.
        clock: monotonic seconds.
        numbers: the first number of a connection, and the step to the next one.

    Attributes:
        cancel: called with a server connection whose query should be canceled; must not block. When the request has
            been sent, or cannot be, the server's `end_cancel` is called.
        translator: translates what clients send.
        budget: bounds what clients' prepared statements take.
        transients: every connection that has a deadline.
        slow: the log of queries that took long.
        census: how many clients each database and each user has, with those that are about to be let in.
        clients: every logged-in client, by the process id of its cancel key.
        small_query: the longest Query, in bytes, that a small read can hold whole, with nothing behind it.
        extended_only: clients that use the simple query protocol are refused.
        buffer: where every connection reads to.
        peer_id: what the cancel keys tell of who has drawn them; 0 for nothing.
        max_partial: a server's message that is inspected whole has a length below this.
        max_settings: bytes of names and values that a client may set in a session that follows it.
        max_whole: a client's message that is inspected whole has at most as many bytes.
    """

    def __init__(
        self,
        options: RelayOptions,
        tracker: ParameterTracker,
        clock: Callable[[], float] = monotonic,
        numbers: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__(clock, numbers)
        self.tracker = tracker
        self.translator = Translator()
        self.budget = MemoryBudget(options.max_prepared_memory)
        self.clients: dict[int, ClientConnection] = {}
        self.buffer = bytearray(options.buffer)
        self.view = memoryview(self.buffer)
        self.small_view = self.view[:_UNLINKED_READ]
        self.small_query = 0
        self.max_partial = min(MAX_PARTIAL, options.buffer)
        self.max_settings = MAX_SETTINGS
        self.max_whole = options.buffer
        self.cancel: Callable[[ServerConnection], None] = ServerConnection.end_cancel
        self.slow = SlowLog()
        self.transients: dict[TransientConnection, None] = {}
        self.census = Census()
        self.peer_id = options.peer_id
        self._reserved: set[int] = set()
        self.configure(options)

    def configure(self, options: RelayOptions) -> None:
        """Take over settings; the size of the buffer stays as it was at the start."""
        self._linger = options.linger
        self._slice = options.slice
        self._log_connections = options.log_connections
        self._log_disconnections = options.log_disconnections
        self._log_errors = options.log_errors
        self.slow.texts = options.log_query_texts
        self.max_packet_size = options.max_packet_size
        self.extended_only = options.extended_only
        # Without simple queries, nothing has the form that the short way is for.
        self.small_query = (
            0 if options.extended_only else min(options.max_packet_size + 1, len(self.small_view) - 1)
        )
        self.cancel_wait_timeout = options.cancel_wait_timeout
        self.budget.limit = options.max_prepared_memory

    def close(self) -> None:
        """Close what is still open: connections that are logging in or leaving, and the epoll object."""
        for connection in list(self.transients):
            connection.lost("the pooler ends")
        super().close()

    def refresh(
        self, client: ClientConnection, lane: RelayLane, plan: Plan, request: Request, entry: Entry
    ) -> None:
        """Fetch a new answer for a stale entry of the result cache; see `refreshing.refresh`."""
        refreshing.refresh(client, lane, plan, request, entry)

    def client_pinned(self, client: ClientConnection, reasons: str) -> None:
        """The client keeps its server for the first time, or for another reason than before."""
        log.info("client keeps its server", pool=client.pool.name, client=client.address, reasons=reasons)

    def forget_client(self, client: ClientConnection, reason: str, farewell: bytes | None) -> None:
        """The client is about to be closed; `farewell` is the pooler's error, if it gets one."""
        self._connections.pop(client.fd, None)
        if self.clients.pop(client.pid, None) is not None:
            self.census.leave(client.pool.settings.database, client.user)
        if self._log_disconnections:
            log.info(
                "closing client",
                pool=client.pool.name,
                **client.identity(),
                reason=reason,
                age=self.age(client),
            )
        if farewell and self._log_errors:
            log.warning("pooler error", **client.identity(), reason=reason)

    def forget_server(self, server: ServerConnection, reason: str) -> None:
        """The server connection has been closed."""
        self._connections.pop(server.fd, None)
        if self._log_connections:
            log.info(
                "closing server",
                pool=server.pool.name,
                id=server.number,
                server=server.address,
                pid=server.pid,
                reason=reason,
                age=self.age(server),
            )
        pool = server.pool
        # One that is replaced before it was of any use is no failure.
        replaced = server.retiring and server.refusal is None
        if server.purpose == "connect_query" and not (pool.paused or replaced):
            self._failed(pool, server.refusal or ConnectFailed(reason))
        if pool.waiting and pool.idle and not pool.paused:
            # It was being checked, for a client that may as well have another one.
            pool.idle.pop().reuse()
        self.want(pool)
        self.settled(pool)

    def age(self, connection: Connection) -> float:
        """For how many seconds a connection has been there."""
        return round(self._clock() - connection.since, 3)

    # -- connections come --------------------------------------------------------------------------------------------

    @property
    def population(self) -> int:
        """How many clients there are, those that are logging in included."""
        return len(self.clients) + len(self._reserved)

    def reserve_key(self, length: int = 4) -> tuple[int, bytes]:
        """A cancel key (process id, secret of `length` bytes) of its own; it counts as a client until given back."""
        while True:
            drawn = os.urandom(4 + length)
            # A process id is positive: a client may print it, or keep it in a signed number.
            pid = (drawn[0] & 0x7F) << 24 | drawn[1] << 16 | drawn[2] << 8 | drawn[3]
            secret = drawn[4:]
            if self.peer_id:
                pid, secret = cancelkeys.mark(pid, secret, self.peer_id)
            if pid and pid not in self.clients and pid not in self._reserved:
                self._reserved.add(pid)
                return pid, secret

    def release_key(self, pid: int) -> None:
        """Give a reserved key back."""
        self._reserved.discard(pid)

    def welcome(self, connection: TransientConnection) -> None:
        """Drive a connection that has a deadline."""
        self._register(connection)
        self.transients[connection] = None

    def see_off(self, connection: Connection, farewell: bytes) -> None:
        """Send a last message to a connection that its owner has given up, and close its socket when it has arrived."""
        leaving = LeavingConnection(self, connection.sock, farewell, bytes(connection.outbox))
        self._connections[leaving.fd] = leaving
        self.transients[leaving] = None
        if connection.outbox:
            self.watch_writable(leaving)

    def let_end(self, sock: socket.socket, then: Callable[[], None]) -> None:
        """Close a server connection that has been forgotten when PostgreSQL has done what it is at, and call back."""
        parting = PartingConnection(self, sock, then)
        self._connections[parting.fd] = parting
        self.transients[parting] = None
        self.resume(parting)

    def forget(self, connection: TransientConnection) -> None:
        """The connection is no longer the relay's, or about to be somebody else's."""
        self._connections.pop(connection.fd, None)
        self.transients.pop(connection, None)

    def adopt_client(self, ready: ClientReady) -> None:
        """Take over a client's socket, greet it, and handle what it has sent already."""
        client = ClientConnection(self, ready)
        pool = ready.pool
        client.hung_up = ready.hung_up
        pool.clients += 1
        pool.stats.logins += 1
        self.clients[client.pid] = client
        if not ready.counted:
            self.census.enter(pool.settings.database, client.user)
        self._reserved.discard(client.pid)
        self._register(client)
        if self._log_connections:
            log.info(
                "client logged in",
                pool=pool.name,
                **client.identity(),
                tls=tls_name(client.sock),
                replication=pool.settings.replication,
            )
        if ready.welcome:
            client.transmit(ready.welcome)
        # Whoever has brought it is no longer answerable for what it has sent.
        if ready.greet is not None:
            self._guard(client, client.prove, ready.received)
        elif ready.received:
            self._guard(
                client, client.consume, ready.received, memoryview(ready.received), len(ready.received)
            )
        if (ready.unread or ready.hung_up) and not client.closed:
            self.resume(client)

    def adopt_server(self, ready: ServerReady) -> None:
        """Take over a server connection's socket, and give it to a client that waits."""
        self.now = self._clock()
        pool = ready.pool
        if not pool.arrived(ready.generation) or pool.paused:
            ready.sock.close()
            self.settled(pool)
        else:
            lane = pool.cache
            if lane is not None and ready.way is not None and pool.settings.load_balance_hosts == "disable":
                lane.reached(ready.way.target)
            server = ServerConnection(self, ready)
            pool.servers.add(server)
            pool.starting.add(server)
            self._register(server)
            if isinstance(ready.sock, WebSocketSocket):
                ready.sock.left = lambda: self.resume(server)
            if self._log_connections:
                log.info(
                    "new connection to server",
                    pool=pool.name,
                    id=server.number,
                    server=server.address,
                    pid=server.pid,
                    local=ready.local,
                )
            self._guard(server, server.start, ready.parameters)
        self.want(pool)

    def adopt_failure(self, failed: ServerFailed) -> None:
        """A server connection could not be had: tell those who wait, if there is nothing else to wait for."""
        self.now = self._clock()
        pool = failed.pool
        if pool.arrived(failed.generation):
            self._failed(pool, failed.error)
        self.want(pool)
        self.settled(pool)

    # -- cancel ------------------------------------------------------------------------------------------------------

    def cancel_target(self, pid: int, secret: bytes) -> ServerConnection | None:
        """Find the server that works for the client with this cancel key.

        A client that waits for a server is answered here. The caller sends the server a CancelRequest and then calls
        its `end_cancel`; until then the server is not handed to anybody else.

        Returns:
            The server connection, or None if there is nothing to send.
        """
        client = self.clients.get(pid)
        if client is None or not hmac.compare_digest(client.secret, secret):
            return None
        self.now = self._clock()
        server = client.server
        if server is None or client.parked is not None:
            cancel_waiting(client)
            return None
        server.begin_cancel()
        return server

    # -- time --------------------------------------------------------------------------------------------------------

    def sweep(self, pools: Iterator[RelayPool]) -> None:
        """Find what has timed out: logins, clients that wait or are idle, transactions, errands. For every 100 ms."""
        self.now = now = self._clock()
        idle_clients = False
        for pool in pools:
            if pool.waiting:
                sweep_waiting(pool, now)
                if pool.waiting:
                    self._share_out(pool)
                    self.client_waits(pool)
            elif pool.logins:
                self.want(pool)
            sweep_servers(pool, now)
            if pool.queued and (pool.told or not pool.catalog_due):
                self.let_work(pool)
            if pool.cache is not None and pool.cache.flights:
                for client in caching.overdue(pool.cache, now):
                    self._guard(client, caching.reconsider, client)
            idle_clients = idle_clients or bool(pool.settings.client_idle_timeout)
            for server, deadline in list(pool.conditioning.items()):
                if now >= deadline:
                    self._guard(server, server.close, f"{server.purpose} took too long")
        if idle_clients:
            sweep_clients(self.clients.values(), now)
        for connection in list(self.transients):
            if now >= connection.deadline:
                self._guard(connection, connection.timed_out)
        self._bury()

    def maintain(self, pools: Iterator[RelayPool]) -> None:
        """Close what is too old or idle for too long, and replace it; about once a second."""
        self.now = now = self._clock()
        for pool in pools:
            for server in pool.stale(now):
                server.close("server idle timeout")
            if pool.watched and now >= pool.catalog_due and not pool.paused:
                _ask_for_catalog(pool)
            if pool.untold and not pool.paused:
                _ask_for_beginning(pool)
            if pool.cache is not None:
                pool.cache.database.recall(now)
                if pool.cache.asks(now) and not pool.paused:
                    _ask_for_cache(pool)
            for server in [server for server in pool.servers if server.expires and now >= server.expires]:
                server.retire("server lifetime over")
            self.want(pool)

    def _share_out(self, pool: RelayPool) -> None:
        """What became free while the pool was paused is for those who have waited since."""
        while pool.idle and not pool.paused and len(pool.waiting) > len(pool.conditioning):
            server = pool.idle.pop()
            self._guard(server, server.reuse)

    def let_work(self, pool: RelayPool) -> None:
        """It is known which functions change session state: the servers that have waited for that may work."""
        for server in list(pool.queued):
            self._guard(server, server.take_turn)

    def established(self) -> Iterator[Connection]:
        """The connections of clients and servers that are logged in."""
        for connection in self._connections.values():
            if isinstance(connection, ClientConnection | ServerConnection):
                yield connection

    def scatter(self, pool: RelayPool) -> None:
        """A pool leads elsewhere: nobody waits for an answer of the result cache from where it led."""
        caching.scatter(pool, self.clients.values())

    def dissolve(self, pool: RelayPool) -> None:
        """A pool's database is gone from the settings: as in pgbouncer, so are its clients and servers."""
        self.kill(pool, f'database "{pool.settings.database}" was removed from the settings')

    def kill(self, pool: RelayPool, message: str) -> None:
        """Pause a pool, and close its clients, also those that are logging in, and its servers."""
        pool.paused = True
        for client in [client for client in self.clients.values() if client.pool is pool]:
            client.refuse(message, "57P01")
        for server in list(pool.servers):
            server.close(message)
        self.arrived(pool, ConnectFailed(message))
        self._bury()

    def shut_down(self, pools: Iterator[RelayPool], message: str) -> None:
        """Close every connection; clients get a FATAL error."""
        for client in list(self.clients.values()):
            client.refuse(message, "57P01")
        for pool in pools:
            pool.paused = True
            for server in list(pool.servers):
                server.close(message)
        self._bury()


def _ask_for_catalog(pool: RelayPool) -> None:
    """Have a server tell which functions change session state: an idle one, or else the one that is free next."""
    if pool.idle:
        pool.idle.pop().ask_catalog()
        return
    pool.catalog_due = 0.0
    for server in pool.servers:
        # The shortest way looks at nothing else.
        server.held = True


def _ask_for_cache(pool: RelayPool) -> None:
    """Have a server tell what the result cache must know: an idle one, or else the one that is free next."""
    if pool.idle:
        pool.idle.pop().ask_tables()
    for server in pool.servers:
        if server.client is not None:
            server.held = True
            return


def _ask_for_beginning(pool: RelayPool) -> None:
    """Have a server tell which database it is, that was there before anybody had to know."""
    if pool.idle:
        pool.idle.pop().ask_beginning()
    for server in pool.servers:
        if server.client is not None:
            server.held = True
            return
