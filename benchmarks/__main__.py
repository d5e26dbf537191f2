"""The command line: ``python -m benchmarks --help``."""

from __future__ import annotations

import datetime as dt
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import define, field, frozen
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks import machine, report
from benchmarks.peers import MAX_CLIENTS, Peers, PostgresTools, pgbouncer_command
from benchmarks.processes import BenchError, Workspace, interrupt_on_signals, raise_open_files_limit
from benchmarks.run import Cell, Runner, Step, plan
from benchmarks.scenarios import Choice, IdleClients, Scenario, catalogue
from benchmarks.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

_RESULTS = Path(__file__).resolve().parent / "results"
_TARGETS = ("direct", "pgbouncer", "hyperpool")
# PostgreSQL, log files and what else the benchmark holds open beside the sockets of its idle clients.
_OTHER_FILES = 200
_WIDTH = 120


@frozen
class Options:
    """What the command line asks for; the help texts below tell what each of them means."""

    rounds: int
    seconds: int
    quick: bool
    only: Sequence[str]
    targets: Sequence[str]
    clients: Sequence[int]
    modes: Sequence[str]
    idle_clients: int
    pgbouncer: str | None
    overrides: dict[str, str]
    output: Path
    list_only: bool

    @property
    def pace(self) -> tuple[int, int]:
        """Rounds, and seconds per run of pgbench."""
        return (1, 2) if self.quick else (self.rounds, self.seconds)


@define(eq=False)
class Session:
    """One invocation: its terminal and what it has measured so far."""

    console: Console
    options: Options
    description: dict[str, object] = field(factory=dict, init=False)
    cells: list[Cell] = field(factory=list, init=False)

    def measure(self, scenarios: Sequence[Scenario]) -> None:
        """Start everything, make all measurements, end everything.

        Raises:
            BenchError: something that everything depends on does not work.
        """
        with Workspace() as workspace:
            self.console.print("starting PostgreSQL and filling its tables ...", style="dim")
            tools = PostgresTools.find(workspace)
            pgbouncer = pgbouncer_command(self.options.pgbouncer)
            peers = Peers(workspace, tools, pgbouncer, max(self.options.clients), self.options.overrides)
            self.description.update(machine.describe(peers))
            rounds, seconds = self.options.pace
            self.description.update(rounds=rounds, seconds=seconds)
            for name, value in self.description.items():
                self.console.print(f"  {name}: {escape(str(value))}", style="dim", highlight=False)
            peers.start_postgres()
            self._run(peers, plan(scenarios, self._available(pgbouncer), rounds), seconds)

    def _available(self, pgbouncer: list[str] | None) -> list[str]:
        if "pgbouncer" in self.options.targets and pgbouncer is None:
            self.console.print(
                "[yellow]pgbouncer is not installed, so there is nothing to compare with: "
                "benchmarks/get_pgbouncer.sh fetches it, or give --pgbouncer COMMAND[/yellow]"
            )
            return [target for target in self.options.targets if target != "pgbouncer"]
        return list(self.options.targets)

    def _run(self, peers: Peers, steps: Sequence[Step], seconds: int) -> None:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task("", total=len(steps))

            def announce(step: Step) -> None:
                progress.update(task, description=f"round {step.round}: {step.scenario.name}, {step.target}")

            def done(cell: Cell) -> None:
                self.cells.append(cell)
                progress.console.print(report.cell_line(cell), highlight=False, soft_wrap=True)
                progress.advance(task)

            Runner(peers, seconds, announce, done).run(steps)

    def report(self) -> bool:
        """Print the tables and write the files.

        Returns:
            Whether every measurement worked out.
        """
        rows = summarise(self.cells)
        report.print_tables(self.console, rows)
        if self.cells:
            self.options.output.mkdir(parents=True, exist_ok=True)
            stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S")
            base = self.options.output / stamp
            report.write_json(base.with_suffix(".json"), self.description, rows, self.cells)
            self.console.print(f"written: {base.with_suffix('.json')}")
            if importlib.util.find_spec("matplotlib"):
                from benchmarks import plot  # noqa: PLC0415 - matplotlib is optional

                if plot.draw(base.with_suffix(".png"), rows, self.cells, self._subtitle()):
                    self.console.print(f"written: {base.with_suffix('.png')}")
            else:
                self.console.print("no picture: matplotlib is part of hyperpool's extra `bench`")
        return all(cell.error is None for cell in self.cells)

    def _subtitle(self) -> str:
        names = (
            "date",
            "hyperpool",
            "revision",
            "python",
            "pgbouncer",
            "postgresql",
            "processor",
            "processors",
        )
        return "  ·  ".join(f"{name} {self.description[name]}" for name in names if name in self.description)


