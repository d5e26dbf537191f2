"""What the cache knows of one database: its catalog, its entries by table, and which writes have passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from hyperpool.cache import board
from hyperpool.cache.catalog import Catalog, question
from hyperpool.cache.catalog_writes import Reach
from hyperpool.cache.counters import CacheStats, Fingerprints

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from hyperpool.cache.store import Entry
    from hyperpool.sql.reading import Reading

ANY_TABLE: Final = frozenset({0})
"""The tables of an answer of which nobody knows what it depends on: any write drops it."""

_LONGEST_DOUBT: Final = 300.0
"""Seconds between the last two times that what is in doubt is dropped."""

_MAX_UNREAD: Final = 2000
"""Statements that may wait for the catalog to tell how far they go."""

_REST: Final = 3.0
"""How often the time that it takes to read the catalog passes before that is read again."""

_LONGEST_REST: Final = 30.0
"""Seconds that pass if it is read again and again, and has not changed."""

_ELSEWHERE: Final = "workers"
"""The source of what other processes of the pooler tell."""

_PATIENCE: Final = 30.0
"""Seconds after which it is asked for again, when nobody has answered: the server may have gone."""


class Writing:
    """What a server connection has been asked to write since its transaction began.

    Attributes:
        tables: oids of tables.
        anything: it may be any table.
        schema: tables, functions or rights may change, so that nothing that is known of them holds.
        unsure: the same, but hardly: what is known of them is to be looked at again soon.
        unread: statements of which only the catalog can tell, which was not known.
        ends: the transaction may end before the server says that it is idle.
    """

    __slots__ = ("anything", "ends", "schema", "tables", "unread", "unsure")

    def __init__(self) -> None:
        self.ends = False
        self.unsure = False
        self.unread: set[Reading] | None = None
        self.tables: set[int] = set()
        self.anything = False
        self.schema = False

    def __bool__(self) -> bool:
        return self.anything or self.schema or self.ends or bool(self.tables)

    def add(
        self, tables: frozenset[int] | None, reach: Reach = Reach.NOTHING, unread: Reading | None = None
    ) -> None:
        """Another statement.

        Args:
            tables: oids; None for any table.
            reach: how far it may go beyond rows.
            unread: itself, if only the catalog can tell how far it goes, and is not known.
        """
        if tables is None:
            self.anything = True
        else:
            self.tables |= tables
        self.schema = self.schema or reach is Reach.SCHEMA
        self.unsure = self.unsure or reach is Reach.UNKNOWN
        if unread is not None:
            self.unread = {unread} if self.unread is None else self.unread | {unread}


def anything() -> Writing:
    """What a server has been asked to write of whom nobody knows what it has been asked."""
    writing = Writing()
    writing.add(None, Reach.SCHEMA)
    return writing


class _Doubt:
    """A write that may be committed at any time, and nobody will tell.

    Attributes:
        writing: what it may have written.
        due: when to drop that again, monotonic seconds; 0 for at once.
        pause: seconds until the time behind that.
    """

    __slots__ = ("due", "pause", "writing")

    def __init__(self, writing: Writing) -> None:
        self.writing = writing
        self.due = 0.0
        self.pause = 1.0


class HasVersion(Protocol):
    """What is prepared, and must be prepared anew when the schema changes."""

    version: int


class DatabaseCache:
    """What the pools of one database have in common, whoever logs in, and by whatever name clients ask for it.

    This is the invalidator: whatever tells of changes calls `drop` or `changed`, with its name as the source. The relay
    is one source (``writes``); a stream of outside changes would be another.

    Args:
        remove: takes an entry out of the store.

    Attributes:
        tell: called with each change that is seen here, before anybody else can know of it, if the pooler has other
            processes: with oids of tables, or None for any table, and what it is (`board`). None if it has none.
        open: what is not certain elsewhere, so that nothing is served or kept here: numbers of processes that do not
            know yet how far something goes that they have executed, and announcements that not all have heard.
        catalog: what is known of tables and functions; None until it has been read.
        catalog_due: when to read it again, monotonic seconds.
        pending: it must be read before anything is served or kept.
        asked: until when its answer is waited for, monotonic seconds.
        version: counts the changes of the schema.
        generation: counts the times that everything was dropped because it may be another database now.
        prepared: what its pools have prepared, as it was before changes of the schema that any of them has made.
        stats: totals.
        queries: totals by fingerprint.
    """

    def __init__(self, remove: Callable[[Entry], None]) -> None:
        self._remove = remove
        self._by_table: dict[int, set[Entry]] = {}
        self._tableless: set[Entry] = set()
        self._drops = 0
        self._dropped: dict[int, int] = {}
        self._purged: dict[str, int] = {}
        self._all_dropped = 0
        self._doubts: list[_Doubt] = []
        self._unread: set[Reading] = set()
        self._asked_at = 0.0
        self._rests_until = 0.0
        self._rest = 0.0
        self.tell: Callable[[Collection[int] | None, int], None] | None = None
        self.open: set[object] = set()
        self.catalog: Catalog | None = None
        self.catalog_due = 0.0
        self.pending = True
        self.asked = 0.0
        self.version = 0
        self.generation = 0
        self.prepared: set[HasVersion] = set()
        self.stats = CacheStats()
        self.queries = Fingerprints()

    # -- entries -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.entries())

    def entries(self) -> set[Entry]:
        """All that is kept of this database."""
        return self._tableless.union(*self._by_table.values())

    def added(self, entry: Entry) -> None:
        """An entry is kept from now on."""
        if not entry.tables:
            self._tableless.add(entry)
        for table in entry.tables:
            self._by_table.setdefault(table, set()).add(entry)

    def removed(self, entry: Entry) -> None:
        """An entry is no longer kept."""
        self._tableless.discard(entry)
        for table in entry.tables:
            entries = self._by_table.get(table)
            if entries is not None:
                entries.discard(entry)
                if not entries:
                    del self._by_table[table]

    # -- writes --------------------------------------------------------------------------------------------------

    def mark(self) -> int:
        """To be taken before a query is sent, and given to `holds` when its answer has come."""
        return self._drops

    def holds(self, mark: int, tables: Iterable[int], fingerprint: str = "") -> bool:
        """Whether none of these tables has been written to since a mark, and no such query been purged."""
        if self._all_dropped > mark or self._purged.get(fingerprint, 0) > mark:
            return False
        dropped = self._dropped
        return not any(dropped.get(table, 0) > mark for table in tables)

    def drop(self, tables: Iterable[int] | None, source: str) -> int:
        """Tables have changed: drop what depends on them.

        Args:
            tables: their oids; None for any table.
            source: what tells so, for the counters.

        Returns:
            How many entries that were.
        """
        self._drops += 1
        if tables is None:
            self._all_dropped = self._drops
            self._dropped.clear()
            self._purged.clear()
            gone = self.entries()
        else:
            gone = set()
            for table in (*tables, *ANY_TABLE):
                self._dropped[table] = self._drops
                gone.update(self._by_table.get(table, ()))
        for entry in gone:
            self._remove(entry)
        self.stats.invalidations[source] += len(gone)
        return len(gone)

    def purge(self, fingerprint: str) -> int:
        """Drop the answers to the queries with one fingerprint, and those on their way. Returns how many were kept."""
        self._drops += 1
        self._purged[fingerprint] = self._drops
        gone = [entry for entry in self.entries() if entry.stats.fingerprint == fingerprint]
        for entry in gone:
            self._remove(entry)
        self.stats.invalidations["purge"] += len(gone)
        return len(gone)

    def written(self, writing: Writing) -> None:
        """A transaction that has passed the pooler may have been committed."""
        reach = self._reach(writing.unread) if writing.unread is not None else Reach.NOTHING
        if writing.schema or reach is Reach.SCHEMA:
            self.changed("schema")
            return
        self._written(None if writing.anything else writing.tables)
        if writing.unsure or reach is Reach.UNKNOWN:
            self.catalog_due = 0.0
            self._tell(None, board.UNSURE)

    def visible(self, writing: Writing) -> None:
        """Of a transaction that goes on, a part may have been committed."""
        self._written(None if writing.anything or writing.schema else writing.tables)

    def _written(self, tables: Collection[int] | None) -> None:
        self.drop(tables, "writes")
        if tables is None or tables:
            self._tell(tables, board.WRITES)

    def _tell(self, tables: Collection[int] | None, what: int) -> None:
        if self.tell is not None:
            self.tell(tables, what)

    def _reach(self, readings: set[Reading]) -> Reach:
        """How far statements go that have been executed while the catalog was not known; it may tell later."""
        catalog = self.catalog
        if self.pending or catalog is None:
            if not self._unread:
                self._tell(None, board.DOUBTS)
            self._unread |= readings
            return Reach.NOTHING if len(self._unread) <= _MAX_UNREAD else Reach.SCHEMA
        return max((catalog.touched(one, None).reach for one in readings), default=Reach.NOTHING)

    def doubt(self, writing: Writing) -> None:
        """A transaction may still be committed, and nobody will tell when: drop what it writes again and again.

        The pauses grow, so that an answer from before it is not served for longer than it was late itself.
        """
        self._doubts.append(_Doubt(writing))

    def recall(self, now: float) -> None:
        """Drop what is in doubt and due. For about once a second; monotonic seconds."""
        for doubt in self._doubts:
            if now >= doubt.due:
                self.written(doubt.writing)
                doubt.due = now + doubt.pause
                doubt.pause *= 2
        self._doubts = [doubt for doubt in self._doubts if doubt.pause <= 2 * _LONGEST_DOUBT]

    def changed(self, source: str) -> None:
        """The schema may have changed: nothing is served before the catalog has been read again."""
        self._changed(source)
        self._tell(None, board.SCHEMA)
        self._settled()

    def _settled(self) -> None:
        """What is known from now on covers all that has been executed so far, here and elsewhere."""
        if self._unread:
            self._unread.clear()
            self._tell(None, board.KNOWS)

    def _changed(self, source: str) -> None:
        self.version += 1
        for prepared in self.prepared:
            prepared.version += 1
        self.pending = True
        self.catalog_due = 0.0
        self.drop(None, source)

    def renew(self, source: str) -> None:
        """It may be another database now."""
        self._renewed(source)
        self._tell(None, board.RENEWED)
        self._settled()

    def _renewed(self, source: str) -> None:
        self.generation += 1
        self.catalog = None
        self._changed(source)

    # -- other processes of the pooler ---------------------------------------------------------------------------

    def changed_elsewhere(self, note: board.Note) -> None:
        """Another process tells of a change, and has told before anybody could know of it."""
        if note.what == board.RENEWED:
            self._renewed(_ELSEWHERE)
        elif note.what == board.SCHEMA:
            # What has been executed here meanwhile may be newer than what others know by now.
            self._changed(_ELSEWHERE)
        elif note.what == board.UNSURE:
            self.catalog_due = 0.0
        elif note.what == board.KNOWS:
            self.open.discard(note.writer)
        else:
            self.drop(None if note.table == board.ANY else (note.table,), _ELSEWHERE)
            if note.what == board.DOUBTS:
                self.open.add(note.writer)

    def died(self, process: int) -> None:
        """Another process has died."""
        self.open.discard(process)
        self.missed(_ELSEWHERE)

    def missed(self, source: str) -> None:
        """Another process has written what nobody here has been told of, and some of it may still be committed."""
        self._changed(source)
        self.doubt(anything())

    # -- the catalog ---------------------------------------------------------------------------------------------

    def due(self, now: float) -> bool:
        """Whether the catalog is to be read."""
        return now >= self.catalog_due and now >= self.asked and now >= self._rests_until

    def asks(self, now: float) -> tuple[int, str]:
        """The catalog is being read. Returns what `told` is to be given, and the SQL."""
        self.asked = now + _PATIENCE
        self._asked_at = now
        return self.version, question("" if self.catalog is None else self.catalog.version)

    def told(self, version: int, rows: Sequence[Sequence[str | None]], now: float, age: float) -> None:
        """The catalog has been read.

        Args:
            version: what `asks` has returned.
            rows: of the answer.
            now: monotonic seconds.
            age: seconds after which it is to be read again, if nothing happens.

        Raises:
            ValueError: the rows are not what was asked for.
        """
        self.asked = 0.0
        before = self.catalog
        taken = now - self._asked_at
        quiet = self._asked_at - self._rests_until > self._rest
        self._rest = _REST * taken if quiet or version != self.version else min(2 * self._rest, _LONGEST_REST)
        if version != self.version:
            self._rests_until = now + self._rest
            return
        self.catalog = Catalog(rows) if before is None else before.renewed(rows)
        if before is not self.catalog:
            self._rest = _REST * taken
            if before is not None and not self.pending:
                self.version += 1
                self.drop(None, "catalog")
        self._rests_until = now + self._rest
        self.pending = False
        self.catalog_due = now + age
        unread, self._unread = self._unread, set()
        reach = self._reach(unread)
        self._unread = unread
        if reach is Reach.SCHEMA:
            # It may have happened after the catalog was looked at.
            self.changed("schema")
        elif reach is Reach.UNKNOWN:
            self.catalog_due = 0.0
            self._tell(None, board.UNSURE)
        self._settled()

    def untold(self) -> None:
        """The catalog could not be read."""
        self.asked = 0.0
