"""What has taken too long: found by looking at everything once per sweep, so that no query pays for a timer.

Names and meanings are pgbouncer's; the SQLSTATEs are those of PostgreSQL's own timeouts, where it has such a one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperpool.relay.tables import IDLE
from hyperpool.wire import messages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.handover import RelayPool
    from hyperpool.relay.server import ServerConnection


_MESSAGE_TIME = 60.0
"""Seconds that a server connection waits for more of a message that has begun."""


def sweep_waiting(pool: RelayPool, now: float) -> None:
    """Turn away the clients that have waited ``query_wait_timeout``; tell those that wait ``query_wait_notify``."""
    timeout = pool.settings.query_wait_timeout
    notify = pool.settings.query_wait_notify
    first = min(timeout or notify, notify or timeout)
    if not first:
        return
    for client, since in list(pool.waiting.items()):
        if now - since < first:
            return
        if timeout and now - since >= timeout:
            client.refuse(
                "query_wait_timeout",
                "08P01",
                f"no server connection of pool {pool.name} became free in {timeout:g} s; see query_wait_timeout and"
                " default_pool_size",
            )
        elif notify and not client.notified and client.greet is None:
            client.notified = True
            client.transmit(
                messages.notice_response(
                    "no server connection is free, the query waits for one", "01000", severity="NOTICE"
                )
            )


def sweep_servers(pool: RelayPool, now: float) -> None:
    """End what exceeds ``query_timeout``, ``transaction_timeout`` or ``idle_transaction_timeout``."""
    for server in list(pool.servers):
        client = server.client
        if client is not None and client.parked is None and not server.closed:
            _sweep_linked(pool, server, client, now)


def _sweep_linked(pool: RelayPool, server: ServerConnection, client: ClientConnection, now: float) -> None:
    settings = pool.settings
    busy = bool(server.ledger.entries)
    if not busy and server.status == IDLE and not server.ledger.unsynced:
        waits = (client.rest or client.skip) and not pool.session and not server.pinned
        if waits and now - max(server.asked, server.linked) >= _MESSAGE_TIME:
            client.refuse(
                "a message did not come to its end",
                "08P01",
                f"a server connection has waited {_MESSAGE_TIME:g} s for the rest of it",
            )
        return
    since = server.linked
    if busy and server.status == IDLE and server.ledger.own:
        # The client has been answered, and the pooler asks what that has left.
        since = max(since, server.answered)
    if settings.query_timeout and busy and now - max(server.asked, since) >= settings.query_timeout:
        _interrupt(server)
        _end(client, "query_timeout", "57014", f"a query took {settings.query_timeout:g} s")
    elif settings.transaction_timeout and now - max(server.began, since) >= settings.transaction_timeout:
        if busy:
            _interrupt(server)
        _end(client, "transaction_timeout", "25P04", f"a transaction took {settings.transaction_timeout:g} s")
    elif (
        settings.idle_transaction_timeout
        and not busy
        and now - max(server.answered, server.asked, server.linked) >= settings.idle_transaction_timeout
    ):
        hint = f"a transaction was left open for {settings.idle_transaction_timeout:g} s without a query"
        _end(client, "idle_transaction_timeout", "25P03", hint)


def sweep_clients(clients: Iterable[ClientConnection], now: float) -> None:
    """End the clients that have been idle for ``client_idle_timeout``."""
    for client in list(clients):
        timeout = client.pool.settings.client_idle_timeout
        if not timeout:
            continue
        server = client.server
        linked = server is not None and (server.status != IDLE or server.ledger.busy)
        if client.parked is None and not linked and now - client.active >= timeout:
            _end(client, "client_idle_timeout", "57P05", f"the client sent nothing for {timeout:g} s")


def _interrupt(server: ServerConnection) -> None:
    """Have PostgreSQL end a query whose client is about to be sent away.

    A backend whose connection is closed goes on until it has something to send.
    """
    server.begin_cancel()
    server.relay.cancel(server)


def _end(client: ClientConnection, name: str, sqlstate: str, what: str) -> None:
    client.refuse(name, sqlstate, f"{what}; see the setting {name}")
