"""SHOW LATENCIES: how long things took, as the metrics tell it, without a program that reads metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.admin.tables import columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.tables import Row
    from hyperpool.stats import Histogram, PoolStats

LATENCIES: Final = columns(
    "database user what count:int8 avg_time:int8 p50_time:int8 p90_time:int8 p99_time:int8 max_time:int8"
)
_SHARES: Final = (0.5, 0.9, 0.99, 1.0)


def latencies(around: Surroundings) -> Iterator[Row]:
    """SHOW LATENCIES: of each pool since it was created, in microseconds; what has not happened is left out."""
    for pool in around.pools:
        for what, times in _times(pool.stats):
            count = times.count
            if count:
                quantiles = [int(times.quantile(share) * 1e6) for share in _SHARES]
                average = int(times.seconds / count * 1e6)
                yield pool.settings.database, pool.settings.user, what, count, average, *quantiles


def _times(stats: PoolStats) -> Iterator[tuple[str, Histogram]]:
    yield "query", stats.query_times
    yield "transaction", stats.transaction_times
    yield "wait", stats.waits
    yield "login", stats.login_times
    for kind, times in stats.hops.items():
        yield f"connect: {kind}", times
