"""Counters."""

from __future__ import annotations

from collections import Counter

import attrs
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.stats import PoolStats

# Seconds as eighths: sums of those are exact.
STATS = st.builds(
    PoolStats,
    queries=st.integers(0, 1 << 40),
    transactions=st.integers(0, 1 << 40),
    received=st.integers(0, 1 << 40),
    sent=st.integers(0, 1 << 40),
    waited=st.integers(0, 1 << 40).map(lambda eighths: eighths / 8),
)


def test_counters_begin_at_zero() -> None:
    """Each of them."""
    assert attrs.astuple(PoolStats(), recurse=False) == (0, 0, 0, 0, 0.0, Counter())


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
