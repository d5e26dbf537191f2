"""The line of statistics in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from hyperpool.stats import PoolStats

log = structlog.get_logger("pooler")


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
