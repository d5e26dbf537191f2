"""Counters: plain numbers that the data plane adds to and the control plane reads.

Nothing here does I/O or takes a lock: one thread owns it all.
"""

from __future__ import annotations

from collections import Counter
from operator import add, sub
from typing import TYPE_CHECKING, Any, Final

from hyperpool.buckets import BUCKETS, bucket_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BOUNDS: Final[tuple[float, ...]] = tuple((1 << bits) / 1e6 for bits in range(BUCKETS))
"""Where each bucket ends, in seconds; each begins where the one before it ends."""


class Histogram:
    """Times, by how long they were.

    Attributes:
        buckets: how many times were below the bound of the same place, and not below the one before it.
        seconds: the sum of all times.
    """

    __slots__ = ("buckets", "seconds")

    def __init__(self, buckets: list[int] | None = None, seconds: float = 0.0) -> None:
        self.buckets = [0] * BUCKETS if buckets is None else buckets
        self.seconds = seconds

    @property
    def count(self) -> int:
        """How many times there were."""
        return sum(self.buckets)

    def observe(self, seconds: float) -> None:
        """Count a time."""
        self.buckets[bucket_of(seconds)] += 1
        self.seconds += seconds

    def plus(self, other: Histogram) -> Histogram:
        """The sum with another one."""
        return Histogram(list(map(add, self.buckets, other.buckets)), self.seconds + other.seconds)

    def since(self, earlier: Histogram) -> Histogram:
        """The difference to an earlier copy."""
        return Histogram(list(map(sub, self.buckets, earlier.buckets)), self.seconds - earlier.seconds)

    def quantile(self, share: float) -> float:
        """The time that a share (0 to 1) of all times did not exceed, in seconds; 0 if there were none."""
        wanted = self.count * share
        below = 0
        for bucket, count in enumerate(self.buckets):
            if count and below + count >= wanted:
                start = BOUNDS[bucket - 1] if bucket else 0.0
                return start + (BOUNDS[bucket] - start) * max(wanted - below, 0.0) / count
            below += count
        return 0.0

    def packed(self) -> list[Any]:
        """Both attributes in lists and numbers, for another process."""
        return [_sparse(self.buckets), self.seconds]

    @classmethod
    def unpacked(cls, packed: Sequence[Any]) -> Histogram:
        """What was `packed`."""
        buckets, seconds = packed
        return cls(_dense(buckets), seconds)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return self.buckets == other.buckets and self.seconds == other.seconds

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Histogram: {self.count} times, {self.seconds:.6f} s>"


_NUMBERS: Final = (
    "assignments",
    "binds",
    "client_parses",
    "hop_failures",
    "logins",
    "pins",
    "queries",
    "query_time",
    "received",
    "sent",
    "server_parses",
    "transaction_time",
    "transactions",
    "waited",
)
"""What can be added and subtracted as it is; `Counter` can."""

_LISTS: Final = ("query_buckets", "transaction_buckets", "wait_buckets")

_ALL: Final = (*_NUMBERS, *_LISTS, "hops", "login_times")


