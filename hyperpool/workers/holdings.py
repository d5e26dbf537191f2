"""What one worker may have: permits for its server connections, and seats for its clients. Sans-IO."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hyperpool.workers import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.pool.state import Pool, Tally
    from hyperpool.workers.messages import Message, PoolKey, SeatKey

AnyPool: TypeAlias = "Pool[Any, Any]"

_RESTED: Final = 0.02
"""Seconds of idleness after which a server connection is not merely between two transactions."""

_REASON: Final = "another worker needs the connection"


class Holdings:
    """The permits of a worker, as `pool.warmer.Permits`.

    Args:
        post: sends a message to the supervisor; must not block.
        look: has the warmer look at a pool soon.
        tally: counts in a place that is given.
    """

    def __init__(
        self,
        post: Callable[[Message], None],
        look: Callable[[AnyPool], None],
        tally: Callable[[int], Tally],
    ) -> None:
        self._post = post
        self._look = look
        self._tally = tally
        self._names = 0
        self._keys: dict[AnyPool, PoolKey] = {}
        self._pools: dict[PoolKey, AnyPool] = {}
        self._held: dict[AnyPool, int] = {}
        self._owed: dict[AnyPool, int] = {}
        self._wanted: dict[AnyPool, tuple[int, bool, bool]] = {}

    def take(self, pool: AnyPool, missing: int, now: float) -> int:
        """How many server connections may be opened now; the rest is asked for, and what is not needed given back.

        Args:
            pool: which one.
            missing: how many should be opened.
            now: monotonic seconds.
        """
        unused = self._held.get(pool, 0) - pool.connections
        if unused > 0:
            unused -= self._pay(pool, min(unused, self._owed.get(pool, 0)))
        taken = min(max(unused, 0), missing)
        if unused > taken:
            self._give_back(pool, unused - taken)
        self._want(pool, missing - taken, now)
        if pool not in self._held and pool not in self._wanted:
            self._forget(pool)
        return taken

    def key(self, pool: AnyPool) -> PoolKey:
        """The name of a pool among all workers."""
        key = self._keys.get(pool)
        if key is None:
            own = ""
            if pool.settings.replication:
                self._names += 1
                own = str(self._names)
            key = self._keys[pool] = messages.PoolKey(pool.settings.database, pool.settings.user, own)
            self._pools[key] = pool
        return key

    def granted(self, key: PoolKey, count: int, slot: int) -> None:
        """The supervisor has granted so many more; the pool's place in the tally stays while it has any."""
        pool = self._pools.get(key)
        if pool is None:
            self._post(messages.Returned(key, count))
            return
        if pool.tally is None or pool.tally.slot != slot:
            pool.tally = self._tally(slot)
        self._held[pool] = self._held.get(pool, 0) + count
        asked, urgent, late = self._wanted.pop(pool, (0, False, False))
        if asked > count:
            self._wanted[pool] = asked - count, urgent, late
        self._look(pool)

    def part_with(self, key: PoolKey, now: float, *, force: bool) -> None:
        """The supervisor asks for a server connection: close one that is idle, or else retire one.

        Args:
            key: of which pool.
            now: monotonic seconds.
            force: one that has just become idle, or is in use, will do.
        """
        pool = self._pools.get(key)
        found = 0 if pool is None else self._parted(pool, now, force=force)
        if pool is not None and found:
            self._owed[pool] = self._owed.get(pool, 0) + found
            self._look(pool)
        self._post(messages.PartsWith(key, found))

    def sweep(self) -> None:
        """Look whether what is asked for is still needed; for every 100 ms."""
        for pool in list(self._wanted):
            self._look(pool)

    def _parted(self, pool: AnyPool, now: float, *, force: bool) -> int:
        idle = min(pool.idle, key=lambda server: server.idle_since, default=None)
        if idle is not None and (force or now - idle.idle_since >= _RESTED):
            idle.close(_REASON)
            return 1
        if not force:
            return 0
        # One that changes hands often is free soon: that is one that was linked just now.
        # One that its client keeps is not free before that client says so.
        linked = [
            server
            for server in pool.servers
            if server.client is not None and not server.retiring and not server.pinned
        ]
        if not linked:
            return 0
        max(linked, key=lambda server: server.linked).retire(_REASON)
        return 1

    def _pay(self, pool: AnyPool, count: int) -> int:
        if count:
            self._owed[pool] -= count
            if not self._owed[pool]:
                del self._owed[pool]
            self._give_back(pool, count)
        return count

    def _give_back(self, pool: AnyPool, count: int) -> None:
        self._held[pool] -= count
        if not self._held[pool]:
            del self._held[pool]
            self._owed.pop(pool, None)
        self._post(messages.Returned(self.key(pool), count))

    def _want(self, pool: AnyPool, count: int, now: float) -> None:
        settings = pool.settings
        late = bool(settings.reserve_pool_size) and pool.waited(now) >= settings.reserve_pool_timeout
        wanted = (count, bool(pool.waiting or pool.logins), late) if count else None
        if wanted == self._wanted.get(pool):
            return
        if wanted is None:
            del self._wanted[pool]
            self._post(messages.Wanted(self.key(pool), 0, urgent=False, late=False))
        else:
            self._wanted[pool] = wanted
            self._post(messages.Wanted(self.key(pool), *wanted))

    def _forget(self, pool: AnyPool) -> None:
        key = self._keys.pop(pool, None)
        # There may be another one of the name by now, if its database was gone from the settings for a while.
        if key is not None and self._pools.get(key) is pool:
            del self._pools[key]


class Places:
    """The seats of a worker, as `frontdoor.door.Places`.

    Args:
        post: sends a message to the supervisor; must not block.
        used: tells how many seats of a kind are taken.
    """

    def __init__(self, post: Callable[[Message], None], used: Callable[[SeatKey], int]) -> None:
        self._post = post
        self._used = used
        self._lent: dict[SeatKey, int] = {}
        self._queues: dict[SeatKey, deque[Callable[[bool], None]]] = {}

    def free(self, seat: SeatKey) -> bool:
        """Whether one more client may come in."""
        return self._used(seat) < self._lent.get(seat, 0)

    def seek(self, seat: SeatKey, then: Callable[[bool], None]) -> None:
        """Ask for a seat.

        Args:
            seat: of which kind.
            then: called when one is free, or with False if there is none. It takes the seat, or leaves it free.
        """
        queue = self._queues.get(seat)
        if queue is None:
            self._queues[seat] = deque((then,))
            self._post(messages.Sought(seat, 1))
        else:
            queue.append(then)

    def lent(self, seat: SeatKey, count: int) -> None:
        """The supervisor has answered: so many more seats, or none."""
        self._lent[seat] = self._lent.get(seat, 0) + count
        queue = self._queues.pop(seat, deque())
        while queue and self.free(seat):
            queue.popleft()(True)
        if not count:
            for then in queue:
                then(False)
        elif queue:
            self._queues[seat] = queue
            self._post(messages.Sought(seat, len(queue)))

    def give_back(self, seat: SeatKey) -> None:
        """The supervisor wants what is not used."""
        lent = self._lent.get(seat, 0)
        unused = max(lent - self._used(seat), 0)
        if lent > unused:
            self._lent[seat] = lent - unused
        else:
            self._lent.pop(seat, None)
        self._post(messages.SeatsBack(seat, unused))
