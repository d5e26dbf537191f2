"""Questions to all workers are answered once, and what operators have done holds for those that come later."""

from __future__ import annotations

import pytest

from hyperpool.workers import messages
from hyperpool.workers.messages import RESUME, Deed, Outcome
from hyperpool.workers.questions import Journal, Questions


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
    assert asker.questions.drop(number) == {1}
    asker.questions.answered(1, number, _outcome("one"))
    assert asker.answers == []
    assert asker.questions.drop(number) == set()


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
    """A worker that starts later does it, too."""
    journal = Journal()
    for statement in done:
        journal.note(statement, ["app", "other"])
    assert journal.statements == holds
