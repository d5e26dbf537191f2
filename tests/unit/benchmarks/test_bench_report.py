"""The report: a page that needs nothing from elsewhere, and the part of the documentation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from rich.console import Console

from benchmarks import tables
from benchmarks.__main__ import main
from benchmarks.goals import judge
from benchmarks.groups import GROUPS
from benchmarks.profiles import explanations
from benchmarks.report.page import coded, render
from benchmarks.report.recorded import record
from benchmarks.results import Cell, Journal, Recording, Result, read
from benchmarks.scenarios.catalogue import catalogue
from benchmarks.summary import Spread, summarise

if TYPE_CHECKING:
    from pathlib import Path

_ELSEWHERE = re.compile(r"""\b(?:src|href)=["'](?!#)|@import|url\((?!#)""")
_QUANTILES = {"50": 1.0, "90": 2.0, "99": 3.0, "99.9": 9.0, "100": 20.0}
_DESCRIPTION = {
    "date": "2026-01-02T03:04:05+00:00",
    "processor": "A <processor>",
    "left out": {"pgpool": "not installed"},
}


def figures(group: str, factor: float) -> dict[str, float]:
    """One figure for each column."""
    return {name: factor * (place + 1) for place, name in enumerate(GROUPS[group].columns)}


def result(group: str, factor: float) -> Result:
    """A measurement with all that there can be."""
    return Result(figures(group, factor), _QUANTILES, notes=["n & m"])


@pytest.fixture(name="recording", scope="module")
def _recording() -> Recording:
    """Three rounds of a scenario of each group, with two targets, and one failure."""
    firsts = {one.group: one for one in reversed(catalogue())}
    cells = [
        Cell(one.group, one.name, target, number, result(one.group, place + number))
        for number in (1, 2, 3)
        for one in firsts.values()
        for place, target in enumerate(one.targets[:2])
    ]
    cells.append(Cell("select", "select-simple-1", "hyperpool", 4, error="it <ended>"))
    profile = {"kernel: sending": 0.5, "Python": 0.5}
    looks = [
        Cell("select", "select-simple-1", target, 0, profile=profile) for target in ("direct", "hyperpool")
    ]
    return Recording(dict(_DESCRIPTION), cells, looks)


@pytest.fixture(name="page", scope="module")
def _page(recording: Recording) -> str:
    """The page of all that."""
    return render(recording)


def test_it_needs_nothing_from_elsewhere(page: str) -> None:
    """No script, style, picture or font is loaded."""
    styled = re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    assert not _ELSEWHERE.search(styled)
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        links = re.findall(r'xlink:href="([^"]*)"', drawing)
        assert all(link.startswith("#") for link in links)
        assert ET.fromstring(drawing).tag.endswith("svg")


def test_it_has_everything(page: str) -> None:
    """Each group with its table and its pictures, the machine, the goals, and what failed."""
    for group in GROUPS.values():
        assert f'<h2 id="{group.name}">' in page
    assert page.count("<svg") == sum(bool(group.plots) for group in GROUPS.values())
    assert "A &lt;processor&gt;" in page
    assert "pgpool: not installed" in page
    assert "pass-through, simple, 1 client: latency" in page
    assert "it &lt;ended&gt;" in page
    assert "n &amp; m" in page
    assert "2026-01-02 03:04" in page
    assert '<h2 id="profiles">' in page
    assert "kernel: sending" in page


def test_a_run_that_was_cut_off() -> None:
    """Nothing was measured, or one thing, and nothing to compare with."""
    assert "None of the scenarios" in render(Recording())
    one = Cell("bulk", "copy-wide", "hyperpool", 1, Result({"rate": 900.0}))
    assert "900" in render(Recording({"date": "2026"}, [one]))


def test_names_in_a_text() -> None:
    """Those in backticks are code, and nothing else is markup."""
    assert coded("`a` < b") == "<code>a</code> &lt; b"


