"""The permits of a worker, when its pools come and go: none is lost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from hyperpool.config import DatabaseSettings, PoolerSettings, Settings
from hyperpool.pool.pools import Pools
from hyperpool.workers import messages
from hyperpool.workers.holdings import Holdings
from hyperpool.workers.messages import PoolKey
from hyperpool.workers.tally import PoolTally, Tally, tally_size

if TYPE_CHECKING:
    from hyperpool.pool.state import Pool

_KEY = PoolKey("app", "ann")


class _Worker:
    """The pools of one database, and what has been said of them."""

    def __init__(self) -> None:
        self.pools: Pools[Any, Any] = Pools(self._settings(there=True), lambda: 0.5)
        self.outbox: list[messages.Message] = []
        self.tally = Tally(bytearray(tally_size(2)), 0, 2)
        self.holdings = Holdings(self.outbox.append, lambda _: None, partial(PoolTally, self.tally, 0))

    @staticmethod
    def _settings(*, there: bool) -> Settings:
        databases = {"app": DatabaseSettings()} if there else {}
        return Settings(pooler=PoolerSettings(), databases=databases)

    def reload(self, *, there: bool) -> None:
        """The database is in the settings, or is not."""
        self.pools.reload(self._settings(there=there))

    def pool(self) -> Pool[Any, Any]:
        """Its pool."""
        pool = self.pools.find("app", "ann")
        assert pool is not None
        return pool

    def dial(self, pool: Pool[Any, Any], count: int) -> None:
        """Ask for permits, get them, and use them."""
        assert self.holdings.take(pool, count, 0.0) == 0
        assert self.outbox == [messages.Wanted(_KEY, count, urgent=False, late=False)]
        self.outbox.clear()
        self.holdings.granted(_KEY, count, 7)
        pool.dialing = self.holdings.take(pool, count, 0.0)
        assert pool.dialing == count
        assert self.outbox == []


def test_those_of_a_pool_whose_database_is_gone_come_back() -> None:
    """Those for what is being dialed when that has ended."""
    worker = _Worker()
    pool = worker.pool()
    worker.dial(pool, 2)
    generation = pool.generation
    worker.reload(there=False)
    assert worker.holdings.take(pool, 0, 0.0) == 0
    assert worker.outbox == []
    for _ in range(2):
        assert not pool.arrived(generation)
    assert worker.holdings.take(pool, 0, 0.0) == 0
    assert worker.outbox == [messages.Returned(_KEY, 2)]


def test_a_pool_that_comes_again_gets_its_own() -> None:
    """While the one before it still has permits, and when it has none any more."""
    worker = _Worker()
    before = worker.pool()
    worker.dial(before, 1)
    generation = before.generation
    worker.reload(there=False)
    worker.reload(there=True)
    pool = worker.pool()
    assert pool is not before
    assert worker.holdings.take(pool, 2, 0.0) == 0
    worker.holdings.granted(_KEY, 1, 7)
    assert worker.holdings.take(pool, 2, 0.0) == 1
    pool.dialing = 1
    worker.outbox.clear()
    before.arrived(generation)
    worker.holdings.take(before, 0, 0.0)
    assert worker.outbox == [messages.Returned(_KEY, 1)]
    worker.holdings.granted(_KEY, 1, 7)
    assert worker.outbox == [messages.Returned(_KEY, 1)]
    assert worker.holdings.take(pool, 1, 0.0) == 1


def test_who_keeps_a_server_is_counted_where_the_supervisor_says() -> None:
    """In the same place for as long as the pool has a permit, and so a server."""
    worker = _Worker()
    pool = worker.pool()
    worker.dial(pool, 1)
    pool.count_pinned(1)
    worker.tally.add(1, 7, 2)
    first = pool.tally
    worker.holdings.granted(_KEY, 1, 7)
    assert pool.tally is first
    assert (pool.pinned, pool.pinned_everywhere, worker.tally.count(7)) == (1, 3, 3)
    pool.count_pinned(-1)
    worker.holdings.granted(_KEY, 1, 8)
    pool.count_pinned(1)
    assert (pool.pinned_everywhere, worker.tally.count(7), worker.tally.count(8)) == (1, 2, 1)
