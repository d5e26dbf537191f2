"""What the cache counts: plain numbers that the data plane adds to. No values of queries are among them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs
from cachetools import LRUCache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.sql.reasons import Reason

_MAX_FINGERPRINTS = 2000
"""Fingerprints that are counted one by one; beyond that, those that have not been seen for longest are forgotten."""


@attrs.define(eq=False)
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

    fingerprint: str
    template: str
    calls: int = 0
    hits: int = 0
    stale: int = 0
    misses: int = 0
    refreshes: int = 0
    coalesced: int = 0
    bytes: int = 0
    saved: float = 0.0
    last: Reason | None = None


@attrs.define(eq=False)
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

    hits: int = 0
    stale: int = 0
    misses: int = 0
    stored: int = 0
    refreshes: int = 0
    coalesced: int = 0
    evictions: int = 0
    bytes: int = 0
    saved: float = 0.0
    refused: Counter[Reason] = attrs.field(factory=Counter)
    invalidations: Counter[str] = attrs.field(factory=Counter)
    unstored: Counter[Reason] = attrs.field(factory=Counter)


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
