"""Logging those who are not let in, without letting them fill the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

_BURST: Final = 20
_PER_SECOND: Final = 1.0
_LONGEST: Final = 80


class RefusalLog:
    """Logs up to twenty refusals at once and one per second after that; the others are counted, and told later.

    Args:
        log: where to.
        now: tells the time, in seconds.
    """

    def __init__(self, log: structlog.typing.FilteringBoundLogger, now: Callable[[], float]) -> None:
        self._log = log
        self._now = now
        self._credit = float(_BURST)
        self._counted_at = now()
        self._unsaid = 0

    def refused(self, event: str, **facts: str) -> None:
        """Log a refusal, if it is its turn.

        Args:
            event: what happened.
            facts: about it; what peers wrote is cut and escaped.
        """
        now = self._now()
        self._credit = min(_BURST, self._credit + (now - self._counted_at) * _PER_SECOND)
        self._counted_at = now
        if self._credit < 1:
            self._unsaid += 1
            return
        self._credit -= 1
        shown: dict[str, object] = {name: printable(value) for name, value in facts.items()}
        if self._unsaid:
            shown["not_logged_before"] = self._unsaid
            self._unsaid = 0
        self._log.warning(event, **shown)


def printable(text: str) -> str:
    """A text of a peer's for the log: on one line, and not too long."""
    cut = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut)
