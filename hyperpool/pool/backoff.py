"""When to try again after a server connection could not be had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.errors import LoginFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.errors import UpstreamError

_FIRST_DELAY: Final = 0.1
_PROBE_DELAY: Final = 1.0
_GROWTH: Final = 2.0
_MEMORY: Final = 5.0
"""Seconds after a failure in which a success does not prove that all is well: a server may log us in and hang up."""

_PASSING: Final = ("53", "57P")
"""SQLSTATE classes of refusals that pass: too many connections; starting up, shutting down, in recovery."""


class Backoff:
    """Exponential delay with jitter, per pool.

    A server that is down, starting, or full is probed at least every second, so that service resumes soon after it
    is back. A server that refuses our credentials is asked again only after the whole limit: repeating a wrong
    password locks accounts.

    Args:
        limit: the longest delay, in seconds (setting ``server_login_retry``).
        random: a source of numbers in [0, 1), for the jitter.

    Attributes:
        error: the newest failure, or None if a connection could be had since.
    """

    __slots__ = ("_failed_at", "_failures", "_random", "_until", "error", "limit")

    def __init__(self, limit: float, random: Callable[[], float]) -> None:
        self.limit = limit
        self.error: UpstreamError | None = None
        self._random = random
        self._failures = 0
        self._failed_at = 0.0
        self._until = 0.0

    def failed(self, error: UpstreamError, now: float) -> None:
        """Take note at monotonic time `now`, in seconds, that a connection could not be had."""
        self.error = error
        refused = isinstance(error, LoginFailed) and not error.sqlstate.startswith(_PASSING)
        self._hold(now, self.limit if refused else self._growing())

    def lost(self, now: float) -> None:
        """Take note that a connection was lost before it was of any use: dial less eagerly, but give nobody up."""
        self._hold(now, self._growing())

    def succeeded(self, now: float) -> None:
        """Take note that a connection could be had. Failures are forgotten when they are some time ago."""
        self.error = None
        self._until = 0.0
        if now - self._failed_at > _MEMORY:
            self._failures = 0

    def reset(self) -> None:
        """Forget all failures: they were another server's."""
        self.error = None
        self._failures = 0
        self._until = 0.0

    def holds(self, now: float) -> bool:
        """Whether it is too early to try again at monotonic time `now`."""
        return now < self._until

    def _growing(self) -> float:
        return min(self.limit, _PROBE_DELAY, _FIRST_DELAY * _GROWTH**self._failures)

    def _hold(self, now: float, delay: float) -> None:
        self._failures = min(self._failures + 1, 16)
        self._failed_at = now
        self._until = now + max(delay, _FIRST_DELAY) * (0.75 + 0.25 * self._random())
