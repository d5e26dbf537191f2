"""Questions that the supervisor puts to workers, and what operators have done that still holds. Sans-IO."""

from __future__ import annotations

from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.errors import ProtocolError
from hyperpool.workers.messages import RESUME, Deed, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from hyperpool.workers.messages import Message


@attrs.define(eq=False)
class _Question:
    """Something that workers have been asked.

    Attributes:
        size: how many outcomes each has to answer with.
        then: called with the outcomes of each worker that has answered.
        awaited: the workers that have not.
        outcomes: of those that have.
    """

    size: int
    then: Callable[[list[list[Outcome]]], None]
    awaited: set[int]
    outcomes: dict[int, list[Outcome]] = attrs.field(factory=dict)

    @property
    def collected(self) -> list[list[Outcome]]:
        """The outcomes of those that have answered, in the order of their numbers."""
        return [outcomes for _, outcomes in sorted(self.outcomes.items())]


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
        size: int = 1,
    ) -> int:
        """Put a question.

        Args:
            workers: to whom.
            make: makes the message, of the question's number.
            then: called once, when all have answered or died.
            size: how many outcomes each has to answer with.

        Returns:
            The number.
        """
        number = next(self._numbers)
        question = self._open[number] = _Question(size, then, set(workers))
        for worker in sorted(workers):
            self._post(worker, make(number))
        self._look(number, question)
        return number

    def answered(self, worker: int, number: int, outcomes: list[Outcome]) -> None:
        """A worker has answered.

        Raises:
            ProtocolError: it has not answered what it was asked.
        """
        question = self._open.get(number)
        if question is not None and worker in question.awaited:
            if len(outcomes) != question.size:
                raise ProtocolError(f"{len(outcomes)} outcomes in place of {question.size}")
            question.awaited.discard(worker)
            question.outcomes[worker] = outcomes
            self._look(number, question)

    def drop(self, number: int) -> tuple[set[int], list[list[Outcome]]]:
        """Nobody wants the answer any more.

        Returns:
            The workers that are still at it, and the outcomes of the others.
        """
        question = self._open.pop(number, None)
        return (set(), []) if question is None else (question.awaited, question.collected)

    def gone(self, worker: int) -> None:
        """A worker has died: it is not waited for, and what it has answered already counts no longer."""
        for number, question in list(self._open.items()):
            question.awaited.discard(worker)
            question.outcomes.pop(worker, None)
            self._look(number, question)

    def _look(self, number: int, question: _Question) -> None:
        if not question.awaited and self._open.pop(number, None) is not None:
            question.then(question.collected)


@attrs.define(eq=False)
class Entry:
    """Something that operators have had done, in the order of what they have said.

    Attributes:
        statement: what.
        databases: those that KILL without a database is about.
        pending: it is not known yet whether it was refused.
    """

    statement: Deed
    databases: tuple[str, ...]
    pending: bool = True


@attrs.define
class _Holding:
    """What holds.

    Attributes:
        stopped: how the pooler as a whole is stopped: ``pause``, ``suspend``, or empty.
        paused: databases, as the keys.
        disabled: databases, as the keys.
    """

    stopped: str = ""
    paused: dict[str, None] = attrs.field(factory=dict)
    disabled: dict[str, None] = attrs.field(factory=dict)

    def apply(self, entry: Entry) -> None:
        """Something is done."""
        verb, name = entry.statement.verb, entry.statement.argument
        if verb in {"pause", "suspend"} and not name:
            self.stopped = self.stopped or verb
        elif verb == "pause" or (verb == "kill" and name):
            self.paused[name] = None
        elif verb == "kill":
            self.paused.update(dict.fromkeys(entry.databases))
        elif verb == "resume" and name:
            self.paused.pop(name, None)
        elif verb in {"resume", RESUME.verb}:
            self.stopped = ""
        elif verb == "disable":
            self.disabled[name] = None
        elif verb == "enable":
            self.disabled.pop(name, None)


_HOLDS: Final = frozenset({"pause", "suspend", "resume", RESUME.verb, "kill", "disable", "enable"})


class Journal:
    """What operators have done that still holds: a worker that starts later does the same.

    What is refused changes nothing; as long as that is not known, it counts as done, since it may take hours until a
    PAUSE is over, and a worker that starts meanwhile is to be paused, too. If it is to be refused, such a worker
    refuses it like all others.
    """

    def __init__(self) -> None:
        self._settled = _Holding()
        self._entries: deque[Entry] = deque()

    def begin(self, statements: Iterable[Deed], databases: Iterable[str]) -> list[Entry | None]:
        """Workers are told to do something.

        Args:
            statements: what.
            databases: those that KILL without a database is about.

        Returns:
            An entry for each statement, to be given to `end`; None for one that leaves nothing behind.
        """
        names = tuple(databases)
        entries = [Entry(one, names) if one.verb in _HOLDS else None for one in statements]
        self._entries.extend(filter(None, entries))
        return entries

    def end(self, entry: Entry, *, refused: bool) -> None:
        """It is known what has come of it."""
        if refused:
            self._entries.remove(entry)
        entry.pending = False
        while self._entries and not self._entries[0].pending:
            self._settled.apply(self._entries.popleft())

    def stops(self, entry: Entry) -> bool:
        """Whether it is this, as far as is known, that has paused or suspended the pooler as a whole."""
        if entry.statement.verb not in {"pause", "suspend"} or entry.statement.argument:
            return False
        before, after = self._holding(entry), self._holding(None)
        return not before.stopped and bool(after.stopped)

    @property
    def stopped(self) -> str:
        """How the pooler as a whole is stopped: ``pause``, ``suspend``, or empty."""
        return self._holding(None).stopped

    @property
    def statements(self) -> list[Deed]:
        """What a new worker has to do."""
        holding = self._holding(None)
        return [
            *(Deed("pause", name) for name in holding.paused),
            *(Deed("disable", name) for name in holding.disabled),
            *([Deed(holding.stopped)] if holding.stopped else ()),
        ]

    def _holding(self, end: Entry | None) -> _Holding:
        """What holds, with all up to an entry, or with all of them."""
        settled = self._settled
        holding = _Holding(settled.stopped, dict(settled.paused), dict(settled.disabled))
        for entry in self._entries:
            if entry is end:
                break
            holding.apply(entry)
        return holding
