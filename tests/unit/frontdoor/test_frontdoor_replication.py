"""Replication clients at the front door: each waits for a server of its own, and shares it with nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
from structlog.testing import capture_logs

from hyperpool.config import AuthType
from hyperpool.errors import LoginFailed
from hyperpool.pool.handover import ServerFailed
from hyperpool.wire import messages
from tests.support.fronthouse import (
    CLEARTEXT,
    READY,
    REPORTED,
    House,
    received,
    startup,
    told,
    welcome,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hyperpool.relay.handover import RelayPool

IDENTIFY = messages.query("IDENTIFY_SYSTEM")
ANSWER = messages.frame(ord("C"), b"IDENTIFY_SYSTEM\0") + READY
START = messages.query("START_REPLICATION 0/0")
COPY_BOTH = messages.frame(ord("W"), b"\0\0\0")
COPY_DATA = messages.frame(ord("d"), b"w" + b"\0" * 24 + b"record")
COPY_DONE = messages.frame(ord("c"))
NOT_ALLOWED = messages.error_response("must be superuser or replication role to start walsender", "42501")


def asked(house: House) -> RelayPool:
    """The pool that has asked for a server last."""
    return house.wanted[-1]


def replicating(house: House, **parameters: str) -> tuple[socket.socket, socket.socket]:
    """A replication client that has been let in, and the far end of its server connection."""
    client = house.connect(startup(**{"replication": "database", **parameters}))
    server = house.warm(pool=asked(house))
    assert received(client).endswith(READY)
    return client, server


@pytest.mark.parametrize("replication", ["true", "database", "1", "YES"])
def test_a_server_of_its_own(house: House, replication: str) -> None:
    """Whatever other servers there are, one is opened as the client asks for it, and tells what the client is told."""
    house.warm()
    client = house.connect(startup(replication=replication, DateStyle="German", options="-c work_mem=5MB"))
    assert received(client) == b""
    pool = asked(house)
    assert pool is not house.pool()
    assert pool.settings.replication == replication
    assert pool.settings.parameters == {"DateStyle": "German", "options": "-c work_mem=5MB"}
    server = house.warm({**REPORTED, "DateStyle": "German"}, pool)
    assert received(client) == welcome(house, {**REPORTED, "DateStyle": "German"})
    house.send(client, IDENTIFY)
    assert received(server) == IDENTIFY
    server.send(ANSWER)
    house.relay.turn()
    assert received(client) == ANSWER


def test_any_parameter(make_house: Callable[..., House]) -> None:
    """It is the server that decides: nothing is looked into, and nothing is ignored."""
    house = make_house(ignore_startup_parameters=("extra_float_digits",))
    asks = {
        "work_mem": "5MB",
        "extra_float_digits": "3",
        "options": "--nonsense",
        "client_encoding": "'utf-8'",
    }
    house.connect(startup(replication="true", **asks))
    assert asked(house).settings.parameters == asks


@pytest.mark.parametrize("replication", ["false", "off", "no", "0", ""])
def test_no_replication(house: House, replication: str) -> None:
    """An ordinary client shares the ordinary pool."""
    house.warm()
    client = house.connect(startup(replication=replication))
    assert received(client) == welcome(house, REPORTED)
    assert list(house.pools) == [house.pool()]


def test_only_after_authentication(make_house: Callable[..., House]) -> None:
    """Who does not know the password makes the pooler open nothing."""
    house = make_house(auth_type=AuthType.PLAIN)
    client = house.connect(startup(replication="database"))
    assert received(client) == CLEARTEXT
    assert (house.wanted, list(house.pools)) == ([], [])
    house.send(client, messages.password_message(b"rubber"))
    assert b"\0C28P01\0" in received(client)
    assert (house.wanted, list(house.pools)) == ([], [])


def test_max_client_conn_counts_them(house: House) -> None:
    """Those that wait for their server included."""
    replicating(house)
    for _ in range(2):
        house.connect(startup(replication="database"))
    assert house.relay.population == 3
    assert b"\0C08P01\0" in received(house.connect(startup()))


def test_pool_size_bounds_them(make_house: Callable[..., House]) -> None:
    """Coming and going does not help: a place is free when its server is gone."""
    house = make_house(default_pool_size=2)
    refusal = told(
        "53300",
        "no more replication connections allowed (pool_size)",
        "2 clients replicate from app as ann already; see default_pool_size",
    )
    dialed = []
    for _ in range(2):
        client = house.connect(startup(replication="database"))
        dialed.append(house.wanted[-1])
        dialed[-1].dialing += 1
        client.close()
        house.relay.turn()
    assert house.relay.population == 0
    assert received(house.connect(startup(replication="true"))) == refusal + b"END"
    assert received(house.connect(startup(replication="true"))) == refusal + b"END"
    assert house.relay.population == 0
    house.warm()
    assert received(house.connect(startup())).endswith(READY)
    for pool in dialed:
        pool.dialing -= 1
        server = house.warm(pool=pool)
        house.relay.maintain(iter(house.pools))
        assert received(server).endswith(b"END")
    replicating(house)


def test_who_left_before_anything_was_dialed_takes_no_place(make_house: Callable[..., House]) -> None:
    """As while the database is paused."""
    house = make_house(default_pool_size=1)
    house.pools.paused.add("app")
    house.connect(startup(replication="database")).close()
    house.relay.turn()
    house.pools.paused.clear()
    replicating(house)


def test_two_clients_share_nothing(house: House) -> None:
    """Each has its own server, also when both ask for the same, and when one of them has none to use yet."""
    one, first = replicating(house)
    two, second = replicating(house)
    house.send(one, IDENTIFY)
    house.send(two, START)
    assert (received(first), received(second)) == (IDENTIFY, START)


def test_the_servers_own_refusal(house: House) -> None:
    """It reaches the client, and does not count against the ordinary pool."""
    client = house.connect(startup(replication="true"))
    pool = asked(house)
    pool.dialing += 1
    error = LoginFailed("must be superuser", "42501", NOT_ALLOWED)
    with capture_logs():
        house.relay.adopt_failure(ServerFailed(pool, pool.generation, error))
    house.relay.turn()
    assert received(client) == NOT_ALLOWED + b"END"
    assert pool.unused
    house.warm()
    assert received(house.connect(startup())).endswith(READY)


def test_a_stream_ends_with_its_client(house: House) -> None:
    """The server is closed at once, wherever in a stream the client leaves, and its pool is forgotten."""
    client, server = replicating(house)
    house.send(client, START)
    server.send(COPY_BOTH + COPY_DATA)
    house.relay.turn()
    assert received(client) == COPY_BOTH + COPY_DATA
    house.send(client, COPY_DATA[:9])
    client.close()
    house.relay.turn()
    assert received(server) == START + COPY_DATA[:9] + b"END"
    house.pools.prune(0.0)
    assert list(house.pools) == []


def test_a_stream_ends_with_its_server(house: House) -> None:
    """The client is told what the server said last, and that it is gone."""
    client, server = replicating(house)
    house.send(client, START)
    server.send(COPY_BOTH + COPY_DATA)
    house.relay.turn()
    server.close()
    house.relay.turn()
    answer = received(client)
    assert answer.startswith(COPY_BOTH + COPY_DATA + b"E")
    assert b"\0C08006\0" in answer
    assert answer.endswith(b"END")
    house.pools.prune(0.0)
    assert list(house.pools) == []


def test_a_server_is_used_once(house: House) -> None:
    """Even when nothing is outstanding; nothing is asked of it in between or behind."""
    client, server = replicating(house)
    house.send(client, START)
    assert received(server) == START
    server.send(COPY_BOTH)
    house.relay.turn()
    house.send(client, COPY_DONE)
    server.send(COPY_DONE + messages.frame(ord("C"), b"COPY 0\0") + READY)
    house.relay.turn()
    house.send(client, messages.TERMINATE)
    assert received(server) == COPY_DONE + messages.TERMINATE + b"END"


def test_a_stream_that_ends_with_its_timeline(house: House) -> None:
    """The server ends it first, and tells which timeline comes next in a result; then it takes the next command.

    So says the PostgreSQL docs' section "Streaming Replication Protocol" of START_REPLICATION.
    """
    client, server = replicating(house)
    house.send(client, START)
    next_timeline = messages.frame(ord("T"), b"\0\0") + messages.frame(ord("D"), b"\0\0")
    completed = messages.frame(ord("C"), b"SELECT\0") + messages.frame(ord("C"), b"START_STREAMING\0")
    server.send(COPY_BOTH + COPY_DATA + COPY_DONE)
    house.relay.turn()
    house.send(client, COPY_DATA)
    house.send(client, COPY_DONE)
    server.send(next_timeline + completed + READY)
    house.relay.turn()
    assert received(client) == COPY_BOTH + COPY_DATA + COPY_DONE + next_timeline + completed + READY
    house.send(client, IDENTIFY)
    server.send(ANSWER)
    house.relay.turn()
    assert received(server) == START + COPY_DATA + COPY_DONE + IDENTIFY
    assert received(client) == ANSWER
    (inside,) = house.relay.clients.values()
    assert inside.server is not None
    assert inside.server.ledger.clean


def test_a_server_that_is_lost_before_it_was_used(house: House) -> None:
    """The client has lost nothing with it, and gets another one when it asks for something."""
    client, server = replicating(house)
    server.close()
    house.relay.turn()
    assert received(client) == b""
    house.later(1.0)
    house.send(client, IDENTIFY)
    other = house.warm(pool=asked(house))
    assert received(other) == IDENTIFY


def test_a_client_that_leaves_without_a_word(house: House) -> None:
    """Its server is closed with the next upkeep."""
    client, server = replicating(house)
    house.later(10_000.0)
    house.relay.maintain(iter(house.pools))
    assert received(server) == b""
    client.close()
    house.relay.turn()
    house.relay.maintain(iter(house.pools))
    assert received(server) == messages.TERMINATE + b"END"
    house.pools.prune(0.0)
    assert list(house.pools) == []


def test_a_client_that_is_gone_before_its_server_comes(house: House) -> None:
    """The server is closed with the next upkeep."""
    client = house.connect(startup(replication="database"))
    client.close()
    house.relay.turn()
    server = house.warm(pool=asked(house))
    house.relay.maintain(iter(house.pools))
    assert received(server) == messages.TERMINATE + b"END"
    assert house.relay.population == 0


def test_a_query_that_comes_with_the_login(house: House) -> None:
    """It waits with the client for the server."""
    client = house.connect(startup(replication="true"), IDENTIFY)
    server = house.warm(pool=asked(house))
    assert received(client) == welcome(house, REPORTED)
    assert received(server) == IDENTIFY


def test_a_cancel_request(house: House) -> None:
    """It finds the server of its client."""
    client, server = replicating(house)
    house.send(client, START)
    assert received(server) == START
    (inside,) = house.relay.clients.values()
    house.connect(messages.cancel_request(inside.pid, inside.secret))
    (order,) = house.orders
    assert order.server is inside.server
    order.done(delivered=True)


def test_what_replication_clients_are_told_is_not_kept(house: House) -> None:
    """Nobody else will be told the same."""
    client, _ = replicating(house)
    assert len(house.door._greetings) == 0
    client.close()


def test_a_reload_while_a_stream_runs(house: House) -> None:
    """It goes on with its server, wherever new clients are sent; with its database gone, it ends."""
    client, server = replicating(house)
    house.send(client, START)
    moved = attrs.evolve(
        house.settings,
        databases={"app": attrs.evolve(house.settings.databases["app"], host="db.example")},
    )
    outdated, removed = house.pools.reload(moved)
    assert (outdated, removed) == ([asked(house)], [])
    for one in asked(house).servers:
        one.retire("settings have changed")
    server.send(COPY_BOTH + COPY_DATA)
    house.relay.turn()
    assert received(client) == COPY_BOTH + COPY_DATA
    outdated, removed = house.pools.reload(attrs.evolve(house.settings, databases={}))
    for pool in removed:
        house.relay.dissolve(pool)
    house.relay.turn()
    assert b"\0C57P01\0" in received(client)
    assert received(server).endswith(b"END")


def test_a_removed_database_while_a_client_waits(house: House) -> None:
    """It is told so."""
    client = house.connect(startup(replication="true"))
    _, removed = house.pools.reload(attrs.evolve(house.settings, databases={}))
    for pool in removed:
        house.relay.dissolve(pool)
    house.relay.turn()
    assert b"\0C08001\0" in received(client)
    assert house.relay.population == 0
