"""The policy of one pool: which server connections it has, who waits for one, and when it may grow.

Sans-IO: servers and clients are opaque, time is passed in, and nothing here opens or closes anything.

A server connection is in one of these places, and only its mover changes that:

=================  ==================================================================================
``idle``           ready to be linked, the next one at the end: last in, first out, so that a quiet pool shrinks to
                   a warm core; with ``server_round_robin``, first in, first out
``conditioning``   runs a query of the pooler's own (reset, check, ``connect_query``)
linked             its ``client`` is set: it serves that client
``dialing``        a number only: not yet a server connection, the warmer is opening it
``void``           a number only: the warmer is giving it up, because the pool connects elsewhere by now
=================  ==================================================================================

``servers`` holds all but the dialing and the void ones, and limits count all of them. Clients that want a server wait
in ``waiting``, first in, first out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from hyperpool.auth.secrets import Shown
from hyperpool.config import PoolMode, SessionState
from hyperpool.pool.backoff import Backoff
from hyperpool.pool.places import Places
from hyperpool.pool.statements import StatementStore
from hyperpool.sql.effects import EffectReader
from hyperpool.stats import PoolStats

if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Callable, Iterator

    from hyperpool.cache.lane import Lane
    from hyperpool.config import PoolSettings
    from hyperpool.errors import UpstreamError
    from hyperpool.pool.quota import Quota
    from hyperpool.pool.statements import Statement


class Attempt(Protocol):
    """Somebody who opens a server connection."""

    def cancel(self) -> None:
        """Give it up."""


class ServerLike(Protocol):
    """What the policy must know of a server connection."""

    idle_since: float
    outdated: bool

    def becomes_cached(self) -> None:
        """From now on, what it writes is taken down."""


class Tally(Protocol):
    """A count of a pool's that other processes have, too."""

    slot: int

    def add(self, change: int) -> None:
        """This process's count has changed."""

    def count(self) -> int:
        """What all processes have counted, this one included."""


S = TypeVar("S", bound=ServerLike)
C = TypeVar("C")


