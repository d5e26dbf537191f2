"""The relay's short path for one Query and its answer must not skip what the long way looks at."""

from __future__ import annotations

import attrs

from hyperpool.wire import messages
from tests.support import pgpipelines as pp
from tests.support.relayworld import POOL, World


def test_a_server_in_doubt_stays_with_its_client() -> None:
    """An answer that nobody asked for came before: a plain COMMIT afterwards does not give the server back."""
    world = World(attrs.evolve(POOL, pool_size=1))
    try:
        client = world.connect()
        client.pending += pp.query("begin")
        world.flow(rounds=3)
        (server,) = world.servers
        server.out += messages.ready_for_query(b"T")
        world.flow(rounds=2)
        assert server.conn.ledger.doubt
        client.pending += pp.query("commit")
        world.flow(rounds=3)
        assert server.conn.client is not None
        assert not server.conn.pool.idle
    finally:
        world.close()


def test_a_query_ends_an_unsynced_pipeline() -> None:
    """Messages that a Flush has had answered, then a Query: its answer leaves nothing open on the server."""
    world = World(attrs.evolve(POOL, pool_size=1))
    try:
        client = world.connect()
        client.pending += pp.parse("rows 1 5 c1q1") + pp.FLUSH
        world.flow(rounds=3)
        (server,) = world.servers
        assert server.conn.ledger.unsynced
        client.pending += pp.query("rows 1 5 c1q2")
        world.flow(rounds=3)
        assert server.conn.ledger.clean
        assert list(server.conn.pool.idle) == [server.conn]
    finally:
        world.close()
