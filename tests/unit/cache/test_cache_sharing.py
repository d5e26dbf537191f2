"""The result caches of two processes of one pooler: what one writes, the other keeps no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import attrs
import pytest

from hyperpool.cache import board
from hyperpool.cache.board import NOBODY, Board, board_size
from hyperpool.cache.database import DatabaseCache, Writing, anything
from hyperpool.cache.results import ResultCache
from hyperpool.cache.sharing import Sharing
from hyperpool.config import SessionState
from hyperpool.config.cache import CacheSettings
from tests.support.relayworld import POOL

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.config import PoolSettings

_CACHED: Final = attrs.evolve(POOL, session_state=SessionState.FOLLOW, cache=CacheSettings())
_PLAIN: Final = attrs.evolve(POOL, database="plain", host="by another way")
_TABLE: Final = 4711
_OTHER_TABLE: Final = 4712


class _Process:
    """One of two processes, and what it has announced."""

    def __init__(self, memory: bytearray, number: int) -> None:
        self.cache: ResultCache[Any, Any, Any] = ResultCache(1 << 20, lambda: 0.5)
        self.announced: list[tuple[str, str, Callable[[], None]]] = []
        self.sharing = Sharing(self.cache, Board(memory, 2, number), self._announce)
        self.cache.sharing = self.sharing

    def _announce(self, settings: PoolSettings, identity: str, then: Callable[[], None]) -> None:
        self.announced.append((settings.database, identity, then))

    def heard_by_all(self) -> None:
        """All others have heard what has been announced."""
        for *_, then in self.announced:
            then()

    def database(self, settings: PoolSettings = _CACHED) -> DatabaseCache:
        """What is known of a pool's database."""
        lane = self.cache.lane(settings)
        assert lane is not None
        return lane.database


@pytest.fixture
def pair() -> list[_Process]:
    """Both; the same database is cached in both."""
    memory = bytearray(board_size(2))
    processes = [_Process(memory, number) for number in range(2)]
    for process in processes:
        process.database()
        process.heard_by_all()
    return processes


def _writing(*tables: int) -> Writing:
    writing = Writing()
    writing.add(frozenset(tables))
    return writing


def _doubt(database: DatabaseCache) -> None:
    """Something has been executed of which only the catalog can tell how far it goes."""
    writing = Writing()
    writing.unread = {object()}  # type: ignore[arg-type]
    database.written(writing)


def test_a_write_counts_in_the_other_process(pair: list[_Process]) -> None:
    """For its tables alone, and once the other one has heard of it."""
    one, other = pair
    database = other.database()
    mark = database.mark()
    one.database().written(_writing(_TABLE))
    other.sharing.hear()
    assert not database.holds(mark, [_TABLE])
    assert database.holds(mark, [_OTHER_TABLE])
    one.database().visible(anything())
    other.sharing.hear()
    assert not database.holds(mark, [_OTHER_TABLE])


def test_changes_of_the_schema_and_failovers(pair: list[_Process]) -> None:
    """They are no news to who has told them, and are told no further."""
    one, other = pair
    versions = one.database().version, other.database().version
    one.database().changed("schema")
    other.sharing.hear()
    one.sharing.hear()
    assert (one.database().version, other.database().version) == (versions[0] + 1, versions[1] + 1)
    assert other.database().pending
    generation = other.database().generation
    one.database().renew("failover")
    other.sharing.hear()
    assert other.database().generation == generation + 1


def test_nothing_is_kept_before_others_know_of_it() -> None:
    """That it is cached, and which database it is."""
    process = _Process(bytearray(board_size(2)), 0)
    database = process.database()
    assert database.open
    process.heard_by_all()
    assert not database.open
    process.cache.identified(_CACHED, "x")
    assert [(name, identity) for name, identity, _ in process.announced] == [
        (_CACHED.database, ""),
        (_CACHED.database, "x"),
    ]
    assert database.open
    process.heard_by_all()
    assert not database.open


