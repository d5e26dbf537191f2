"""Counters: plain numbers that the data plane adds to and the control plane reads.

Nothing here does I/O or takes a lock: one thread owns it all.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping


@attrs.define
class PoolStats:
    """Totals of one pool since it was created.

    Attributes:
        queries: requests that ended with ReadyForQuery.
        transactions: times that a server connection was given back (session mode: transactions that ended).
        received: bytes from clients, sent on to servers.
        sent: bytes from servers, sent on to clients.
        waited: seconds that clients spent waiting for a server connection.
        assignments: times that a client got a server connection.
        query_time: seconds from requests to their ReadyForQuery.
        transaction_time: seconds that transactions have taken, also while they were idle.
        client_parses: named statements that clients have prepared.
        server_parses: named statements that were prepared on servers.
        binds: times that a named statement was bound.
        logins: clients that have logged in.
        pins: by reason, how often a client has begun to keep its server connection.
    """

    queries: int = 0
    transactions: int = 0
    received: int = 0
    sent: int = 0
    waited: float = 0.0
    assignments: int = 0
    query_time: float = 0.0
    transaction_time: float = 0.0
    client_parses: int = 0
    server_parses: int = 0
    binds: int = 0
    logins: int = 0
    pins: Counter[str] = attrs.field(factory=Counter)

    def since(self, earlier: PoolStats) -> PoolStats:
        """The difference to an earlier copy."""
        return PoolStats(
            self.queries - earlier.queries,
            self.transactions - earlier.transactions,
            self.received - earlier.received,
            self.sent - earlier.sent,
            self.waited - earlier.waited,
            self.assignments - earlier.assignments,
            self.query_time - earlier.query_time,
            self.transaction_time - earlier.transaction_time,
            self.client_parses - earlier.client_parses,
            self.server_parses - earlier.server_parses,
            self.binds - earlier.binds,
            self.logins - earlier.logins,
            self.pins - earlier.pins,
        )

    def plus(self, other: PoolStats) -> PoolStats:
        """The sum with another pool's."""
        return PoolStats(
            self.queries + other.queries,
            self.transactions + other.transactions,
            self.received + other.received,
            self.sent + other.sent,
            self.waited + other.waited,
            self.assignments + other.assignments,
            self.query_time + other.query_time,
            self.transaction_time + other.transaction_time,
            self.client_parses + other.client_parses,
            self.server_parses + other.server_parses,
            self.binds + other.binds,
            self.logins + other.logins,
            self.pins + other.pins,
        )


class StatsBook:
    """The counters of each database at the ends of the last two periods.

    Args:
        now: the beginning of the first period, in seconds.

    Attributes:
        period: the length of the newest period that is over, in seconds; 0 before its end.
    """

    def __init__(self, now: float) -> None:
        self.period = 0.0
        self._turned = now
        self._older: Mapping[str, PoolStats] = {}
        self._newer: Mapping[str, PoolStats] = {}

    def turn(self, totals: Mapping[str, PoolStats], now: float) -> PoolStats:
        """A period is over.

        Args:
            totals: copies of the counters, by database.
            now: in seconds.

        Returns:
            What has been counted in the period, for all databases.
        """
        self.period, self._turned = now - self._turned, now
        self._older, self._newer = self._newer, totals
        return total(totals).since(total(self._older))

    def counted(self, database: str) -> PoolStats:
        """What a database has counted in the newest period that is over."""
        none = PoolStats()
        return self._newer.get(database, none).since(self._older.get(database, none))


def total(stats: Mapping[str, PoolStats]) -> PoolStats:
    """The sum over all databases."""
    result = PoolStats()
    for one in stats.values():
        result = result.plus(one)
    return result
