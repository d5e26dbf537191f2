"""SHOW ERRORS: the newest warnings and errors of the log."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

import attrs

from hyperpool.admin.tables import columns

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.tables import Row

ERRORS: Final = columns("time level event details count:int8")

_KEPT: Final = 100
_LONGEST: Final = 500
"""Characters of an event and of its details; what is told here may quote what clients have sent."""

_LEVELS: Final = frozenset({"warning", "error", "critical"})


@attrs.define
class Fault:
    """An entry of the log, and how often the same one has come in a row.

    Attributes:
        seconds: when it has come last, since the epoch.
        level: ``warning``, ``error`` or ``critical``.
        event: what has happened.
        details: the rest of the entry, as ``name=value``.
        count: how often.
    """

    seconds: float
    level: str
    event: str
    details: str
    count: int = 1


class RecentFaults:
    """Remembers the newest warnings and errors, as one of structlog's processors: it passes everything on.

    Entries below ``log_level`` do not come here.

    Attributes:
        levels: how many entries there were, by level.
    """

    def __init__(self) -> None:
        self._faults: deque[Fault] = deque(maxlen=_KEPT)
        self.levels: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Fault]:
        """The newest one comes first."""
        return reversed(self._faults)

    def __call__(
        self, logger: object, level: str, entry: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Take an entry down, if it is one of those."""
        del logger
        self.levels[level] += 1
        if level in _LEVELS:
            self._take_down(level, entry)
        return entry

    def _take_down(self, level: str, entry: MutableMapping[str, Any]) -> None:
        details = " ".join(
            f"{name}={_spelled(value)}" for name, value in entry.items() if name not in {"event", "level"}
        )
        fault = Fault(time.time(), level, str(entry.get("event", ""))[:_LONGEST], details[:_LONGEST])
        newest = self._faults[-1] if self._faults else None
        if newest is not None and (newest.event, newest.details) == (fault.event, fault.details):
            newest.count += 1
            newest.seconds = fault.seconds
        else:
            self._faults.append(fault)


def errors(around: Surroundings) -> Iterator[Row]:
    """SHOW ERRORS."""
    for fault in around.faults:
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(fault.seconds))
        yield when, fault.level, fault.event, fault.details, fault.count


def _spelled(value: object) -> str:
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return str(value)
