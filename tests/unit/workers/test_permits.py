"""Permits for server connections: never more than the limits, none lost, and everybody gets some."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hyperpool.workers.messages import PoolKey
from hyperpool.workers.permits import Grant, Limits, Permits, Reduce

APP = PoolKey("app", "ann")
OTHER = PoolKey("app", "bob")
ELSEWHERE = PoolKey("shop", "ann")
POOLS = (APP, OTHER, ELSEWHERE)


def _nothing_kept(worker: int, pool: PoolKey) -> int:
    del worker, pool
    return 0


def _permits(**limits: Any) -> Permits:
    return Permits(lambda _: Limits(**limits), _nothing_kept)


def _want(permits: Permits, worker: int, count: int = 1, pool: PoolKey = APP, **how: bool) -> None:
    permits.want(worker, pool, count, **{"urgent": True, "late": False, **how})


class TestGrants:
    """What the limits leave room for is granted at once."""

    def test_as_many_as_the_pool_may_have(self) -> None:
        """And what does not fit is waited for."""
        permits = _permits(pool=3)
        _want(permits, 0, 5)
        assert permits.decide(0.0) == [Grant(0, APP, 3)]
        assert permits.waiting
        permits.give_back(0, APP, 1)
        assert permits.decide(0.0) == [Grant(0, APP, 1)]

    def test_fairly(self) -> None:
        """Two workers that want more than there is get the same, whoever was first."""
        permits = _permits(pool=4)
        _want(permits, 0, 4)
        _want(permits, 1, 4)
        assert sorted(permits.decide(0.0), key=lambda grant: grant.worker) == [
            Grant(0, APP, 2),
            Grant(1, APP, 2),
        ]

    def test_limits_of_the_database_and_the_user_count_for_all_their_pools(self) -> None:
        """The smallest one decides."""
        permits = _permits(pool=9, database=3, user=2)
        _want(permits, 0, 9)
        assert permits.decide(0.0) == [Grant(0, APP, 2)]
        _want(permits, 0, 9, OTHER)
        assert permits.decide(0.0)[0] == Grant(0, OTHER, 1)
        _want(permits, 1, 9, ELSEWHERE)
        assert not [order for order in permits.decide(0.0) if isinstance(order, Grant)]

    def test_the_reserve_is_for_those_who_have_waited(self) -> None:
        """Others do not get it."""
        permits = _permits(pool=1, reserve=1)
        _want(permits, 0, 2)
        assert permits.decide(0.0) == [Grant(0, APP, 1)]
        _want(permits, 0, 1, late=True)
        assert permits.decide(0.0) == [Grant(0, APP, 1)]

    def test_what_nobody_waits_for_comes_last(self) -> None:
        """Connections for min_pool_size do not take the place of those that clients wait for."""
        permits = _permits(pool=9, database=2)
        _want(permits, 0, 2, urgent=False)
        _want(permits, 1, 1, OTHER)
        orders = permits.decide(0.0)
        assert orders[0] == Grant(1, OTHER, 1)
        assert permits.granted(APP) == 1

    def test_a_wish_that_is_taken_back(self) -> None:
        """It is no longer waited for."""
        permits = _permits(pool=1)
        _want(permits, 0, 2)
        permits.decide(0.0)
        _want(permits, 0, 0)
        assert not permits.waiting


class TestReductions:
    """Who has what somebody else waits for is asked to part with it."""

    def test_shares_become_equal(self) -> None:
        """The one that has two more parts with one; then nobody is asked any more."""
        permits = _permits(pool=4)
        _want(permits, 0, 4)
        permits.decide(0.0)
        _want(permits, 1, 4)
        assert permits.decide(0.0) == [Reduce(0, APP, force=True)]
        assert permits.decide(0.0) == []
        permits.answered(0, APP, 1, 0.0)
        permits.give_back(0, APP, 1)
        assert permits.decide(0.0) == [Grant(1, APP, 1), Reduce(0, APP, force=True)]
        permits.answered(0, APP, 1, 0.0)
        permits.give_back(0, APP, 1)
        assert permits.decide(0.0) == [Grant(1, APP, 1), Reduce(0, APP, force=False)]

    def test_with_less_than_one_for_each_they_take_turns(self) -> None:
        """The one that has it keeps it for a while."""
        permits = _permits(pool=1)
        _want(permits, 0)
        permits.decide(0.0)
        _want(permits, 1)
        assert permits.decide(0.01) == [Reduce(0, APP, force=False)]
        permits.answered(0, APP, 0, 0.01)
        assert permits.decide(0.02) == []
        assert permits.decide(0.2) == [Reduce(0, APP, force=True)]

    def test_who_had_nothing_unused_is_left_alone_for_a_while(self) -> None:
        """And the next one is asked meanwhile."""
        permits = _permits(pool=9, database=2)
        for worker in (0, 1):
            _want(permits, worker, 1, OTHER)
        permits.decide(0.0)
        _want(permits, 2)
        asked = [permits.decide(0.0)]
        assert isinstance(asked[0][0], Reduce)
        permits.answered(asked[0][0].worker, OTHER, 0, 0.0)
        asked.append(permits.decide(0.0))
        assert {order.worker for orders in asked for order in orders} == {0, 1}
        permits.answered(asked[1][0].worker, OTHER, 0, 0.0)
        assert permits.decide(0.01) == []
        assert permits.decide(0.06) != []

    def test_a_promise_that_is_not_kept_soon_does_not_hold_others_up(self) -> None:
        """A long transaction may end tomorrow: somebody else is asked."""
        permits = _permits(pool=4)
        _want(permits, 0, 2)
        _want(permits, 1, 2)
        permits.decide(0.0)
        _want(permits, 2)
        first = permits.decide(0.0)
        permits.answered(first[0].worker, APP, 1, 0.0)
        assert permits.decide(0.1) == []
        assert permits.decide(0.3) == [Reduce(1 - first[0].worker, APP, force=True)]

    def test_who_does_not_answer_does_not_hold_others_up(self) -> None:
        """A worker may hang: somebody else is asked."""
        permits = _permits(pool=4)
        _want(permits, 0, 2)
        _want(permits, 1, 2)
        permits.decide(0.0)
        _want(permits, 2)
        first = permits.decide(0.0)
        assert permits.decide(0.2) == []
        assert permits.decide(0.3) == [Reduce(1 - first[0].worker, APP, force=True)]

    def test_what_cannot_be_divided_goes_round(self) -> None:
        """The one that has one more parts with it after its turn, and does not get it back at once."""
        permits = _permits(pool=3)
        _want(permits, 0, 3)
        _want(permits, 1, 3)
        assert permits.decide(0.0) == [Grant(0, APP, 2), Grant(1, APP, 1)]
        now = 0.0
        for holder in (0, 1, 0):
            assert not [one for one in permits.decide(now + 0.4) if isinstance(one, Reduce) and one.force]
            for asked in (0, 1):
                permits.answered(asked, APP, 0, now + 0.4)
            now += 0.6
            assert permits.decide(now) == [Reduce(holder, APP, force=True)]
            permits.answered(holder, APP, 1, now)
            permits.give_back(holder, APP, 1)
            _want(permits, holder, 1)
            assert permits.decide(now)[0] == Grant(1 - holder, APP, 1)

    def test_nothing_is_asked_for_that_would_not_help(self) -> None:
        """When the user's limit is reached and nothing of the user's can go, the database's pools are left alone."""
        permits = _permits(pool=9, database=2, user=1)
        _want(permits, 0)
        _want(permits, 0, 1, OTHER)
        permits.decide(0.0)
        permits.want(0, APP, 1, urgent=True, late=False)
        assert permits.decide(0.0) == []


