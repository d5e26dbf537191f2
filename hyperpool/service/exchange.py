"""What workers tell the supervisor, and what it tells them: permits, seats, questions to all, and news."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import attrs
import structlog
import trio

from hyperpool.admin.statistics import Counts, joined, packed
from hyperpool.cache import board
from hyperpool.config.settings import RESERVED
from hyperpool.errors import ProtocolError
from hyperpool.stats import PoolStats
from hyperpool.workers import messages, seats
from hyperpool.workers.messages import Deed, Outcome, PoolKey
from hyperpool.workers.permits import Grant, Limits, Permits
from hyperpool.workers.questions import Journal, Questions
from hyperpool.workers.seats import Seats
from hyperpool.workers.tally import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hyperpool.cache.board import Board
    from hyperpool.config import Settings
    from hyperpool.workers.link import Link
    from hyperpool.workers.messages import Fact, Message, SeatKey
    from hyperpool.workers.questions import Entry
    from hyperpool.workers.tally import Tally

log = structlog.get_logger("supervisor")

_TICK: Final = 0.02
"""Seconds between two looks at the accounts while somebody waits for a permit."""

_NO_LIMIT: Final = float("inf")


@attrs.define(eq=False)
class _Asked:
    """Something that workers have been asked.

    Attributes:
        number: of the question; 0 for what the supervisor itself does.
        entries: in the journal, for each statement.
    """

    number: int = 0
    entries: list[Entry | None] = attrs.field(factory=list)


class Exchange:
    """Stands between the workers.

    Args:
        settings: gives the settings as they are now.
        workers: how many there are.
        command: does what concerns the pooler as a whole (``reload``, ``set``, ``shutdown``), and calls back with what
            came of it; returns False for everything else.
        notes: what workers tell each other of writes.
        tally: how many clients keep their server connections, in all workers.

    Attributes:
        journal: what operators have done that still holds.
        elsewhere: takes cancel requests for clients of another pooler, which had the place of this one before; None if
            there is none.
        held: nothing is answered from the result cache; see `hold_cache`.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        workers: int,
        command: Callable[[Deed, Callable[[Outcome], None]], bool],
        notes: Board,
        tally: Tally,
    ) -> None:
        self._settings = settings
        self._command = command
        self._board = notes
        self._tally = tally
        self._links: dict[int, Link] = {}
        self._permits = Permits(self._limits, self._kept)
        self._slots = Slots(self._permits.granted)
        self._seats = Seats(self._seat_limit, workers)
        self._questions = Questions(self._post)
        self._asked: dict[tuple[int, int], _Asked] = {}
        self._consoles: dict[int, int] = {}
        self._facts: dict[PoolKey, Fact] = {}
        self._cached: dict[str, None] = {}
        self._figures: dict[int, dict[str, list[Any]]] = {}
        self._clients: dict[int, int] = {}
        self._past: list[list[Any]] = []
        self._scarce = trio.Event()
        self.journal = Journal()
        self.elsewhere: Callable[[int, bytes, Callable[[], None]], None] | None = None
        self.held = False

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
                held=self.held,
            )
        )

    def gone(self, worker: int) -> None:
        """A worker has died: what it had is free, and what it has written nobody knows."""
        self._board.bury(worker)
        self._tally.clear(worker)
        if self._links.pop(worker, None) is None:
            return
        self._clients.pop(worker, None)
        self._consoles.pop(worker, None)
        figures = self._figures.pop(worker, {})
        totals = joined([self._past, figures.values()]).totals
        self._past = packed(Counts(totals, {name: PoolStats() for name in totals}, 0.0))
        self._permits.gone(worker)
        self._slots.look_at_all()
        self._tell(self._seats.gone(worker))
        # What it has asked for is done by the others, but there is nobody to tell of it.
        self._asked = {asked: one for asked, one in self._asked.items() if asked[0] != worker}
        self._questions.gone(worker)
        self._resume_if_nobody_is_left()
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
                self._slots.look(message.pool)
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
            case messages.ConsoleClients():
                self._consoles[worker] = message.count
                self._resume_if_nobody_is_left()
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

    def ask(self, statements: Sequence[Deed], then: Callable[[list[list[Outcome]]], None]) -> None:
        """Have all workers execute statements; what holds on is told to those that come later, too."""
        self._put(list(statements), set(self._links), then, _Asked())

    def ask_settings(self, settings: str, then: Callable[[list[list[Outcome]]], None]) -> None:
        """Have all workers take over settings."""
        self._questions.ask(set(self._links), lambda number: messages.NewSettings(number, settings), then)

    def cancel(self, pid: int, secret: bytes, done: Callable[[], None]) -> None:
        """Cancel what a client does, here or elsewhere.

        Args:
            pid: the process id in its key.
            secret: the secret in its key.
            done: called when the request cannot hit a later query any more.
        """
        self._cancel(Deed("cancel", f"{pid} {secret.hex()}"), set(self._links), done)

    def _cancel(self, deed: Deed, workers: set[int], then: Callable[[], None]) -> None:
        left = 1 + (self.elsewhere is not None)

        def one_is_done() -> None:
            nonlocal left
            left -= 1
            if not left:
                then()

        self._questions.ask(workers, lambda number: messages.Do(number, [deed]), lambda _: one_is_done())
        if self.elsewhere is not None:
            pid, _, secret = deed.argument.partition(" ")
            self.elsewhere(int(pid), bytes.fromhex(secret), one_is_done)

    def hold_cache(self, *, held: bool) -> None:
        """Have no worker answer anything from the result cache from this moment on, or let them again soon."""
        self.held = held
        if held:
            # Messages take their time, and somebody may be about to write elsewhere.
            self._board.tell(board.NOBODY, None, board.HELD)
        self.tell_all(messages.HoldCache(held))

    def tell_all(self, message: Message) -> None:
        """Tell all workers."""
        for worker in list(self._links):
            self._post(worker, message)

    def figures(self) -> tuple[Counts, int]:
        """What has been counted by all workers, those that have died included, and how many clients there are."""
        counted = joined([self._past, *(rows.values() for rows in self._figures.values())])
        return counted, sum(self._clients.values())

    def _count(self, worker: int, counted: messages.Counted) -> None:
        # What cannot be added up is noticed here, as what this worker has said, and not whenever sums are needed.
        if not all(isinstance(name, str) for name in joined([counted.figures]).totals):
            raise ProtocolError("figures of what is no database")
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
                self._post(
                    order.worker, messages.Granted(order.pool, order.count, self._slots.of(order.pool))
                )
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

    def _kept(self, worker: int, pool: PoolKey) -> int:
        slot = self._slots.known(pool)
        return 0 if slot is None else self._tally.own(worker, slot)

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
        first, key = asked.statements[0], (worker, asked.number)

        def answer(outcomes: list[list[Outcome]]) -> None:
            # One that has died has asked for nothing, nor has the one in its place.
            if self._asked.get(key) is not own:
                return
            del self._asked[key]
            if first.verb == "figures":
                outcomes = [*outcomes, [Outcome("SHOW", self._past)]]
            self._post(worker, messages.Answers(asked.number, outcomes))

        own = self._asked[key] = _Asked()
        if self._command(first, lambda outcome: answer([[outcome]])):
            return
        if first.verb == "cached":
            self._cached[first.argument] = None
        targets = set(self._links) - ({worker} if asked.others else set())
        if first.verb == "cancel":
            self._cancel(first, targets, lambda: answer([]))
            return
        self._put(asked.statements, targets, answer, own)

    def _put(
        self,
        statements: list[Deed],
        workers: set[int],
        then: Callable[[list[list[Outcome]]], None],
        asked: _Asked,
    ) -> None:
        """Have workers execute statements.

        Args:
            statements: what to execute.
            workers: who is to do it.
            then: called with the outcomes.
            asked: takes down what is to be known while that is under way.
        """
        asked.entries = self.journal.begin(statements, self._databases())

        def done(outcomes: list[list[Outcome]]) -> None:
            self._note(asked, outcomes)
            then(outcomes)

        asked.number = self._questions.ask(
            workers, lambda number: messages.Do(number, statements), done, len(statements)
        )

    def _note(self, asked: _Asked, outcomes: list[list[Outcome]]) -> None:
        """What has been asked for is over: what nobody has refused holds."""
        for at, entry in enumerate(asked.entries):
            if entry is not None:
                refused = bool(outcomes) and all(some[at].error for some in outcomes)
                self.journal.end(entry, refused=refused)

    def _databases(self) -> list[str]:
        return sorted(set(self._settings().databases).union(*self._figures.values()) - set(RESERVED))

    def _abandon(self, worker: int, number: int) -> None:
        """A worker does not want an answer any more: what it has stopped goes on, and nothing that others have."""
        asked = self._asked.pop((worker, number), None)
        if asked is None:
            return
        waited_for, outcomes = self._questions.drop(asked.number)
        for other in waited_for:
            self._post(other, messages.Quit(asked.number))
        stops = any(entry is not None and self.journal.stops(entry) for entry in asked.entries)
        refused = any(one.error for some in outcomes for one in some)
        self._note(asked, outcomes)
        if stops and not refused:
            self.ask([messages.RESUME], _ignore)

    def _resume_if_nobody_is_left(self) -> None:
        """As one process does: who has suspended the pooler cannot say any more that it is to go on."""
        if self.journal.stopped == "suspend" and not any(self._consoles.values()):
            log.info("nobody is left who could resume: resuming")
            self.ask([messages.RESUME], _ignore)

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


def _ignore(outcomes: list[list[Outcome]]) -> None:
    """Nobody waits for this."""