def _words(text: str) -> list[str]:
    return [word for word in text.replace(",", " ").split() if word]


def _targets(_context: click.Context, _parameter: click.Parameter, value: str) -> list[str]:
    unknown = set(words := _words(value)) - set(_TARGETS)
    if unknown or not words:
        raise click.BadParameter(f"choose from {', '.join(_TARGETS)}")
    return [target for target in _TARGETS if target in words]


def _modes(_context: click.Context, _parameter: click.Parameter, value: str) -> list[str]:
    if set(words := _words(value)) - {"simple", "extended", "prepared"} or not words:
        raise click.BadParameter("choose from simple, extended, prepared")
    return words


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str) -> list[int]:
    try:
        numbers = [int(word) for word in _words(value)]
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if not numbers or min(numbers) < 1 or max(numbers) > MAX_CLIENTS:
        raise click.BadParameter(f"numbers from 1 to {MAX_CLIENTS:,} are needed")
    return numbers


def _overrides(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    if not all("=" in value for value in values):
        raise click.BadParameter("write NAME=VALUE")
    return {name: setting for name, _, setting in (value.partition("=") for value in values)}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often to measure everything."
)
@click.option(
    "--seconds", default=4, show_default=True, type=click.IntRange(1), help="Length of each run of pgbench."
)
@click.option("--quick", is_flag=True, help="One round of 2 seconds each: to look, not to judge.")
@click.option(
    "--only", multiple=True, metavar="NAME", help="Only scenarios of this name, pattern or beginning; repeat."
)
@click.option(
    "--targets", default=",".join(_TARGETS), show_default=True, callback=_targets, help="What to measure."
)
@click.option(
    "--clients", default="1,16,100", show_default=True, callback=_numbers, help="Clients of pgbench at once."
)
@click.option(
    "--modes",
    default="simple,extended,prepared",
    show_default=True,
    callback=_modes,
    help="pgbench's query modes (also: prepared).",
)
@click.option(
    "--idle-clients",
    default=5000,
    show_default=True,
    type=click.IntRange(1, MAX_CLIENTS - 100),
    help="How many clients idle.",
)
@click.option("--pgbouncer", metavar="COMMAND", help="How to start pgbouncer; the ini file is appended.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_overrides,
    help="A pooler setting of hyperpool; repeat.",
)
@click.option(
    "--output", default=_RESULTS, type=click.Path(path_type=Path), help="Where the JSON and PNG files go."
)
@click.option("--list", "list_only", is_flag=True, help="Print the names of the scenarios and end.")
@click.pass_context
def main(context: click.Context, /, **_parameters: object) -> None:
    """Measure hyperpool, pgbouncer and plain PostgreSQL side by side.

    One command starts all of them on free ports of 127.0.0.1 in a temporary directory, runs the scenarios in
    several rounds, prints tables, writes JSON and a picture, and leaves nothing running. benchmarks/README.md
    tells how it is measured.

    \b
    Examples:
      python -m benchmarks --quick                      everything once, a few minutes
      python -m benchmarks --only select --rounds 5     selects alone
      python -m benchmarks --only 'copy-*' --only idle --targets pgbouncer,hyperpool
    """  # noqa: D301 - click wants the character itself
    options = Options(**context.params)
    scenarios = catalogue(Choice(options.modes, options.clients, options.idle_clients, options.only))
    if not scenarios:
        raise click.UsageError("no scenario of that name; see --list")
    if options.list_only:
        click.echo("\n".join(scenario.name for scenario in scenarios))
        return
    limit = raise_open_files_limit()
    if (
        any(isinstance(scenario, IdleClients) for scenario in scenarios)
        and limit < options.idle_clients + _OTHER_FILES
    ):
        raise click.UsageError(
            f"the hard limit on open files is {limit:,}: raise it, "
            f"or give --idle-clients below {limit - _OTHER_FILES:,}"
        )
    context.exit(_run(Session(_console(), options), scenarios))


def _console() -> Console:
    """The terminal; wide enough for the tables where the output goes to a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


def _run(session: Session, scenarios: Sequence[Scenario]) -> int:
    """Measure and report; what was measured before a failure or Ctrl-C is reported too.

    Returns:
        The exit code.
    """
    interrupt_on_signals()
    code = 0
    try:
        session.measure(scenarios)
    except KeyboardInterrupt:
        session.console.print("interrupted; everything is stopped")
        code = 130
    except BenchError as error:
        session.console.print(f"[red]{escape(str(error))}[/red]", highlight=False)
        code = 1
    complete = session.report()
    return code or (0 if complete else 1)


if __name__ == "__main__":
    main()