def test_the_terminal(recording: Recording) -> None:
    """It has the same tables."""
    console = Console(width=200, record=True, file=None, quiet=True)
    rows = summarise(recording.cells)
    tables.print_tables(console, rows, judge(rows), explanations(rows, recording.profiles))
    for cell in (*recording.cells, *recording.profiles):
        assert cell.scenario in tables.cell_line(cell)


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (123.4, "123"), (45.67, "45.7"), (4.567, "4.57"), (0.04567, "0.046"), (3.0, "3")],
)
def test_numbers(value: float, text: str) -> None:
    """As many digits as one reads at a glance."""
    assert tables.number(value) == text


def test_spreads() -> None:
    """What did not vary is not told."""
    assert tables.deviation(Spread(10.0, 9.0, 12.0)) == "±15%"
    assert tables.deviation(Spread(10.0, 10.0, 10.0)) == tables.ratio_range(Spread(1.0, 1.0, 1.0)) == ""
    assert tables.ratio(None) == tables.deviation(None) == ""
    assert tables.written("hit_share", Spread(0.999, 0.9, 1.0)) == "99.9%"
    assert tables.written("rate", None) == "-"


def test_the_documentation(recording: Recording, tmp_path: Path) -> None:
    """The recorded run replaces the one before, and all that is linked is there."""
    few = Recording(
        recording.description,
        [cell for cell in recording.cells if cell.group in {"select", "far-reads"}],
        recording.profiles,
    )
    source = tmp_path / "run.jsonl"
    journal = Journal(source)
    journal.describe(few.description)
    journal.add(few.cells[0])
    journal.add(few.profiles[0])
    journal.close()
    docs = tmp_path / "docs"
    (docs / "benchmarks").mkdir(parents=True)
    (docs / "benchmarks" / "old.png").touch()
    page = docs / "benchmarks.md"
    front = tmp_path / "README.md"
    for file in (page, front):
        file.write_text("a\n<!-- recorded run: begin -->\nold\n<!-- recorded run: end -->\nz\n", "utf-8")
    written = set(record(source, few, docs))
    assert "](docs/benchmarks/overview.png)" in front.read_text("utf-8")
    for file in (page, front):
        text = file.read_text("utf-8")
        assert text.startswith("a\n")
        assert text.endswith("z\n")
        assert "\nold\n" not in text
        assert "Measured on 2026-01-02, " in text
    text = page.read_text("utf-8")
    assert "Measured on 2026-01-02, in 4 rounds." in text
    assert "| kernel: sending | " in text
    linked = {docs / link for link in re.findall(r"\]\((benchmarks/[^)]+)\)", text)}
    assert {path.name for path in linked} == {
        "report.html",
        "measurements.jsonl",
        "select.png",
        "far-reads.png",
    }
    # The picture of all is for other pages.
    assert written == linked | {page, front, docs / "benchmarks" / "overview.png"}
    kept = read(docs / "benchmarks" / "measurements.jsonl")
    assert (kept.cells, kept.profiles) == (few.cells[:1], few.profiles[:1])


class TestCommandLine:
    """``python -m benchmarks``."""

    def test_report(self, recording: Recording, tmp_path: Path) -> None:
        """A file of measurements becomes a page beside it."""
        path = tmp_path / "run.jsonl"
        journal = Journal(path)
        journal.describe(recording.description)
        journal.add(recording.cells[0])
        journal.close()
        done = CliRunner().invoke(main, ["report", str(path)])
        assert done.exit_code == 0, done.output
        assert "<h2" in path.with_suffix(".html").read_text("utf-8")

    def test_list(self) -> None:
        """Scenarios and targets."""
        done = CliRunner().invoke(main, ["list"])
        assert "select-simple-16" in done.output
        assert "pgpool-cache" in done.output

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["run", "--only", "nothing"], "no scenario of that name"),
            (["run", "--targets", "nothing"], "choose from direct"),
            (["run", "--set", "nothing"], "NAME=VALUE"),
            (["report", "nothing.jsonl"], "cannot be read"),
        ],
    )
    def test_mistakes(self, arguments: list[str], message: str) -> None:
        """They are told before anything is started."""
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code != 0
        assert message in done.output
