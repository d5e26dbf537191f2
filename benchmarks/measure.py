"""What the kernel says about a process: CPU time and resident memory, from /proc."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from attrs import define, field

if TYPE_CHECKING:
    from types import TracebackType

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and all its descendants (proc(5), ``/proc/PID/task/TID/children``)."""
    pids = [pid]
    for parent in pids:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            pids.extend(int(child) for child in children.read_text().split())
    return pids


def cpu_seconds(pid: int) -> float:
    """User plus system time of a process and its descendants, in seconds (proc(5), ``/proc/PID/stat``)."""
    ticks = 0
    for member in family(pid):
        # The second field is the command's name in parentheses and may hold anything: split behind it.
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        utime, stime = fields[11:13]
        ticks += int(utime) + int(stime)
    return ticks / _TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants, in bytes.

    ``smaps_rollup`` is exact; ``VmRSS`` of ``status`` may lag behind by some pages per thread (proc(5)).
    """
    total = 0
    for member in family(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
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
class MemoryTrace:
    """Samples the resident memory of a process while its ``with`` block runs.

    Attributes:
        pid: the process.
        interval: seconds between samples.
        points: (seconds since the start, bytes), the first one taken at the start.
    """

    pid: int
    interval: float = 0.05
    points: list[tuple[float, int]] = field(factory=list, init=False)
    _stop: threading.Event = field(factory=threading.Event, init=False)
    _thread: threading.Thread = field(init=False)

    def __enter__(self) -> Self:
        start = time.monotonic()
        self.points.append((0.0, resident_bytes(self.pid)))
        self._thread = threading.Thread(target=self._sample, args=(start,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self, start: float) -> None:
        while not self._stop.wait(self.interval):
            try:
                self.points.append((time.monotonic() - start, resident_bytes(self.pid)))
            except OSError:
                return  # the process is gone; whoever waits for its answers reports that
