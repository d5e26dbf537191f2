"""Workers with equal loads get equal parts of a pool: simulated, with the accounts of both sides as they are."""

from __future__ import annotations

import heapq
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest

from hyperpool.workers import messages
from hyperpool.workers.holdings import Holdings
from hyperpool.workers.messages import PoolKey
from hyperpool.workers.permits import Grant, Limits, Permits, Reduce
from hyperpool.workers.tally import PoolTally, Tally, tally_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.workers.messages import Message

_DELAY = 0.0003
"""Seconds that a message is on its way between supervisor and worker."""

_DIAL = 0.004
"""Seconds until a server connection is open."""

_TICK = 0.02
_SWEEP = 0.1
_SECONDS = 10.0


@attrs.frozen
class _Settings:
    database: str = "app"
    user: str = "ann"
    replication: bool = False
    reserve_pool_size: int = 0
    reserve_pool_timeout: float = 5.0


@attrs.define(eq=False)
class _Server:
    pool: _Pool
    client: object | None = None
    linked: float = 0.0
    idle_since: float = 0.0
    retiring: bool = False
    pinned: bool = False

    def close(self, reason: str) -> None:
        """Close it."""
        del reason
        self.pool.servers.remove(self)
        if self in self.pool.idle:
            self.pool.idle.remove(self)
        self.pool.look()

    def retire(self, reason: str) -> None:
        """Close it as soon as it is unlinked."""
        self.retiring = True
        if self.client is None:
            self.close(reason)


class _Pool:
    """A pool of one worker, whose clients ask again as soon as they have their answer.

    Args:
        world: what it is part of.
        number: of the worker.
        clients: how many there are.
        query: seconds that one takes.
        kept: how many of them keep their server connection from their first query on.
    """

    def __init__(self, world: _World, number: int, clients: int, query: float, kept: int) -> None:
        self.world = world
        self.number = number
        self.kept = kept
        self.settings = _Settings()
        self.query = query
        self.servers: set[_Server] = set()
        self.idle: list[_Server] = []
        self.dialing = 0
        self.logins = 0
        self.waiting: list[object] = [object() for _ in range(clients)]
        self.done = 0
        self.tally: object = None
        self.holdings = Holdings(
            lambda message: world.to_supervisor(number, message),
            lambda _: world.soon(self.look),
            partial(PoolTally, world.tally, number),
        )

    @property
    def connections(self) -> int:
        """What limits count."""
        return len(self.servers) + self.dialing

    def waited(self, now: float) -> float:
        """No reserve here."""
        del now
        return 0.0

    def look(self) -> None:
        """Do what the warmer does."""
        world = self.world
        most = world.size - self.connections
        missing = max(min(len(self.waiting) - self.dialing, most), 0)
        for _ in range(self.holdings.take(cast("Any", self), missing, world.now)):
            self.dialing += 1
            world.after(_DIAL, self._opened)
        while self.idle and self.waiting:
            self._serve(self.idle.pop())

    def _opened(self) -> None:
        self.dialing -= 1
        server = _Server(self, idle_since=self.world.now)
        self.servers.add(server)
        self.idle.append(server)
        self.look()

    def _serve(self, server: _Server) -> None:
        server.client, server.linked = self.waiting.pop(0), self.world.now
        if self.kept:
            self.kept -= 1
            server.pinned = True
            self.world.tally.add(self.number, 0, 1)
            return
        self.world.after(self.query, lambda: self._answered(server))

    def _answered(self, server: _Server) -> None:
        self.done += 1
        assert server.client is not None
        self.waiting.append(server.client)
        server.client, server.idle_since = None, self.world.now
        if server.retiring:
            server.close("retired")
        else:
            self.idle.append(server)
        self.look()


