"""Memory, descriptors and CPU time of processes over the time of the soak."""

from __future__ import annotations

import os
import statistics
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_INTERVAL: Final = 2.0  # seconds
_WARM_UP: Final = 0.25
"""The part of the time after which memory should not grow any more."""

SHORTEST: Final = 1200.0
"""Seconds below which memory is not judged: caches and the allocator's pools still fill."""

ALLOWED_GROWTH: Final = 4 << 20
"""Bytes by which the resident memory may grow between the first and the last quarter of the time after the warm-up.

The allocator gives memory back when it likes; a leak of 10 bytes per query would be as much after an hour.
"""


@attrs.frozen
class Sample:
    """A process at a moment.

    Attributes:
        seconds: since the beginning.
        memory: resident, in bytes.
        files: open descriptors.
    """

    seconds: float
    memory: int
    files: int


def sample(pid: int, begin: float) -> Sample:
    """Look at a process (proc(5), "statm").

    Raises:
        OSError: it is not there.
    """
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    files = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names are enough
    return Sample(time.monotonic() - begin, pages * os.sysconf("SC_PAGESIZE"), files)


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has taken (proc(5), "stat")."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def growth(samples: Sequence[Sample]) -> int:
    """By how many bytes the memory has grown after the warm-up: the last quarter of that time against the first."""
    warm = samples[int(len(samples) * _WARM_UP) :]
    part = max(len(warm) // 4, 1)
    if len(warm) < 2:
        return 0
    first = statistics.median(one.memory for one in warm[:part])
    last = statistics.median(one.memory for one in warm[-part:])
    return round(last - first)


class Watch:
    """Looks at a process again and again.

    Args:
        pid: which one, asked for each time.
    """

    def __init__(self, pid: Callable[[], int]) -> None:
        self._pid = pid
        self._begin = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.samples: list[Sample] = []
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(_INTERVAL):
            try:
                self.samples.append(sample(self._pid(), self._begin))
            except (OSError, ValueError):
                continue  # it is being replaced

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()
