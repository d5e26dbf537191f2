"""Processor time and memory of processes."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time

import pytest

from benchmarks.measure import Trace, cpu_seconds, family, interpolate, resident_bytes, ticks_of


def test_ticks() -> None:
    """User and system time, its own and that of children; a name may hold what it likes."""
    assert ticks_of("42 (a) S b) R 1 1 1 0 -1 4194304 9 0 0 0 100 20 3 4 20 0 1 0") == 127


def test_a_family() -> None:
    """A child is counted as long as it lives, and when it has been waited for."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in family(os.getpid())
    finally:
        child.communicate(b"\n")
    assert child.pid not in family(os.getpid())
    assert family(child.pid) == [child.pid], "it has ended meanwhile"
    assert cpu_seconds(os.getpid()) > 0


@pytest.mark.parametrize(
    ("moment", "value"), [(0.0, 10.0), (1.0, 10.0), (1.5, 15.0), (2.0, 20.0), (4.0, 30.0), (9.0, 40.0)]
)
def test_between_samples(moment: float, value: float) -> None:
    """It is on the line between the samples around it; before the first and behind the last, it is theirs."""
    assert interpolate([(1.0, 10.0), (2.0, 20.0), (6.0, 40.0)], moment) == value


def test_a_trace() -> None:
    """There are a sample at the beginning and one at the end."""
    began = time.monotonic()
    with Trace(os.getpid(), resident_bytes, interval=10.0) as trace:
        # Pages of its own: what the allocator has left over would not be seen.
        held = mmap.mmap(-1, 1 << 24)
        held.write(b"x" * len(held))
    first, last = trace.since_start()
    assert first[0] == 0
    assert last[1] - first[1] >= len(held) // 2
    assert trace.between(began - 1, time.monotonic()) == last[1] - first[1]
    held.close()