class TestDeath:
    """A worker that dies leaves its permits to the others."""

    def test_what_it_had(self) -> None:
        """At once."""
        permits = _permits(pool=2)
        _want(permits, 0, 2)
        permits.decide(0.0)
        _want(permits, 1, 2)
        permits.decide(0.0)
        permits.gone(0)
        assert permits.decide(0.0) == [Grant(1, APP, 2)]

    def test_what_it_wanted(self) -> None:
        """Nobody waits for it any more."""
        permits = _permits(pool=1)
        _want(permits, 0, 2)
        permits.decide(0.0)
        permits.gone(0)
        assert not permits.waiting
        assert permits.granted(APP) == 0


@attrs.define
class _Worker:
    """A worker that obeys, sooner or later: what it has been sent and has not read, and what it has."""

    inbox: deque[Any] = attrs.field(factory=deque)
    held: dict[PoolKey, int] = attrs.field(factory=lambda: defaultdict(int))
    used: dict[PoolKey, int] = attrs.field(factory=lambda: defaultdict(int))
    owed: dict[PoolKey, int] = attrs.field(factory=lambda: defaultdict(int))


class Exchange(RuleBasedStateMachine):
    """Workers that want, use, part with and give back in any order, and die at any time."""

    limits = Limits(pool=3, reserve=1, database=5, user=4)

    def __init__(self) -> None:
        super().__init__()
        self.permits = Permits(lambda _: self.limits, _nothing_kept)
        self.workers = [_Worker() for _ in range(3)]
        self.now = 0.0

    def _decide(self) -> None:
        for order in self.permits.decide(self.now):
            self.workers[order.worker].inbox.append(order)

    @rule(worker=st.integers(0, 2), pool=st.sampled_from(POOLS), count=st.integers(0, 4), late=st.booleans())
    def want(self, worker: int, pool: PoolKey, count: int, late: bool) -> None:
        """A worker wants something."""
        self.permits.want(worker, pool, count, urgent=count % 2 == 0, late=late)
        self._decide()

    @rule(worker=st.integers(0, 2))
    def read(self, worker: int) -> None:
        """A worker reads one order."""
        own = self.workers[worker]
        if not own.inbox:
            return
        order = own.inbox.popleft()
        if isinstance(order, Grant):
            own.held[order.pool] += order.count
            return
        parts = own.held[order.pool] - own.owed[order.pool] > 0 and order.force
        own.owed[order.pool] += parts
        self.permits.answered(worker, order.pool, int(parts), self.now)
        self._decide()

    @rule(worker=st.integers(0, 2), pool=st.sampled_from(POOLS))
    def give_back(self, worker: int, pool: PoolKey) -> None:
        """A worker gives one back."""
        own = self.workers[worker]
        if own.held[pool]:
            own.held[pool] -= 1
            own.owed[pool] = max(own.owed[pool] - 1, 0)
            self.permits.give_back(worker, pool, 1)
            self._decide()

    @rule(worker=st.integers(0, 2))
    def die(self, worker: int) -> None:
        """A worker dies."""
        self.workers[worker] = _Worker()
        self.permits.gone(worker)
        self._decide()

    @rule(seconds=st.floats(0.0, 0.5))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self._decide()

    def _out(self, pool: PoolKey) -> int:
        unread = sum(
            order.count
            for own in self.workers
            for order in own.inbox
            if isinstance(order, Grant) and order.pool == pool
        )
        return unread + sum(own.held[pool] for own in self.workers)

    @invariant()
    def limits_hold(self) -> None:
        """What workers have or are about to have is never too much."""
        out = {pool: self._out(pool) for pool in POOLS}
        assert all(count <= self.limits.pool + self.limits.reserve for count in out.values())
        assert out[APP] + out[OTHER] <= self.limits.database
        assert out[APP] + out[ELSEWHERE] <= self.limits.user

    @invariant()
    def none_is_lost(self) -> None:
        """The account knows of exactly those that are out."""
        for pool in POOLS:
            assert self.permits.granted(pool) == self._out(pool)

    def teardown(self) -> None:
        """When all have read everything and given all back, whoever wants something gets it."""
        for worker, own in enumerate(self.workers):
            while own.inbox:
                self.read(worker)
        for pool in POOLS:
            for worker in range(3):
                self.permits.want(worker, pool, 0, urgent=False, late=False)
        for worker, own in enumerate(self.workers):
            for pool in POOLS:
                while own.held[pool]:
                    self.give_back(worker, pool)
        assert not self.permits.waiting
        self.permits.want(0, APP, 9, urgent=True, late=False)
        assert self.permits.decide(self.now)[0] == Grant(0, APP, 3)


TestExchange = Exchange.TestCase
TestExchange.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
