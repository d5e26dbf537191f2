"""The Trio tasks of a process that tests have started, counted where a test can see it.

The count stands in a file in memory that the process holds open; whoever may look into its descriptors can read it.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

_FILE: Final = "trio-tasks"
_PASSING: Final = frozenset({
    "hyperpool.transport.bridge.Bridges._watch",
    "hyperpool.transport.resolve.Resolver._look_up",
})  # fmt: skip
"""Tasks that end by themselves, soon after there was something to do."""


class TaskCounter(trio.abc.Instrument):
    """Counts the tasks that there are, by name, and writes that down whenever it changes."""

    def __init__(self) -> None:
        self._file = os.memfd_create(_FILE)
        self._counts: Counter[str] = Counter()

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """One more."""
        self._counts[task.name] += 1
        self._write()

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """One less."""
        self._counts[task.name] -= 1
        self._write()

    def _write(self) -> None:
        lines = [f"{count} {name}\n" for name, count in self._counts.items() if count]
        text = "".join(lines).encode()
        # Shorter first: somebody who reads in between finds too few tasks, and looks again.
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text, 0)


def count_tasks() -> None:
    """Have the tasks of this process counted, once it runs Trio."""
    trio.run = functools.partial(trio.run, instruments=[TaskCounter()])  # type: ignore[assignment]


def tasks_of(pid: int) -> Counter[str]:
    """The tasks of a process that runs this, by name, without those that come and go by themselves."""
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if os.readlink(file).startswith(f"/memfd:{_FILE} "):  # noqa: PTH115 - it is no path
                pairs = (line.split(" ", 1) for line in file.read_text().splitlines())
                return Counter({name: int(count) for count, name in pairs if name not in _PASSING})
    raise AssertionError(f"process {pid} does not count its tasks")
