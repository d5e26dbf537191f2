"""Where a pooler's processor time goes: what explains a figure that misses its goal.

perf samples the pooler while it is measured once more. Each sample is put down to a part of the work: in the kernel by
the system call that it happens in, in user space by whose code it is. perf costs time itself, so only the shares count;
multiplied with the CPU time that the rounds have measured, they tell microseconds.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Final

from attrs import define, frozen

from benchmarks.goals import judge
from benchmarks.groups import GROUPS
from benchmarks.measure import family
from benchmarks.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.processes import Workspace
    from benchmarks.results import Cell
    from benchmarks.summary import Row

_FREQUENCY: Final = 1999
"""Samples per second of processor time; no divisor of the kernel's own clock."""

_LEAST: Final = 100
"""Samples below which shares say nothing."""

_EXPLAINED: Final = frozenset({"rate", "cpu_us", "p50_ms", "p99_ms"})
"""Quantities that processor time explains."""

_CALLS: Final = (
    ("kernel: sending", re.compile(r"(sendto|sendmsg|writev|do_sys_write|ksys_write)\b")),
    ("kernel: receiving", re.compile(r"(recvfrom|recvmsg|readv|ksys_read)\b")),
    ("kernel: waiting for events", re.compile(r"(epoll_p?wait2?|ep_poll|sys_poll|sys_select)\b")),
    (
        "kernel: connections",
        re.compile(
            r"(accept4?|connect|sys_close|shutdown|epoll_ctl|sys_socket|getpeername|setsockopt)\b|__fput"
        ),
    ),
)
_REST: Final = "kernel: the rest"
_OWN: Final = "the pooler's own machine code"
_PYTHON: Final = "Python"
_LIBRARIES: Final = "libraries"
PARTS: Final = (*(name for name, _ in _CALLS), _REST, _OWN, _PYTHON, _LIBRARIES)
"""Of which a profile has shares."""

_FRAME: Final = re.compile(r"\s*[0-9a-f]+ (?P<symbol>.*) \((?P<file>[^()]*)\)$")
_OWN_FILE: Final = re.compile(r"/hyperpool/.*\.so$|/(pgbouncer|pgpool)[^/]*$")
_PYTHON_FILE: Final = re.compile(r"/libpython[^/]*$|/python3[^/]*$|\.cpython-[^/]*\.so$")


@frozen
class Question:
    """A scenario of which a goal is missed.

    Attributes:
        scenario: its name.
        target: which target misses it.
        reference: whom it is compared with.
    """

    scenario: str
    target: str
    reference: str


def questions(cells: Sequence[Cell]) -> list[Question]:
    """What is to be explained of a run: each scenario once, in the order of the goals."""
    asked = {}
    for verdict in judge(summarise(cells)):
        goal = verdict.goal
        if verdict.reached is False and goal.quantity in _EXPLAINED:
            group = next(cell.group for cell in cells if cell.scenario == goal.scenario)
            asked[goal.scenario, goal.target] = Question(goal.scenario, goal.target, GROUPS[group].reference)
    return list(asked.values())


@define(eq=False)
class Profiler:
    """Samples processes with perf.

    Attributes:
        workspace: where its file goes.
        perf: the program.
    """

    workspace: Workspace
    perf: str

    @classmethod
    def find(cls, workspace: Workspace) -> Profiler | None:
        """A profiler, if this machine has one that may look into processes."""
        perf = shutil.which("perf")
        if perf is None:
            return None
        found = cls(workspace, perf)
        tried = subprocess.run(
            [perf, "record", *_OPTIONS, "-o", found.file, "true"], capture_output=True, check=False
        )
        return found if tried.returncode == 0 else None

    @property
    def file(self) -> Path:
        """Where samples go."""
        return self.workspace.directory / "perf.data"

    @contextlib.contextmanager
    def watching(self, pid: int) -> Iterator[dict[str, float]]:
        """Sample a process and its descendants while the block runs.

        Yields:
            What has the shares of `PARTS` behind the block; nothing if there were too few samples.
        """
        pids = ",".join(map(str, family(pid)))
        child = self.workspace.spawn(
            "perf",
            [self.perf, "record", *_OPTIONS, "-p", pids, "-o", self.file],
            stop_signal=signal.SIGINT,
        )
        shares: dict[str, float] = {}
        try:
            yield shares
        finally:
            self.workspace.stop(child)
        told = subprocess.run(
            [self.perf, "script", "-i", self.file, "-F", "ip,sym,dso"],
            capture_output=True,
            check=False,
            text=True,
            errors="replace",
        )
        shares |= shares_of(told.stdout.splitlines())


_OPTIONS: Final = ("-e", "cpu-clock", "-F", str(_FREQUENCY), "-g", "-q")


def shares_of(lines: Iterable[str]) -> dict[str, float]:
    """The shares of `PARTS` in samples as ``perf script`` prints them; empty if there are too few."""
    counts = Counter(map(part_of, _stacks(lines)))
    total = counts.total()
    return {part: counts[part] / total for part in PARTS if counts[part]} if total >= _LEAST else {}


def _stacks(lines: Iterable[str]) -> Iterator[list[tuple[str, str]]]:
    """The stacks of all samples, the innermost frame first: symbol and file."""
    stack: list[tuple[str, str]] = []
    for line in (*lines, ""):
        found = _FRAME.match(line)
        if found is not None:
            stack.append((found["symbol"], found["file"]))
        elif stack:
            yield stack
            stack = []


def part_of(stack: Sequence[tuple[str, str]]) -> str:
    """Which part a sample belongs to."""
    _, file = stack[0]
    if file.startswith("[kernel") or file.endswith(".ko"):
        for symbol, _ in reversed(stack):
            for part, call in _CALLS:
                if call.search(symbol):
                    return part
        return _REST
    if _OWN_FILE.search(file):
        return _OWN
    return _PYTHON if _PYTHON_FILE.search(file) else _LIBRARIES


@frozen
class Explanation:
    """A profile as reports show it.

    Attributes:
        scenario: which.
        per: what the time is counted for.
        targets: who was profiled.
        lines: each part with its microseconds by target; None where nothing was found.
        totals: the CPU time of each target, in microseconds.
    """

    scenario: str
    per: str
    targets: Sequence[str]
    lines: Sequence[tuple[str, Sequence[float | None]]]
    totals: Sequence[float]


def explanations(rows: Sequence[Row], profiles: Collection[Cell]) -> list[Explanation]:
    """What the profiles of a run say, with the CPU times of its rounds."""
    times = {
        (row.scenario, row.target): row.figures["cpu_us"].median for row in rows if "cpu_us" in row.figures
    }
    found = []
    for scenario in dict.fromkeys(cell.scenario for cell in profiles):
        known = [
            cell
            for cell in profiles
            if cell.scenario == scenario and cell.profile and (cell.scenario, cell.target) in times
        ]
        if not known:
            continue
        lines = [
            (
                part,
                [
                    cell.profile[part] * times[cell.scenario, cell.target]
                    if cell.profile and part in cell.profile
                    else None
                    for cell in known
                ],
            )
            for part in PARTS
        ]
        found.append(
            Explanation(
                scenario=scenario,
                per=GROUPS[known[0].group].per,
                targets=[cell.target for cell in known],
                lines=[
                    (part, values) for part, values in lines if any(value is not None for value in values)
                ],
                totals=[times[cell.scenario, cell.target] for cell in known],
            )
        )
    return found
