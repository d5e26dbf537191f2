"""Waiting for what a pooler in the same Trio run logs: its log is how it tells what it has done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
import trio

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import NoReturn

_PATIENCE = 10.0


class LogBook:
    """Takes all log entries, as structlog's only processor.

    Attributes:
        entries: every entry so far.
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self._read = 0
        self._news = trio.Event()

    def __call__(self, logger: object, level: str, entry: MutableMapping[str, Any]) -> NoReturn:
        """Take an entry, and print nothing."""
        self.entries.append({"level": level, **entry})
        self._news.set()
        raise structlog.DropEvent

    def count(self, event: str) -> int:
        """How often an event has been logged."""
        return sum(entry["event"] == event for entry in self.entries)

    async def wait_for(self, event: str) -> dict[str, Any]:
        """Wait for an entry that was not waited for before, nor passed over.

        Args:
            event: how its event begins.

        Raises:
            AssertionError: it does not come within a generous bound.
        """
        with trio.move_on_after(_PATIENCE):
            while True:
                while self._read < len(self.entries):
                    entry = self.entries[self._read]
                    self._read += 1
                    if entry["event"].startswith(event):
                        return entry
                self._news = trio.Event()
                await self._news.wait()
        raise AssertionError(f"nothing like {event!r} was logged: {self.entries}")
