"""Which pools have metrics of their own: a bounded number, since clients can think of any number of names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hyperpool.http.exposition import Labels
    from hyperpool.relay.handover import RelayPool
    from hyperpool.stats import PoolStats

OTHER: Final = "other"
"""The labels of the series of all pools that have none of their own."""


class Series:
    """Pools that are told of together: those with the same labels, or all that have no series of their own.

    Args:
        labels: what they have in common.

    Attributes:
        labels: as given.
        pools: those that there are.
    """

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.pools: dict[RelayPool, None] = {}
        self._gone: PoolStats | None = None

    @property
    def parts(self) -> list[PoolStats]:
        """What the pools have counted, those that are gone included: a counter never goes back."""
        parts = [pool.stats for pool in self.pools]
        return parts if self._gone is None else [self._gone, *parts]

    def keep(self, present: set[RelayPool]) -> None:
        """Some of its pools are gone: what they have counted stays."""
        if self.pools.keys() <= present:
            return
        for pool in [pool for pool in self.pools if pool not in present]:
            del self.pools[pool]
            self._gone = pool.stats if self._gone is None else self._gone.plus(pool.stats)


class SeriesTable:
    """Says of each pool in which series it is. A pool stays where it is for as long as it lives.

    A series that has no pools any more is gone; the next pool with new labels may have its place.

    Args:
        labels_of: the labels of a pool.
        other: those of the series of the others.

    Attributes:
        version: counts the changes of what `update` returns.
    """

    def __init__(self, labels_of: Callable[[RelayPool], Labels], other: Labels) -> None:
        self._labels_of = labels_of
        self._named: dict[Labels, Series] = {}
        self._other = Series(other)
        self._series: list[Series] = []
        self.version = 0

    def update(self, pools: Iterable[RelayPool], limit: int) -> list[Series]:
        """Look at the pools that there are.

        Args:
            pools: all pools.
            limit: how many series may be named.

        Returns:
            The series; that of the others is there as soon as it has had a pool.
        """
        present = set(pools)
        for series in self._named.values():
            series.keep(present)
        self._other.keep(present)
        self._named = {labels: series for labels, series in self._named.items() if series.pools}
        known = {pool for series in (self._other, *self._named.values()) for pool in series.pools}
        for pool in sorted(present - known, key=self._labels_of):
            labels = self._labels_of(pool)
            series = self._named.get(labels, self._other)
            if series is self._other and len(self._named) < limit and labels != self._other.labels:
                series = self._named[labels] = Series(labels)
            series.pools[pool] = None
        found = list(self._named.values())
        if self._other.pools or self._other in self._series:
            found.append(self._other)
        if found != self._series:
            self._series = found
            self.version += 1
        return found
