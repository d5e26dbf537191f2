"""Waiting for a condition with a bound: the only way in which tests synchronise with other processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_POLL_INTERVAL = (
    0.01  # seconds; small against every bound, large enough to leave the CPU to the tested process
)


def eventually(
    condition: Callable[[], T],
    *,
    within: float = 10.0,
    what: str,
    despite: tuple[type[Exception], ...] = (),
) -> T:
    """Poll a condition until it holds.

    Args:
        condition: called again and again; its first truthy result ends the wait.
        within: the bound in seconds.
        what: the condition in words, for the failure message.
        despite: exceptions of the condition that count as "not yet".

    Returns:
        The truthy result.

    Raises:
        AssertionError: the condition did not hold within the bound.
    """
    deadline = time.monotonic() + within
    last: object = None
    while True:
        try:
            result = condition()
        except despite as error:
            last = error
        else:
            if result:
                return result
            last = result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what} (last seen: {last!r})")
        time.sleep(_POLL_INTERVAL)


class Stopwatch:
    """The seconds since it was made; tests compare them with generous bounds only."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the stopwatch was made."""
        return time.monotonic() - self._start
