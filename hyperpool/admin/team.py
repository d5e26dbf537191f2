"""The console of one of several processes that are one pooler: what is asked of one is asked of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from hyperpool.admin.caching import EXPLAINED
from hyperpool.admin.console import Console, ShutdownMode
from hyperpool.admin.merging import PLANS
from hyperpool.admin.outcomes import ConsoleError, Done, Waits
from hyperpool.workers.messages import Deed
from hyperpool.workers.messages import Outcome as Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hyperpool.admin.merging import Plan
    from hyperpool.admin.outcomes import Outcome

_GONE: Final = "08006"
_LONG: Final = frozenset({"pause", "suspend", "wait_close"})
"""What waits for clients."""


class Team(Protocol):
    """All processes together."""

    def ask(self, statements: Sequence[Deed], then: Callable[[list[list[Answer]]], None]) -> int:
        """Have all of them execute statements.

        Args:
            statements: what to execute.
            then: called with the outcomes of each process.

        Returns:
            A number, for `abandon`.
        """

    def abandon(self, number: int) -> None:
        """Nobody wants the answer any more: what has been paused or suspended by this very question goes on."""

    def nudge(self) -> None:
        """Have clients of the console looked at soon: one of them has its answer."""


async def asked(team: Team, statements: Sequence[Deed]) -> list[list[Answer]]:
    """Have all processes execute statements, and wait for it.

    Returns:
        The outcomes of each process.
    """
    answers: list[list[Answer]] = []
    told = trio.Event()

    def take(found: list[list[Answer]]) -> None:
        answers.extend(found)
        told.set()

    number = team.ask(statements, take)
    try:
        await told.wait()
    except trio.Cancelled:
        team.abandon(number)
        raise
    return answers


@attrs.frozen(eq=False)
class TeamConsole(Console):
    """Executes statements for one client, in all processes.

    Args:
        team: them.
    """

    team: Team

    def perform(self, verb: str, argument: str) -> Outcome:
        """Do what a statement says, as `Console.perform`."""
        if verb == "show":
            plan = PLANS.get(argument.lower())
            if plan is None:
                return super().perform(verb, argument)
            parts = [Deed(*part) for part in plan.parts]
            return self._asked(parts, "SHOW", lambda answers: self._shown(argument, plan, answers))
        if verb == "explain cache":
            return self._asked([Deed(verb, argument)], "EXPLAIN", _explained)
        if verb == "shutdown" and ShutdownMode(argument.upper()) is ShutdownMode.IMMEDIATE:
            self.team.ask([Deed(verb)], lambda _: None)
            return Done("")
        return self._asked([Deed(verb, argument)], verb.upper(), lambda answers: _done(verb, answers))

    def _asked(
        self, statements: Sequence[Deed], tag: str, result: Callable[[list[list[Answer]]], Done]
    ) -> Waits:
        answers: list[list[Answer]] = []
        told: list[bool] = []

        def take(found: list[list[Answer]]) -> None:
            answers.extend(found)
            told.append(True)
            self.team.nudge()

        number = self.team.ask(statements, take)
        return Waits(
            tag,
            lambda: bool(told),
            lambda: self.team.abandon(number),
            lambda: result(answers),
            soon=statements[0].verb not in _LONG,
        )

    def _shown(self, name: str, plan: Plan, answers: list[list[Answer]]) -> Done:
        for outcomes in answers:
            for outcome in outcomes:
                _raise(outcome)
        view = self.views.find(name)
        parts = [[outcomes[at].rows for outcomes in answers] for at in range(len(plan.parts))]
        return Done("SHOW", None if view is None else view.shape, tuple(plan.merge(self.around, parts)))


def _done(verb: str, answers: list[list[Answer]]) -> Done:
    """What one did is done; each knows only its own clients, pools and entries."""
    outcomes = [outcome for outcomes in answers for outcome in outcomes]
    worked = [outcome for outcome in outcomes if not outcome.error]
    if not outcomes:
        raise ConsoleError("the pooler's processes have ended", _GONE)
    if not worked:
        _raise(outcomes[0])
    if verb == "purge cache":
        return Done(f"PURGE {sum(int(outcome.tag.split()[1]) for outcome in worked)}")
    return Done(worked[0].tag)


def _explained(answers: list[list[Answer]]) -> Done:
    """Pools are in several processes, and say the same there."""
    outcomes = [outcome for outcomes in answers for outcome in outcomes]
    found: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for outcome in outcomes:
        own: dict[tuple[str, str], list[tuple[str, ...]]] = {}
        for row in outcome.rows:
            own.setdefault((row[0], row[1]), []).append(tuple(row))
        found = {**own, **found}
    if not found and outcomes:
        _raise(outcomes[0])
    return Done("EXPLAIN", EXPLAINED, tuple(row for key in sorted(found) for row in found[key]))


def _raise(outcome: Answer) -> None:
    if outcome.error:
        raise ConsoleError(outcome.error, outcome.sqlstate, outcome.detail, outcome.hint)
