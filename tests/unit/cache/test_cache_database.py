"""Writes: what they drop, and which answers on their way they make void."""

from __future__ import annotations

from hyperpool.cache.catalog_writes import Reach
from hyperpool.cache.counters import QueryStats
from hyperpool.cache.database import ANY_TABLE, DatabaseCache, Writing
from hyperpool.cache.store import Entry


class _Cache(DatabaseCache):
    """A database whose entries are forgotten at once."""

    def __init__(self) -> None:
        super().__init__(self.removed)

    def entry(self, *tables: int) -> Entry:
        entry = Entry(b"", self, QueryStats("", ""))
        entry.tables = frozenset(tables)
        self.added(entry)
        return entry


def test_a_write_drops_what_depends_on_its_tables() -> None:
    """And nothing else; it is counted by its source."""
    cache = _Cache()
    both, one, other, constant = cache.entry(1, 2), cache.entry(1), cache.entry(2), cache.entry()
    assert cache.drop({1}, "writes") == 2
    assert cache.entries() == {other, constant}
    assert cache.drop({3}, "writes") == 0
    assert cache.drop(None, "purge") == 2
    assert len(cache) == 0
    assert cache.stats.invalidations == {"writes": 2, "purge": 2}
    assert both is not one


def test_what_nobody_knows_the_tables_of_is_dropped_by_any_write() -> None:
    """Somebody has signed for it, but not for reading old data."""
    cache = _Cache()
    cache.entry(*ANY_TABLE)
    mark = cache.mark()
    assert cache.drop({7}, "writes") == 1
    assert not cache.holds(mark, ANY_TABLE)


def test_an_answer_from_before_a_write_is_void() -> None:
    """A mark that was taken before; of its tables, or of any."""
    cache = _Cache()
    before = cache.mark()
    cache.drop({1}, "writes")
    between = cache.mark()
    assert not cache.holds(before, {1, 2})
    assert cache.holds(before, {2})
    assert cache.holds(between, {1})
    cache.drop(None, "writes")
    assert not cache.holds(between, {2})
    assert not cache.holds(between, ())
    assert cache.holds(cache.mark(), {1})


def test_what_is_purged_by_its_fingerprint_is_void_on_its_way_too() -> None:
    """Others are not."""
    cache = DatabaseCache(lambda _: None)
    before = cache.mark()
    assert cache.purge("f1") == 0
    assert not cache.holds(before, {1}, "f1")
    assert cache.holds(before, {1}, "f2")
    assert cache.holds(cache.mark(), {1}, "f1")
    cache.drop(None, "purge")
    assert cache.holds(cache.mark(), {1}, "f1")


def test_a_change_of_the_schema_makes_the_catalog_due() -> None:
    """Nothing is served before it has been read again; what was asked for before the change does not count."""
    cache = _Cache()
    cache.pending = False
    cache.catalog_due = 1000.0
    assert not cache.due(5.0)
    version, _ = cache.asks(5.0)
    writing = Writing()
    writing.add(frozenset({1}), Reach.SCHEMA)
    cache.written(writing)
    assert cache.pending
    cache.told(version, [["nonsense"]], 6.0, 2000.0)
    assert cache.pending
    assert cache.due(9.0)


def test_the_catalog_is_asked_for_by_one_at_a_time() -> None:
    """And again when nobody has answered."""
    cache = _Cache()
    assert cache.due(0.0)
    cache.asks(0.0)
    assert not cache.due(29.0)
    assert cache.due(31.0)
    cache.untold()
    assert cache.due(1.0)


def test_what_a_transaction_writes_adds_up() -> None:
    """Nothing is nothing, and anything is anything."""
    writing = Writing()
    writing.add(frozenset())
    assert not writing
    writing.add(frozenset({1}))
    writing.add(frozenset({2}))
    assert writing
    assert writing.tables == {1, 2}
    writing.add(None, Reach.SCHEMA)
    assert writing.anything
    assert writing.schema


def test_what_is_in_doubt_is_dropped_again_and_again() -> None:
    """With growing pauses, and not for ever."""
    cache = DatabaseCache(lambda _: None)
    cache.pending = False
    writing = Writing()
    writing.add(frozenset({1}))
    cache.doubt(writing)
    drops = []
    for second in range(2000):
        mark = cache.mark()
        cache.recall(float(second))
        if not cache.holds(mark, {1}):
            drops.append(second)
        assert cache.holds(mark, {2})
    assert drops == [0, 1, 3, 7, 15, 31, 63, 127, 255, 511]
