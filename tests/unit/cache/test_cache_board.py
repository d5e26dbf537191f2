"""What workers tell each other of writes: in order, at once, and in doubt everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.cache import board
from hyperpool.cache.board import NOBODY, Board, Note, board_size

APP = b"app_____"
WORKERS = 2


@pytest.fixture
def memory() -> bytearray:
    """What is shared."""
    return bytearray(board_size(WORKERS))


def test_others_hear_what_is_told(memory: bytearray) -> None:
    """Once, and whoever tells does not hear itself."""
    one, other = Board(memory, WORKERS, 0), Board(memory, WORKERS, 1)
    one.tell(APP, (7, 8), board.WRITES)
    assert other.has_news()
    assert list(other.hear()) == [Note(0, APP, 7, board.WRITES), Note(0, APP, 8, board.WRITES)]
    assert list(other.hear()) == []
    assert not other.has_news()
    assert list(one.hear()) == []


def test_any_table(memory: bytearray) -> None:
    """Where nobody knows which, and where there are many."""
    one, other = Board(memory, WORKERS, 0), Board(memory, WORKERS, 1)
    one.tell(APP, None, board.WRITES)
    one.tell(APP, range(1, 1000), board.WRITES)
    assert list(other.hear()) == [Note(0, APP, board.ANY, board.WRITES)] * 2


def test_who_comes_later_has_kept_nothing(memory: bytearray) -> None:
    """What was told before is nothing to it; its own numbers go on."""
    one = Board(memory, WORKERS, 0)
    one.tell(APP, (7,), board.WRITES)
    other = Board(memory, WORKERS, 1)
    assert not other.has_news()
    again = Board(memory, WORKERS, 0)
    again.tell(APP, (9,), board.WRITES)
    assert list(other.hear()) == [Note(0, APP, 9, board.WRITES)]


def test_who_listens_too_rarely_is_told_so(memory: bytearray) -> None:
    """Records have been overwritten: they may have been anything."""
    one, other = Board(memory, WORKERS, 0), Board(memory, WORKERS, 1)
    for _ in range(5000):
        one.tell(APP, (7,), board.WRITES)
    assert list(other.hear()) == [None]


@given(st.data())
def test_a_record_that_is_not_whole_is_none(data: st.DataObject) -> None:
    """Whatever a processor sees of it: it is doubted, and never taken for another one."""
    memory = bytearray(board_size(WORKERS))
    one, other = Board(memory, WORKERS, 0), Board(memory, WORKERS, 1)
    blank = bytes(memory)
    one.tell(APP, (7,), board.WRITES)
    places = [at for at in range(len(memory)) if memory[at] != blank[at]][1:]
    for at in data.draw(st.sets(st.sampled_from(places), min_size=1)):
        memory[at] = blank[at]
    assert list(other.hear()) == [None]


def test_doubts(memory: bytearray) -> None:
    """Who does not know yet is known even if what it has told is lost; a dead one is in no doubt."""
    one, other = Board(memory, WORKERS, 0), Board(memory, WORKERS, 1)
    supervisor = Board(memory, WORKERS, WORKERS)
    one.tell(APP, None, board.DOUBTS)
    list(other.hear())
    assert other.doubting() == {0}
    one.tell(APP, None, board.KNOWS)
    list(other.hear())
    assert other.doubting() == set()
    assert other.certain() == {0, 1, 2}
    one.tell(APP, None, board.DOUBTS)
    supervisor.bury(0)
    told = list(other.hear())
    assert told == [Note(0, APP, board.ANY, board.DOUBTS), Note(WORKERS, NOBODY, 1, board.DIED)]
    assert other.doubting() == set()


def test_the_number_of_records_and_of_doubts_are_seen_together() -> None:
    """Each of them is written once, in one element: whoever looks in between sees both as before, or both as after."""
    memory = bytearray(board_size(WORKERS))
    one, other = Board(memory, WORKERS, 0), Board(memory, WORKERS, 1)
    words = _Words(one._words)
    one._words = words  # type: ignore[assignment]
    for what in (board.DOUBTS, board.WRITES, board.KNOWS):
        one.tell(APP, None, what)
    assert words.written == [0] * 3
    list(other.hear())
    assert other.doubting() == set()


class _Words:
    """Elements, and which of them have been written."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self.written: list[int] = []

    def __getitem__(self, at: int) -> int:
        return int(self._words[at])

    def __setitem__(self, at: int, value: int) -> None:
        self.written.append(at)
        self._words[at] = value


def test_a_dead_worker_is_in_doubt_until_its_death_is_told() -> None:
    """Nobody may go on with what it has held up before having heard of its death, and dropped everything."""
    memory = bytearray(board_size(WORKERS))
    one, other = Board(memory, WORKERS, 0), Board(memory, WORKERS, 1)
    supervisor = Board(memory, WORKERS, WORKERS)
    one.tell(APP, None, board.DOUBTS)
    list(other.hear())
    seen: list[tuple[list[Note | None], set[int]]] = []

    class Watched(_Words):
        def __setitem__(self, at: int, value: int) -> None:
            super().__setitem__(at, value)
            seen.append((list(other.hear()), other.doubting()))

    supervisor._words = Watched(supervisor._words)  # type: ignore[assignment]
    supervisor.bury(0)
    assert seen == [([Note(WORKERS, NOBODY, 1, board.DIED)], {0}), ([], set())]


def test_a_head_that_goes_back_hides_nothing(memory: bytearray) -> None:
    """What cannot be is taken for everything."""
    one, other = Board(memory, WORKERS, 0), Board(memory, WORKERS, 1)
    one.tell(APP, (7,), board.WRITES)
    list(other.hear())
    one._told = -1
    one.tell(APP, (8,), board.WRITES)
    assert list(other.hear()) == [None]
