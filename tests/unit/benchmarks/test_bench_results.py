"""The file of measurements: what is written stays, and is read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.processes import BenchError
from benchmarks.results import Cell, Journal, Result, newest, read, rounds_of

if TYPE_CHECKING:
    from pathlib import Path

_CELLS = [
    Cell(
        "select",
        "select-simple-16",
        "direct",
        1,
        Result({"rate": 10.5}, {"50": 1.0}, [(0.0, 4096.0)], ["slow"]),
    ),
    Cell("select", "select-simple-16", "pgbouncer", 2, error="it ended"),
]


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    """A file with two measurements."""
    path = tmp_path / "results" / "run.jsonl"
    journal = Journal(path)
    journal.describe({"date": "2026-01-01"})
    for cell in _CELLS:
        journal.add(cell)
    journal.close()
    return path


def test_it_is_read_as_it_was_written(path: Path) -> None:
    """Measurements, failures and the description."""
    recording = read(path)
    assert recording.description == {"date": "2026-01-01"}
    assert recording.cells == _CELLS
    assert rounds_of(recording.cells) == 2


def test_each_line_is_there_at_once(tmp_path: Path) -> None:
    """A process that is killed has lost nothing."""
    journal = Journal(tmp_path / "run.jsonl")
    journal.describe({})
    journal.add(_CELLS[0])
    assert read(journal.path).cells == _CELLS[:1]
    journal.close()


def test_a_last_line_that_was_cut_off(path: Path) -> None:
    """It is left out."""
    text = path.read_text("utf-8")
    path.write_text(text[:-20], "utf-8")
    assert read(path).cells == _CELLS[:1]


@pytest.mark.parametrize("line", ["what?", '{"group": "select"}', "[]"])
def test_another_file(path: Path, line: str) -> None:
    """A line in the middle that is no measurement is an error that names it."""
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([lines[0], line, *lines[1:]]), "utf-8")
    with pytest.raises(BenchError, match="line 2"):
        read(path)


def test_no_file(tmp_path: Path) -> None:
    """The message says which."""
    with pytest.raises(BenchError, match=r"nothing\.jsonl"):
        read(tmp_path / "nothing.jsonl")
    with pytest.raises(BenchError, match="benchmarks run"):
        newest(tmp_path)


def test_the_newest(path: Path) -> None:
    """It is found by its time."""
    older = path.with_name("zzz.jsonl")
    older.touch()
    import os

    os.utime(older, (0, 0))
    assert newest(path.parent) == path
