"""What the log looks like, and how it is written without ever stopping the pooler."""

from __future__ import annotations

import logging
import os
import select
import socket
import sys
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import structlog

from hyperpool.admin.faults import RecentFaults
from hyperpool.config import PoolerSettings
from hyperpool.errors import StartupError
from hyperpool.service import journal
from hyperpool.service.logform import plain, render, stamp, tame
from hyperpool.service.repeats import Repeats

if TYPE_CHECKING:
    from hyperpool.config.tunnel import ProcessSettings

    Entry: TypeAlias = "str | list[tuple[str, str]]"

FAULTS: Final = RecentFaults()
"""The newest warnings and errors of this process."""

REPEATS: Final = Repeats()
"""Those that are alike."""

_AT_ONCE: Final = select.PIPE_BUF
"""Bytes of one write. A pipe that polls as writable takes as many without blocking (poll(2), pipe(7))."""


_DEV_LOG: Final = "/dev/log"
_LONGEST_DATAGRAM: Final = 8192
"""Bytes of a line for the system's log, at most."""


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
                piece = data[at : at + _AT_ONCE]
                if (written := os.write(self._fileno, piece)) < len(piece):
                    # A disk is full, for example.
                    self._cut = self._cut or at + written > 0
                    return False
        except OSError:
            return False
        self._cut = False
        return True


class Syslog:
    """Writes lines to the system's log, and drops them rather than wait or fail, as `LogFile` does.

    Args:
        ident: the name that they get.
        facility: ``daemon``, ``local0`` and so on.
        path: the system's socket.
    """

    def __init__(self, ident: str, facility: str, path: str) -> None:
        self._ident = ident
        self._facility = SysLogHandler.facility_names[facility]
        self._path = path
        self._sock: socket.socket | None = None

    def write(self, level: str, text: str) -> None:
        """Write a line, or drop it."""
        priority = self._facility << 3 | SysLogHandler.priority_names[level]
        line = f"<{priority}>{self._ident}[{os.getpid()}]: {text}".encode(errors="backslashreplace")
        for _ in range(2):
            try:
                if self._sock is None:
                    self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                    self._sock.setblocking(False)
                    self._sock.connect(self._path)
                self._sock.send(line[:_LONGEST_DATAGRAM])
            except BlockingIOError:
                return
            except OSError:
                # The system's log has been restarted, perhaps: once more, from the beginning.
                self.close()
            else:
                return

    def close(self) -> None:
        """Let go of the socket."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class Outlet:
    """Where the log goes: any of standard error, a file, and the system's log. structlog calls the method of the level.

    An entry is one line without its end; or the levels and texts of several ones, as `service.logform` makes them.

    Args:
        files: get the lines as they are.
        syslog: gets them without time and level; None for none.
    """

    def __init__(self, files: list[LogFile], syslog: Syslog | None) -> None:
        self._files = files
        self._syslog = syslog

    def debug(self, entry: Entry) -> None:
        """Write an entry, as do the others."""
        self._write("debug", entry)

    def info(self, entry: Entry) -> None:  # noqa: D102 - as `debug`
        self._write("info", entry)

    def warning(self, entry: Entry) -> None:  # noqa: D102
        self._write("warning", entry)

    def error(self, entry: Entry) -> None:  # noqa: D102
        self._write("error", entry)

    def critical(self, entry: Entry) -> None:  # noqa: D102
        self._write("critical", entry)

    def _write(self, level: str, entry: Entry) -> None:
        if isinstance(entry, str):
            self._put(level, entry, entry)
        else:
            for one, text in entry:
                self._put(one, stamp(one, text), text)

    def _put(self, level: str, line: str, bare: str) -> None:
        for file in self._files:
            file.write(f"{line}\n")
        if self._syslog is not None:
            self._syslog.write(level, bare)


@attrs.define
class _Place:
    """Where the process logs to now.

    Attributes:
        quiet: not to standard error.
        file: descriptor of the open log file; -1 for none.
        syslog: the system's log; None for none.
        journal: systemd's journal; None for none.
    """

    quiet: bool = False
    file: int = -1
    syslog: Syslog | None = None
    journal: journal.Journal | None = None


_place: Final = _Place()


def be_quiet() -> None:
    """Log no more to standard error, from the next `configure_logging` on (``-q``, ``-d``)."""
    _place.quiet = True


def let_go() -> None:
    """In another process of the pooler, which logs nothing: close the file of the log."""
    if _place.file >= 0:
        os.close(_place.file)
        _place.file = -1
    if _place.syslog is not None:
        _place.syslog.close()
        _place.syslog = None


def configure_logging(settings: PoolerSettings | ProcessSettings) -> None:
    """Log as the settings say: to standard error, and for the pooler to a file and to the system's log, too.

    If ``log_format`` is auto, the lines are for people on a terminal, and where standard error leads to systemd's
    journal, that gets entries with fields in their place. A file is opened anew each time.

    Raises:
        StartupError: the file cannot be opened, or there is no journal; the log goes where it went before.
    """
    form, syslog, level = settings.log_format, None, settings.log_level
    native = _is_native(form)
    files = [] if _place.quiet or native else [LogFile(sys.stderr.fileno())]
    if isinstance(settings, PoolerSettings):
        files += _open(settings.logfile)
        if settings.syslog:
            syslog = Syslog(settings.syslog_ident, settings.syslog_facility, _DEV_LOG)
        if settings.verbose:
            level = "debug"
        REPEATS.burst, REPEATS.interval = settings.log_repeats, settings.log_repeat_interval
    if _place.syslog is not None:
        _place.syslog.close()
    _place.syslog = syslog
    if _place.journal is not None:
        _place.journal.close()
    _place.journal = journal.Journal(journal.SOCKET) if native else None
    fields = [] if _place.journal is None else [_place.journal]
    outlet = Outlet(files, syslog)
    structlog.configure(
        processors=[structlog.processors.add_log_level, FAULTS, REPEATS, *fields, *_processors(form)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: outlet,
        cache_logger_on_first_use=False,
    )


def _is_native(form: str) -> bool:
    """Whether entries are sent to systemd's journal.

    Raises:
        StartupError: they shall be, and there is none.
    """
    if form == "journald" and not Path(journal.SOCKET).is_socket():
        raise StartupError(
            f"log_format is journald, but systemd's journal does not listen at {journal.SOCKET}; choose another one"
        )
    return form == "journald" or (
        form == "auto" and not _place.quiet and journal.leads_to_journal(sys.stderr.fileno())
    )


def _open(path: str) -> list[LogFile]:
    """Open the file of the log, and close the one that was open; nothing happens when it cannot be opened."""
    opened = -1
    if path:
        try:
            opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StartupError(
                f"cannot write to the log file {path}: {error.strerror}; see logfile"
            ) from error
    if _place.file >= 0:
        os.close(_place.file)
    _place.file = opened
    return [LogFile(opened)] if opened >= 0 else []


def _processors(form: str) -> list[structlog.typing.Processor]:
    if form == "pgbouncer":
        return [lambda _logger, _method, event: ((render(event),), {})]
    when = structlog.processors.TimeStamper(fmt="iso")
    if form == "json":
        return [when, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    if form in {"console", "journald"} or _place.quiet or not sys.stderr.isatty():
        return [lambda _logger, _method, event: plain(event)]
    coloured = structlog.dev.ConsoleRenderer(
        pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )
    return [when, lambda _logger, _method, event: tame(event), coloured]
