"""SHOW LATENCIES: how long things took, as the metrics tell it, without a program that reads metrics."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from hyperpool.admin.tables import columns
from hyperpool.stats import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.tables import Row
    from hyperpool.stats import PoolStats

    Timing = tuple[str, str, str, Histogram]
    """Database, user, what has taken time, and the times."""

LATENCIES: Final = columns(
    "database user what count:int8 avg_time:int8 p50_time:int8 p90_time:int8 p99_time:int8 max_time:int8"
)
_SHARES: Final = (0.5, 0.9, 0.99, 1.0)


def latencies(around: Surroundings) -> Iterator[Row]:
    """SHOW LATENCIES: of each pool since it was created, in microseconds; what has not happened is left out."""
    return _shown(_timings(around))


def packed(around: Surroundings) -> list[Row]:
    """The times of each pool, as another process can be sent them, to be `joined`."""
    return [(*who, *times.packed()) for *who, times in _timings(around)]


def joined(packs: Iterable[Iterable[Sequence[Any]]]) -> Iterator[Row]:
    """SHOW LATENCIES of several processes, of what each has `packed`."""
    sums: dict[tuple[str, str, str], Histogram] = {}
    for database, user, what, *times in chain.from_iterable(packs):
        key = (database, user, what)
        sums[key] = sums.get(key, Histogram()).plus(Histogram.unpacked(times))
    return _shown((*key, times) for key, times in sorted(sums.items()))


def _timings(around: Surroundings) -> Iterator[Timing]:
    for pool in around.pools:
        for what, times in _times(pool.stats):
            if times.count:
                yield pool.settings.database, pool.settings.user, what, times


def _shown(timings: Iterable[Timing]) -> Iterator[Row]:
    for database, user, what, times in timings:
        count = times.count
        quantiles = [int(times.quantile(share) * 1e6) for share in _SHARES]
        yield database, user, what, count, int(times.seconds / count * 1e6), *quantiles


def _times(stats: PoolStats) -> Iterator[tuple[str, Histogram]]:
    yield "query", stats.query_times
    yield "transaction", stats.transaction_times
    yield "wait", stats.waits
    yield "login", stats.login_times
    for kind, times in stats.hops.items():
        yield f"connect: {kind}", times
