"""What has been done and seen, by whom: steps, faults that were made, errors and which fault explains them."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GRACE: Final = 5.0
"""Seconds after a fault in which its consequences may still be seen."""

LOST: Final = "lost"
"""Stands for a connection that ended without an error message."""

_FAULTS_KEPT: Final = 50
_UNEXPLAINED_KEPT: Final = 40


class WrongAnswer(AssertionError):
    """A client was answered something that cannot be."""


class Refused(Exception):
    """An ErrorResponse that a client of exact bytes has read.

    Args:
        code: its SQLSTATE.
        message: its text.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code


@attrs.define
class Fault:
    """Something that was broken on purpose.

    Attributes:
        name: what was done.
        codes: SQLSTATEs of errors that clients may see because of it, and `LOST`; most faults explain none.
        routes: the database entries whose clients may see them.
        begin: when, on the monotonic clock.
        end: until when; infinite while it lasts.
    """

    name: str
    codes: frozenset[str]
    routes: frozenset[str]
    begin: float
    end: float = math.inf

    def explains(self, route: str, code: str, begin: float) -> bool:
        """Whether an error that is seen now, by a step that began at `begin`, may come from it."""
        return code in self.codes and route in self.routes and begin <= self.end + GRACE


@attrs.define
class Line:
    """One kind of client on one route.

    Attributes:
        steps: how many were done to their end.
        connections: how often it has logged in.
        explained: errors by code that a fault explains.
        unexplained: errors that none does.
    """

    steps: int = 0
    connections: int = 0
    explained: Counter[str] = attrs.field(factory=Counter)
    unexplained: int = 0


class Journal:
    """Counts for all threads.

    Args:
        tell: takes a line about what must not be.

    Attributes:
        lines: by kind of client and route.
        faults: how often each was made.
        unexplained: errors that no fault explains, as texts; the first ones.
        wrong: wrong answers, as texts.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._recent: deque[Fault] = deque(maxlen=_FAULTS_KEPT)
        self._begin = time.monotonic()
        self.lines: dict[tuple[str, str], Line] = {}
        self.faults: Counter[str] = Counter()
        self.unexplained: list[str] = []
        self.wrong: list[str] = []

    def _line(self, kind: str, route: str) -> Line:
        return self.lines.setdefault((kind, route), Line())

    def _at(self) -> str:
        return f"{time.monotonic() - self._begin:.1f} s"

    @contextlib.contextmanager
    def fault(
        self, name: str, codes: frozenset[str] = frozenset(), routes: frozenset[str] = frozenset()
    ) -> Iterator[None]:
        """A fault is being made."""
        fault = Fault(name, codes, routes, time.monotonic())
        with self._lock:
            self._recent.append(fault)
            self.faults[name] += 1
        try:
            yield
        finally:
            fault.end = time.monotonic()

    def step(self, kind: str, route: str) -> None:
        """A step was done, and its answers were right."""
        with self._lock:
            self._line(kind, route).steps += 1

    def connected(self, kind: str, route: str) -> None:
        """A client has logged in."""
        with self._lock:
            self._line(kind, route).connections += 1

    def error(self, kind: str, route: str, code: str, text: str, begin: float) -> None:
        """A step that began at `begin` has ended with an error, just now."""
        with self._lock:
            line = self._line(kind, route)
            if any(fault.explains(route, code, begin) for fault in self._recent):
                line.explained[code] += 1
                return
            line.unexplained += 1
            if len(self.unexplained) < _UNEXPLAINED_KEPT:
                near = ", ".join(f"{fault.name} {self._ago(fault)}" for fault in list(self._recent)[-3:])
                told = (
                    f"{self._at()}, {kind} on {route}, {code}: {text} (begun {time.monotonic() - begin:.2f} s before;"
                    f" faults: {near or 'none'})"
                )
                self.unexplained.append(told)
                self._tell(told)

    def mistake(self, kind: str, route: str, text: str) -> None:
        """An answer was wrong."""
        with self._lock:
            self.wrong.append(told := f"{self._at()}, {kind} on {route}: {text}")
            self._tell(told)

    @staticmethod
    def _ago(fault: Fault) -> str:
        now = time.monotonic()
        end = "going on" if fault.end == math.inf else f"{now - fault.end:.1f} s"
        return f"{now - fault.begin:.1f} s to {end} ago"

    def totals(self) -> tuple[int, int, int]:
        """Steps, explained errors, unexplained errors."""
        with self._lock:
            lines = list(self.lines.values())
            return (
                sum(line.steps for line in lines),
                sum(line.explained.total() for line in lines),
                sum(line.unexplained for line in lines),
            )
