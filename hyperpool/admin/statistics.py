"""The views of counters: SHOW STATS and its like. Times are in microseconds, averages per second of the last period."""

from __future__ import annotations

from operator import add
from typing import TYPE_CHECKING, Final

from hyperpool.admin.tables import columns
from hyperpool.stats import PoolStats

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.tables import Column, Row

_COUNTERS: Final = (
    "server_assignment_count",
    "xact_count",
    "query_count",
    "received",
    "sent",
    "xact_time",
    "query_time",
    "wait_time",
    "client_parse_count",
    "server_parse_count",
    "bind_count",
    "client_login_count",
)
_BYTES: Final = {"received": "bytes_received", "sent": "bytes_sent"}
_OF_TOTALS: Final = {
    "received": "client_bytes",
    "sent": "server_bytes",
    "client_parse_count": "ps_client_parse_count",
    "server_parse_count": "ps_server_parse_count",
    "bind_count": "ps_bind_count",
}
_ALWAYS_AVERAGES: Final = _COUNTERS[8:]
"""They keep ``avg_`` in STATS_AVERAGES, as in pgbouncer."""


def _numeric(*names: str) -> tuple[Column, ...]:
    return columns("database " + " ".join(f"{name}:numeric" for name in names))


STATS: Final = _numeric(
    *(f"total_{name}" for name in _COUNTERS),
    *(f"avg_{'recv' if name == 'received' else name}" for name in _COUNTERS),
)
STATS_TOTALS: Final = _numeric(*(_BYTES.get(name, name) for name in _COUNTERS))
STATS_AVERAGES: Final = _numeric(
    *(f"avg_{name}" if name in _ALWAYS_AVERAGES else _BYTES.get(name, name) for name in _COUNTERS)
)
TOTALS: Final = columns("name value:numeric")


def stats(around: Surroundings) -> Iterator[Row]:
    """SHOW STATS."""
    for database, counters in _summed(around).items():
        yield (database, *counters, *_averages(around, database))


def stats_totals(around: Surroundings) -> Iterator[Row]:
    """SHOW STATS_TOTALS."""
    for database, counters in _summed(around).items():
        yield (database, *counters)


def stats_averages(around: Surroundings) -> Iterator[Row]:
    """SHOW STATS_AVERAGES."""
    for database in _totals(around):
        yield (database, *_averages(around, database))


def totals(around: Surroundings) -> Iterator[Row]:
    """SHOW TOTALS: the sums over all databases."""
    everything = PoolStats()
    recent = PoolStats()
    for database, counted in _totals(around).items():
        everything = everything.plus(counted)
        recent = recent.plus(around.book.counted(database))
    names = [_OF_TOTALS.get(name, name) for name in _COUNTERS]
    for name, value in zip(names, _counters(everything), strict=True):
        yield f"total_{name}", value
    for name, value in zip(names, _rates(recent, around.book.period), strict=True):
        yield f"avg_{name}", value


def _totals(around: Surroundings) -> dict[str, PoolStats]:
    return {**dict(sorted(around.pools.totals().items())), "pgbouncer": around.own}


def _summed(around: Surroundings) -> dict[str, tuple[int, ...]]:
    """Of each database, what `_counters` has of its totals; nothing else is added up: whoever watches, asks often."""
    sums: dict[str, list[float]] = {}
    counted = [(pool.settings.database, pool.stats) for pool in around.pools]
    for database, stats in (*around.pools.past.items(), *counted):
        own = _numbers(stats)
        known = sums.get(database)
        if known is None:
            sums[database] = list(own)
        else:
            sums[database] = list(map(add, known, own))
    totals = {database: _in_microseconds(numbers) for database, numbers in sorted(sums.items())}
    return {**totals, "pgbouncer": _counters(around.own)}


def _averages(around: Surroundings, database: str) -> tuple[int, ...]:
    return _rates(around.book.counted(database), around.book.period)


def _counters(counted: PoolStats) -> tuple[int, ...]:
    """In the order of `_COUNTERS`."""
    return _in_microseconds(_numbers(counted))


def _numbers(counted: PoolStats) -> tuple[float, ...]:
    """In the order of `_COUNTERS`, times in seconds."""
    return (
        counted.assignments,
        counted.transactions,
        counted.queries,
        counted.received,
        counted.sent,
        counted.transaction_time,
        counted.query_time,
        counted.waited,
        counted.client_parses,
        counted.server_parses,
        counted.binds,
        counted.logins,
    )


def _in_microseconds(numbers: Sequence[float]) -> tuple[int, ...]:
    return (*map(int, numbers[:5]), *map(_microseconds, numbers[5:8]), *map(int, numbers[8:]))


def _rates(counted: PoolStats, period: float) -> tuple[int, ...]:
    """Per second; times of transactions and queries for each of them. In the order of `_COUNTERS`."""
    if not period:
        return (0,) * len(_COUNTERS)
    rates = [int(value / period) for value in _counters(counted)]
    for place, seconds, events in (
        (5, counted.transaction_time, counted.transactions),
        (6, counted.query_time, counted.queries),
    ):
        rates[place] = _microseconds(seconds / events) if events else 0
    return tuple(rates)


def _microseconds(seconds: float) -> int:
    return int(seconds * 1e6)
