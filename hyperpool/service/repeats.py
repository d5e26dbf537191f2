"""Warnings and errors that are alike: not more of them are logged than somebody would read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import attrs
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.service.logform import Event

log = structlog.get_logger("log")

_LIMITED: Final = frozenset({"warning", "error"})
_VOLATILE: Final = frozenset({"id", "age", "pid", "exc_info", "level"})
"""Values in which entries may differ that are alike."""
_MOST: Final = 1000
"""Kinds of entries that are watched at a time; beyond that, those that came first are no longer."""


@attrs.define
class _Kind:
    """Entries that are alike.

    Attributes:
        event: what they say.
        details: their values.
        ends: when they are counted anew, monotonic seconds.
        left: how many may still be logged until then.
        dropped: how many were not logged.
    """

    event: str
    details: str
    ends: float
    left: int
    dropped: int = 0


class Repeats:
    """Drops warnings and errors of which enough have been logged, as one of structlog's processors.

    Args:
        clock: monotonic seconds.

    Attributes:
        burst: how many of a kind are logged in an interval; 0 is no limit.
        interval: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.burst = 0
        self.interval = 60.0
        self._clock = clock
        self._kinds: dict[tuple[str, str, str], _Kind] = {}

    def __call__(self, logger: object, level: str, event: Event) -> Event:
        """Count an entry.

        Raises:
            DropEvent: it is not logged.
        """
        del logger
        if not self.burst or level not in _LIMITED:
            return event
        details = " ".join(
            f"{name}={_lasting(name, value)}"
            for name, value in event.items()
            if name not in _VOLATILE and name != "event"
        )
        key = (level, str(event["event"]), details)
        kind = self._kinds.get(key)
        now = self._clock()
        if kind is None or (now >= kind.ends and not kind.dropped):
            self._kinds.pop(key, None)
            if len(self._kinds) >= _MOST:
                del self._kinds[next(iter(self._kinds))]
            kind = self._kinds[key] = _Kind(key[1], details, now + self.interval, self.burst)
        if not kind.left:
            kind.dropped += 1
            raise structlog.DropEvent
        kind.left -= 1
        return event

    def sweep(self) -> None:
        """Tell of what was dropped in intervals that are over; about once a second."""
        now = self._clock()
        for key, kind in list(self._kinds.items()):
            if now < kind.ends:
                continue
            del self._kinds[key]
            if kind.dropped:
                log.info(
                    "alike entries were not logged",
                    entry=kind.event,
                    details=kind.details,
                    count=kind.dropped,
                )


def _lasting(name: str, value: object) -> str:
    """A value; of a client's address, what does not change with each connection."""
    text = str(value)
    return text.rpartition(":")[0] if name == "client" else text
