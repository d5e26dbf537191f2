"""Counters."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.buckets import BUCKETS
from hyperpool.stats import BOUNDS, Histogram, PoolStats, StatsBook, total

NUMBERS = st.integers(0, 1 << 40)
# Seconds as eighths: sums of those are exact.
SECONDS = NUMBERS.map(lambda eighths: eighths / 8)
LISTS = st.integers(0, BUCKETS - 1).map(lambda place: [*[0] * place, 7, *range(BUCKETS - place - 1)])
HISTOGRAMS = st.builds(Histogram, LISTS, SECONDS)
STATS = st.builds(
    PoolStats,
    queries=NUMBERS,
    transactions=NUMBERS,
    received=NUMBERS,
    sent=NUMBERS,
    waited=SECONDS,
    assignments=NUMBERS,
    query_time=SECONDS,
    transaction_time=SECONDS,
    client_parses=NUMBERS,
    server_parses=NUMBERS,
    binds=NUMBERS,
    logins=NUMBERS,
    query_buckets=LISTS,
    transaction_buckets=LISTS,
    wait_buckets=LISTS,
    login_times=HISTOGRAMS,
    hops=st.dictionaries(st.sampled_from(["tcp", "tls", "login"]), HISTOGRAMS),
)


def _of(stats: PoolStats) -> dict[str, object]:
    return {name: getattr(stats, name) for name in PoolStats.__slots__}


def test_counters_begin_at_zero() -> None:
    """Each of them."""
    counted = _of(PoolStats())
    lists = [counted.pop(name) for name in ("query_buckets", "transaction_buckets", "wait_buckets")]
    assert lists == [[0] * BUCKETS] * 3
    assert (counted.pop("pins"), counted.pop("hop_failures"), counted.pop("hops")) == (
        Counter(),
        Counter(),
        {},
    )
    assert counted.pop("login_times") == Histogram()
    assert set(counted.values()) == {0}


def test_a_name_that_is_no_counter() -> None:
    """It cannot be counted."""
    with pytest.raises(AttributeError):
        PoolStats(querys=1)


@given(STATS, STATS)
def test_every_counter_is_added(one: PoolStats, two: PoolStats) -> None:
    """Each to the one of its name."""
    total = _of(one.plus(two))
    for name in ("query_buckets", "transaction_buckets", "wait_buckets"):
        mine, others = getattr(one, name), getattr(two, name)
        assert total.pop(name) == [a + b for a, b in zip(mine, others, strict=True)]
    logins, hops = one.login_times.plus(two.login_times), one.hops.keys() | two.hops.keys()
    assert total.pop("login_times") == logins
    none = Histogram()
    assert total.pop("hops") == {hop: one.hops.get(hop, none).plus(two.hops.get(hop, none)) for hop in hops}
    for name, value in total.items():
        assert value == getattr(one, name) + getattr(two, name)


@given(STATS, STATS)
def test_since_takes_back_what_plus_adds(one: PoolStats, two: PoolStats) -> None:
    """For every counter, and without changing either."""
    before = copy.deepcopy((one, two))
    back = one.plus(two).since(one)
    assert {hop: times for hop, times in back.hops.items() if times != Histogram()} == {
        hop: times for hop, times in two.hops.items() if times != Histogram()
    }
    back.hops = two.hops
    assert back == two
    assert one.since(PoolStats()) == one
    assert (one, two) == before


@given(st.floats(0, 1e8))
def test_a_time_is_counted_between_two_bounds(seconds: float) -> None:
    """It is not below the lower one, and below the upper one; but for what a computer's fractions cannot tell."""
    times = Histogram()
    times.observe(seconds)
    bucket = times.buckets.index(1)
    assert seconds <= BOUNDS[bucket] * (1 + 1e-9)
    assert not bucket or seconds >= BOUNDS[bucket - 1] * (1 - 1e-9)
    assert (times.count, times.seconds) == (1, seconds)


def test_bounds() -> None:
    """Each is twice the one before it; they are whole microseconds."""
    assert all(high == 2 * low for low, high in pairwise(BOUNDS))
    assert BOUNDS[10] == pytest.approx(1024e-6)


@given(st.lists(st.floats(1e-5, 1e3), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_quantiles(seconds: list[float], share: float) -> None:
    """They are off by less than the width of a bucket."""
    times = Histogram()
    for one in seconds:
        times.observe(one)
    place = max(-(-len(seconds) * round(share * 100) // 100) - 1, 0)
    exact = sorted(seconds)[place]
    assert exact / 2.0001 <= times.quantile(share) <= exact * 2.0001


def test_no_times_have_no_quantiles() -> None:
    """Zero stands for that."""
    assert Histogram().quantile(0.5) == 0
    assert repr(Histogram()) == "<Histogram: 0 times, 0.000000 s>"


def test_hops_are_counted_by_what_they_do() -> None:
    """How long a failure took is no time of a success."""
    stats = PoolStats()
    stats.hop("tcp", 0.5)
    stats.hop("tcp", 1.5)
    stats.hop("tls", 3.0, failed=True)
    assert stats.hops["tcp"].count == stats.hops["tcp"].seconds == 2
    assert (set(stats.hops), stats.hop_failures) == ({"tcp"}, Counter(tls=1))


def test_times_of_a_pool() -> None:
    """They are what the data plane has counted."""
    stats = PoolStats(waited=1.0, query_time=2.0, transaction_time=3.0)
    stats.wait_buckets[1] = stats.query_buckets[2] = stats.transaction_buckets[3] = 1
    found = [stats.waits, stats.query_times, stats.transaction_times]
    assert [(times.seconds, times.buckets.index(1)) for times in found] == [(1.0, 1), (2.0, 2), (3.0, 3)]


def test_what_is_no_counter_is_not_equal() -> None:
    """To either."""
    assert PoolStats() != Histogram()
    assert Histogram() != PoolStats()


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
