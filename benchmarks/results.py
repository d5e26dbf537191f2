"""Measurements, and the file that keeps them: a line of JSON for each, written when it is made.

The first line describes the run. A run that is cut off leaves all that it has measured.
"""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

import attrs
import cattrs
from attrs import define, field, frozen

from benchmarks.processes import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@frozen
class Result:
    """What one measurement of one target gave.

    Attributes:
        figures: by the name of the quantity, see `benchmarks.quantities`.
        quantiles: latency in milliseconds by percentage, as text; empty where it was not taken.
        memory: resident bytes of the pooler over time, as (seconds, bytes).
        notes: what a reader should know about the figures, such as that the load generator was at its limit.
    """

    figures: dict[str, float]
    quantiles: dict[str, float] = field(factory=dict)
    memory: list[tuple[float, float]] = field(factory=list)
    notes: list[str] = field(factory=list)


@frozen
class Cell:
    """One measurement: what, of which target, in which round, and what came of it.

    Attributes:
        group: of the scenario, see `benchmarks.groups`.
        scenario: its name.
        target: its name, see `benchmarks.targets`.
        round: counted from 1; 0 for one that was made for a profile, and whose figures do not count.
        result: None where it failed.
        error: why it failed.
        profile: the shares of `benchmarks.profiles.PARTS` in its processor time.
    """

    group: str
    scenario: str
    target: str
    round: int
    result: Result | None = None
    error: str | None = None
    profile: dict[str, float] | None = None


@define
class Recording:
    """A run that is over, or was cut off.

    Attributes:
        description: the machine, the versions and the pace.
        cells: what was measured, in order.
        profiles: where the time went, where a goal was missed.
    """

    description: dict[str, Any] = field(factory=dict)
    cells: list[Cell] = field(factory=list)
    profiles: list[Cell] = field(factory=list)


@define(eq=False)
class Journal:
    """Writes a recording line by line; whatever happens later, a line that is written stays.

    Attributes:
        path: the file.
    """

    path: Path
    _file: IO[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w", encoding="utf-8")

    def describe(self, description: dict[str, Any]) -> None:
        """Write the first line."""
        self._write(description)

    def add(self, cell: Cell) -> None:
        """Write a measurement."""
        self._write(attrs.asdict(cell))

    def close(self) -> None:
        """Nothing more will come."""
        self._file.close()

    def _write(self, value: dict[str, Any]) -> None:
        self._file.write(json.dumps(value, default=str) + "\n")
        self._file.flush()


def read(path: Path) -> Recording:
    """Read a file that `Journal` has written; a last line that was cut off is left out.

    Raises:
        BenchError: there is no such file, or it is no such file.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror}") from error
    recording = Recording()
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
            if number == 1:
                recording.description = dict(value)
            else:
                cell = cattrs.structure(value, Cell)
                (recording.cells if cell.round else recording.profiles).append(cell)
        except (ValueError, TypeError, cattrs.BaseValidationError) as error:
            if number == len(lines) and number > 1:
                break
            raise BenchError(f"{path}, line {number} is no measurement of this suite") from error
    return recording


def newest(directory: Path) -> Path:
    """The newest file of measurements in a directory.

    Raises:
        BenchError: there is none.
    """
    found = sorted(directory.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise BenchError(f"no measurements in {directory}: `python -m benchmarks run` makes some")
    return found[-1]


def rounds_of(cells: Iterable[Cell]) -> int:
    """How many rounds there are."""
    return max((cell.round for cell in cells), default=0)
