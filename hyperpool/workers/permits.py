"""Permits for server connections: the supervisor's account of what each worker may have. Sans-IO.

A worker asks for permits before it opens server connections, and gives each one back when it has none for it any more.
A permit counts from the moment that it is granted until it comes back, so what all workers have together never exceeds
a limit, whatever is on its way between them.

When a limit leaves nothing for somebody who waits, another worker is asked:

- one that has at least two more of the pool than the one that wants one: to part with one, as soon as it is unlinked.
  So workers that have clients waiting end up with equal shares, give or take one;
- one that has one more than the other: the same, once it has had its turn, so that what cannot be divided goes round.
  A turn is short where the other has none (`_TURN`), and else long (`_LONG_TURN`), since each costs a new connection;
- any that has connections under the same limit: to close one that nobody uses.

What its clients keep for session state serves nobody else, and is no part of a worker's share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hyperpool.workers.messages import PoolKey

_TURN: Final = 0.1
"""Seconds for which a worker may keep its only server connection of a pool, when there are not enough for each."""

_LONG_TURN: Final = 0.5
"""Seconds for which it may keep one more than others have, that want one more, too."""

_PAUSE: Final = 0.05
"""Seconds after which a worker that had nothing unused is asked again."""

_HOPE: Final = 0.25
"""Seconds for which nobody else is asked, after somebody was asked to part with a connection, or has promised it."""

_NO_LIMIT: Final = float("inf")


@attrs.frozen
class Limits:
    """How many server connections there may be; infinite for no limit.

    Attributes:
        pool: of the pool.
        reserve: more of them, for clients that have waited for long.
        database: of all pools of its database.
        user: of all pools of its user.
    """

    pool: float = _NO_LIMIT
    reserve: int = 0
    database: float = _NO_LIMIT
    user: float = _NO_LIMIT


@attrs.frozen
class Grant:
    """`worker` may have `count` more server connections of a pool."""

    worker: int
    pool: PoolKey
    count: int


@attrs.frozen
class Reduce:
    """`worker` is asked to part with one server connection of a pool.

    Attributes:
        force: one that is in use, if there is no other, as soon as it is unlinked.
    """

    worker: int
    pool: PoolKey
    force: bool


@attrs.define(eq=False)
class _Want:
    """What a worker waits for.

    Attributes:
        count: permits.
        urgent: clients wait for them; else they are for ``min_pool_size``.
        late: they have waited for so long that the reserve may be used.
        since: a number that grows with time.
    """

    count: int
    urgent: bool
    late: bool
    since: int


@attrs.define(eq=False)
class _Share:
    """What a worker has of a pool.

    Attributes:
        granted: permits.
        leaving: of these, those that it has promised to give back.
        asked: it has been asked to part with one, and has not answered.
        since: when it was granted one, or promised to give one back, for the last time; monotonic seconds.
        busy_until: it has nothing that it could part with, as far as is known; monotonic seconds.
        hope_until: until when its answer, or what it has promised, is waited for, monotonic seconds.
    """

    granted: int = 0
    leaving: int = 0
    asked: bool = False
    since: float = 0.0
    busy_until: float = 0.0
    hope_until: float = 0.0

    def ask(self, now: float) -> None:
        """It is being asked to part with one."""
        self.asked = True
        self.hope_until = now + _HOPE

    @property
    def staying(self) -> int:
        """Permits that it has for longer."""
        return self.granted - self.leaving - self.asked


class Permits:
    """The account.

    Args:
        limits: gives the limits of a pool, as they are now.
        kept: how many of a worker's connections of a pool its clients keep.
    """

    def __init__(self, limits: Callable[[PoolKey], Limits], kept: Callable[[int, PoolKey], int]) -> None:
        self._limits = limits
        self._kept = kept
        self._shares: dict[PoolKey, dict[int, _Share]] = {}
        self._wants: dict[PoolKey, dict[int, _Want]] = {}
        self._databases: dict[str, set[PoolKey]] = {}
        self._users: dict[str, set[PoolKey]] = {}
        self._clock = 0

    def granted(self, pool: PoolKey) -> int:
        """How many permits of a pool are out."""
        return sum(share.granted for share in self._shares.get(pool, {}).values())

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for a permit: `decide` is to be called again soon."""
        return bool(self._wants)

    # -- what workers say ----------------------------------------------------------------------------------------------

    def want(self, worker: int, pool: PoolKey, count: int, *, urgent: bool, late: bool) -> None:
        """A worker would have so many more permits, in place of what it has said before; 0 for none."""
        wants = self._wants.setdefault(pool, {})
        before = wants.pop(worker, None)
        if count:
            self._clock += 1
            wants[worker] = _Want(count, urgent, late, self._clock if before is None else before.since)
        if not wants:
            del self._wants[pool]

    def give_back(self, worker: int, pool: PoolKey, count: int) -> None:
        """A worker needs permits no longer."""
        share = self._shares.get(pool, {}).get(worker)
        if share is None:
            return
        share.granted = max(share.granted - count, 0)
        share.leaving = min(max(share.leaving - count, 0), share.granted)
        want = self._wants.get(pool, {}).get(worker)
        if want is not None:
            # It has had its turn: others have waited longer.
            self._clock += 1
            want.since = self._clock
        self._clean(pool, worker)

    def answered(self, worker: int, pool: PoolKey, count: int, now: float) -> None:
        """A worker has answered a `Reduce`: it parts with so many, and will give them back."""
        share = self._shares.get(pool, {}).get(worker)
        if share is None:
            return
        share.asked = False
        share.leaving = min(share.leaving + count, share.granted)
        if count:
            share.since = now
            share.hope_until = now + _HOPE
        else:
            share.busy_until = now + _PAUSE
        self._clean(pool, worker)

    def gone(self, worker: int) -> None:
        """A worker has died: what it had and wanted counts no longer."""
        for pool in list(self._shares):
            if self._shares[pool].pop(worker, None) is not None:
                self._forget_if_empty(pool)
        for pool in list(self._wants):
            self.want(worker, pool, 0, urgent=False, late=False)

    def _clean(self, pool: PoolKey, worker: int) -> None:
        share = self._shares[pool][worker]
        if not share.granted and not share.asked:
            del self._shares[pool][worker]
            self._forget_if_empty(pool)

    def _forget_if_empty(self, pool: PoolKey) -> None:
        if not self._shares[pool]:
            del self._shares[pool]
            for index, name in ((self._databases, pool.database), (self._users, pool.user)):
                index[name].discard(pool)
                if not index[name]:
                    del index[name]

    # -- what they are told --------------------------------------------------------------------------------------------

    def decide(self, now: float) -> list[Grant | Reduce]:
        """Grant what the limits leave room for, and ask for what somebody waits for.

        Args:
            now: monotonic seconds.

        Returns:
            What workers are to be told.
        """
        orders: list[Grant | Reduce] = []
        for urgent in (True, False):
            for pool in list(self._wants):
                self._grant(pool, now, orders, urgent=urgent)
        for pool in list(self._wants):
            orders.extend(self._reductions(pool, now))
        return orders

    def _grant(self, pool: PoolKey, now: float, orders: list[Grant | Reduce], *, urgent: bool) -> None:
        """Give out what there is, one by one, to who has least of the pool.

        Among equals, it goes to whose share has changed longest ago, or else who waits longest.
        """
        limits = self._limits(pool)
        counts: dict[int, int] = {}
        while wants := [item for item in self._wants.get(pool, {}).items() if item[1].urgent is urgent]:
            shares = self._shares.get(pool, {})
            able = [item for item in wants if self._room(pool, limits, late=item[1].late) >= 1]
            if not able or not (urgent or self._is_for_minimum(pool)):
                break
            worker, want = min(able, key=lambda item: (*self._had(shares, pool, item[0]), item[1].since))
            share = self._share(pool, worker)
            share.granted += 1
            share.since = now
            counts[worker] = counts.get(worker, 0) + 1
            self.want(worker, pool, want.count - 1, urgent=want.urgent, late=want.late)
        orders.extend(Grant(worker, pool, count) for worker, count in counts.items())

    def _had(self, shares: dict[int, _Share], pool: PoolKey, worker: int) -> tuple[int, float]:
        """How many permits a worker has that are of use to all its clients, and since when."""
        share = shares.get(worker)
        free = 0 if share is None else share.granted - self._kept(worker, pool)
        return (0, 0.0) if share is None or free <= 0 else (free, share.since)

    def _is_for_minimum(self, pool: PoolKey) -> bool:
        """Whether nobody waits for what is wanted to keep ``min_pool_size``."""
        rivals = {pool, *self._databases.get(pool.database, ()), *self._users.get(pool.user, ())}
        rivals.update(
            other for other in self._wants if pool.database == other.database or pool.user == other.user
        )
        return not any(want.urgent for rival in rivals for want in self._wants.get(rival, {}).values())

    def _room(self, pool: PoolKey, limits: Limits, *, late: bool) -> float:
        return min(room for room, _ in self._rooms(pool, limits, late=late))

    def _rooms(self, pool: PoolKey, limits: Limits, *, late: bool) -> Iterator[tuple[float, set[PoolKey]]]:
        """For each limit what it leaves, and the pools that it is about."""
        of_database = self._databases.get(pool.database, set())
        of_user = self._users.get(pool.user, set())
        yield limits.pool + late * limits.reserve - self.granted(pool), {pool}
        for limit, pools in ((limits.database, of_database), (limits.user, of_user)):
            yield (limit if limit == _NO_LIMIT else limit - sum(map(self.granted, pools))), pools

    def _share(self, pool: PoolKey, worker: int) -> _Share:
        self._databases.setdefault(pool.database, set()).add(pool)
        self._users.setdefault(pool.user, set()).add(pool)
        return self._shares.setdefault(pool, {}).setdefault(worker, _Share())

    def _reductions(self, pool: PoolKey, now: float) -> Iterator[Reduce]:
        """Have others part with what somebody waits for that nobody is parting with yet."""
        limits = self._limits(pool)
        for worker, want in sorted(self._wants[pool].items(), key=lambda item: item[1].since):
            if not want.urgent:
                continue
            full = [pools for room, pools in self._rooms(pool, limits, late=want.late) if room < 1]
            if full and not any(self._is_being_freed(pools, now) for pools in full):
                yield from self._asked_for(worker, pool, full, now)

    def _is_being_freed(self, pools: set[PoolKey], now: float) -> bool:
        return any(
            (share.asked or share.leaving) and now < share.hope_until
            for pool in pools
            for share in self._shares.get(pool, {}).values()
        )

    def _asked_for(
        self, worker: int, pool: PoolKey, full: list[set[PoolKey]], now: float
    ) -> Iterator[Reduce]:
        """Ask one worker, or for each limit that is reached one, to part with a connection."""
        richest = self._richest(worker, pool, now)
        if richest is not None:
            self._shares[pool][richest].ask(now)
            yield Reduce(richest, pool, force=True)
            return
        chosen: dict[tuple[PoolKey, int], _Share] = {}
        for pools in full:
            idle = self._perhaps_idle(worker, pool, pools, now)
            if idle is None:
                return
            chosen[idle] = self._shares[idle[0]][idle[1]]
        for (other, holder), share in chosen.items():
            share.ask(now)
            yield Reduce(holder, other, force=False)

    def _richest(self, worker: int, pool: PoolKey, now: float) -> int | None:
        """Who has so much of a pool that its share is to be made smaller for the sake of a worker."""
        shares = {
            holder: (self._free(pool, holder), share)
            for holder, share in self._shares.get(pool, {}).items()
            if holder != worker and not share.asked and now >= share.busy_until
        }
        if not shares:
            return None
        has = self._free(pool, worker)
        holder, (most, share) = max(shares.items(), key=lambda item: (item[1][0], -item[1][1].since))
        more = most - has
        had_its_turn = now - share.since >= (_LONG_TURN if has else _TURN)
        return holder if more > 1 or (more == 1 and had_its_turn) else None

    def _free(self, pool: PoolKey, worker: int) -> int:
        """Permits of a pool that a worker has for longer and for all its clients."""
        share = self._shares.get(pool, {}).get(worker)
        return 0 if share is None else max(share.staying - self._kept(worker, pool), 0)

    def _perhaps_idle(
        self, worker: int, pool: PoolKey, pools: set[PoolKey], now: float
    ) -> tuple[PoolKey, int] | None:
        """Who may have an unused connection of one of these pools: of several, who has most."""
        found = [
            (share.staying, other, holder)
            for other in pools
            for holder, share in self._shares.get(other, {}).items()
            if (other, holder) != (pool, worker)
            and share.staying > 0
            and not share.asked
            and now >= share.busy_until
            and not self._waits(holder, other)
        ]
        if not found:
            return None
        _, other, holder = max(found, key=lambda item: item[0])
        return other, holder

    def _waits(self, worker: int, pool: PoolKey) -> bool:
        """Whether clients of a worker wait for a pool, so that it has nothing unused."""
        want = self._wants.get(pool, {}).get(worker)
        return want is not None and want.urgent
