"""What the log looks like, and how it is written without ever stopping the pooler."""

from __future__ import annotations

import logging
import os
import select
import sys
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from hyperpool.config import PoolerSettings
    from hyperpool.config.tunnel import ProcessSettings

_AT_ONCE: Final = select.PIPE_BUF
"""Bytes of one write. A pipe that polls as writable takes as many without blocking (poll(2), pipe(7))."""


class LogFile:
    """Writes lines to a file descriptor, and drops them rather than wait or fail.

    The relay logs from its loop: a log that nobody reads, or whose reader has gone, must not stop a query. What was
    dropped is counted, and told as soon as lines can be
    written again.

    Args:
        fileno: where to; left open.
    """

    def __init__(self, fileno: int) -> None:
        self._fileno = fileno
        self._poll = select.poll()
        self._poll.register(fileno, select.POLLOUT)
        self._dropped = 0
        self._cut = False

    def write(self, text: str) -> None:
        """Write whole lines, or drop them."""
        if self._dropped:
            if not self._put(f"{self._dropped} log lines were dropped: nobody took them\n"):
                self._dropped += 1
                return
            self._dropped = 0
        if not self._put(text):
            self._dropped += 1

    def flush(self) -> None:
        """Nothing is kept back."""

    def _put(self, text: str) -> bool:
        data = ("\n" if self._cut else "").encode() + text.encode(errors="backslashreplace")
        try:
            for at in range(0, len(data), _AT_ONCE):
                ready = self._poll.poll(0)
                if not ready or not ready[0][1] & select.POLLOUT:
                    self._cut = self._cut or at > 0
                    return False
                os.write(self._fileno, data[at : at + _AT_ONCE])
        except OSError:
            return False
        self._cut = False
        return True


def configure_logging(settings: PoolerSettings | ProcessSettings) -> None:
    """Log to standard error: for people on a terminal, else as ``log_format`` says (auto: plain lines)."""
    renderer: structlog.typing.Processor
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=settings.log_format == "auto" and sys.stderr.isatty(),
            pad_event_to=0,
            exception_formatter=structlog.dev.plain_traceback,
        )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            *((structlog.processors.format_exc_info,) if settings.log_format == "json" else ()),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.log_level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=LogFile(sys.stderr.fileno())),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
