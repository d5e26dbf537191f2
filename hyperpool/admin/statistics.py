"""The views of counters: SHOW STATS and its like. Times are in microseconds, averages per second of the last period."""

from __future__ import annotations

from operator import add
from typing import TYPE_CHECKING, Any, Final

import attrs

from hyperpool.admin.tables import columns
from hyperpool.stats import PoolStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

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
_OWN: Final = "pgbouncer"
"""The console's own database."""

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


@attrs.frozen
class Counts:
    """What processes have counted.

    Attributes:
        totals: the counters of each database.
        recent: what it has counted in the newest period that is over.
        period: the length of that, in seconds; 0 before its end.
    """

    totals: Mapping[str, PoolStats]
    recent: Mapping[str, PoolStats]
    period: float


@attrs.frozen
class Figures:
    """What the views of statistics are made of.

    Attributes:
        sums: of each database, what `_counters` has of its totals.
        recent: as in `Counts`.
        period: as in `Counts`.
    """

    sums: Mapping[str, tuple[int, ...]]
    recent: Callable[[str], PoolStats]
    period: float


def counts(around: Surroundings) -> Counts:
    """What this process has counted."""
    totals = {**dict(sorted(around.pools.totals().items())), _OWN: around.own}
    return Counts(totals, {name: around.book.counted(name) for name in totals}, around.book.period)


def packed(of: Counts) -> list[list[Any]]:
    """What another process can be sent: for each database its name, both kinds of counters, and the period."""
    return [[name, total.packed(), of.recent[name].packed(), of.period] for name, total in of.totals.items()]


def joined(packs: Iterable[Iterable[Sequence[Any]]]) -> Counts:
    """The sums of what several processes have `packed`; their periods are about the same."""
    totals: dict[str, PoolStats] = {}
    recent: dict[str, PoolStats] = {}
    period = 0.0
    for pack in packs:
        for name, total, newest, length in pack:
            totals[name] = totals.get(name, PoolStats()).plus(PoolStats.unpacked(total))
            recent[name] = recent.get(name, PoolStats()).plus(PoolStats.unpacked(newest))
            period = max(period, length)
    own = totals.pop(_OWN, PoolStats())
    return Counts({**dict(sorted(totals.items())), _OWN: own}, {_OWN: PoolStats(), **recent}, period)


def figures(around: Surroundings) -> Figures:
    """Of this process; nothing but what is shown is added up: whoever watches, asks often."""
    return Figures(_summed(around), around.book.counted, around.book.period)


def figures_of(counted: Counts) -> Figures:
    """Of several processes."""
    sums = {name: _counters(total) for name, total in counted.totals.items()}
    return Figures(sums, counted.recent.__getitem__, counted.period)


def stats(of: Figures) -> Iterator[Row]:
    """SHOW STATS."""
    for database, counters in of.sums.items():
        yield (database, *counters, *_averages(of, database))


def stats_totals(of: Figures) -> Iterator[Row]:
    """SHOW STATS_TOTALS."""
    for database, counters in of.sums.items():
        yield (database, *counters)


def stats_averages(of: Figures) -> Iterator[Row]:
    """SHOW STATS_AVERAGES."""
    for database in of.sums:
        yield (database, *_averages(of, database))


def totals(of: Figures) -> Iterator[Row]:
    """SHOW TOTALS: the sums over all databases."""
    everything = [0] * len(_COUNTERS)
    recent = PoolStats()
    for database, counters in of.sums.items():
        everything = list(map(add, everything, counters))
        recent = recent.plus(of.recent(database))
    names = [_OF_TOTALS.get(name, name) for name in _COUNTERS]
    for name, value in zip(names, everything, strict=True):
        yield f"total_{name}", value
    for name, value in zip(names, _rates(recent, of.period), strict=True):
        yield f"avg_{name}", value


def _summed(around: Surroundings) -> dict[str, tuple[int, ...]]:
    """Of each database, what `_counters` has of its totals."""
    sums: dict[str, list[float]] = {}
    counted = [(pool.settings.database, pool.stats) for pool in around.pools]
    for database, one in (*around.pools.past.items(), *counted):
        own = _numbers(one)
        known = sums.get(database)
        if known is None:
            sums[database] = list(own)
        else:
            sums[database] = list(map(add, known, own))
    shown = {database: _in_microseconds(numbers) for database, numbers in sorted(sums.items())}
    return {**shown, _OWN: _counters(around.own)}


def _averages(of: Figures, database: str) -> tuple[int, ...]:
    return _rates(of.recent(database), of.period)


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
