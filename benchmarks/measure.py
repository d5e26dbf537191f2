"""What the kernel says about a process: CPU time and resident memory, from /proc."""

from __future__ import annotations

import bisect
import contextlib
import os
import resource
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and all its descendants (proc(5), ``/proc/PID/task/TID/children``)."""
    pids = [pid]
    for parent in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            for thread in list(Path(f"/proc/{parent}/task").iterdir()):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has
                    pids.extend(map(int, (thread / "children").read_text().split()))
    return pids


def cpu_seconds(pid: int) -> float:
    """User plus system time of a process and its descendants, in seconds (proc(5), ``/proc/PID/stat``).

    Descendants that have ended are counted by those who have waited for them.
    """
    ticks = 0
    for member in family(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            ticks += ticks_of(Path(f"/proc/{member}/stat").read_text())
    return ticks / _TICKS_PER_SECOND


def ticks_of(stat: str) -> int:
    """The processor time that a line of ``/proc/PID/stat`` tells: user, system, and both of waited-for children."""
    # The second field is the command's name in parentheses and may hold anything: split behind it.
    return sum(map(int, stat.rpartition(")")[2].split()[11:15]))


def reaped_cpu_seconds() -> float:
    """User plus system time of this process's children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants, in bytes.

    ``smaps_rollup`` is exact; ``VmRSS`` of ``status`` may lag behind by some pages per thread (proc(5)).

    Raises:
        OSError: the process has ended; a descendant that has just counts for nothing.
    """
    total = 0
    for member in family(pid):
        try:
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            if member == pid:
                raise
            continue
        for line in rollup.splitlines():
            if line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
    return total


def settled_resident_bytes(pid: int, *, patience: float = 10.0) -> int:
    """Resident memory once it has not changed for a second, or after `patience` seconds."""
    deadline = time.monotonic() + patience
    last, since = resident_bytes(pid), time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - since < 1.0:
        time.sleep(0.1)
        now = resident_bytes(pid)
        if now != last:
            last, since = now, time.monotonic()
    return last


@define(eq=False)
class Trace:
    """Samples a figure of a process while its ``with`` block runs, in a thread.

    Attributes:
        pid: the process.
        figure: `cpu_seconds` or `resident_bytes`.
        interval: seconds between samples.
        points: (monotonic time, figure), the first one taken at the start, the last one at the end.
    """

    pid: int
    figure: Callable[[int], float]
    interval: float = 0.05
    points: list[tuple[float, float]] = field(factory=list, init=False)
    _stop: threading.Event = field(factory=threading.Event, init=False)
    _thread: threading.Thread = field(init=False)

    def __enter__(self) -> Self:
        self._take()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._take()

    def between(self, start: float, end: float) -> float:
        """How much the figure grew between two moments."""
        return interpolate(self.points, end) - interpolate(self.points, start)

    def since_start(self) -> list[tuple[float, float]]:
        """The samples, with seconds since the first one."""
        return [(moment - self.points[0][0], value) for moment, value in self.points]

    def _sample(self) -> None:
        while not self._stop.wait(self.interval):
            self._take()

    def _take(self) -> None:
        # If the process is gone, whoever waits for its answers reports that.
        with contextlib.suppress(OSError):
            self.points.append((time.monotonic(), self.figure(self.pid)))


def interpolate(points: Sequence[tuple[float, float]], moment: float) -> float:
    """The figure at a moment, on the line between the samples before and after it; at the ends, those."""
    place = bisect.bisect_left(points, (moment,))
    if place == 0:
        return points[0][1]
    if place == len(points):
        return points[-1][1]
    (before, low), (after, high) = points[place - 1], points[place]
    return low + (high - low) * (moment - before) / (after - before)
