"""The command line: ``python -m benchmarks --help``."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from attrs import define, frozen
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
from rich.table import Table

from benchmarks import instructions, machine, results, tables
from benchmarks.goals import judge
from benchmarks.postgres import Tools
from benchmarks.processes import BenchError, Workspace, interrupt_on_signals, raise_open_files_limit
from benchmarks.profiles import Profiler, explanations, questions
from benchmarks.report import recorded
from benchmarks.report.page import write_page
from benchmarks.run import Runner, Step, closer_looks, plan
from benchmarks.scenarios.catalogue import chosen
from benchmarks.stage import Stage
from benchmarks.summary import summarise
from benchmarks.targets import TARGETS, pgbouncer_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Cell, Journal, Recording
    from benchmarks.scenarios.base import Scenario

_RESULTS: Final = Path(__file__).resolve().parent / "results"
_WIDTH: Final = 160
_FILES: Final = 11_000
"""Open files that the scenarios need: ten thousand idle clients, and what else there is."""


def _console() -> Console:
    """The terminal; wide enough for the tables where the output goes to a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


@frozen
class Options:
    """What ``run`` is asked for; its help texts tell what each of them means."""

    rounds: int
    seconds: int
    quick: bool
    only: Sequence[str]
    targets: Sequence[str]
    pgbouncer: str | None
    overrides: dict[str, str]
    output: Path

    @property
    def pace(self) -> tuple[int, int]:
        """Rounds, and seconds of each measurement."""
        return (1, 1) if self.quick else (self.rounds, self.seconds)


@define(eq=False)
class Session:
    """One run.

    Attributes:
        console: the terminal.
        options: what is wanted.
        journal: where measurements go.
    """

    console: Console
    options: Options
    journal: Journal

    def measure(self, scenarios: Sequence[Scenario]) -> None:
        """Start everything, make all measurements, end everything.

        Raises:
            BenchError: something that everything depends on does not work.
        """
        with Workspace() as workspace:
            self.console.print("starting PostgreSQL and filling its tables ...", style="dim")
            pgbouncer = pgbouncer_command(self.options.pgbouncer)
            stage = Stage(workspace, Tools.find(workspace), pgbouncer, self.options.overrides)
            rounds, seconds = self.options.pace
            targets = self._available(stage, scenarios)
            description = machine.describe(stage) | {"rounds": rounds, "seconds each": seconds}
            self.journal.describe(description | {"left out": self._left_out(stage, scenarios)})
            for name, value in description.items():
                self.console.print(f"  {name}: {escape(str(value))}", style="dim", highlight=False)
            stage.start_postgres()
            self._run(stage, plan(scenarios, targets, rounds), seconds)

    def _wanted(self, scenarios: Sequence[Scenario]) -> list[str]:
        names = {name for scenario in scenarios for name in scenario.targets}
        return [name for name in TARGETS if name in names and name in (self.options.targets or TARGETS)]

    def _available(self, stage: Stage, scenarios: Sequence[Scenario]) -> list[str]:
        missing = self._left_out(stage, scenarios)
        for name, reason in missing.items():
            self.console.print(f"[yellow]{name} is left out: {reason}[/yellow]", highlight=False)
        return [name for name in self._wanted(scenarios) if name not in missing]

    def _left_out(self, stage: Stage, scenarios: Sequence[Scenario]) -> dict[str, str]:
        """The targets that this machine does not have, and why."""
        reasons = ((name, TARGETS[name].missing(stage)) for name in self._wanted(scenarios))
        return {name: reason for name, reason in reasons if reason is not None}

    def _run(self, stage: Stage, steps: Sequence[Step], seconds: int) -> None:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(),
        )  # fmt: skip
        cells: list[Cell] = []
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task("", total=len(steps))

            def announce(step: Step) -> None:
                turn = f"round {step.round}" if step.round else "profile"
                progress.update(task, description=f"{turn}: {step.scenario.name}, {step.target}")

            def done(cell: Cell) -> None:
                cells.append(cell)
                self.journal.add(cell)
                progress.console.print(tables.cell_line(cell), highlight=False, soft_wrap=True)
                progress.advance(task)

            runner = Runner(stage, seconds, announce, done)
            runner.run(steps)
            profiler = Profiler.find(stage.workspace)
            if profiler is None:
                progress.console.print("[yellow]no profiles: there is no perf that may be used here[/yellow]")
                return
            looks = closer_looks([step.scenario for step in steps], questions(cells))
            progress.reset(task, total=len(looks))
            runner.profile(looks, profiler)


def _words(text: str) -> list[str]:
    return [word for word in text.replace(",", " ").split() if word]


def _targets(_context: click.Context, _parameter: click.Parameter, value: str) -> list[str]:
    if unknown := set(words := _words(value)) - set(TARGETS):
        raise click.BadParameter(f"no target {', '.join(sorted(unknown))}: choose from {', '.join(TARGETS)}")
    return words