class Pool(Places, Generic[S, C]):
    """The server connections of one database and user, and the clients that want them.

    Args:
        settings: everything resolved for this database and user.
        random: a source of numbers in [0, 1), for jitter.

    Attributes:
        settings: as given, or as replaced by `configure`.
        size: ``pool_size`` as a number to compare with: infinite for 0.
        session: the pool mode is session.
        slow: seconds after which a query is logged; infinite for never.
        keeps_texts: what servers are asked is kept, so that it can be.
        check_after: seconds of idleness after which a server is checked before reuse; infinite for never.
        parameters: what the newest server reported at login (ParameterStatus); None until the first login.
        reported: the parameters that servers report and that are tracked, in lower case.
        custom: parameters with a dot in their names that functions of the database set.
        base: what ``connect_query`` has set, but for what servers report.
        accepted: startup parameters of clients that a server has taken, by name and value, and what it made of them.
        reader: tells what session state a text may change; None when nobody has to know.
        watched: session state is followed, or reset.
        stateful: functions, and tables and views with such, that change session state, as far as is known.
        statements: the prepared statements of clients that share servers.
        translates: what clients send is looked into: statements have other names on servers, or state is watched.
        catalog_due: when to ask again which functions change session state, monotonic seconds; 0 for at once.
        told: a server has told that, or could not, since the pool leads where it does.
        queued: servers that wait until another one has.
        unanswered: how many have been asked for that in succession, and have gone without an answer.
        pinned: how many servers their clients keep, or may have to keep.
        tally: the same with those in other workers; None if there are none.
        max_pinned: how many may be.
        clients: how many clients are logged in to this pool.
        logins: how many client logins wait for `parameters`.
        generation: counts the changes of where the pool connects to; a connection that was dialed before one is void.
        attempts: what is being dialed and is not void.
        starting: those of `servers` that have not told yet what logins wait for.
        shown: what clients that log in as the pool's user have brought to light.
        route: what the warmer opens connections by; None before the first one.
        kept: the pool has ``min_pool_size`` connections even without clients.
        paused: no server is handed out (shutdown, PAUSE).
        quotas: the limits that it shares with other pools.
        round_robin: the server that has been idle for longest comes first.
        fast_close: a server that must be replaced takes its client with it, as soon as no transaction is open.
        unused_since: when somebody has last found it unused, monotonic seconds; None while it is used.
        cache: its part of the result cache; None if nothing of its database is cached, whoever asks for it.
        tells: called with what tells its database from others, when a server has told that; None if nobody asks.
        untold: a server that was there before is to tell it.
    """

    idle: list[S]
    waiting: OrderedDict[C, float]
    cache: Lane[C, Any, Statement] | None
    statements: StatementStore

    def __init__(self, settings: PoolSettings, random: Callable[[], float]) -> None:
        super().__init__(PoolStats())
        self.servers: set[S] = set()
        self.conditioning: dict[S, float] = {}
        self.dialing = 0
        self.void = 0
        self.clients = 0
        self.logins = 0
        self.generation = 0
        self.attempts: set[Attempt] = set()
        self.starting: set[S] = set()
        self.kept = False
        self.quotas: tuple[Quota[S, C], ...] = ()
        self.unused_since: float | None = None
        self.tells: Callable[[str], None] | None = None
        self.untold = False
        self.parameters: dict[str, str] | None = None
        self.reported: frozenset[str] = frozenset()
        self.custom: frozenset[str] = frozenset()
        self.base: dict[str, str] = {}
        self.accepted: dict[tuple[str, str], str] = {}
        self.statements = StatementStore(None)
        self.stateful: frozenset[str] = frozenset()
        self.told = False
        self.queued: dict[S, None] = {}
        self.unanswered = 0
        self.pinned = 0
        self.tally: Tally | None = None
        self.shown = Shown()
        self.route: Any = None
        self.backoff = Backoff(settings.server_login_retry, random)
        self.configure(settings)

    def configure(self, settings: PoolSettings) -> None:
        """Take over settings."""
        self.settings = settings
        self.session = settings.pool_mode is PoolMode.SESSION
        self.blocks = settings.pool_mode is not PoolMode.STATEMENT
        self.size = settings.pool_size or float("inf")
        self.slow = settings.log_slow_queries or float("inf")
        self.keeps_texts = settings.log_slow_queries > 0
        self.round_robin = settings.server_round_robin
        self.idle.sort(key=lambda server: server.idle_since, reverse=self.round_robin)
        self.fast_close = self.session and settings.server_fast_close
        self.check_after = settings.server_check_delay if settings.server_check_query else float("inf")
        self.backoff.limit = settings.server_login_retry
        self.watched = not self.session and settings.session_state is not SessionState.KEEP
        self.catalog_due = 0.0
        # Clients that have given names to statements keep them, whatever the settings say now.
        kept = settings.max_prepared_statements > 0 or self.translates
        self.translates = not self.session and (self.watched or kept)
        self.reader = EffectReader(settings.pin_functions) if self.translates else None
        self.glance = None
        if self.reader is not None:
            self.reader.learn(self.stateful)
            self.glance = self.reader.glance
        self.statements.relearn(self.reader)
        self.max_pinned = settings.max_pinned
        if settings.pool_size:
            # Somebody must be able to go on without state.
            self.max_pinned = min(settings.max_pinned, max(settings.pool_size - 1, 1))

    def count_pinned(self, change: int) -> None:
        """So many more servers are kept, or may have to be."""
        self.pinned += change
        if self.tally is not None:
            self.tally.add(change)

    @property
    def pinned_everywhere(self) -> int:
        """How many are in all workers, to compare with `max_pinned`."""
        return self.pinned if self.tally is None else self.tally.count()

    def __repr__(self) -> str:
        return (
            f"<Pool {self.name}: {len(self.idle)} idle, {self.active} active, {len(self.conditioning)} conditioning,"
            f" {self.dialing} dialing, {len(self.waiting)} waiting>"
        )

    @property
    def name(self) -> str:
        """``database/user``, as logs show it."""
        return f"{self.settings.database}/{self.settings.user}"

    @property
    def active(self) -> int:
        """How many server connections serve a client now."""
        return len(self.servers) - len(self.idle) - len(self.conditioning)

    @property
    def connections(self) -> int:
        """How many server connections there are, as limits count them: also those that are not there yet."""
        return len(self.servers) + self.dialing + self.void

    @property
    def minimum(self) -> int:
        """How many server connections to keep: ``min_pool_size``, while there are clients or the user is forced."""
        return self.settings.min_pool_size if self.clients or self.kept else 0

    @property
    def unused(self) -> bool:
        """Whether nobody would miss the pool."""
        return not (self.kept or self.clients or self.logins or self.connections or self.waiting)

    def renew(self) -> None:
        """What is being dialed is void, the next attempt need not wait, and it may lead to another database."""
        self.give_up()
        self.told = False
        self.unanswered = 0
        self.catalog_due = 0.0
        self.backoff.reset()
        if self.cache is not None:
            self.cache.database.renew("reconnect")

    def give_up(self) -> None:
        """What is being dialed is void: it ends soon, and counts until then."""
        self.generation += 1
        self.void += self.dialing
        self.dialing = 0
        for attempt in self.attempts:
            attempt.cancel()
        self.attempts.clear()
        self.starting.clear()

    def arrived(self, generation: int) -> bool:
        """Something that was dialed is a server connection, or has failed.

        Args:
            generation: the pool's, when it was asked for.

        Returns:
            Whether it is not void.
        """
        current = generation == self.generation
        if current:
            self.dialing -= 1
        else:
            self.void -= 1
        return current

    def learn(self, user: str, shown: Shown) -> None:
        """A client has logged in: what that has brought to light may be used for logins to servers.

        Something new is a reason to try again at once, after a server has refused what was known before.

        Args:
            user: as whom it has logged in.
            shown: what it has shown.
        """
        old = self.shown
        if user != self.settings.user or not self.settings.learns or not (shown.secret or shown.keys):
            return
        if shown.keys is None and shown.secret == old.secret:
            return
        if shown != old:
            self.shown = shown
            self.backoff.reset()

    def forget(self, server: S) -> None:
        """Take a server connection out of every place, because it is closed."""
        self.servers.discard(server)
        self.starting.discard(server)
        self.conditioning.pop(server, None)
        self.queued.pop(server, None)
        if server in self.idle:
            self.idle.remove(server)

    def missing(self, now: float) -> int:
        """How many server connections should be opened now.

        Enough for the clients that wait and for ``min_pool_size``, and at least one while a login waits to learn
        the server's parameters; within ``pool_size``, to which ``reserve_pool_size`` is added once a client has waited
        ``reserve_pool_timeout``, and within what `quotas` leave. None while the pool is paused or the backoff holds.

        Args:
            now: monotonic time in seconds.
        """
        if self.paused or self.backoff.holds(now):
            return 0
        have = self.connections
        urgent = self._urgent()
        wanted = min(max(urgent, self.minimum - have), self._limit(now) - have)
        for quota in self.quotas:
            if quota.limit:
                # What nobody waits for must not take the place of what somebody waits for.
                wanted = min(wanted, quota.room if urgent > 0 or not quota.contested else 0)
        return max(int(wanted), 0)

    def victim(self, now: float) -> S | None:
        """An idle server connection that must go, so that somebody who waits here can have one.

        It is one of the pools that share a quota with this one, and the one that has been idle for longest.

        Args:
            now: monotonic time in seconds.

        Returns:
            None when no quota is in the way, or when nothing that could be closed would help.
        """
        have = self.connections
        if self.paused or self._urgent() <= 0 or have >= self._limit(now) or self.backoff.holds(now):
            return None
        idlest = [quota.idlest() for quota in self.quotas if quota.room <= 0]
        return idlest[0] if idlest and None not in idlest else None

    def _urgent(self) -> int:
        """How many server connections somebody waits for that nobody is opening or preparing yet."""
        preparing = sum(not server.outdated for server in self.conditioning)
        urgent = len(self.waiting) - self.dialing - preparing
        # Servers that are there for longer tell logins nothing: they were opened with settings of the past.
        return max(urgent, 1 - self.dialing - len(self.starting)) if self.logins else urgent

    def _limit(self, now: float) -> float:
        reserve = self.settings.reserve_pool_size
        if reserve and self.waited(now) >= self.settings.reserve_pool_timeout:
            return self.size + reserve
        return self.size

    def hopeless(self, now: float) -> UpstreamError | None:
        """The error to give to clients at once, when there is no server connection and none can be had now."""
        if self.paused or self.servers or self.dialing or not self.backoff.holds(now):
            return None
        return self.backoff.error

    def stale(self, now: float) -> Iterator[S]:
        """The servers that have been idle for longer than ``server_idle_timeout``, down to ``min_pool_size``.

        Of a replication client's own pool: the one that it has left without using it.
        """
        if self.settings.replication and not (self.clients or self.logins):
            yield from list(self.idle)
        timeout = self.settings.server_idle_timeout
        if not timeout:
            return
        spare = len(self.servers) - self.minimum
        longest_first = self.idle[::-1] if self.round_robin else self.idle[:]
        for server in longest_first[: max(spare, 0)]:
            if now - server.idle_since < timeout:
                return
            yield server

    def waited(self, now: float) -> float:
        """For how long the client has waited that has waited longest, in seconds."""
        for since in self.waiting.values():
            return now - since
        return 0.0
