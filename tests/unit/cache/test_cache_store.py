"""Where answers are kept: bounded in bytes, and not washed out by a scan."""

from __future__ import annotations

from hyperpool.cache.counters import QueryStats
from hyperpool.cache.database import DatabaseCache
from hyperpool.cache.store import OVERHEAD, Entry, Store

_LIMIT = 1 << 20
_KIB = 1024


class _Kept:
    """A store, and what it has forgotten."""

    def __init__(self) -> None:
        self.forgotten: list[tuple[bytes, bool]] = []
        self.store = Store(_LIMIT, lambda entry, evicted: self.forgotten.append((entry.key, evicted)))
        self._database = DatabaseCache(self.store.remove)

    def put(self, key: str, size: int = 10 * _KIB) -> Entry:
        entry = Entry(key.encode(), self._database, QueryStats("", ""))
        entry.answer = bytes(size)
        self.store.put(entry)
        return entry


def test_what_is_put_is_found() -> None:
    """With all that it counts for."""
    kept = _Kept()
    entry = kept.put("a", 100)
    assert kept.store.get(b"a") is entry
    assert kept.store.get(b"b") is None
    assert kept.store.size == OVERHEAD + 1 + 100
    kept.store.remove(entry)
    assert (len(kept.store), kept.store.size, entry.gone) == (0, 0, True)
    assert kept.forgotten == [(b"a", False)]


def test_the_limit_holds_whatever_comes() -> None:
    """And what has to go is told of."""
    kept = _Kept()
    for number in range(500):
        kept.put(f"{number}", number * 37 % (60 * _KIB))
        assert kept.store.size <= _LIMIT
    gone = [key for key, evicted in kept.forgotten if evicted]
    assert len(gone) + len(kept.store) == 500
    assert len(list(kept.store)) == len(kept.store)


def test_an_answer_that_is_too_large_is_not_kept() -> None:
    """A quarter of the memory is the most."""
    kept = _Kept()
    kept.put("small")
    large = kept.put("large", _LIMIT // 2)
    assert kept.store.get(b"large") is None
    assert kept.store.get(b"small") is not None
    assert not large.gone, "it has never been there"


def test_a_scan_does_not_wash_out_what_is_used() -> None:
    """What has been hit once survives any number of queries that are asked once."""
    kept = _Kept()
    hot = [kept.put(f"hot {number}") for number in range(20)]
    for entry in hot:
        entry.used = True
    for number in range(1000):
        kept.put(f"scan {number}")
    assert all(kept.store.get(entry.key) is entry for entry in hot)


def test_what_is_used_no_longer_makes_room_at_last() -> None:
    """For what is used now."""
    kept = _Kept()
    old = [kept.put(f"old {number}") for number in range(20)]
    for entry in old:
        entry.used = True
    for number in range(400):
        kept.put(f"new {number}").used = True
    assert not any(kept.store.get(entry.key) for entry in old)


def test_a_renewed_answer_counts_once() -> None:
    """With its new size."""
    kept = _Kept()
    entry = kept.put("a", 100)
    entry.answer = bytes(300)
    assert kept.store.put(entry)
    assert kept.store.size == OVERHEAD + 1 + 300
    assert kept.forgotten == []


def test_another_answer_with_the_same_key_takes_its_place() -> None:
    """The first one is forgotten."""
    kept = _Kept()
    first, second = kept.put("a", 100), kept.put("a", 200)
    assert first.gone
    assert kept.store.get(b"a") is second
    assert kept.forgotten == [(b"a", False)]
    kept.store.remove(first)
    assert kept.store.get(b"a") is second