def _overrides(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    if not all("=" in value for value in values):
        raise click.BadParameter("write NAME=VALUE")
    return {name: setting for name, _, setting in (value.partition("=") for value in values)}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Measure hyperpool, pgbouncer, pgpool-II and plain PostgreSQL side by side, and report.

    \b
      python -m benchmarks run --quick                    two minutes: to look, not to judge
      python -m benchmarks run                            everything, five rounds: about an hour
      python -m benchmarks run --only select --rounds 3   one group of scenarios
      python -m benchmarks report                         the newest run once more, as a page of HTML
      python -m benchmarks list                           scenarios, groups and targets
    """  # noqa: D301 - click wants the character itself


@main.command()
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often to measure everything."
)
@click.option(
    "--seconds", default=3, show_default=True, type=click.IntRange(1), help="Length of each measurement."
)
@click.option("--quick", is_flag=True, help="One round of one second each, of the most important scenarios.")
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Only these scenarios: a name, its beginning, a group or a pattern; repeat. See `list`.",
)
@click.option(
    "--targets", default="", metavar="NAMES", callback=_targets, help="Only these targets; see `list`."
)
@click.option("--pgbouncer", metavar="COMMAND", help="How to start pgbouncer; the ini file is appended.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_overrides,
    help="A pooler setting of every hyperpool, as in relay_linger=0; repeat.",
)
@click.option(
    "--output",
    default=_RESULTS,
    show_default="benchmarks/results",
    type=click.Path(path_type=Path),
    help="Where measurements and report go.",
)
@click.pass_context
def run(context: click.Context, /, **_parameters: object) -> None:
    """Measure, and write the report.

    All targets are started on free ports of 127.0.0.1 in a temporary directory, and nothing is left running. Every
    measurement is written down when it is made, so a run that is interrupted (Ctrl-C) is reported, too: as each round
    goes over all scenarios, it has measured all of them less often.

    \b
    Examples:
      python -m benchmarks run --only 'hot-*-16' --only stampede
      python -m benchmarks run --only login --targets pgbouncer,hyperpool --rounds 9
      python -m benchmarks run --only select-simple-16 --set relay_linger=0

    The exit code is 0 if every measurement worked out, 1 if one did not, 130 after Ctrl-C.
    """  # noqa: D301 - click wants the character itself
    options = Options(**context.params)
    scenarios = chosen(options.only, quick=options.quick)
    if not scenarios:
        raise click.UsageError("no scenario of that name; `python -m benchmarks list` has them all")
    console = _console()
    limit = raise_open_files_limit()
    if limit < _FILES:
        console.print(
            f"[yellow]only {limit:,} files may be open: scenarios with many clients will fail[/yellow]"
        )
    interrupt_on_signals()
    path = options.output / f"{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}.jsonl"
    journal = results.Journal(path)
    code = 0
    try:
        Session(console, options, journal).measure(scenarios)
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        code = 130
    except BenchError as error:
        console.print(f"[red]{escape(str(error))}[/red]", highlight=False)
        code = 1
    finally:
        journal.close()
    if not path.stat().st_size:
        path.unlink()
        sys.exit(code)
    recording = results.read(path)
    console.print(f"written: {path}")
    _report(console, recording, path.with_suffix(".html"))
    sys.exit(code or any(cell.error is not None for cell in recording.cells))


def _report(console: Console, recording: Recording, page: Path) -> None:
    """Print the tables and write the page."""
    rows = summarise(recording.cells)
    tables.print_tables(console, rows, judge(rows), explanations(rows, recording.profiles))
    write_page(page, recording)
    console.print(f"written: {page}")


@main.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--output", type=click.Path(path_type=Path), help="The page; by default it lies beside FILE.")
@click.option(
    "--record",
    is_flag=True,
    help="Make it the run that README.md and docs/benchmarks.md show, with its pictures and report.",
)
def report(file: Path | None, output: Path | None, *, record: bool) -> None:
    """Make the report of a run once more.

    FILE is what `run` has written: a line of JSON for each measurement. By default it is the newest one in
    benchmarks/results. A run that was cut off, or is still going on, can be reported, too.
    """
    console = _console()
    try:
        path = file or results.newest(_RESULTS)
        recording = results.read(path)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    _report(console, recording, output or path.with_suffix(".html"))
    if record:
        for written in recorded.record(path, recording):
            console.print(f"written: {written}")


@main.command("instructions")
@click.option("--queries", default=2000, show_default=True, type=click.IntRange(100), help="For each count.")
@click.option("--record", is_flag=True, help="Write benchmarks/instructions.json, which reports show.")
def count_instructions(queries: int, *, record: bool) -> None:
    """Count the instructions that poolers take for a query.

    valgrind's callgrind counts them, in user space, for 16 clients and pgbench's three query modes. The figure does not
    depend on what else the machine does, so it tells small changes of the code apart. It takes some minutes.
    """
    console = _console()
    interrupt_on_signals()
    try:
        found = instructions.count(queries, lambda text: console.print(text, style="dim"))
    except (BenchError, OSError) as error:
        raise click.ClickException(str(error)) from error
    before = instructions.recorded()
    known = {(one.target, one.mode): one for one in before.counts} if before else {}
    table = Table("target", "mode", "instructions per query", "x pgbouncer", "recorded", "where")
    for one in found.counts:
        earlier = known.get((one.target, one.mode))
        table.add_row(
            one.target,
            one.mode,
            f"{one.per_query:,.0f}",
            found.multiple(one),
            f"{earlier.per_query:,.0f}" if earlier else "",
            one.shares(),
        )
    console.print(table)
    if record:
        instructions.write(found)
        console.print(f"written: {instructions.FILE}")


@main.command("list")
def list_all() -> None:
    """Show the names of scenarios and targets."""
    console = _console()
    table = Table("scenario", "group", "quick", "targets", title="Scenarios", title_justify="left")
    for scenario in chosen(()):
        quick = "yes" if scenario.quick else ""
        table.add_row(scenario.name, scenario.group, quick, ", ".join(scenario.targets))
    console.print(table)
    table = Table("target", "what it is", title="Targets", title_justify="left")
    for target in TARGETS.values():
        table.add_row(target.name, target.about)
    console.print(table)


if __name__ == "__main__":
    main()
