"""Counters: plain integers that the data plane adds to and the control plane reads.

Nothing here does I/O or takes a lock: one thread owns it all.
"""

from __future__ import annotations

from collections import Counter

import attrs


@attrs.define
class PoolStats:
    """Totals of one pool since it was created.

    Attributes:
        queries: requests that ended with ReadyForQuery.
        transactions: times that a server connection was given back (session mode: transactions that ended).
        received: bytes from clients, sent on to servers.
        sent: bytes from servers, sent on to clients.
        waited: seconds that clients spent waiting for a server connection.
        pins: by reason, how often a client has begun to keep its server connection.
    """

    queries: int = 0
    transactions: int = 0
    received: int = 0
    sent: int = 0
    waited: float = 0.0
    pins: Counter[str] = attrs.field(factory=Counter)

    def since(self, earlier: PoolStats) -> PoolStats:
        """The difference to an earlier copy."""
        return PoolStats(
            self.queries - earlier.queries,
            self.transactions - earlier.transactions,
            self.received - earlier.received,
            self.sent - earlier.sent,
            self.waited - earlier.waited,
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
            self.pins + other.pins,
        )
