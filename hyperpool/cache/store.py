"""Where answers are kept: bounded in bytes, and resistant to scans.

A new entry is on *probation*, first in, first out. If it is hit before it comes to the end, it moves on to the
*protected* part, which has three quarters of the memory; there, an entry that has been hit since it was last looked at
gets another round. So a scan through queries that are asked once washes through probation alone, and a hit costs no
more than to set a flag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachetools import FIFOCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hyperpool.cache.counters import QueryStats
    from hyperpool.cache.database import DatabaseCache
    from hyperpool.cache.fronts import Front

OVERHEAD: Final = 800
"""Bytes that an entry costs apart from its texts: objects, and places in dictionaries (measured)."""

_MAX_FRONTS: Final = 8
"""Ways to one entry that are remembered; others take the longer way through the key."""


class Entry:
    """One answer.

    Attributes:
        key: everything that the answer depends on.
        database: whose answer it is.
        answer: the bytes from BindComplete (simple protocol: from the beginning) up to ReadyForQuery.
        tables: oids of the tables that it depends on.
        fresh_until: until when it is served as it is, monotonic seconds.
        dead_after: until when it is served at all.
        cost: seconds that the server took for it.
        used: it has been hit since it was last looked at.
        refreshing: a new answer is being fetched.
        gone: it is no longer kept.
        fronts: the ways to it, in `Lane.fronts`.
        stats: numbers of the queries with its fingerprint.
        totals: of its database.
        size: bytes that it counts for.
    """

    __slots__ = (
        "answer",
        "cost",
        "database",
        "dead_after",
        "fresh_until",
        "fronts",
        "gone",
        "key",
        "refreshing",
        "size",
        "stats",
        "tables",
        "totals",
        "used",
    )

    def __init__(self, key: bytes, database: DatabaseCache, stats: QueryStats) -> None:
        self.key = key
        self.database = database
        self.stats = stats
        self.totals = database.stats
        self.answer = b""
        self.tables: frozenset[int] = frozenset()
        self.fresh_until = 0.0
        self.dead_after = 0.0
        self.cost = 0.0
        self.used = False
        self.refreshing = False
        self.gone = False
        self.fronts: list[Front] = []
        self.size = OVERHEAD + len(key)

    def measure(self) -> int:
        """Bytes that it counts for now."""
        fronts = sum(front.size for front in self.fronts)
        return OVERHEAD + len(self.key) + len(self.answer) + 16 * len(self.tables) + fronts

    def takes_front(self) -> bool:
        """Whether another way to it is to be remembered."""
        return len(self.fronts) < _MAX_FRONTS


def _size(entry: Entry) -> int:
    return entry.size


class _Segment(FIFOCache[bytes, Entry]):
    """Entries in the order in which they came, with their sizes.

    Args:
        limit: bytes.
        leaves: called with the oldest entry when room is needed; it is no longer there.
    """

    def __init__(self, limit: int, leaves: Callable[[Entry], None]) -> None:
        super().__init__(limit, _size)
        self._leaves = leaves

    def popitem(self) -> tuple[bytes, Entry]:
        key, entry = super().popitem()
        self._leaves(entry)
        return key, entry


class Store:
    """The entries of all databases.

    Args:
        limit: bytes for all of them.
        forgotten: called with each entry that is no longer kept, and whether it had to make room.
    """

    def __init__(self, limit: int, forgotten: Callable[[Entry, bool], None]) -> None:
        self.limit = limit
        self._forgotten = forgotten
        self._new = _Segment(limit // 4, self._looked_at)
        self._kept = _Segment(limit - limit // 4, self._looked_at)

    def __len__(self) -> int:
        return len(self._new) + len(self._kept)

    def __iter__(self) -> Iterator[Entry]:
        yield from list(self._new.values())
        yield from list(self._kept.values())

    @property
    def size(self) -> int:
        """What the entries count for together."""
        return int(self._new.currsize + self._kept.currsize)

    def get(self, key: bytes) -> Entry | None:
        """The entry with this key."""
        entry = self._kept.get(key)
        return self._new.get(key) if entry is None else entry

    def put(self, entry: Entry) -> bool:
        """Keep an entry, or take in that its size has changed.

        Returns:
            Whether it is kept; not if it is larger than a quarter of the limit.
        """
        segment = self._kept if entry.key in self._kept else self._new
        before = segment.pop(entry.key, None)
        if before is not None and before is not entry:
            self._forget(before, evicted=False)
        entry.size = entry.measure()
        if entry.size > self._new.maxsize:
            if before is entry:
                self._forget(entry, evicted=True)
            return False
        segment[entry.key] = entry
        return not entry.gone

    def remove(self, entry: Entry) -> None:
        """Keep an entry no longer."""
        for segment in (self._new, self._kept):
            if segment.get(entry.key) is entry:
                del segment[entry.key]
        if not entry.gone:
            self._forget(entry, evicted=False)

    def _looked_at(self, entry: Entry) -> None:
        """The oldest entry of a segment: one that has been hit gets a round among the protected ones."""
        if entry.used:
            entry.used = False
            self._kept[entry.key] = entry
        else:
            self._forget(entry, evicted=True)

    def _forget(self, entry: Entry, *, evicted: bool) -> None:
        entry.gone = True
        self._forgotten(entry, evicted)
