"""How many clients of each pool keep their server connections, in all workers: counts in memory that they share.

Whether a client may is decided at once, when it has asked for what would need it, and so nobody can be asked. Each
worker has a part of the memory that it alone writes to, and looks at those of all others.

A pool has its place there from the supervisor, with the first permit for a server connection, and as long as any worker
has one (`Slots`). So it means the same pool to all who count there.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.cache.board import Memory
    from hyperpool.workers.messages import PoolKey

_SLOTS: Final = 4096
"""Pools that have server connections at a time; more of them share places, and then their limits."""

_WORD: Final = 4


def tally_size(workers: int) -> int:
    """Bytes of memory that so many workers need."""
    return workers * _SLOTS * _WORD


class Tally:
    """One process's view of the counts.

    Args:
        memory: shared by all, zeroes at first.
        start: where `tally_size` bytes of it begin; divisible by four.
        workers: how many there are.
    """

    def __init__(self, memory: Memory, start: int, workers: int) -> None:
        self._words = memoryview(memory)[start : start + tally_size(workers)].cast("I")

    def add(self, worker: int, slot: int, change: int) -> None:
        """A worker's count has changed."""
        self._words[worker * _SLOTS + slot] += change

    def count(self, slot: int) -> int:
        """What all workers have counted there."""
        return sum(self._words[slot::_SLOTS])

    def own(self, worker: int, slot: int) -> int:
        """What one worker has counted there."""
        return self._words[worker * _SLOTS + slot]

    def clear(self, worker: int) -> None:
        """A worker has died: what it has counted is nobody's."""
        self._words[worker * _SLOTS : (worker + 1) * _SLOTS] = memoryview(bytes(_SLOTS * _WORD)).cast("I")


class PoolTally:
    """A pool's count in one worker, beside those in the others, as `pool.state.Tally`.

    Args:
        tally: all counts.
        worker: the number of this one.
        slot: the pool's.

    Attributes:
        slot: the pool's.
    """

    def __init__(self, tally: Tally, worker: int, slot: int) -> None:
        self._tally = tally
        self._worker = worker
        self.slot = slot

    def add(self, change: int) -> None:
        """This worker's count has changed."""
        self._tally.add(self._worker, self.slot, change)

    def count(self) -> int:
        """What all workers have counted, this one included."""
        return self._tally.count(self.slot)


class Slots:
    """The places of pools, as the supervisor gives them out.

    Args:
        used: how many permits of a pool are out: what has none needs no place.
    """

    def __init__(self, used: Callable[[PoolKey], int]) -> None:
        self._used = used
        self._slots: dict[PoolKey, int] = {}
        self._free: list[int] = []
        self._next = 0

    def of(self, pool: PoolKey) -> int:
        """The place of a pool, for which a permit has just been granted."""
        slot = self._slots.get(pool)
        if slot is None:
            slot = heappop(self._free) if self._free else self._next
            self._next = max(self._next, slot + 1)
            self._slots[pool] = slot
        return slot % _SLOTS

    def known(self, pool: PoolKey) -> int | None:
        """The place of a pool, if it has one."""
        slot = self._slots.get(pool)
        return None if slot is None else slot % _SLOTS

    def look(self, pool: PoolKey) -> None:
        """Permits have come back."""
        if pool in self._slots and not self._used(pool):
            heappush(self._free, self._slots.pop(pool))

    def look_at_all(self) -> None:
        """A worker has died."""
        for pool in list(self._slots):
            self.look(pool)
