"""Counters."""

from __future__ import annotations

from collections import Counter

import attrs
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.stats import PoolStats, StatsBook, total

# Seconds as eighths: sums of those are exact.
STATS = st.builds(
    PoolStats,
    queries=st.integers(0, 1 << 40),
    transactions=st.integers(0, 1 << 40),
    received=st.integers(0, 1 << 40),
    sent=st.integers(0, 1 << 40),
    waited=st.integers(0, 1 << 40).map(lambda eighths: eighths / 8),
    assignments=st.integers(0, 1 << 40),
    query_time=st.integers(0, 1 << 40).map(lambda eighths: eighths / 8),
    transaction_time=st.integers(0, 1 << 40).map(lambda eighths: eighths / 8),
    client_parses=st.integers(0, 1 << 40),
    server_parses=st.integers(0, 1 << 40),
    binds=st.integers(0, 1 << 40),
    logins=st.integers(0, 1 << 40),
)


def test_counters_begin_at_zero() -> None:
    """Each of them."""
    numbers = attrs.asdict(PoolStats(), recurse=False)
    assert numbers.pop("pins") == Counter()
    assert set(numbers.values()) == {0}


@given(STATS, STATS)
def test_every_counter_is_added(one: PoolStats, two: PoolStats) -> None:
    """Each to the one of its name."""
    total = one.plus(two)
    for field in attrs.fields(PoolStats):
        assert getattr(total, field.name) == getattr(one, field.name) + getattr(two, field.name)


@given(STATS, STATS)
def test_since_takes_back_what_plus_adds(one: PoolStats, two: PoolStats) -> None:
    """For every counter, and without changing either."""
    before = attrs.evolve(one), attrs.evolve(two)
    assert one.plus(two).since(one) == two
    assert one.since(PoolStats()) == one
    assert (one, two) == before


def test_a_book_tells_what_the_last_period_has_counted() -> None:
    """For each database, also for one that is new; and for all of them together."""
    book = StatsBook(100.0)
    assert (book.period, book.counted("app")) == (0.0, PoolStats())
    assert book.turn({"app": PoolStats(queries=5)}, 110.0) == PoolStats(queries=5)
    assert (book.period, book.counted("app").queries) == (10.0, 5)
    done = book.turn({"app": PoolStats(queries=7), "new": PoolStats(queries=1)}, 130.0)
    assert (done.queries, book.period) == (3, 20.0)
    assert [book.counted(name).queries for name in ("app", "new", "none")] == [2, 1, 0]
    assert total({}) == PoolStats()