class PoolStats:
    """Totals of one pool since it was created.

    Args:
        counted: what it begins with, by the names of the attributes.

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
        query_buckets: the times that `query_time` is the sum of, as in a `Histogram`.
        transaction_buckets: the same of `transaction_time`.
        wait_buckets: the same of `waited`: only those that had to wait are counted.
        login_times: from accepting a client to letting it in.
        hops: the times of opening server connections, by what was done (``tcp``, ``login``).
        hop_failures: how often that has failed, by what was done.
    """

    __slots__ = _ALL

    def __init__(self, **counted: object) -> None:
        self.queries = 0
        self.transactions = 0
        self.received = 0
        self.sent = 0
        self.waited = 0.0
        self.assignments = 0
        self.query_time = 0.0
        self.transaction_time = 0.0
        self.client_parses = 0
        self.server_parses = 0
        self.binds = 0
        self.logins = 0
        self.pins: Counter[str] = Counter()
        self.query_buckets = [0] * BUCKETS
        self.transaction_buckets = [0] * BUCKETS
        self.wait_buckets = [0] * BUCKETS
        self.login_times = Histogram()
        self.hops: dict[str, Histogram] = {}
        self.hop_failures: Counter[str] = Counter()
        for name, value in counted.items():
            setattr(self, name, value)

    @property
    def query_times(self) -> Histogram:
        """How long queries took."""
        return Histogram(self.query_buckets, self.query_time)

    @property
    def transaction_times(self) -> Histogram:
        """How long transactions took."""
        return Histogram(self.transaction_buckets, self.transaction_time)

    @property
    def waits(self) -> Histogram:
        """How long those clients waited for a server connection that had to."""
        return Histogram(self.wait_buckets, self.waited)

    def answered(self, sent: int, seconds: float) -> None:
        """Count a query that was a transaction of its own, and its answer of `sent` bytes."""
        self.queries += 1
        self.transactions += 1
        self.sent += sent
        self.query_time += seconds
        self.transaction_time += seconds
        bucket = bucket_of(seconds)
        self.query_buckets[bucket] += 1
        self.transaction_buckets[bucket] += 1

    def answered_from_memory(self, received: int, sent: int) -> None:
        """Count a query of so many bytes that was a transaction of its own, and no server's."""
        self.queries += 1
        self.transactions += 1
        self.received += received
        self.sent += sent

    def add_query(self, seconds: float) -> None:
        """Count a query."""
        self.queries += 1
        self.query_time += seconds
        self.query_buckets[bucket_of(seconds)] += 1

    def add_transaction(self, seconds: float) -> None:
        """Count a transaction."""
        self.transactions += 1
        self.transaction_time += seconds
        self.transaction_buckets[bucket_of(seconds)] += 1

    def add_wait(self, seconds: float) -> None:
        """Count a client that has waited for a server connection."""
        self.waited += seconds
        self.wait_buckets[bucket_of(seconds)] += 1

    def hop(self, name: str, seconds: float, *, failed: bool = False) -> None:
        """Count something that was done on the way to a server.

        Args:
            name: what was done.
            seconds: how long it took.
            failed: it ended badly; how long that took is not counted.
        """
        if failed:
            self.hop_failures[name] += 1
        else:
            if name not in self.hops:
                self.hops[name] = Histogram()
            self.hops[name].observe(seconds)

    def since(self, earlier: PoolStats) -> PoolStats:
        """The difference to an earlier copy."""
        result = PoolStats(**{name: getattr(self, name) - getattr(earlier, name) for name in _NUMBERS})
        for name in _LISTS:
            setattr(result, name, list(map(sub, getattr(self, name), getattr(earlier, name))))
        result.login_times = self.login_times.since(earlier.login_times)
        none = Histogram()
        result.hops = {name: one.since(earlier.hops.get(name, none)) for name, one in self.hops.items()}
        return result

    def plus(self, other: PoolStats) -> PoolStats:
        """The sum with another pool's."""
        result = PoolStats(**{name: getattr(self, name) + getattr(other, name) for name in _NUMBERS})
        for name in _LISTS:
            setattr(result, name, list(map(add, getattr(self, name), getattr(other, name))))
        result.login_times = self.login_times.plus(other.login_times)
        none = Histogram()
        result.hops = {
            name: self.hops.get(name, none).plus(other.hops.get(name, none))
            for name in (*self.hops, *(name for name in other.hops if name not in self.hops))
        }
        return result

    def packed(self) -> dict[str, Any]:
        """The counters in lists, dictionaries and numbers, for another process."""
        result = {name: getattr(self, name) for name in _NUMBERS}
        result.update({name: dict(getattr(self, name)) for name in _COUNTERS})
        result.update({name: _sparse(getattr(self, name)) for name in _LISTS})
        result["login_times"] = self.login_times.packed()
        result["hops"] = {name: hop.packed() for name, hop in self.hops.items()}
        return result

    @classmethod
    def unpacked(cls, packed: Mapping[str, Any]) -> PoolStats:
        """What was `packed`."""
        result = cls(**{name: packed[name] for name in _NUMBERS})
        for name in _COUNTERS:
            setattr(result, name, Counter(packed[name]))
        for name in _LISTS:
            setattr(result, name, _dense(packed[name]))
        result.login_times = Histogram.unpacked(packed["login_times"])
        result.hops = {name: Histogram.unpacked(hop) for name, hop in packed["hops"].items()}
        return result

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PoolStats):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _ALL)

    def __hash__(self) -> int:
        raise TypeError("counters change, and have no hash")


_COUNTERS: Final = ("pins", "hop_failures")


def _sparse(buckets: list[int]) -> list[list[int]]:
    """The places of those that are not empty, and what is in them."""
    return [[place, count] for place, count in enumerate(buckets) if count]


def _dense(pairs: list[list[int]]) -> list[int]:
    buckets = [0] * BUCKETS
    for place, count in pairs:
        buckets[place] = count
    return buckets


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
