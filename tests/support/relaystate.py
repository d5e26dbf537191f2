"""What a relay knows, in words and numbers that can be held against those of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperpool.cache.database import Writing
    from hyperpool.pool.statements import Flavor, Statement
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.handover import RelayPool
    from hyperpool.relay.loop import Relay
    from hyperpool.relay.server import ServerConnection
    from hyperpool.relay.session import Suspicion


def state_of(relay: Relay, pool: RelayPool) -> dict[str, Any]:
    """All that a relay with one pool knows, by whose it is and what; connections are called as their peers are."""
    found: dict[str, Any] = {
        "idle": [conn.pid for conn in pool.idle],
        "waiting": [(conn.address, since) for conn, since in pool.waiting.items()],
        "conditioning": {conn.pid: deadline for conn, deadline in pool.conditioning.items()},
        "pinned": pool.pinned,
        "clients": sorted(conn.address for conn in relay.clients.values()),
        "servers": sorted(conn.pid for conn in pool.servers),
        "catalog": (pool.catalog_due, pool.custom, pool.stateful),
        "versions": (pool.statements.version, pool.statements.generation),
        "budget": relay.budget.used,
        "transients": len(relay.transients),
    }
    found |= {f"stats {name}": value for name, value in pool.stats.packed().items()}
    for client in relay.clients.values():
        found |= {f"{client.address} {name}": value for name, value in _client(client).items()}
    for server in pool.servers:
        found |= {f"s{server.pid} {name}": value for name, value in _server(server).items()}
    return found


def _client(conn: ClientConnection) -> dict[str, Any]:
    own = conn.statements
    return {
        "server": conn.server and conn.server.pid,
        "parked": conn.parked,
        "rest": (conn.skip, conn.rest, conn.gathered, conn.stalled, conn.paused, conn.dropping),
        "tracked": dict(conn.tracked.values),
        "initial": dict(conn.initial.values),
        "unnamed": _statement(conn.unnamed),
        "pinned": conn.pinned,
        "active": conn.active,
        "login": (conn.proven, conn.notified, conn.hung_up, len(conn.outbox)),
        "names": {name: _statement(one) for name, one in own.names.items()} if own else {},
        "sizes": (own.size, own.aside, own._closed) if own else (0, 0, {}),
    }


def _server(conn: ServerConnection) -> dict[str, Any]:
    kept, ledger, replay = conn.statements, conn.ledger, conn.replay
    return {
        "client": conn.client and conn.client.address,
        "status": conn.status,
        "held": (conn.held, conn.retiring, conn.failing, conn.cancels, conn._tainted),
        "errand": (conn.purpose, conn.errand and conn.errand.purpose, conn.restoring, conn.tries),
        "suspicion": _suspicion(conn.suspicion),
        "asking": _suspicion(conn.asking),
        "pinned": (conn.pinned, conn.granted),
        "tracked": dict(conn.tracked.values),
        "certain": sorted(one.name for one in kept.certain),
        "used": [one.name for one in kept._used],
        "passing": sorted(one.name for one in kept.passing),
        "unnamed": _statement(conn.unnamed),
        "times": (conn.linked, conn.idle_since),
        "rest": (conn.skip, conn.rest, conn.dropping, len(conn.outbox), conn.described),
        "said": conn.said,
        "replay": None if replay is None else (*replay[:2], [one.name for one in replay[2]]),
        "writes": _writing(conn.writes),
        "ledger": (ledger.unsynced, ledger.midway, ledger.skipping, ledger.copying, bool(ledger.doubt)),
    }


def _statement(one: Statement | None) -> tuple[bytes, bytes, Flavor] | None:
    return None if one is None else (one.name, one.body, one.flavor)


def _suspicion(one: Suspicion | None) -> dict[str, Any] | None:
    if one is None:
        return None
    kept = {name: getattr(one, name) for name in one.__slots__ if name not in {"deallocations", "resetting"}}
    return {**kept, "deallocations": len(one.deallocations)}


def _writing(one: Writing | None) -> dict[str, Any] | None:
    if one is None:
        return None
    kept = {name: getattr(one, name) for name in one.__slots__ if name != "unread"}
    return {**kept, "unread": len(one.unread or ())}
