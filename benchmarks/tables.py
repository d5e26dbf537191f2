"""How figures are written, and the tables on the terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from benchmarks.groups import GROUPS
from benchmarks.quantities import QUANTITIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from benchmarks.goals import Goal, Verdict
    from benchmarks.groups import Group
    from benchmarks.profiles import Explanation
    from benchmarks.results import Cell
    from benchmarks.summary import Row, Spread

_STYLES = {"direct": "dim", "hyperpool": "bold", "hyperpool-cache": "bold"}
_ON_THE_LINE = ("rate", "p50_ms", "p99_ms", "cpu_us", "bytes_per_client", "first_ms", "seconds", "answers")


def number(value: float) -> str:
    """A figure with about three digits, as many as one reads at a glance."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def heading(group: Group, name: str) -> str:
    """What is over a column."""
    return QUANTITIES[name].heading.format(unit=group.unit, per=group.per)


def written(name: str, spread: Spread | None) -> str:
    """A median."""
    if spread is None:
        return "-"
    return f"{spread.median:.1%}" if name == "hit_share" else number(spread.median)


def deviation(spread: Spread | None) -> str:
    """Half the range of the rounds in per cent of their median; empty where it is nothing."""
    return "" if spread is None or not spread.deviation else f"±{spread.deviation:.0%}"


def ratio(spread: Spread | None) -> str:
    """A multiple of the reference."""
    return "" if spread is None else f"{spread.median:.2f}x"


def ratio_range(spread: Spread | None) -> str:
    """The lowest and highest multiple; empty where there was one round."""
    return "" if spread is None or spread.low == spread.high else f"{spread.low:.2f}-{spread.high:.2f}"


def wanted(goal: Goal) -> str:
    """The bound of a goal."""
    sign = "at least" if goal.kind == "least" else "at most"
    return f"{sign} {number(goal.bound)}" if goal.absolute else f"{sign} {goal.bound:g}x"


def measured(verdict: Verdict) -> str:
    """What was found for a goal."""
    found = verdict.measured
    if found is None:
        return "not measured"
    if verdict.goal.absolute:
        return f"{number(found.median)} ({number(found.low)}-{number(found.high)})"
    return f"{ratio(found)} ({ratio_range(found) or 'one round'})"


def cell_line(cell: Cell) -> str:
    """One line about a measurement that has just ended."""
    turn = f"round {cell.round}" if cell.round else "profile"
    head = f"{turn}  {cell.scenario:<22} {cell.target:<18}"
    if cell.profile:
        most = sorted(cell.profile.items(), key=lambda one: -one[1])[:4]
        return f"{head} {'; '.join(f'{part} {share:.0%}' for part, share in most)}"
    if cell.result is None:
        return f"[red]{head} failed[/red]\n{escape(cell.error or '')}"
    group = GROUPS[cell.group]
    figures = cell.result.figures
    parts = [
        f"{number(figures[name])} {heading(group, name).replace(', ', ' ')}"
        for name in _ON_THE_LINE
        if name in figures
    ]
    notes = [f"[yellow]{escape(note)}[/yellow]" for note in cell.result.notes]
    return f"{head} {'; '.join([*parts[:4], *notes])}"


def print_tables(
    console: Console, rows: Sequence[Row], verdicts: Sequence[Verdict], explained: Sequence[Explanation]
) -> None:
    """Print a table for each group, one of the goals, one for each profile, and the errors."""
    for group in GROUPS.values():
        if shown := [row for row in rows if row.group == group.name]:
            console.print(_table(group, shown))
    if verdicts:
        console.print(_goals(verdicts))
    for one in explained:
        console.print(_profile(one))
    for row in rows:
        # The whole of an error, with the log, stands above, where it happened, and in the file.
        for reason, times in Counter(error.partition("\n")[0] for error in row.errors).items():
            console.print(f"[red]{row.scenario}, {row.target} failed {times}x:[/red] {escape(reason)}")


def _table(group: Group, rows: Sequence[Row]) -> Table:
    table = Table(
        title=group.title,
        title_justify="left",
        caption=f"Medians over the rounds; x: multiple of {group.reference}'s within each round.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("scenario", no_wrap=True)
    table.add_column("target", no_wrap=True)
    for place, name in enumerate(group.columns):
        table.add_column(heading(group, name), justify="right", max_width=14)
        if place < group.compared:
            table.add_column("x", justify="right", no_wrap=True)
    previous = ""
    for row in rows:
        if previous not in {"", row.scenario}:
            table.add_section()
        marks = f" [red]({len(row.errors)} failed)[/red]" if row.errors else ""
        values = [f"{row.target}{marks}{' *' if row.notes else ''}"]
        for place, name in enumerate(group.columns):
            values.append(written(name, row.figures.get(name)))
            if place < group.compared:
                values.append(ratio(row.ratios.get(name)))
        first = "" if row.scenario == previous else row.scenario
        table.add_row(first, *values, style=_STYLES.get(row.target))
        previous = row.scenario
    return table


def microseconds(value: float | None) -> str:
    """A part of the processor time; nothing where there is none."""
    return "" if value is None else f"{value:,.1f}"


def _profile(one: Explanation) -> Table:
    table = Table(
        title=f"Where the time goes: {one.scenario}",
        title_justify="left",
        caption=f"CPU time of the pooler, us per {one.per}.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("part")
    for target in one.targets:
        table.add_column(target, justify="right")
    for part, values in one.lines:
        table.add_row(part, *map(microseconds, values))
    table.add_section()
    table.add_row("all", *map(microseconds, one.totals))
    return table


def _goals(verdicts: Sequence[Verdict]) -> Table:
    table = Table(
        title="Goals",
        title_justify="left",
        caption="x: multiple of pgbouncer's, median over the rounds, with lowest and highest.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for name in ("goal", "wanted", "measured", ""):
        table.add_column(name)
    for verdict in verdicts:
        style = {True: "green", False: "red", None: "dim"}[verdict.reached]
        mark = {True: "reached", False: "missed", None: ""}[verdict.reached]
        table.add_row(
            verdict.goal.text, wanted(verdict.goal), measured(verdict), f"[{style}]{mark}[/{style}]"
        )
    return table
