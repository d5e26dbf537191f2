"""What the cache counts: plain numbers that the data plane adds to. No values of queries are among them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cachetools import LRUCache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.sql.reasons import Reason

_MAX_FINGERPRINTS = 2000
"""Fingerprints that are counted one by one; beyond that, those that have not been seen for longest are forgotten."""


class QueryStats:
    """Totals of the queries with one fingerprint.

    Attributes:
        fingerprint: libpg_query's, in hex.
        template: the text with ``$n`` for literals.
        calls: how often they were asked while the cache was on.
        hits: answered from memory within ``max_age``.
        stale: answered from memory after that.
        misses: answered by a server, and kept if possible.
        refreshes: fetched in the background.
        coalesced: answered with what another client had asked for.
        bytes: sent from memory.
        saved: seconds that servers would have taken for hits.
        last: why the newest of them was not cached; None if none was refused.
    """

    __slots__ = (
        "bytes",
        "calls",
        "coalesced",
        "fingerprint",
        "hits",
        "last",
        "misses",
        "refreshes",
        "saved",
        "stale",
        "template",
    )

    def __init__(self, fingerprint: str, template: str) -> None:
        self.fingerprint = fingerprint
        self.template = template
        self.calls = 0
        self.hits = 0
        self.stale = 0
        self.misses = 0
        self.refreshes = 0
        self.coalesced = 0
        self.bytes = 0
        self.saved = 0.0
        self.last: Reason | None = None

    def hit(self, size: int, cost: float) -> None:
        """Count an answer of `size` bytes, for which a server takes `cost` seconds."""
        self.calls += 1
        self.hits += 1
        self.bytes += size
        self.saved += cost


class CacheStats:
    """Totals of one database.

    Attributes:
        hits: answered from memory within ``max_age``.
        stale: answered from memory after that.
        misses: to be cached, and answered by a server.
        stored: answers that were kept.
        refreshes: answers that were fetched in the background.
        coalesced: clients that were answered with what another client had asked for.
        evictions: entries that made room for others.
        bytes: sent from memory.
        saved: seconds that servers would have taken for hits.
        refused: by reason, how often a query was not cached.
        invalidations: by source, how many entries were dropped.
        unstored: by reason, how many answers were not kept after all.
    """

    __slots__ = (
        "bytes",
        "coalesced",
        "evictions",
        "hits",
        "invalidations",
        "misses",
        "refreshes",
        "refused",
        "saved",
        "stale",
        "stored",
        "unstored",
    )

    def __init__(self) -> None:
        self.hits = 0
        self.stale = 0
        self.misses = 0
        self.stored = 0
        self.refreshes = 0
        self.coalesced = 0
        self.evictions = 0
        self.bytes = 0
        self.saved = 0.0
        self.refused: Counter[Reason] = Counter()
        self.invalidations: Counter[str] = Counter()
        self.unstored: Counter[Reason] = Counter()

    def hit(self, size: int, cost: float) -> None:
        """Count an answer of `size` bytes, for which a server takes `cost` seconds."""
        self.hits += 1
        self.bytes += size
        self.saved += cost


class Fingerprints:
    """The `QueryStats` of one database: a bounded number."""

    def __init__(self) -> None:
        self._stats: LRUCache[str, QueryStats] = LRUCache(_MAX_FINGERPRINTS)

    def __iter__(self) -> Iterator[QueryStats]:
        return iter(list(self._stats.values()))

    def __len__(self) -> int:
        return len(self._stats)

    def of(self, fingerprint: str, template: str) -> QueryStats:
        """The numbers of the queries with this fingerprint."""
        stats = self._stats.get(fingerprint)
        if stats is None:
            stats = self._stats[fingerprint] = QueryStats(fingerprint, template)
        return stats