class _World:
    """A supervisor, its workers, and time."""

    def __init__(self, size: int, clients: list[int], query: float, kept: list[int] | None = None) -> None:
        self.size = size
        self.now = 0.0
        self.tally = Tally(bytearray(tally_size(len(clients))), 0, len(clients))
        self._order = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._permits = Permits(lambda _: Limits(pool=size), lambda worker, _: self.tally.own(worker, 0))
        self.pools = [
            _Pool(self, number, some, query, kept[number] if kept else 0)
            for number, some in enumerate(clients)
        ]

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Have something happen."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what))

    def soon(self, what: Callable[[], None]) -> None:
        """Have something happen now, behind what is under way."""
        self.after(0.0, what)

    def to_supervisor(self, worker: int, message: Message) -> None:
        """A worker says something."""
        self.after(_DELAY, lambda: self._handle(worker, message))

    def _handle(self, worker: int, message: Message) -> None:
        match message:
            case messages.Wanted(pool, wanted, urgent, late):
                self._permits.want(worker, pool, wanted, urgent=urgent, late=late)
            case messages.Returned(pool, returned):
                self._permits.give_back(worker, pool, returned)
            case messages.PartsWith(pool, parts):
                self._permits.answered(worker, pool, parts, self.now)
        self._decide()

    def _decide(self) -> None:
        key = PoolKey("app", "ann")
        assert self._permits.granted(key) <= self.size
        for order in self._permits.decide(self.now):
            self.after(_DELAY, partial(self._obey, order))

    def _obey(self, order: Grant | Reduce) -> None:
        holdings = self.pools[order.worker].holdings
        if isinstance(order, Grant):
            holdings.granted(order.pool, order.count, 0)
        else:
            holdings.part_with(order.pool, self.now, force=order.force)

    def _tick(self) -> None:
        self._decide()
        self.after(_TICK, self._tick)

    def _sweep(self) -> None:
        for pool in self.pools:
            pool.holdings.sweep()
        self.after(_SWEEP, self._sweep)

    def run(self) -> list[int]:
        """How many queries each worker has had answered."""
        for number, pool in enumerate(self.pools):
            self.after(0.01 * number, pool.look)
        self._tick()
        self._sweep()
        while self._events and self.now < _SECONDS:
            self.now, _, what = heapq.heappop(self._events)
            what()
        return [pool.done for pool in self.pools]


@pytest.mark.parametrize("query", [0.005, 0.05])
@pytest.mark.parametrize(
    ("size", "clients"),
    [
        (1, [4, 4]),
        (2, [4, 4]),
        (3, [4, 4]),
        (4, [4, 4]),
        (5, [8, 8]),
        (1, [4, 4, 4]),
        (2, [4, 4, 4]),
        (4, [8, 8, 8]),
        (5, [8, 8, 8, 8]),
    ],
)
def test_equal_loads_get_equal_parts(size: int, clients: list[int], query: float) -> None:
    """Whether the pool can be divided by the number of workers or not, and if there is less than one for each."""
    done = _World(size, clients, query).run()
    assert min(done) >= 0.85 * max(done), done
    # Taking turns costs connections, and these time.
    assert sum(done) * query / size >= 0.95 * _SECONDS


@pytest.mark.parametrize(
    ("size", "clients", "kept"),
    [
        (2, [5, 4], [1, 0]),
        (3, [6, 4], [2, 0]),
        (3, [5, 5], [1, 1]),
        (4, [6, 4], [2, 0]),
        (5, [7, 4, 4], [3, 0, 0]),
    ],
)
def test_what_clients_keep_is_nobody_elses_part(size: int, clients: list[int], kept: list[int]) -> None:
    """What is left is divided among those who wait for it, wherever the others are."""
    world = _World(size, clients, 0.005, kept)
    done = world.run()
    assert min(done) >= 0.8 * max(done), done
    pinned = [[server for server in pool.servers if server.pinned] for pool in world.pools]
    assert list(map(len, pinned)) == kept
    # Nobody waits for one that is not given back.
    assert not any(server.retiring for servers in pinned for server in servers)
