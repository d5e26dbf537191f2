"""A worker's part in the pooler that all workers are together: what it asks the supervisor, and what it is told."""

from __future__ import annotations

import json
import os
import pickle
from base64 import b64decode
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

import attrs
import structlog
import trio

from hyperpool.admin.console import Console, Role, ShutdownMode
from hyperpool.admin.outcomes import ConsoleError, Done, Waits
from hyperpool.admin.team import TeamConsole
from hyperpool.cache.sharing import Sharing
from hyperpool.config.settings import Portion
from hyperpool.errors import ProtocolError
from hyperpool.frontdoor.orders import CancelOrder
from hyperpool.workers import messages
from hyperpool.workers.holdings import Holdings, Places
from hyperpool.workers.messages import RESUME, Deed, Outcome, PoolKey
from hyperpool.workers.tally import PoolTally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hyperpool.admin.connection import Consoles
    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.cache.board import Board
    from hyperpool.config import PoolSettings, Settings
    from hyperpool.frontdoor.door import FrontDoor
    from hyperpool.http.metrics import Exporter
    from hyperpool.pool.warmer import Warmer
    from hyperpool.relay.handover import RelayPool
    from hyperpool.workers.link import Link
    from hyperpool.workers.messages import Fact, Message, SeatKey, Welcome
    from hyperpool.workers.tally import Tally

log = structlog.get_logger("worker")

_POLL: Final = 0.02
"""Seconds between two looks whether something that takes time is done."""

_BROKEN: Final = Outcome(error="internal error", sqlstate="XX000")
"""What comes of a statement that has failed as nobody has foreseen; the log tells why."""


def unpacked(settings: str, portion: Portion) -> Settings:
    """The settings as the supervisor sends them, for one worker."""
    found: Settings = pickle.loads(b64decode(settings))  # noqa: S301 - from the parent, through its own socket pair
    return attrs.evolve(found, portion=portion)


@attrs.frozen(eq=False)
class Parts:
    """The parts of a worker that have to do with other workers.

    Attributes:
        around: relay, pools, cache, and what operators have done.
        door: lets clients in.
        warmer: opens server connections.
        consoles: the console's clients.
        apply: takes over settings; returns why it cannot.
        end: ends the worker.
        cancel: sends a cancel request to a server.
        notes: what workers tell each other of writes.
        tally: how many clients keep their server connections, in all workers.
        hold: has nothing answered from the result cache for now, or lets it again.
        leave: leaves the place to another pooler, and ends when all clients have left.
    """

    around: Surroundings
    door: FrontDoor
    warmer: Warmer
    consoles: Consoles
    apply: Callable[[Settings], list[str]]
    end: Callable[[ShutdownMode], None]
    cancel: Callable[[CancelOrder], None]
    notes: Board
    tally: Tally
    hold: Callable[[bool], None]
    leave: Callable[[], None]