def test_a_write_by_another_way(pair: list[_Process]) -> None:
    """Only the process that writes knows that it is the same database."""
    one, other = pair
    for settings in (_CACHED, _PLAIN):
        one.cache.identified(settings, "x")
    mark = other.database().mark()
    assert one.database(_PLAIN) is one.database()
    one.database(_PLAIN).written(_writing(_TABLE))
    other.sharing.hear()
    assert not other.database().holds(mark, [_TABLE])


def test_a_process_in_doubt_holds_up_others(pair: list[_Process]) -> None:
    """Until the catalog has told it how far what it has executed goes."""
    one, other = pair
    _doubt(one.database())
    other.sharing.hear()
    assert other.database().open == {0}
    one.database().changed("schema")
    other.sharing.hear()
    assert other.database().open == set()


def test_a_process_that_has_died(pair: list[_Process]) -> None:
    """It is in doubt no longer, and what it has executed may still be committed: nothing from before is kept."""
    one, other = pair
    _doubt(one.database())
    memory = one.sharing._board._memory
    Board(memory, 2, 2).bury(0)
    mark, version = other.database().mark(), other.database().version
    other.sharing.hear()
    assert other.database().open == set()
    assert not other.database().holds(mark, [_TABLE])
    assert other.database().version > version
    mark = other.database().mark()
    other.database().recall(1.0)
    assert not other.database().holds(mark, [_TABLE])


def test_the_doubts_of_one_that_has_come_in_the_place_of_a_dead_one(pair: list[_Process]) -> None:
    """They are heard together with the death, which ends those of the dead one alone."""
    one, other = pair
    memory = cast("bytearray", one.sharing._board._memory)
    Board(memory, 2, 2).bury(0)
    anew = _Process(memory, 0)
    _doubt(anew.database())
    other.sharing.hear()
    assert other.database().open == {0}
    anew.database().changed("schema")
    other.sharing.hear()
    assert not other.database().open


def test_doubts_that_were_told_before_anybody_was_there_to_hear_them() -> None:
    """Of a process that comes later, and of a database that is cached later: they hold it up all the same."""
    memory = bytearray(board_size(2))
    one = _Process(memory, 0)
    early = _Process(memory, 1)
    _doubt(one.database())
    early.sharing.hear()
    late = _Process(memory, 1)
    for other in (early, late):
        database = other.database()
        other.heard_by_all()
        assert database.open == {0}
    one.database().changed("schema")
    for other in (early, late):
        other.sharing.hear()
        assert not other.database().open


def test_what_is_lost_may_have_been_anything(pair: list[_Process]) -> None:
    """Whoever has not listened for long drops everything, and waits for those that are in doubt."""
    one, other = pair
    for _ in range(5000):
        one.database().written(_writing(_TABLE))
    mark, version = other.database().mark(), other.database().version
    other.sharing.hear()
    assert not other.database().holds(mark, [_OTHER_TABLE])
    assert other.database().version == version + 1
    assert not other.database().open


def test_nothing_is_answered_from_memory_beside_another_pooler(pair: list[_Process]) -> None:
    """From the moment that the supervisor says so, until there is none any more; what others know changes nothing."""
    one, other = pair
    supervisor = Board(one.sharing._board._memory, 2, 2)
    mark = other.database().mark()
    supervisor.tell(NOBODY, None, board.HELD)
    other.sharing.hear()
    assert other.database().open
    assert not other.database().holds(mark, [_TABLE])
    one.database().changed("schema")
    other.sharing.hear()
    assert other.database().open
    other.sharing.alone()
    assert not other.database().open


def test_doubts_end_whatever_way_has_led_there(pair: list[_Process]) -> None:
    """The database that a way leads to is another one by then."""
    one, other = pair
    for settings in (_CACHED, _PLAIN):
        one.cache.identified(settings, "x")
        other.cache.identified(settings, "x")
    for process in pair:
        process.heard_by_all()
    _doubt(one.database())
    one.cache.identified(_PLAIN, "y")
    other.sharing.hear()
    assert not other.database().open
