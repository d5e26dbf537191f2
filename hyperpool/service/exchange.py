"""What workers tell the supervisor, and what it tells them: permits, seats, questions to all, and news."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import trio

from hyperpool.admin.statistics import Counts, joined, packed
from hyperpool.config.settings import RESERVED
from hyperpool.errors import ProtocolError
from hyperpool.stats import PoolStats
from hyperpool.workers import messages, seats
from hyperpool.workers.messages import Outcome, PoolKey
from hyperpool.workers.permits import Grant, Limits, Permits
from hyperpool.workers.questions import Journal, Questions
from hyperpool.workers.seats import Seats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hyperpool.cache.board import Board
    from hyperpool.config import Settings
    from hyperpool.workers.link import Link
    from hyperpool.workers.messages import Deed, Fact, Message, SeatKey

_TICK: Final = 0.02
"""Seconds between two looks at the accounts while somebody waits for a permit."""

_NO_LIMIT: Final = float("inf")


class Exchange:
    """Stands between the workers.

    Args:
        settings: gives the settings as they are now.
        workers: how many there are.
        command: does what concerns the pooler as a whole (``reload``, ``set``, ``shutdown``), and calls back with what
            came of it; returns False for everything else.
        notes: what workers tell each other of writes.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        workers: int,
        command: Callable[[Deed, Callable[[Outcome], None]], bool],
        notes: Board,
    ) -> None:
        self._settings = settings
        self._command = command
        self._board = notes
        self._links: dict[int, Link] = {}
        self._permits = Permits(self._limits)
        self._seats = Seats(self._seat_limit, workers)
        self._questions = Questions(self._post)
        self._asked: dict[tuple[int, int], int] = {}
        self._facts: dict[PoolKey, Fact] = {}
        self._cached: dict[str, None] = {}
        self._figures: dict[int, dict[str, list[Any]]] = {}
        self._clients: dict[int, int] = {}
        self._past: list[list[Any]] = []
        self._scarce = trio.Event()
        self.journal = Journal()

    # -- workers come and go -------------------------------------------------------------------------------------------

    def greet(
        self,
        worker: int,
        link: Link,
        settings: str,
        config_path: str,
        among: int,
        *,
        quiet: bool,
        http: int,
    ) -> None:
        """A worker has been started: tell it what it must know."""
        self._links[worker] = link
        link.post(
            messages.Welcome(
                number=worker,
                workers=among,
                settings=settings,
                config_path=config_path,
                quiet=quiet,
                http=http,
                statements=self.journal.statements,
                facts=list(self._facts.values()),
                cached=list(self._cached),
            )
        )

    def gone(self, worker: int) -> None:
        """A worker has died: what it had is free, and what it has written nobody knows."""
        self._board.bury(worker)
        if self._links.pop(worker, None) is None:
            return
        self._clients.pop(worker, None)
        figures = self._figures.pop(worker, {})
        totals = joined([self._past, figures.values()]).totals
        self._past = packed(Counts(totals, {name: PoolStats() for name in totals}, 0.0))
        self._permits.gone(worker)
        self._tell(self._seats.gone(worker))
        self._asked = {asked: number for asked, number in self._asked.items() if asked[0] != worker}
        self._questions.gone(worker)
        self._forget_facts(list(self._facts))
        self.decide()

    def reconfigured(self) -> None:
        """The settings have changed."""
        self._facts.clear()
        self._tell(self._seats.recall_all())
        self.decide()

    # -- what workers say ----------------------------------------------------------------------------------------------

    def handle(self, worker: int, message: Message) -> None:
        """A worker says something."""
        now = time.monotonic()
        match message:
            case messages.Wanted():
                self._permits.want(
                    worker, message.pool, message.count, urgent=message.urgent, late=message.late
                )
                self.decide()
            case messages.Returned():
                self._permits.give_back(worker, message.pool, message.count)
                self._forget_facts([message.pool])
                self.decide()
            case messages.PartsWith():
                self._permits.answered(worker, message.pool, message.count, now)
                self.decide()
            case messages.Sought():
                self._tell(self._seats.seek(worker, message.seat, message.count))
            case messages.SeatsBack():
                self._tell(self._seats.give_back(worker, message.seat, message.count))
            case messages.Counted():
                self._count(worker, message)
            case messages.Did():
                self._questions.answered(worker, message.number, message.outcomes)
            case messages.Ask():
                self._ask(worker, message)
            case messages.Abandon():
                self._abandon(worker, message.number)
            case messages.Learned():
                self._facts[message.fact.pool] = message.fact
                self._spread(message, worker)
            case messages.LoginFailed():
                self._spread(message, worker)
            case _:
                raise ProtocolError(f"a supervisor is sent {type(message).__name__}")

    def ask(self, statements: Sequence[Deed], then: Callable[[list[list[Outcome]]], None]) -> int:
        """Have all workers execute statements; what holds on is told to those that come later, too."""
        return self._put(list(statements), set(self._links), then)

    def ask_settings(self, settings: str, then: Callable[[list[list[Outcome]]], None]) -> None:
        """Have all workers take over settings."""
        self._questions.ask(set(self._links), lambda number: messages.NewSettings(number, settings), then)

    def tell_all(self, message: Message) -> None:
        """Tell all workers."""
        for worker in list(self._links):
            self._post(worker, message)

    def figures(self) -> tuple[Counts, int]:
        """What has been counted by all workers, those that have died included, and how many clients there are."""
        counted = joined([self._past, *(rows.values() for rows in self._figures.values())])
        return counted, sum(self._clients.values())

    def _count(self, worker: int, counted: messages.Counted) -> None:
        self._clients[worker] = counted.clients
        self._figures.setdefault(worker, {}).update({row[0]: row for row in counted.figures})

    # -- permits and seats ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at the accounts again and again while somebody waits for a permit."""
        while True:
            await self._scarce.wait()
            await trio.sleep(_TICK)
            self.decide()

    def decide(self) -> None:
        """Tell workers what the accounts say."""
        for order in self._permits.decide(time.monotonic()):
            if isinstance(order, Grant):
                self._post(order.worker, messages.Granted(order.pool, order.count))
            else:
                self._post(order.worker, messages.PartWith(order.pool, order.force))
        if not self._permits.waiting:
            if self._scarce.is_set():
                self._scarce = trio.Event()
        else:
            self._scarce.set()

    def _tell(self, orders: Iterable[seats.Order]) -> None:
        for order in orders:
            if isinstance(order, seats.Lend):
                self._post(order.worker, messages.Lent(order.seat, order.count))
            else:
                self._post(order.worker, messages.GiveBack(order.seat))

    def _limits(self, pool: PoolKey) -> Limits:
        settings = self._settings().pool_for(pool.database, pool.user)
        if settings is None:
            return Limits(pool=0)
        return Limits(
            pool=1 if pool.own else settings.pool_size or _NO_LIMIT,
            reserve=0 if pool.own else settings.reserve_pool_size,
            database=settings.max_db_connections or _NO_LIMIT,
            user=settings.max_user_connections or _NO_LIMIT,
        )

    def _seat_limit(self, seat: SeatKey) -> float:
        settings = self._settings()
        if seat.kind == "all":
            return settings.pooler.max_client_conn
        if seat.kind == "replication":
            pool = settings.pool_for(seat.name, seat.user)
            return 0 if pool is None else pool.pool_size or _NO_LIMIT
        if seat.kind == "database":
            return settings.client_limits(seat.name, "")[0] or _NO_LIMIT
        return settings.client_limits("", seat.name)[1] or _NO_LIMIT

    # -- questions -----------------------------------------------------------------------------------------------------

    def _ask(self, worker: int, asked: messages.Ask) -> None:
        first = asked.statements[0]

        def answer(outcomes: list[list[Outcome]]) -> None:
            self._asked.pop((worker, asked.number), None)
            if first.verb == "figures":
                outcomes = [*outcomes, [Outcome("SHOW", self._past)]]
            self._post(worker, messages.Answers(asked.number, outcomes))

        if self._command(first, lambda outcome: answer([[outcome]])):
            return
        if first.verb == "cached":
            self._cached[first.argument] = None
        targets = set(self._links) - ({worker} if asked.others else set())
        number = self._put(asked.statements, targets, answer)
        self._asked[worker, asked.number] = number

    def _put(
        self, statements: list[Deed], workers: set[int], then: Callable[[list[list[Outcome]]], None]
    ) -> int:
        for statement in statements:
            self.journal.note(statement, self._databases())
        return self._questions.ask(workers, lambda number: messages.Do(number, statements), then)

    def _databases(self) -> list[str]:
        return sorted(set(self._settings().databases).union(*self._figures.values()) - set(RESERVED))

    def _abandon(self, worker: int, number: int) -> None:
        own = self._asked.pop((worker, number), None)
        if own is not None:
            for other in self._questions.drop(own):
                self._post(other, messages.Quit(own))
            self.ask([messages.RESUME], lambda _: None)

    # -- news ----------------------------------------------------------------------------------------------------------

    def _spread(self, message: Message, source: int) -> None:
        for worker in list(self._links):
            if worker != source:
                self._post(worker, message)

    def _forget_facts(self, pools: Iterable[PoolKey]) -> None:
        """What a server has told holds as long as there is one of the same pool."""
        for pool in pools:
            if pool in self._facts and not self._permits.granted(pool):
                del self._facts[pool]
                self.tell_all(messages.Forgotten(pool))

    def _post(self, worker: int, message: Message) -> None:
        link = self._links.get(worker)
        if link is not None:
            link.post(message)
