"""Single situations of the relay, each of which needs a certain order of events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from hyperpool.config import PoolMode
from tests.support import pgpipelines as pp
from tests.support.pglanguage import kinds_of
from tests.support.relayworld import POOL, World

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world(world: World) -> Iterator[World]:
    """In the end everybody must have his own answers."""
    yield world
    world.finish()


def test_the_end_of_a_notice_that_began_on_an_idle_server_is_for_nobody(world: World) -> None:
    """The beginning was dropped because nobody was there; the client that comes meanwhile must not get the rest."""
    world.connect()
    first = world.clients[0]
    first.pending += pp.query("rows 1 5 c1q1")
    world.flow(rounds=3)
    (server,) = world.servers
    world.say_unasked(server, "notice")
    server.push(300)
    world.turn()
    first.pending += pp.query("rows 1 5 c1q2")
    world.flow(rounds=3)
    assert kinds_of(first.received) == "ZTDCZTDCZ"


def test_a_dropped_message_longer_than_two_buffers_is_dropped_to_its_end() -> None:
    """A notice in the answer to one of the pooler's own queries spans three reads."""
    world = World(attrs.evolve(POOL, pool_size=1), buffer=256)
    try:
        client = world.connect({"application_name": "me"})
        client.pending += pp.query("rows 1 5 c1q1")
        client.send()
        world.turn()
        world.dial()
        (server,) = world.servers
        world.say_unasked(server, "notice")
        world.flow(rounds=5)
        assert kinds_of(client.received) == "ZTDCZ"
        world.finish()
    finally:
        world.close()


def test_a_client_that_was_not_read_is_read_again_when_its_server_is_given_back(world: World) -> None:
    """A server answers a failed COPY while the data that the client still sends do not fit into its socket.

    The server goes on to the next client with those data in its outbox; the first client must not be forgotten.
    """
    world.connect()
    client = world.connect()
    client.pending += pp.query("rows 1 5 c2q1")
    world.flow(rounds=3)
    (server,) = world.servers
    client.pending += pp.query("error c2q2") + pp.copy_data(11) * 5000 + pp.query("rows 1 5 c2q3")
    while client.send():
        world.turn()
    assert server.conn.outbox
    server.pull(40)
    server.push()
    world.turn()
    world.flow(rounds=200)
    assert kinds_of(client.received) == "ZTDCZEZTDCZ"


def test_a_client_that_waits_for_an_answer_that_it_does_not_take(world: World) -> None:
    """What it has sent goes on when it takes the answer, also if it keeps its server and that has no more to say."""
    world.pool.configure(attrs.evolve(POOL, pool_size=1, max_prepared_statements=2))
    for size in range(100, 9000, 100):
        client = world.connect(small=True)
        client.pending += pp.query("begin")
        world.flow(rounds=4)
        client.reading = False
        waits = [("Pn1:rows 1 5 $", "S"), (f"Qrows 1 {size} $",), ("Bn1", "E", "S")]
        client.pending += pp.render(waits, client.tag)
        world.flow(rounds=4)
        took_all = not world.relay.clients[client.pid].outbox
        client.reading = True
        world.flow(rounds=40)
        assert kinds_of(client.received) == "ZCZ1ZTDCZ2DCZ", (size, took_all)
        world.leave(client, "terminate")
        world.flow(rounds=4)
    assert not took_all


def test_a_server_is_not_given_back_while_a_notice_is_on_its_way(world: World) -> None:
    """The answer is complete, the client completes a message that is not answered, and half a notice has come."""
    client = world.connect()
    other = world.connect()
    client.pending += pp.query("rows 1 5 c1q1") + pp.copy_data(100)[:50]
    world.flow(rounds=3)
    (server,) = world.servers
    assert server.conn.client is not None
    world.say_unasked(server, "notice")
    server.push(300)
    world.turn()
    client.pending += pp.copy_data(100)[50:]
    other.pending += pp.query("rows 1 5 c2q1")
    world.flow(rounds=3)
    assert kinds_of(client.received) == "ZTDCZN"
    assert kinds_of(other.received) == "ZTDCZ"


def test_a_copy_that_fails_in_doubt_keeps_its_server_and_its_answers(world: World) -> None:
    """COPY of a view, all of it sent at once with the Syncs of libpq, and another query behind it.

    From the answers nobody can tell how many ReadyForQuery will come, so the server stays with this client.
    """
    client = world.connect()
    copy = pp.parse("copyin-early c1q1") + pp.bind() + pp.execute() + pp.SYNC
    client.pending += copy + pp.copy_data(5) + pp.COPY_DONE + pp.SYNC + pp.query("rows 1 5 c1q2")
    other = world.connect()
    other.pending += pp.query("rows 1 5 c2q1")
    client.send()
    world.turn()
    world.dial()
    (server,) = world.servers
    server.pull()
    while server.push(6):
        world.turn()
        client.receive()
    assert kinds_of(client.received) == "Z12GEZZTDCZ"
    assert server.conn.ledger.doubt
    world.leave(client, "close")
    world.turn()
    assert server.conn.closed
    world.flow(rounds=3)
    assert kinds_of(other.received) == "ZTDCZ"


@pytest.mark.parametrize("size", [250, 300, 1000, 5000])
def test_an_error_longer_than_the_buffer_reaches_the_client(size: int) -> None:
    """Messages that are inspected whole must fit into the buffer, or pass uninspected."""
    world = World(attrs.evolve(POOL, pool_mode=PoolMode.TRANSACTION), buffer=256)
    try:
        client = world.connect()
        client.pending += pp.query("error c1q1" + "x" * size)
        world.flow(rounds=300)
        assert kinds_of(client.received) == "ZEZ"
        world.finish()
    finally:
        world.close()


@pytest.mark.parametrize("behind", ["commit", "rows 1 5 c1q1"])
def test_statement_mode_ends_at_the_beginning_of_a_transaction_block(behind: str) -> None:
    """What a client has sent behind BEGIN is not answered, not even when the answers have come already."""
    world = World(attrs.evolve(POOL, pool_mode=PoolMode.STATEMENT))
    try:
        client = world.connect()
        client.pending += pp.query("begin") + pp.query(behind)
        world.flow(rounds=3)
        assert kinds_of(client.received) == "ZCE"
        assert client.eof
        world.finish()
    finally:
        world.close()
