"""What the cache keeps for one pool: who its clients are to PostgreSQL, ways to entries, and answers on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from cachetools import LRUCache

from hyperpool.cache.ages import Ages
from hyperpool.cache.catalog_writes import Reach
from hyperpool.cache.database import ANY_TABLE
from hyperpool.cache.decision import decide
from hyperpool.cache.fronts import Front, Fronts
from hyperpool.cache.keys import pack, pack_settings
from hyperpool.cache.session import Session
from hyperpool.cache.store import Entry
from hyperpool.sql.clock import mentions_clock
from hyperpool.sql.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.cache.counters import QueryStats
    from hyperpool.cache.database import DatabaseCache, Writing
    from hyperpool.cache.flights import Flight
    from hyperpool.cache.fronts import Path
    from hyperpool.cache.session import HasValues
    from hyperpool.cache.store import Store
    from hyperpool.config.cache import CacheSettings
    from hyperpool.sql.reader import QueryReader
    from hyperpool.sql.reading import Name, Reading, Text

C = TypeVar("C")
R = TypeVar("R")
U = TypeVar("U")

_RETRY: Final = 5.0
"""Seconds after which a server is asked again what could not be told."""

_CATALOG_AGE: Final = 60.0
"""Seconds after which the catalog is read again of a database that is cached in other processes alone."""

_UNFIT_TIME: Final = 10.0
"""Seconds for which nobody waits for the answer to a query again whose last one could not be kept."""

_MAX_JUDGED: Final = 1000
"""Queries of which a lane remembers what has been found; fewer than fingerprints that are counted."""

_MAX_UNFIT: Final = 1000


class HasData(Protocol):
    """An answer that may be kept."""

    data: bytes
    rows: int


class Plan:
    """What is to be done with one query.

    Attributes:
        reason: why it is not cached; None if it is.
        stats: numbers of the queries with its fingerprint; None if it could not be read.
        key: everything that its answer depends on.
        ages: how old its answer may be.
        tables: oids of those that it depends on.
    """

    __slots__ = ("ages", "key", "reason", "stats", "tables")

    def __init__(self, reason: Reason | None, stats: QueryStats | None = None) -> None:
        self.reason = reason
        self.stats = stats
        self.key = b""
        self.ages = _NO_AGE
        self.tables: frozenset[int] = frozenset()


_NO_AGE: Final = Ages(0.0, 0.0, 0.0)


class _Judged:
    """What has been found of a query, whatever its literals are; see `Plan`.

    Attributes:
        clock: values may mean the clock.
        head: what all keys begin with.
        version: of the database's schema.
    """

    __slots__ = ("ages", "clock", "head", "reason", "stats", "tables", "version")

    def __init__(self, reason: Reason | None, stats: QueryStats, version: int) -> None:
        self.reason = reason
        self.stats = stats
        self.version = version
        self.ages = _NO_AGE
        self.tables: frozenset[int] = frozenset()
        self.clock = False
        self.head = b""


class Lane(Generic[C, R, U]):
    """The cache's part of one pool.

    Args:
        identity: what tells its pool from all others.
        user: as whom it logs in to the server.
        database: shared with all pools of the same database.
        store: shared by all pools.
        reader: shared by all pools.
        random: numbers in [0, 1), for jitter.
        flights: answers on their way from where the pool has led so far.

    Attributes:
        settings: of the database and user; None if nothing is cached for them: then it only tells of writes.
        path: the ``search_path`` that its sessions begin with; None as long as that is not known.
        beginning: names all that its sessions begin with; empty as long as that is not known.
        fronts: ways to entries.
        flights: answers on their way, by key.
        refreshes: how many of them were asked for in the background.
    """

    def __init__(
        self,
        identity: bytes,
        user: str,
        database: DatabaseCache,
        store: Store,
        reader: QueryReader,
        random: Callable[[], float],
        flights: dict[bytes, Flight[C, R]] | None = None,
    ) -> None:
        self._identity = identity
        self._user = user
        self.database = database
        self._store = store
        self._reader = reader
        self._random = random
        self._asks_after = 0.0
        self.settings: CacheSettings | None = None
        self.path: str | None = None
        self.beginning = ""
        self._server: object = None
        self.fronts = Fronts()
        self.flights: dict[bytes, Flight[C, R]] = {} if flights is None else flights
        self.refreshes = 0
        self._sessions: WeakKeyDictionary[HasValues, Session] = WeakKeyDictionary()
        self._judged: dict[tuple[Reading, Session, bytes], _Judged] = {}
        self._unfit: LRUCache[bytes, float] = LRUCache(_MAX_UNFIT)

    def configure(self, settings: CacheSettings | None) -> None:
        """Take over settings; what was kept under others is out of reach of the shortest way."""
        if settings != self.settings:
            self.settings = settings
            self._judged.clear()
            self._part_all()

    def begins_with(self, path: str, beginning: str) -> bool:
        """What sessions begin with, as a server has told.

        Args:
            path: the ``search_path``.
            beginning: names all of it.

        Returns:
            Whether that is not what older sessions have begun with.
        """
        changed = beginning != self.beginning and bool(self.beginning)
        if path != self.path or beginning != self.beginning:
            self.path = path
            self.beginning = beginning
            self._sessions.clear()
            self._judged.clear()
            self._part_all()
        return changed

    def reached(self, server: object) -> None:
        """A connection has been made to one of several servers of which one is used at a time."""
        if self._server not in (None, server):
            self.database.renew("failover")
        self._server = server

    @property
    def catalog_age(self) -> float:
        """Seconds after which the catalog is to be read again."""
        return _CATALOG_AGE if self.settings is None else self.settings.catalog_age

    @property
    def wait(self) -> float:
        """Seconds that a client waits for another one's answer."""
        return 0.0 if self.settings is None else self.settings.wait

    def asks(self, now: float) -> bool:
        """Whether a server is to be asked for what must be known."""
        return (
            (self.settings is not None or self.database.tell is not None)
            and now >= self._asks_after
            and (self.path is None or self.database.due(now))
        )

    def untold(self, now: float) -> None:
        """A server could not tell it."""
        self._asks_after = now + _RETRY
        self.database.untold()

    def session(self, tracked: HasValues) -> Session:
        """A client's settings."""
        found = self._sessions.get(tracked)
        if found is None:
            found = self._sessions[tracked] = Session(tracked.values, self._user, self.path)
        return found

    # -- what is to be cached ------------------------------------------------------------------------------------

    def plan(self, session: Session, kind: bytes, text: bytes, types: bytes, values: bytes) -> Plan:
        """Say what is to be done with one query.

        Args:
            session: whose it is.
            kind: of the request: what its answer consists of.
            text: the SQL.
            types: of the parameters, as in Parse behind the text.
            values: of the parameters, and the formats of all, as in Bind behind the names.
        """
        settings, database = self.settings, self.database
        catalog = database.catalog
        if settings is None or settings.off:
            return self.refuse(Reason.USER_OFF)
        if session.off:
            return self.refuse(Reason.SESSION_OFF)
        if session.path is None:
            # A pool's first queries come before a server has told what sessions begin with.
            return self.refuse(Reason.CATALOG_PENDING if self.path is None else Reason.SETTINGS_UNKNOWN)
        if database.open:
            return self.refuse(Reason.CATALOG_PENDING)
        read = self._reader.read(text, utf8=session.utf8, conforming=session.conforming)
        reading = read.reading
        if reading.reason is Reason.NOT_A_QUERY:
            return self.refuse(reading.reason)
        known = self._judged.get((reading, session, types))
        if known is None or known.version != database.version:
            stats = database.queries.of(reading.fingerprint, reading.template)
            if reading.reason is None and (database.pending or catalog is None):
                stats.calls += 1
                return self.refuse(Reason.CATALOG_PENDING, stats)
            known = self._judge(settings, session, read, types, stats)
        stats = known.stats
        stats.calls += 1
        if known.reason is not None:
            return self.refuse(known.reason, stats)
        if known.clock and mentions_clock(values):
            return self.refuse(Reason.CLOCK_LITERAL, stats)
        plan = Plan(None, stats)
        plan.ages = known.ages
        plan.tables = known.tables
        plan.key = known.head + pack(kind, read.canonical, types, values)
        return plan

    def _judge(
        self, settings: CacheSettings, session: Session, read: Text, types: bytes, stats: QueryStats
    ) -> _Judged:
        """Find out what all texts have in common that mean the same but for their literals."""
        database, reading = self.database, read.reading
        judged = _Judged(reading.reason, stats, database.version)
        if reading.reason is None and database.catalog is not None:
            verdict = database.catalog.judge(read, session.path or (), _oids(types))
            judged.reason, judged.ages, waived = decide(settings, reading, verdict)
            judged.tables = ANY_TABLE if waived else verdict.tables
            judged.clock = verdict.clock
            judged.head = pack(
                self._identity,
                self.beginning.encode(),
                b"%d" % database.generation,
                judged.ages.key,
                session.key,
                pack_settings((name, session.settings.get(name, "")) for name in verdict.settings),
            )
        if b"current_setting" not in read.canonical:
            # Otherwise a literal, the name of a setting, is part of the verdict.
            while len(self._judged) >= _MAX_JUDGED:
                del self._judged[next(iter(self._judged))]
            self._judged[reading, session, types] = judged
        return judged

    def refuse(self, reason: Reason, stats: QueryStats | None = None) -> Plan:
        """Count a query that is not cached."""
        self.database.stats.refused[reason] += 1
        if stats is not None:
            stats.last = reason
        return Plan(reason, stats)

    # -- what is kept --------------------------------------------------------------------------------------------

    def find(self, key: bytes, now: float) -> Entry | None:
        """The entry with this key, if it may still be served."""
        entry = self._store.get(key)
        if entry is not None and now >= entry.dead_after:
            self._store.remove(entry)
            return None
        return entry

    def make(
        self, plan: Plan, stats: QueryStats, answer: HasData, times: tuple[float, float], *, keep: bool
    ) -> Entry:
        """Make an entry of an answer.

        Args:
            plan: for the query.
            stats: of its fingerprint.
            answer: its bytes and rows.
            times: when the query was sent, and when the answer had come, monotonic seconds.
            keep: keep it.

        Returns:
            The entry; it is `Entry.gone` if it is not kept.
        """
        database = self.database
        known = self._store.get(plan.key) if keep else None
        entry = Entry(plan.key, database, stats) if known is None else known
        if known is not None:
            database.removed(entry)
        started, ended = times
        entry.answer = answer.data
        entry.tables = plan.tables
        entry.cost = ended - started
        entry.fresh_until, entry.dead_after = plan.ages.limits(started, answer.rows, self._random)
        entry.gone = not keep
        if keep:
            database.added(entry)
            if self._store.put(entry):
                database.stats.stored += 1
            elif not entry.gone:
                entry.gone = True
                database.removed(entry)
        return entry

    def drop(self, entry: Entry) -> None:
        """Keep an entry no longer."""
        self._store.remove(entry)

    def lead(self, path: Path, entry: Entry, *, prefix: bytes, closes: bool, unnamed: U | None) -> None:
        """Remember a way to an entry.

        Args:
            path: what a client has asked.
            entry: where they lead to.
            prefix: what the answer has in front of the entry's.
            closes: a Close is answered, too.
            unnamed: the client's unnamed statement afterwards.
        """
        if entry.gone or not entry.takes_front():
            return
        front = Front(path, entry, prefix, closes, unnamed)
        if self.fronts.put(front):
            entry.fronts.append(front)
            self._store.put(entry)

    def _part_all(self) -> None:
        """Forget all ways to entries, which stay."""
        for front in list(self.fronts):
            front.forget()
            front.entry.fronts.remove(front)

    # -- answers on their way ------------------------------------------------------------------------------------

    def unfit(self, key: bytes, now: float) -> None:
        """The answer to this query could not be kept: for a while, nobody waits for it."""
        self._unfit[key] = now + _UNFIT_TIME

    def is_unfit(self, key: bytes, now: float) -> bool:
        """Whether nobody waits for this answer."""
        return now < self._unfit.get(key, 0.0)

    # -- writes --------------------------------------------------------------------------------------------------

    def note(
        self,
        writing: Writing,
        session: Session,
        text: bytes,
        *,
        resolved: bool,
        temporary: bool = False,
        why: Reason | None = None,
    ) -> None:
        """A text is about to be executed: take down what it may write.

        Args:
            writing: what has been taken down so far.
            session: of its client.
            text: the SQL.
            resolved: the session has the settings that are known of it: names without a schema mean what they seem to.
            temporary: unless it has something temporary of that name, which may lead anywhere.
            why: why it could not be cached just now, if it could be otherwise.
        """
        catalog = self.database.catalog
        reading = self._reader.read(text, utf8=session.utf8, conforming=session.conforming).reading
        if why is not None and reading.reason is None:
            self.refuse(why)
        writes, path = reading.writes, session.path
        reach = Reach.SCHEMA if writes.schema else Reach.NOTHING
        if catalog is None or self.database.pending:
            names = reading.functions or reading.relations or reading.operators or reading.types
            if writes or names:
                writing.add(None, reach, None if writes.schema else reading)
        else:
            touched = catalog.touched(reading, path if resolved else None)
            unresolved = writes and not (resolved and path is not None)
            unresolved = unresolved or (temporary and any(map(_may_be_temporary, writes.tables)))
            writing.add(None if unresolved else touched.tables, max(reach, touched.reach))


def _may_be_temporary(name: Name) -> bool:
    """Whether the name of a table may mean a temporary one."""
    schema, _ = name
    return schema is None or schema.startswith("pg_temp")


def _oids(types: bytes) -> tuple[int, ...]:
    """The types of parameters in a Parse, behind its text; 0 for those that the server shall find out."""
    return tuple(int.from_bytes(types[at : at + 4], "big") for at in range(2, len(types), 4))
