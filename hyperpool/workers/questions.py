"""Questions that the supervisor puts to workers, and what operators have done that still holds. Sans-IO."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import attrs

from hyperpool.workers.messages import Deed, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from hyperpool.workers.messages import Message


@attrs.define(eq=False)
class _Question:
    """Something that workers have been asked.

    Attributes:
        then: called with the outcomes of each worker that has answered.
        awaited: the workers that have not.
        outcomes: of those that have.
    """

    then: Callable[[list[list[Outcome]]], None]
    awaited: set[int]
    outcomes: dict[int, list[Outcome]] = attrs.field(factory=dict)


class Questions:
    """Collects answers.

    Args:
        post: sends a message to a worker.
    """

    def __init__(self, post: Callable[[int, Message], None]) -> None:
        self._post = post
        self._numbers = count(1)
        self._open: dict[int, _Question] = {}

    def ask(
        self,
        workers: Collection[int],
        make: Callable[[int], Message],
        then: Callable[[list[list[Outcome]]], None],
    ) -> int:
        """Put a question.

        Args:
            workers: to whom.
            make: makes the message, of the question's number.
            then: called once, when all have answered or died.

        Returns:
            The number.
        """
        number = next(self._numbers)
        question = self._open[number] = _Question(then, set(workers))
        for worker in sorted(workers):
            self._post(worker, make(number))
        self._look(number, question)
        return number

    def answered(self, worker: int, number: int, outcomes: list[Outcome]) -> None:
        """A worker has answered."""
        question = self._open.get(number)
        if question is not None and worker in question.awaited:
            question.awaited.discard(worker)
            question.outcomes[worker] = outcomes
            self._look(number, question)

    def drop(self, number: int) -> set[int]:
        """Nobody wants the answer any more. Returns the workers that are still at it."""
        question = self._open.pop(number, None)
        return set() if question is None else question.awaited

    def gone(self, worker: int) -> None:
        """A worker has died: it is not waited for."""
        for number, question in list(self._open.items()):
            question.awaited.discard(worker)
            self._look(number, question)

    def _look(self, number: int, question: _Question) -> None:
        if not question.awaited and self._open.pop(number, None) is not None:
            question.then([outcomes for _, outcomes in sorted(question.outcomes.items())])


class Journal:
    """What operators have done that still holds: a worker that starts later does the same."""

    def __init__(self) -> None:
        self._stopped = ""
        self._paused: dict[str, None] = {}
        self._disabled: dict[str, None] = {}

    @property
    def stopped(self) -> bool:
        """Whether the pooler as a whole is paused or suspended."""
        return bool(self._stopped)

    def note(self, statement: Deed, databases: Iterable[str]) -> None:
        """Something is done.

        Args:
            statement: what; it may fail, and then changes nothing in any worker.
            databases: those that KILL without a database is about.
        """
        verb, name = statement.verb, statement.argument
        if verb in {"pause", "suspend"} and not name:
            self._stopped = self._stopped or verb
        elif verb == "pause" or (verb == "kill" and name):
            self._paused[name] = None
        elif verb == "kill":
            self._paused.update(dict.fromkeys(databases))
        elif verb == "resume" and name:
            self._paused.pop(name, None)
        elif verb in {"resume", "resume if stopped"}:
            self._stopped = ""
        elif verb == "disable":
            self._disabled[name] = None
        elif verb == "enable":
            self._disabled.pop(name, None)

    @property
    def statements(self) -> list[Deed]:
        """What a new worker has to do."""
        return [
            *(Deed("pause", name) for name in self._paused),
            *(Deed("disable", name) for name in self._disabled),
            *([Deed(self._stopped)] if self._stopped else ()),
        ]