class Member:
    """Talks to the supervisor.

    Args:
        link: to it.
        welcome: its first message.
        parts: of the worker.

    Attributes:
        alone: all other workers have ended.
    """

    def __init__(self, link: Link, welcome: Welcome, parts: Parts) -> None:
        self._link = link
        self._parts = parts
        self._portion = Portion(welcome.number, welcome.workers)
        self._numbers = count(1)
        self._asked: dict[int, Callable[[list[list[Outcome]]], None]] = {}
        self._doing: dict[int, trio.CancelScope] = {}
        self._facts: dict[PoolKey, Fact] = {}
        self._cached_elsewhere: dict[tuple[str, str], None] = {}
        self._holdings = Holdings(
            link.post, parts.warmer.demand, partial(PoolTally, parts.tally, welcome.number)
        )
        self._places = Places(link.post, self._used)
        self._nudged = trio.Event()
        self.alone = False
        self._nursery: trio.Nursery
        self._exporter: Exporter | None = None
        around, consoles = parts.around, parts.consoles
        self._console = Console(around, consoles.views, consoles.process, Role.ADMIN)
        self._take_part()
        self._sharing = Sharing(around.cache, parts.notes, self._announce)
        around.cache.sharing = self._sharing
        around.relay.hear = self._sharing.hear
        if welcome.held:
            parts.hold(True)
        for cached in welcome.cached:
            self._begin(Deed("cached", cached))
        for fact in welcome.facts:
            self._facts[fact.pool] = fact
        for statement in welcome.statements:
            self._begin(statement)

    def _take_part(self) -> None:
        """Have the parts ask and tell."""
        around, door, consoles, warmer = (
            self._parts.around,
            self._parts.door,
            self._parts.consoles,
            self._parts.warmer,
        )
        warmer.permits = self._holdings
        around.relay.settled = warmer.demand
        around.relay.learned = self._learned
        door.places = self._places
        door.known = self._know
        door.elsewhere = self._cancel_elsewhere
        door.access.tell = lambda origin, user: self._link.post(messages.LoginFailed(origin, user))
        consoles.make = lambda role: TeamConsole(around, consoles.views, consoles.process, role, self)
        # It takes all workers to know that nobody is left.
        consoles.counted = lambda count: self._link.post(messages.ConsoleClients(count))

    async def run(self) -> None:
        """Obey the supervisor until it has gone; then end at once."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._nudge)
            reason = "it has gone"
            try:
                await self._link.run(self._handle)
            except ProtocolError as error:
                reason = str(error)
            log.error("the supervisor is lost: the worker ends", worker=self._portion.number, reason=reason)
            self._parts.end(ShutdownMode.IMMEDIATE)

    def sweep(self) -> None:
        """Look whether what is asked for is still needed, and what others have written; for every 100 ms."""
        self._holdings.sweep()
        self._sharing.hear()

    # -- what it is told -----------------------------------------------------------------------------------------------

    def _handle(self, message: Message) -> None:  # noqa: C901, PLR0912 - a table of messages
        now = self._parts.around.relay.time()
        access = self._parts.door.access
        match message:
            case messages.Granted():
                self._holdings.granted(message.pool, message.count, message.slot)
            case messages.PartWith():
                self._holdings.part_with(message.pool, now, force=message.force)
            case messages.Lent():
                self._places.lent(message.seat, message.count)
            case messages.GiveBack():
                self._places.give_back(message.seat)
            case messages.Do():
                self._do(message)
            case messages.Quit():
                if message.number in self._doing:
                    self._doing.pop(message.number).cancel()
            case messages.Answers():
                then = self._asked.pop(message.number, None)
                if then is not None:
                    then(message.outcomes)
            case messages.NewSettings():
                self._facts.clear()
                problems = self._parts.apply(unpacked(message.settings, self._portion))
                outcome = Outcome(error="; ".join(problems)) if problems else Outcome("RELOAD")
                self._link.post(messages.Did(message.number, [outcome]))
            case messages.Learned():
                self._facts[message.fact.pool] = message.fact
                self._tell_logins(message.fact.pool)
            case messages.Forgotten():
                self._facts.pop(message.pool, None)
            case messages.LoginFailed():
                access.failed_elsewhere(message.origin, message.user)
            case messages.Alone():
                self.alone = True
            case messages.HoldCache():
                # The board has told it before.
                self._sharing.hear()
                self._parts.hold(message.held)
                if not message.held:
                    self._cached_again()
                    self._sharing.alone()
            case messages.Leave():
                self._parts.leave()
            case messages.End():
                self._parts.end(ShutdownMode(message.mode))
            case _:
                raise ProtocolError(f"a worker is sent {type(message).__name__}")

    def _do(self, message: messages.Do) -> None:
        """Begin at once, so that everything happens in the same order in all workers."""
        begun = [self._begin(statement) for statement in message.statements]
        if any(isinstance(one, Waits) for one in begun):
            # It may be called off before that task has run for the first time.
            scope = self._doing[message.number] = trio.CancelScope()
            self._nursery.start_soon(self._finish, message.number, begun, scope)
        else:
            self._link.post(messages.Did(message.number, [one for one in begun if isinstance(one, Outcome)]))

    def _begin(self, statement: Deed) -> Outcome | Waits:
        try:
            return self._begun(statement)
        except ConsoleError as error:
            return _failed(error)
        except Exception as error:
            # All workers are asked the same, and all of them would end.
            log.error("a statement failed", statement=statement.verb, exc_info=error)
            return _BROKEN

    def _begun(self, statement: Deed) -> Outcome | Waits:
        around, verb, argument = self._parts.around, statement.verb, statement.argument
        if verb == "cancel":
            return self._cancel(argument)
        if verb == "metrics":
            return self._metrics(argument)
        if verb == "cached":
            self._cached(argument)
            return Outcome("CACHED")
        if statement == RESUME:
            around.operations.resume_if_stopped()
            return Outcome("RESUME")
        begun = self._console.perform(verb, argument)
        return _done(begun) if isinstance(begun, Done) else begun

    async def _finish(self, number: int, begun: Sequence[Outcome | Waits], scope: trio.CancelScope) -> None:
        with scope:
            outcomes = [await _over(one) if isinstance(one, Waits) else one for one in begun]
            self._link.post(messages.Did(number, outcomes))
        self._doing.pop(number, None)

    # -- what it asks, as `admin.team.Team` ----------------------------------------------------------------------------

    def ask(
        self,
        statements: Sequence[Deed],
        then: Callable[[list[list[Outcome]]], None],
        *,
        others: bool = False,
    ) -> int:
        """Have all workers, or all others, execute statements; `then` gets the outcomes of each."""
        number = next(self._numbers)
        self._asked[number] = then
        self._link.post(messages.Ask(number, list(statements), others))
        return number

    def abandon(self, number: int) -> None:
        """Nobody wants the answer any more."""
        if self._asked.pop(number, None) is not None:
            self._link.post(messages.Abandon(number))

    def nudge(self) -> None:
        """A client of the console has its answer."""
        self._nudged.set()

    async def _nudge(self) -> None:
        while True:
            await self._nudged.wait()
            self._nudged = trio.Event()
            self._parts.consoles.sweep()

    # -- metrics -------------------------------------------------------------------------------------------------------

    def _metrics(self, how: str) -> Waits:
        """Have the metrics of this worker written: with so many pools at most, and in OpenMetrics' form or not."""
        max_pools, openmetrics = map(int, how.split())
        texts: list[str] = []

        async def scrape() -> None:
            try:
                if self._exporter is None:
                    from hyperpool.http.metrics import Exporter  # noqa: PLC0415 - only `http` has its libraries

                    self._exporter = Exporter(self._parts.around)
                text = await self._exporter.scrape(max_pools, openmetrics=bool(openmetrics))
            except Exception as error:
                log.error("metrics cannot be told", exc_info=error)
                text = b""
            texts.append(text.decode())

        def result() -> Done:
            return Done("METRICS", rows=((self._portion.number, os.getpid(), texts[0]),))

        self._nursery.start_soon(scrape)
        return Waits("METRICS", lambda: bool(texts), _nothing, result)

    # -- cancel requests -----------------------------------------------------------------------------------------------

    def _cancel_elsewhere(self, pid: int, secret: bytes, then: Callable[[], None]) -> None:
        self.ask([Deed("cancel", f"{pid} {secret.hex()}")], lambda _: then(), others=True)

    def _cancel(self, key: str) -> Outcome | Waits:
        pid, _, secret = key.partition(" ")
        around, consoles = self._parts.around, self._parts.consoles
        server = around.relay.cancel_target(int(pid), bytes.fromhex(secret))
        if server is None:
            consoles.cancel(int(pid), bytes.fromhex(secret))
            return Outcome("CANCEL")
        told: list[bool] = []
        self._parts.cancel(CancelOrder(server, then=lambda: told.append(True)))
        return Waits("CANCEL", lambda: bool(told), _nothing)

    # -- what is known of pools ----------------------------------------------------------------------------------------

    def _learned(self, pool: RelayPool) -> None:
        """A server of this worker has told something about its pool."""
        if pool.settings.replication or pool.parameters is None:
            return
        key = PoolKey(pool.settings.database, pool.settings.user)
        fact = messages.Fact(key, dict(pool.parameters), dict(pool.base))
        if self._facts.get(key) != fact:
            self._facts[key] = fact
            self._link.post(messages.Learned(fact))

    def _know(self, pool: RelayPool) -> None:
        """Nobody has told this worker about a pool: perhaps another one knows."""
        fact = self._facts.get(PoolKey(pool.settings.database, pool.settings.user))
        if fact is None or pool.settings.replication:
            return
        canonical = self._parts.around.relay.tracker.canonical
        pool.parameters = dict(fact.parameters)
        pool.reported = frozenset(name.lower() for name in pool.parameters if canonical(name))
        pool.base = dict(fact.base)

    def _tell_logins(self, key: PoolKey) -> None:
        """Logins need not wait for a server of this worker's own."""
        around = self._parts.around
        for pool in list(around.pools):
            settings = pool.settings
            if pool.parameters is None and (settings.database, settings.user) == (key.database, key.user):
                self._know(pool)
                around.relay.arrived(pool, None)

    # -- the result cache ----------------------------------------------------------------------------------------------

    def _announce(self, settings: PoolSettings, identity: str, then: Callable[[], None]) -> None:
        """Something is cached here, as `cache.sharing.Announce`."""
        what = json.dumps([settings.database, settings.user, identity])
        self.ask([Deed("cached", what)], lambda _: then(), others=True)

    def _cached(self, what: str) -> None:
        """Another worker caches answers of a database: pools that lead there tell of writes, from now on."""
        database, user, identity = json.loads(what)
        self._cached_elsewhere[database, user] = None
        around = self._parts.around
        settings = around.settings().pool_for(database, user)
        if settings is None:
            return
        around.cache.lane(settings)
        if identity:
            around.cache.identified(settings, identity)
        around.pools.attach()

    def _cached_again(self) -> None:
        """The cache is no longer held: what others have cached since before this worker was there is followed, too."""
        around = self._parts.around
        for database, user in self._cached_elsewhere:
            settings = around.settings().pool_for(database, user)
            if settings is not None:
                around.cache.lane(settings)
        around.pools.attach()

    # -- clients --------------------------------------------------------------------------------------------

    def _used(self, seat: SeatKey) -> int:
        relay = self._parts.around.relay
        if seat.kind == "all":
            return relay.population + self._parts.consoles.count()
        if seat.kind == "replication":
            own = (pool for pool in self._parts.around.pools if pool.settings.replication and not pool.unused)
            return sum((pool.settings.database, pool.settings.user) == (seat.name, seat.user) for pool in own)
        counts = relay.census.databases if seat.kind == "database" else relay.census.users
        return counts.get(seat.name, 0)


async def _over(waits: Waits) -> Outcome:
    try:
        while not waits.over():  # noqa: ASYNC110 - the relay owns no Trio events
            await trio.sleep(_POLL)
        return _done(waits.done())
    except ConsoleError as error:
        return _failed(error)
    except Exception as error:
        log.error("a statement failed", statement=waits.tag, exc_info=error)
        return _BROKEN


def _done(done: Done) -> Outcome:
    return Outcome(done.tag, [list(row) for row in done.rows])


def _failed(error: ConsoleError) -> Outcome:
    return Outcome("", [], str(error), error.sqlstate, error.detail, error.hint)


def _nothing() -> None:
    """What it does cannot be undone."""
