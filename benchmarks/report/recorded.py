"""The run that the documentation shows: its measurements, its report, its pictures, and what the page says of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import tables
from benchmarks.goals import judge
from benchmarks.groups import GROUPS
from benchmarks.profiles import explanations
from benchmarks.report import plot
from benchmarks.report.page import write_page
from benchmarks.results import rounds_of
from benchmarks.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchmarks.profiles import Explanation
    from benchmarks.results import Recording
    from benchmarks.summary import Row

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
_FOLDER: Final = "benchmarks"
_MARKED: Final = re.compile(r"(<!-- recorded run: begin -->\n).*?(<!-- recorded run: end -->)", re.DOTALL)
_SHOWN: Final = (
    "processor",
    "processors",
    "kernel",
    "python",
    "hyperpool",
    "revision",
    "pgbouncer",
    "pgpool-II",
)


def record(source: Path, recording: Recording, docs: Path = DOCS) -> list[Path]:
    """Make a run the one that the documentation shows.

    Args:
        source: the file of its measurements.
        recording: what is in there.
        docs: the documentation; its page ``benchmarks.md`` and the ``README.md`` beside it have two comments between
            which it goes.

    Returns:
        What was written.
    """
    folder = docs / _FOLDER
    measurements = source.read_bytes()  # They may be those that are recorded now.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "measurements.jsonl").write_bytes(measurements)
    rows = summarise(recording.cells)
    write_page(folder / "report.html", recording)
    plot.png_of_all(folder / "overview.png", rows)
    for group in GROUPS.values():
        shown = [row for row in rows if row.group == group.name]
        plot.png_of_group(folder / f"{group.name}.png", group, shown)
    page, front = docs / "benchmarks.md", docs.parent / "README.md"
    _put(page, part(recording, rows, folder))
    _put(front, _overview(recording, folder, docs))
    return [front, page, *sorted(folder.iterdir())]


def _put(page: Path, lines: Iterable[str]) -> None:
    """Write lines between the two comments of a page."""
    text = "\n".join(lines)
    page.write_text(
        _MARKED.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page.read_text("utf-8")), "utf-8"
    )


def _overview(recording: Recording, folder: Path, docs: Path) -> Iterator[str]:
    """The picture of all, and when it was measured."""
    about = recording.description
    picture = folder / "overview.png"
    if picture.exists():
        yield f"![Bars of throughput, CPU time and latency]({picture.relative_to(docs.parent)})\n"
    versions = ", ".join(str(about[name]) for name in ("hyperpool", "pgbouncer") if name in about)
    yield f"Measured on {_date(recording)}, {versions}; load, PostgreSQL and poolers share"
    yield f"{about.get('processors', 'some')} processors."


def _date(recording: Recording) -> str:
    return str(recording.description.get("date", "an unknown date"))[:10]


def part(recording: Recording, rows: Sequence[Row], folder: Path) -> Iterator[str]:
    """The lines of the page that speak of the run.

    Args:
        recording: the run.
        rows: its summary.
        folder: where its pictures are.
    """
    about = recording.description
    rounds = rounds_of(recording.cells)
    yield f"Measured on {_date(recording)}, in {rounds} round{'s' if rounds != 1 else ''}."
    yield f"The whole report is [{_FOLDER}/report.html]({_FOLDER}/report.html), every single measurement is in"
    yield f"[{_FOLDER}/measurements.jsonl]({_FOLDER}/measurements.jsonl)."
    yield ""
    yield "| | |\n|---|---|"
    yield from (f"| {name} | {about[name]} |" for name in _SHOWN if name in about)
    yield ""
    yield "| goal | wanted | measured | |\n|---|---|---|---|"
    for verdict in judge(rows):
        mark = {True: "reached", False: "**missed**", None: ""}[verdict.reached]
        yield f"| {verdict.goal.text} | {tables.wanted(verdict.goal)} | {tables.measured(verdict)} | {mark} |"
    yield ""
    yield "x are multiples of pgbouncer's: medians over the rounds, with the lowest and the highest."
    yield ""
    yield from _explained(explanations(rows, recording.profiles))
    for group in GROUPS.values():
        if (folder / f"{group.name}.png").exists():
            yield f"### {group.title}\n"
            yield f"{group.about}\n"
            yield f"![{group.title}]({_FOLDER}/{group.name}.png)\n"


def _explained(found: Sequence[Explanation]) -> Iterator[str]:
    """Where the time goes where a goal is missed."""
    if not found:
        return
    yield "### Where the time goes\n"
    yield "Each scenario with a goal that is missed was measured once more while perf sampled the pooler:"
    yield "microseconds of CPU time, in the kernel by the system call, in user space by whose code it is."
    yield ""
    for one in found:
        yield f"| {one.scenario}, us per {one.per} | {' | '.join(one.targets)} |"
        yield f"|---|{'---|' * len(one.targets)}"
        for part, values in one.lines:
            yield f"| {part} | {' | '.join(map(tables.microseconds, values))} |"
        yield f"| all | {' | '.join(map(tables.microseconds, one.totals))} |"
        yield ""
