"""The run: rounds over scenarios and targets, in changing order."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from attrs import define, evolve, field, frozen

from benchmarks import pgbench
from benchmarks.processes import BenchError
from benchmarks.results import Cell
from benchmarks.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from benchmarks.profiles import Profiler, Question
    from benchmarks.scenarios.base import Scenario
    from benchmarks.stage import Server, Stage, Variant


@frozen
class Step:
    """A measurement to be made."""

    scenario: Scenario
    target: str
    round: int


def plan(scenarios: Sequence[Scenario], targets: Collection[str], rounds: int) -> list[Step]:
    """All measurements in order: each round goes over all scenarios, and each scenario over all its targets.

    So a run that is cut off has measured everything, less often. The order of the targets changes from scenario to
    scenario and from round to round, so that none of them always runs on the machine as the same other one left it.
    """
    return [
        Step(scenario, target, number + 1)
        for number in range(rounds)
        for index, scenario in enumerate(scenarios)
        if scenario.most_rounds is None or number < scenario.most_rounds
        for target in in_turn([name for name in scenario.targets if name in targets], number + index)
    ]


def closer_looks(scenarios: Sequence[Scenario], asked: Sequence[Question]) -> list[Step]:
    """The measurements that are to be made once more under a profiler."""
    by_name = {scenario.name: scenario for scenario in scenarios}
    steps = {
        (question.scenario, target): Step(by_name[question.scenario], target, 0)
        for question in asked
        for target in (question.reference, question.target)
    }
    return list(steps.values())


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """All names, beginning with another one each time, and backwards every second time."""
    start = number % max(len(names), 1)
    turned = [*names[start:], *names[:start]]
    return turned[::-1] if number % 2 else turned


@define(eq=False)
class Runner:
    """Makes the measurements.

    Attributes:
        stage: starts the targets.
        seconds: the length of one measurement.
        announce: called before each measurement.
        done: called after each measurement.
    """

    stage: Stage
    seconds: float
    announce: Callable[[Step], None]
    done: Callable[[Cell], None]
    _shared: dict[tuple[str, Variant], Server] = field(factory=dict, init=False)

    def run(self, steps: Sequence[Step]) -> None:
        """Make all measurements. One that fails is reported and the others go on.

        Raises:
            BenchError: PostgreSQL is gone, so nothing can be measured any more.
        """
        for step in steps:
            self.announce(step)
            self.done(self._measure(step))

    def profile(self, steps: Sequence[Step], profiler: Profiler) -> None:
        """Make measurements once more that are watched by a profiler; as `run`."""
        for step in steps:
            self.announce(step)
            cell = self._measure(step, profiler)
            if cell.profile or cell.error:
                self.done(cell)

    def _measure(self, step: Step, profiler: Profiler | None = None) -> Cell:
        scenario = step.scenario
        cell = Cell(scenario.group, scenario.name, step.target, step.round)
        try:
            scenario.prepare(self.stage)
            with self._server(step) as server:
                if profiler is None:
                    return evolve(cell, result=scenario.measure(self.stage, server, self.seconds))
                with profiler.watching(server.child.pid) as shares:
                    scenario.measure(self.stage, server, self.seconds)
                return evolve(cell, profile=shares)
        except (BenchError, OSError) as error:
            if not self.stage.postgres.child.alive:
                log = self.stage.postgres.child.log_tail()
                raise BenchError(f"PostgreSQL is gone: {error}\n{log}") from error
            return evolve(cell, error=str(error))

    @contextlib.contextmanager
    def _server(self, step: Step) -> Iterator[Server]:
        """The server for one measurement: a new one where the scenario needs that, else the shared one.

        One that failed is ended, whichever it is; the error then has its log.
        """
        scenario = step.scenario
        key = (step.target, scenario.variant)
        shared = None if scenario.fresh else self._shared.pop(key, None)
        server = shared or self.stage.start(TARGETS[step.target], scenario.variant)
        try:
            if shared is None and server.is_pooler:
                pgbench.warm_up(self.stage.workspace, self.stage.tools.pgbench, server.endpoint)
            yield server
        except (BenchError, OSError) as error:
            code = server.child.process.poll()
            state = "" if code is None else f"\n{server.child.name} has ended with exit code {code}"
            log = server.child.log_tail()
            self.stage.stop(server)
            raise BenchError(f"{error}{state}\n{log}") from error
        if scenario.fresh:
            self.stage.stop(server)
        else:
            self._shared[key] = server
