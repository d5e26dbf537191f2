"""The judges of the soak see what they are there for."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, cast

import attrs
import pytest

from tests.soak.journal import LOST, Journal, Refused, WrongAnswer
from tests.soak.truth import MARKS, Entries, Marks
from tests.soak.visitor import Visitor, code_of
from tests.soak.watch import ALLOWED_GROWTH, Sample, growth
from tests.support.rawclient import ConnectionEnded

if TYPE_CHECKING:
    from tests.soak.site import Site


@attrs.define(eq=False)
class _Place:
    """As much of a site as a visitor needs that goes nowhere."""

    seed: int = 1
    pause: float = 0.0
    journal: Journal = attrs.field(factory=lambda: Journal(print))
    is_open: threading.Event = attrs.field(factory=threading.Event)
    ended: threading.Event = attrs.field(factory=threading.Event)


class _Lingerer(Visitor):
    """Does one step, and says goodbye after it when it is let."""

    kind = "lingering"

    def __init__(self, place: _Place) -> None:
        super().__init__(cast("Site", place), 1, "direct")
        self.stepped = threading.Event()
        self.may_leave = threading.Event()

    def visit(self) -> None:
        self.pause()
        self.stepped.set()
        self.may_leave.wait(20)


def test_a_client_that_has_yet_to_say_goodbye_is_still_here() -> None:
    """What is closed as soon as nobody is here is closed for nobody, also when a client only rests between steps."""
    place = _Place()
    visitor = _Lingerer(place)
    visitor.thread.start()
    place.is_open.set()
    assert visitor.stepped.wait(20)
    place.is_open.clear()
    seen = visitor.is_here
    place.ended.set()
    visitor.may_leave.set()
    visitor.thread.join(20)
    assert (seen, visitor.is_here) == (True, False)
    assert place.journal.totals() == (1, 0, 0)


def test_an_error_needs_a_fault_that_explains_it() -> None:
    """One that was going on during the step, on this database, with this code."""
    told: list[str] = []
    journal = Journal(told.append)
    with journal.fault("cut", frozenset({LOST}), frozenset({"tunnel"})):
        journal.error("client", "tunnel", LOST, "gone", time.monotonic())
    journal.error("client", "tunnel", LOST, "gone, a moment later", time.monotonic())
    assert journal.totals() == (0, 2, 0)
    journal.error("client", "direct", LOST, "of another database", time.monotonic())
    journal.error("client", "tunnel", "XX000", "of another kind", time.monotonic())
    journal.error("client", "tunnel", LOST, "much later", time.monotonic() + 60)
    assert journal.totals() == (0, 2, 3)
    assert [text.partition(": ")[2].partition(" (")[0] for text in told] == [
        "of another database",
        "of another kind",
        "much later",
    ]


def test_entries_that_were_lost_and_that_should_not_be() -> None:
    """What is doubtful may be there or not."""
    entries = Entries(7)
    committed, doubtful, rolled_back = (entries.draw() for _ in range(3))
    entries.committed.add(committed)
    entries.doubtful.add(doubtful)
    assert entries.check([committed]) == entries.check([committed, doubtful]) == []
    assert "were committed and are not there" in entries.check([doubtful])[0]
    assert "were never committed" in entries.check([committed, rolled_back])[0]


def test_a_mark_that_is_too_old_or_from_the_future() -> None:
    """A reader may be told any value from the oldest one that was not outdated up to one that is being written."""
    marks = Marks()
    marks.acknowledge(1, marks.begin(1))
    between = time.monotonic()
    marks.acknowledge(1, marks.begin(1))
    marks.begin(1)
    oldest = marks.oldest(1, between)
    assert oldest == 1
    for value in (1, 2, 3):
        marks.check(1, value, oldest)
    for value, bound in ((0, oldest), (4, oldest), (1, marks.oldest(1, time.monotonic()))):
        with pytest.raises(WrongAnswer):
            marks.check(1, value, bound)
    assert marks.oldest(2 * MARKS, time.monotonic()) == 0


def test_memory_that_grows_all_the_time() -> None:
    """What grows during the warm-up alone is no leak."""
    step = ALLOWED_GROWTH // 20
    leaking = [Sample(n, n * step, 9) for n in range(100)]
    warming = [Sample(n, min(n, 20) * step, 9) for n in range(100)]
    assert growth(leaking) > ALLOWED_GROWTH
    assert growth(warming) == 0
    assert growth([]) == growth(leaking[:1]) == 0


def test_what_errors_are_called() -> None:
    """By SQLSTATE, if there is one."""
    assert code_of(Refused("57P01", "shut down")) == "57P01"
    assert code_of(ConnectionEnded()) == code_of(ConnectionResetError()) == LOST
    assert code_of(TimeoutError()) == "timeout"
    assert code_of(KeyError()) == "KeyError"
