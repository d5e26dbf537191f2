"""Processor time and memory of processes."""

from __future__ import annotations

import io
import mmap
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.measure import Trace, cpu_seconds, family, interpolate, resident_bytes, ticks_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


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
    ("owner", "calls"), [(os, ("listdir", "scandir")), (io, ("open",))], ids=["listed", "read"]
)
def test_a_process_that_ends_while_it_is_measured(
    monkeypatch: pytest.MonkeyPatch, owner: ModuleType, calls: tuple[str, ...]
) -> None:
    """Just before its threads are listed, or their children read: that fails nothing, and it is in its family yet."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:

        def ending(really: Callable[..., object]) -> Callable[..., object]:
            def call(path: object, *args: object, **kwargs: object) -> object:
                if f"/proc/{child.pid}/" in f"{path}/" and child.returncode is None:
                    child.communicate(b"\n")
                return really(path, *args, **kwargs)

            return call

        for name in calls:
            monkeypatch.setattr(owner, name, ending(getattr(owner, name)))
        assert family(child.pid) == [child.pid]
        assert child.returncode == 0


def test_the_memory_of_a_process_that_has_ended() -> None:
    """It has none, though it is in its family until it is waited for; and there is none to tell of when it is alone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert child.pid in family(os.getpid())
        assert resident_bytes(os.getpid()) > 0
        with pytest.raises(ProcessLookupError):
            resident_bytes(child.pid)


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
