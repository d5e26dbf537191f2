"""The report as one page of HTML that needs nothing from elsewhere: tables, and pictures inside of it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from benchmarks import instructions, tables
from benchmarks.goals import judge
from benchmarks.groups import GROUPS
from benchmarks.profiles import explanations
from benchmarks.quantities import QUANTITIES
from benchmarks.results import rounds_of
from benchmarks.summary import summarise
from benchmarks.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.groups import Group
    from benchmarks.results import Recording
    from benchmarks.summary import Row

_HERE: Final = Path(__file__).resolve().parent


@frozen
class Section:
    """A group as the page shows it.

    Attributes:
        group: which.
        picture: SVG; empty without matplotlib.
        headings: of the columns after scenario and target.
        lines: the table.
        notes: what a reader should know, with those that it is about.
    """

    group: Group
    picture: Markup
    headings: Sequence[str]
    lines: Sequence[Mapping[str, Any]]
    notes: Sequence[str]


def write_page(path: Path, recording: Recording) -> None:
    """Write the report of a run.

    Args:
        path: the file.
        recording: the run; it may have been cut off.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(recording), "utf-8")


def render(recording: Recording) -> str:
    """The page of a run."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(tables=tables)
    environment.filters["coded"] = coded
    rows = summarise(recording.cells)
    description = dict(recording.description)
    return environment.get_template("page.html.j2").render(
        date=str(description.pop("date", "unknown"))[:16].replace("T", " "),
        left_out=description.pop("left out", {}),
        description=description,
        rounds=rounds_of(recording.cells),
        verdicts=judge(rows),
        explanations=explanations(rows, recording.profiles),
        sections=[
            _section(group, rows) for group in GROUPS.values() if any(row.group == group.name for row in rows)
        ],
        errors=[(row, error) for row in rows for error in row.errors],
        targets=[target for target in TARGETS.values() if any(row.target == target.name for row in rows)],
        instructions=instructions.recorded(),
    )


def coded(text: str) -> Markup:
    """A text of which the names in backticks are code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - it is escaped


def _section(group: Group, rows: Sequence[Row]) -> Section:
    shown = [row for row in rows if row.group == group.name]
    return Section(
        group=group,
        picture=_picture(group, shown),
        headings=[tables.heading(group, name) for name in group.columns],
        lines=[_line(group, row, shown[place - 1] if place else None) for place, row in enumerate(shown)],
        notes=[f"{row.scenario}, {row.target}: {note}" for row in shown for note in row.notes],
    )


def _picture(group: Group, rows: Sequence[Row]) -> Markup:
    if importlib.util.find_spec("matplotlib") is None:
        return Markup()
    from benchmarks.report import plot  # noqa: PLC0415 - matplotlib is optional

    return Markup(plot.svg_of_group(group, rows))  # noqa: S704 - it is of matplotlib, which escapes what it writes


def _line(group: Group, row: Row, previous: Row | None) -> Mapping[str, Any]:
    return {
        "scenario": row.scenario,
        "first": previous is None or previous.scenario != row.scenario,
        "target": row.target,
        "failed": len(row.errors),
        "noted": bool(row.notes),
        "values": [
            {
                "median": tables.written(name, row.figures.get(name)),
                "deviation": tables.deviation(row.figures.get(name)),
                "ratio": tables.ratio(row.ratios.get(name)) if place < group.compared else "",
                "range": tables.ratio_range(row.ratios.get(name)) if place < group.compared else "",
                "good": _is_good(group, name, row) if place < group.compared else None,
            }
            for place, name in enumerate(group.columns)
        ],
    }


def _is_good(group: Group, name: str, row: Row) -> bool | None:
    """Whether all rounds say that a figure is better than the reference's (True), or worse (False)."""
    spread, better = row.ratios.get(name), QUANTITIES[name].better
    if spread is None or better is None or row.target == group.reference:
        return None
    low, high = (spread.low, spread.high) if better == "more" else (-spread.high, -spread.low)
    one = 1 if better == "more" else -1
    return True if low > one else False if high < one else None
