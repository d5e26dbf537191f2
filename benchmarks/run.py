"""The run: rounds over scenarios and targets, in changing order."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from benchmarks import pgbench
from benchmarks.processes import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.peers import Peers, Server
    from benchmarks.scenarios import Result, Scenario


@frozen
class Cell:
    """One measurement: a scenario, a target, a round, and what came of it.

    Attributes:
        scenario: its name.
        target: direct, pgbouncer or hyperpool.
        round: counted from 1.
        result: the figures; None where it failed.
        error: why it failed.
    """

    scenario: str
    target: str
    round: int
    result: Result | None = None
    error: str | None = None


@frozen
class Step:
    """A measurement to be made."""

    scenario: Scenario
    target: str
    round: int


def plan(scenarios: Sequence[Scenario], targets: Sequence[str], rounds: int) -> list[Step]:
    """All measurements in order: each round goes over all scenarios, and each scenario over all its targets.

    The order of the targets changes from scenario to scenario and from round to round, so that none of them
    always runs on the machine as the same other one left it.
    """
    orders = list(itertools.permutations(targets))
    return [
        Step(scenario, target, number + 1)
        for number in range(rounds)
        for index, scenario in enumerate(scenarios)
        for target in orders[(index + number) % len(orders)]
        if target != "direct" or scenario.for_direct
    ]


@define(eq=False)
class Runner:
    """Makes the measurements.

    Attributes:
        peers: starts the targets.
        seconds: the length of one measurement.
        announce: called before each measurement.
        done: called after each measurement.
    """

    peers: Peers
    seconds: float
    announce: Callable[[Step], None]
    done: Callable[[Cell], None]
    _shared: dict[tuple[str, str], Server] = field(factory=dict, init=False)

    def run(self, steps: Sequence[Step]) -> None:
        """Make all measurements. One that fails is reported and the others go on.

        Raises:
            BenchError: PostgreSQL is gone, so nothing can be measured any more.
        """
        for step in steps:
            self.announce(step)
            self.done(self._measure(step))

    def _measure(self, step: Step) -> Cell:
        name, target = step.scenario.name, step.target
        try:
            step.scenario.prepare(self.peers)
        except OSError as error:
            raise BenchError(
                f"PostgreSQL is gone: {error}\n{self.peers.postgres.child.log_tail()}"
            ) from error
        except BenchError as error:
            return Cell(name, target, step.round, error=str(error))
        try:
            with self._server(step) as server:
                result = step.scenario.measure(self.peers, server, self.seconds)
        except (BenchError, OSError) as error:
            return Cell(name, target, step.round, error=str(error))
        return Cell(name, target, step.round, result)

    @contextlib.contextmanager
    def _server(self, step: Step) -> Iterator[Server]:
        """The server for one measurement: a fresh one where the scenario needs that, else the shared one.

        One that failed is ended, whichever it is; the error then has its log.
        """
        key = (step.target, step.scenario.auth)
        shared = None if step.scenario.fresh else self._shared.pop(key, None)
        server = shared or self.peers.start(*key)
        try:
            if shared is None and not step.scenario.fresh:
                pgbench.warm_up(self.peers.workspace, self.peers.tools.pgbench, server.endpoint)
            yield server
        except (BenchError, OSError) as error:
            code = server.child.process.poll()
            state = "" if code is None else f"\n{server.child.name} has ended with exit code {code}"
            log = server.child.log_tail()
            self._end(server)
            raise BenchError(f"{error}{state}\n{log}") from error
        if step.scenario.fresh:
            self._end(server)
        else:
            self._shared[key] = server

    def _end(self, server: Server) -> None:
        if server.is_pooler:
            self.peers.workspace.stop(server.child)
