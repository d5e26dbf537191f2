"""The log of queries that took long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
from structlog.testing import capture_logs

from hyperpool.config import PoolMode, SessionState
from hyperpool.relay.slow import describe
from tests.support import pgpipelines as pp
from tests.support.relayworld import POOL, World

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

_FOLLOWED = attrs.evolve(POOL, session_state=SessionState.FOLLOW, max_prepared_statements=100)


def _slow(world: World, *requests: bytes, seconds: float = 2.0) -> list[MutableMapping[str, Any]]:
    """What is logged when each of these takes a while."""
    client = world.connect()
    with capture_logs() as logs:
        for request in requests:
            client.pending += request
            # The first server of a pool has to tell something before.
            world.flow(rounds=6)
            world.clock.now += seconds
            world.flow(rounds=3, wake=True)
    return [entry for entry in logs if entry["event"] == "slow query"]


@pytest.fixture
def worlds() -> Iterator[list[World]]:
    """Closed afterwards."""
    made: list[World] = []
    yield made
    for world in made:
        world.close()


@pytest.mark.parametrize(
    "settings",
    [
        POOL,
        _FOLLOWED,
        attrs.evolve(POOL, pool_mode=PoolMode.SESSION),
        attrs.evolve(_FOLLOWED, pool_mode=PoolMode.SESSION),
    ],
    ids=["kept", "followed", "session", "session-followed"],
)
@pytest.mark.parametrize(
    "request_",
    [
        pp.query("sleep c1q1"),
        pp.parse("sleep c1q1") + pp.bind() + pp.execute() + pp.SYNC,
        pp.parse("sleep c1q1", "s") + pp.bind("s") + pp.execute() + pp.SYNC,
    ],
    ids=["simple", "unnamed", "named"],
)
def test_a_query_that_takes_long(worlds: list[World], settings: Any, request_: bytes) -> None:
    """It is logged with who has asked it, in every mode and in every way to ask."""
    worlds.append(World(attrs.evolve(settings, log_slow_queries=1.0)))
    worlds[0].relay.slow.texts = True
    (entry,) = _slow(worlds[0], request_)
    assert entry["seconds"] == pytest.approx(2.0, abs=0.01)
    assert (entry["pool"], entry["client"]) == (worlds[0].pool.name, "c1")
    if worlds[0].pool.translates or request_[5:6] != b"s" or request_[:1] == b"Q":
        assert entry["query"] == "sleep c1q1"
    else:
        # Names of statements are passed on without a look.
        assert "not known" in entry["query"]


def test_the_threshold(worlds: list[World]) -> None:
    """What takes less is not logged, and nothing is without one."""
    for threshold in (3.0, 0.0):
        worlds.append(World(attrs.evolve(POOL, log_slow_queries=threshold)))
        assert _slow(worlds[-1], pp.query("sleep c1q1")) == []
        (server,) = worlds[-1].servers
        assert bool(server.conn.said) == bool(threshold)


def test_there_is_a_bound_to_what_is_logged(worlds: list[World]) -> None:
    """Ten in a second; the next one tells how many were not."""
    worlds.append(World(attrs.evolve(POOL, log_slow_queries=0.01)))
    requests = [pp.query(f"sleep c1q{number}") for number in range(50)]
    entries = _slow(worlds[0], *requests, seconds=0.02)
    assert len(entries) == 10
    assert not any("untold" in entry for entry in entries)
    world = worlds[0]
    client = world.clients[0]
    with capture_logs() as logs:
        client.pending += pp.query("sleep c1q99")
        world.flow(rounds=3)
        world.clock.now += 5
        world.flow(rounds=3, wake=True)
    assert [entry["untold"] for entry in logs if entry["event"] == "slow query"] == [40]


def test_queries_are_described() -> None:
    """Those that differ in values alone have one fingerprint, and the values are not told."""
    one, two = (describe(b"SELECT * FROM t WHERE a = '%s'" % value, texts=False) for value in (b"x", b"y"))
    assert one == two
    assert one["query"] == "SELECT * FROM t WHERE a = $1"
    assert len(one["fingerprint"]) == 16


def test_queries_with_their_values() -> None:
    """If that is asked for."""
    found = describe(b"SELECT 'x'", texts=True)
    assert found["query"] == "SELECT 'x'"
    assert found["fingerprint"] == describe(b"SELECT 'y'", texts=False)["fingerprint"]


@pytest.mark.parametrize(
    "text", [b"SELECT 'secret", b"SELECT 'secret\xff'", b"SELECT '" + b"secret" * 5000 + b"'"]
)
def test_what_cannot_be_parsed_is_not_told(text: bytes) -> None:
    """Its values could not be left out."""
    assert describe(text, texts=False) == {"fingerprint": "", "query": "(not understood)"}
    assert "secret" in describe(text, texts=True)["query"]


def test_what_is_not_known() -> None:
    """It is said so."""
    assert "not known" in describe(b"", texts=True)["query"]


@pytest.mark.parametrize(
    "settings", [POOL, attrs.evolve(POOL, max_prepared_statements=100)], ids=["as-it-is", "translated"]
)
def test_nobody_is_told_to_have_asked_what_others_have(worlds: list[World], settings: Any) -> None:
    """What has no text has none, whatever the server was asked before."""
    world = World(attrs.evolve(settings, log_slow_queries=1.0, pool_size=1))
    worlds.append(world)
    world.relay.slow.texts = True
    _slow(world, pp.query("sleep c1q1"))
    other = world.connect()
    other.pending += pp.call(1, "c2q1")
    with capture_logs() as logs:
        other.send(1000)
        world.turn()
        world.clock.now += 2
        world.flow(rounds=4)
    told = [entry for entry in logs if entry["event"] == "slow query"]
    assert [(entry["client"], "not known" in entry["query"]) for entry in told] == [("c2", True)]
