"""The benchmarks from end to end: one scenario, shortly, without anything left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from benchmarks.results import read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.results import Cell

ROOT = Path(__file__).parents[2]
_SCENARIO = "select-simple-1"


@pytest.fixture(name="here")
def _here() -> Iterator[Path]:
    """A directory for temporary files; servers that run as another user can walk into it."""
    with TemporaryDirectory(prefix="hyperpool-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.mark.usefixtures("pgbench")
def test_a_run(here: Path, tmp_path: Path) -> None:
    """Everything is measured, written down and reported; servers and files of the run are gone."""
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "run",
        "--rounds",
        "1",
        "--seconds",
        "1",
        "--only",
        _SCENARIO,
    ]
    command += ["--only", "far-reads", "--targets", "direct,hyperpool,tcp", "--output", str(tmp_path)]
    environ = {**os.environ, "TMPDIR": str(here)}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("*.jsonl")
    recording = read(path)
    assert {(cell.scenario, cell.target) for cell in recording.cells} == {
        (_SCENARIO, "direct"),
        (_SCENARIO, "hyperpool"),
        ("far-reads", "direct"),
        ("far-reads", "tcp"),
    }
    figures = {(cell.scenario, cell.target): _figures(cell) for cell in recording.cells}
    assert figures[_SCENARIO, "hyperpool"]["rate"] > 0
    assert figures[_SCENARIO, "hyperpool"]["cpu_us"] > 0
    assert figures["far-reads", "tcp"]["p50_ms"] >= 40
    assert "<svg" in path.with_suffix(".html").read_text("utf-8")
    assert not list(here.iterdir())


def _figures(cell: Cell) -> dict[str, float]:
    assert cell.result is not None, cell.error
    return cell.result.figures
