"""How long queries, transactions and waits took is counted, on the short way as on the long one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hyperpool.stats import BOUNDS
from tests.support import pgpipelines as pp

if TYPE_CHECKING:
    from hyperpool.stats import Histogram
    from tests.support.relayworld import World


def _holds(times: Histogram, *seconds: float) -> bool:
    """Whether it has counted these, as exactly as it does."""
    found = [bound for bound, count in zip(BOUNDS, times.buckets, strict=True) for _ in range(count)]
    return [bound / 2 <= one < bound for bound, one in zip(found, seconds, strict=True)] == [True] * len(
        found
    )


def test_a_query_on_the_short_way(world: World) -> None:
    """It is a transaction, too."""
    client = world.connect()
    client.pending += pp.query("sleep c1q1")
    world.flow(rounds=2)
    world.clock.now += 0.3
    world.flow(rounds=2, wake=True)
    stats = world.pool.stats
    assert _holds(stats.query_times, 0.3)
    assert _holds(stats.transaction_times, 0.3)
    assert (stats.queries, stats.transactions) == (1, 1)


def test_a_transaction(world: World) -> None:
    """Its time is not the sum of its queries'."""
    client = world.connect()
    for query, seconds in (("begin", 0.0), ("sleep c1q2", 0.2), ("commit", 3.0)):
        client.pending += pp.query(query)
        world.flow(rounds=2)
        world.clock.now += seconds
        world.flow(rounds=2, wake=True)
    stats = world.pool.stats
    assert stats.query_times.count == stats.queries == 3
    assert stats.query_times.quantile(1.0) == pytest.approx(0.2, rel=1.0)
    # The transaction ended before the last wait.
    assert _holds(stats.transaction_times, 0.2)


def test_waits(world: World) -> None:
    """Of who gets a server in the end, and of who gives up; who need not wait is not counted."""
    first, second, third = (world.connect() for _ in range(3))
    first.pending += pp.query("sleep c1q1")
    world.flow(rounds=2)
    second.pending += pp.query("rows 1 5 c2q1")
    third.pending += pp.query("rows 1 5 c3q1")
    world.flow(rounds=2)
    assert world.pool.stats.waits.count == 1, "the first one waited for the server to be opened"
    world.clock.now += 0.5
    world.leave(third, "close")
    world.flow(rounds=1)
    world.clock.now += 1.5
    world.flow(rounds=3, wake=True)
    assert world.pool.stats.waits.count == 3
    assert world.pool.stats.waits.quantile(1.0) == pytest.approx(2.0, rel=1.0)
    assert world.pool.stats.waited == pytest.approx(2.5, abs=0.1)
