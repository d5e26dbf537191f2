"""Questions to all workers are answered once, and what operators have done holds for those that come later."""

from __future__ import annotations

import pytest

from hyperpool.workers import messages
from hyperpool.workers.messages import RESUME, Deed, Outcome
from hyperpool.workers.questions import Entry, Journal, Questions


class _Asker:
    """Puts questions, and keeps what is sent and answered."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, messages.Message]] = []
        self.answers: list[list[list[Outcome]]] = []
        self.questions = Questions(lambda worker, message: self.sent.append((worker, message)))

    def ask(self, *workers: int) -> int:
        """Put a question."""
        return self.questions.ask(
            workers, lambda number: messages.Do(number, [Deed("reload")]), self.answers.append
        )


def _outcome(tag: str) -> list[Outcome]:
    return [Outcome(tag)]


def test_all_are_asked_and_waited_for() -> None:
    """The answers come in the order of the workers, whoever is first."""
    asker = _Asker()
    number = asker.ask(1, 0)
    assert asker.sent == [(worker, messages.Do(number, [Deed("reload")])) for worker in (0, 1)]
    asker.questions.answered(1, number, _outcome("one"))
    asker.questions.answered(1, number, _outcome("twice"))
    assert asker.answers == []
    asker.questions.answered(0, number, _outcome("zero"))
    asker.questions.answered(0, number, _outcome("late"))
    assert asker.answers == [[_outcome("zero"), _outcome("one")]]


def test_one_that_dies_is_not_waited_for() -> None:
    """Others' answers are all there is."""
    asker = _Asker()
    number = asker.ask(0, 1)
    asker.questions.answered(0, number, _outcome("zero"))
    asker.questions.gone(1)
    assert asker.answers == [[_outcome("zero")]]


def test_one_that_dies_after_its_answer() -> None:
    """What it has counted is in the accounts of the dead by then: it would count twice."""
    asker = _Asker()
    number = asker.ask(0, 1)
    asker.questions.answered(0, number, _outcome("zero"))
    asker.questions.gone(0)
    asker.questions.answered(1, number, _outcome("one"))
    assert asker.answers == [[_outcome("one")]]


def test_nobody_to_ask() -> None:
    """That is an answer, too."""
    asker = _Asker()
    asker.ask()
    assert asker.answers == [[]]


def test_a_question_that_is_dropped() -> None:
    """Nothing comes of it, and it is known who is still at it."""
    asker = _Asker()
    number = asker.ask(0, 1)
    asker.questions.answered(0, number, _outcome("zero"))
    assert asker.questions.drop(number) == ({1}, [_outcome("zero")])
    asker.questions.answered(1, number, _outcome("one"))
    assert asker.answers == []
    assert asker.questions.drop(number) == (set(), [])


@pytest.mark.parametrize(
    ("done", "holds"),
    [
        ([Deed("pause")], [Deed("pause")]),
        ([Deed("suspend")], [Deed("suspend")]),
        ([Deed("pause"), Deed("resume")], []),
        ([Deed("suspend"), RESUME], []),
        ([Deed("pause", "app"), Deed("resume")], [Deed("pause", "app")]),
        ([Deed("pause", "app"), Deed("resume", "app")], []),
        ([Deed("kill", "app")], [Deed("pause", "app")]),
        ([Deed("kill")], [Deed("pause", "app"), Deed("pause", "other")]),
        (
            [Deed("disable", "app"), Deed("disable", "other"), Deed("enable", "app")],
            [Deed("disable", "other")],
        ),
        ([Deed("reload"), Deed("show", "pools")], []),
    ],
)
def test_what_holds_on(done: list[Deed], holds: list[Deed]) -> None:
    """A worker that starts later does it, too: also before it is known whether anybody has refused."""
    journal = Journal()
    entries = [entry for entry in journal.begin(done, ["app", "other"]) if entry is not None]
    assert journal.statements == holds
    for entry in entries:
        journal.end(entry, refused=False)
    assert journal.statements == holds


def _entry(journal: Journal, verb: str, name: str = "") -> Entry:
    (entry,) = journal.begin([Deed(verb, name)], [])
    assert entry is not None
    return entry


def test_what_is_refused_does_not_hold() -> None:
    """Whatever came before and behind it does."""
    journal = Journal()
    first, wrong, last = (_entry(journal, "pause", name) for name in ("app", "none", "other"))
    journal.end(wrong, refused=True)
    journal.end(last, refused=False)
    assert journal.statements == [Deed("pause", "app"), Deed("pause", "other")]
    journal.end(first, refused=True)
    assert journal.statements == [Deed("pause", "other")]


def test_what_is_over_late_does_not_undo_what_was_said_later() -> None:
    """A PAUSE may wait for hours; the RESUME behind it is done at once."""
    journal = Journal()
    pause, resume = _entry(journal, "pause"), _entry(journal, "resume")
    journal.end(resume, refused=False)
    journal.end(pause, refused=False)
    assert journal.statements == []


def test_what_has_stopped_the_pooler() -> None:
    """Only that is undone with it."""
    journal = Journal()
    pause = _entry(journal, "pause")
    assert journal.stops(pause)
    assert not journal.stops(_entry(journal, "suspend"))
    assert not journal.stops(_entry(journal, "pause", "app"))
    _entry(journal, "resume")
    assert not journal.stops(pause)
    assert journal.stops(_entry(journal, "suspend"))
