"""Periods of statistics, and their line in the log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
import trio

from hyperpool.stats import StatsBook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hyperpool.config import PoolerSettings
    from hyperpool.stats import PoolStats

log = structlog.get_logger("pooler")


class Periods:
    """Turns a page of the book whenever a ``stats_period`` is over, and tells what was counted in it.

    Args:
        settings: the pooler's, as they are now.
        counted: gives the counters, by database, and how many clients there are.
        tell: gets what was counted in a period, its length in seconds, and the clients; with ``log_stats`` alone.

    Attributes:
        book: what the periods are written down in.
    """

    def __init__(
        self,
        settings: Callable[[], PoolerSettings],
        counted: Callable[[], tuple[Mapping[str, PoolStats], int]],
        tell: Callable[[PoolStats, float, int], None],
    ) -> None:
        self.book = StatsBook(time.monotonic())
        self._settings = settings
        self._counted = counted
        self._tell = tell
        self._changed = trio.Event()

    def changed(self) -> None:
        """There are other settings: the time until the end of the period begins anew."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with trio.move_on_after(self._settings().stats_period or float("inf")) as period_over:
                self._changed = trio.Event()
                await self._changed.wait()
            if period_over.cancelled_caught:
                counters, clients = self._counted()
                done = self.book.turn(counters, time.monotonic())
                if self._settings().log_stats:
                    self._tell(done, self.book.period, clients)


def log_stats(done: PoolStats, period: float, clients: int) -> None:
    """Log what has been done in a period.

    Args:
        done: what has been counted in it.
        period: its length in seconds.
        clients: how many there are.
    """
    log.info(
        "stats",
        xacts_per_s=round(done.transactions / period, 1),
        queries_per_s=round(done.queries / period, 1),
        client_bytes_per_s=round(done.received / period),
        server_bytes_per_s=round(done.sent / period),
        client_parses_per_s=round(done.client_parses / period, 1),
        server_parses_per_s=round(done.server_parses / period, 1),
        binds_per_s=round(done.binds / period, 1),
        xact_us=round(done.transaction_time * 1e6 / max(done.transactions, 1)),
        query_us=round(done.query_time * 1e6 / max(done.queries, 1)),
        wait_us=round(done.waited * 1e6 / max(done.queries, 1)),
        clients=clients,
    )
