"""The log as pgbouncer writes it, and where it goes: a file, the system's log, and not to standard error."""

from __future__ import annotations

import os
import re
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from hyperpool.config import PoolerSettings
from hyperpool.errors import StartupError
from hyperpool.service import logs
from hyperpool.service.logform import render
from hyperpool.service.logs import Syslog, be_quiet, configure_logging

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = structlog.get_logger("test")

_CLIENT = {"id": 31, "client": "192.0.2.1:5000", "database": "app", "user": "ann", "pool": "app/owner"}
_SERVER = {"id": 32, "server": "192.0.2.2:5432", "pool": "app/ann"}
_LINE = re.compile(
    rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{{3}} \S+ \[{os.getpid()}\] (DEBUG|LOG|WARNING|ERROR|FATAL) (.*)"
)


class Log:
    """The log of a process whose standard error is a file.

    Attributes:
        stderr: that file.
    """

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stderr = directory / "stderr"
        self._monkeypatch = monkeypatch
        self._file = self.stderr.open("w")

    def configure(self, **settings: Any) -> None:
        """Configure the log. Not before the test itself: pytest sets standard error for each of its phases."""
        self._monkeypatch.setattr(sys, "stderr", self._file)
        configure_logging(PoolerSettings(**{"log_format": "pgbouncer", **settings}))

    def close(self) -> None:
        """Let go of all files."""
        self.configure()
        self._file.close()


@pytest.fixture(name="book")
def open_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """The log; it goes where it went before afterwards."""
    before = structlog.get_config()
    monkeypatch.setattr(logs, "_place", logs._Place())
    found = Log(tmp_path, monkeypatch)
    yield found
    found.close()
    structlog.configure(**before)


def _lines(file: Path) -> list[tuple[str, str]]:
    """Level and text of each line."""
    found = [_LINE.fullmatch(line) for line in file.read_text().splitlines()]
    return [(match[1], match[2]) for match in found if match is not None]


@pytest.mark.parametrize(
    ("event", "values", "lines"),
    [
        (
            "client logged in",
            {**_CLIENT, "tls": "", "replication": ""},
            ["C-0x1f: app/ann@192.0.2.1:5000 login attempt: db=app user=ann tls=no replication=no"],
        ),
        (
            "client logged in",
            {**_CLIENT, "tls": "TLSv1.3/X", "replication": "database"},
            [
                "C-0x1f: app/ann@192.0.2.1:5000 login attempt: db=app user=ann tls=TLSv1.3/X replication=logical"
            ],
        ),
        (
            "login refused",
            {**_CLIENT, "tls": "", "replication": "true", "reason": "no", "sqlstate": "28000", "age": 1.9},
            [
                "C-0x1f: app/ann@192.0.2.1:5000 login attempt: db=app user=ann tls=no replication=physical",
                "C-0x1f: app/ann@192.0.2.1:5000 closing because: no (age=1s)",
                "C-0x1f: app/ann@192.0.2.1:5000 pooler error: no",
            ],
        ),
        (
            "closing client before login",
            {"id": 1, "client": "unix", "database": "", "user": "", "reason": "gone", "age": 0.0},
            ["C-0x1: (nodb)/(nouser)@unix closing because: gone (age=0s)"],
        ),
        (
            "closing client",
            {**_CLIENT, "reason": "client close request", "age": 62.7},
            ["C-0x1f: app/ann@192.0.2.1:5000 closing because: client close request (age=62s)"],
        ),
        (
            "pooler error",
            {**_CLIENT, "reason": "query_timeout"},
            ["C-0x1f: app/ann@192.0.2.1:5000 pooler error: query_timeout"],
        ),
        (
            "new connection to server",
            {**_SERVER, "pid": 7, "local": "192.0.2.3:6"},
            ["S-0x20: app/ann@192.0.2.2:5432 new connection to server (from 192.0.2.3:6)"],
        ),
        (
            "closing server",
            {**_SERVER, "pid": 7, "reason": "server idle timeout", "age": 601.2},
            ["S-0x20: app/ann@192.0.2.2:5432 closing because: server idle timeout (age=601s)"],
        ),
        (
            "stats",
            {
                **{
                    f"{name}_per_s": 1.9
                    for name in ("xacts", "queries", "client_parses", "server_parses", "binds")
                },
                "client_bytes_per_s": 10,
                "server_bytes_per_s": 20,
                "xact_us": 3,
                "query_us": 4,
                "wait_us": 5,
                "clients": 6,
            },
            [
                (
                    "stats: 1 xacts/s, 1 queries/s, 1 client parses/s, 1 server parses/s, 1 binds/s, in 10 B/s, "
                    "out 20 B/s, xact 3 us, query 4 us, wait 5 us"
                )
            ],
        ),
        (
            "listening",
            {"addresses": "127.0.0.1:6432, /tmp/.s.PGSQL.6432", "version": "1", "python": "3", "pid": 1},
            [
                "listening on 127.0.0.1:6432",
                "listening on unix:/tmp/.s.PGSQL.6432",
                "process up: hyperpool 1, Python 3",
            ],
        ),
        ("reloaded", {"config": "x.ini"}, ["reloaded: config=x.ini"]),
        ("stopped", {}, ["stopped"]),
    ],
)
def test_lines_as_pgbouncer_writes_them(event: str, values: dict[str, Any], lines: list[str]) -> None:
    """Those that programs read, letter by letter; the others in the same manner."""
    assert [text for _, text in render({"event": event, "level": "info", **values})] == lines


def test_time_process_and_level(book: Log) -> None:
    """Each line has them, those of a traceback included; INFO is called LOG."""
    book.configure(log_level="debug")
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(log, level)("hello")
    assert [level for level, _ in _lines(book.stderr)] == ["DEBUG", "LOG", "WARNING", "ERROR", "FATAL"]
    try:
        raise ValueError("broken")  # noqa: TRY301
    except ValueError as error:
        log.error("failed", exc_info=error)
    assert len(_lines(book.stderr)) == len(book.stderr.read_text().splitlines())
    assert _lines(book.stderr)[-1] == ("ERROR", "ValueError: broken")


def test_names_that_clients_choose_make_no_lines(book: Log) -> None:
    """Nobody forges an entry."""
    book.configure()
    name = "x\n2026-01-01 00:00:00.000 UTC [1] LOG all is well\r\x1b[2J\udcff"
    log.info("closing client", **{**_CLIENT, "user": name}, reason=name, age=1)
    (line,) = book.stderr.read_text().splitlines()
    assert "\x1b" not in line
    assert "\\n2026" in line


def test_a_file_is_written_besides_standard_error(book: Log, tmp_path: Path) -> None:
    """It is appended to; and opened anew when the log is configured again, as after a rotation."""
    file = tmp_path / "pooler.log"
    file.write_text("before\n")
    book.configure(logfile=str(file))
    log.info("first")
    assert file.read_text().startswith("before\n")
    assert _lines(file) == _lines(book.stderr) == [("LOG", "first")]
    file.rename(tmp_path / "rotated")
    log.info("second")
    book.configure(logfile=str(file))
    log.info("third")
    assert _lines(file) == [("LOG", "third")]
    assert _lines(tmp_path / "rotated")[1:] == [("LOG", "second")]


def test_a_file_that_cannot_be_written(book: Log, tmp_path: Path) -> None:
    """It is a reason not to start; at a reload, the log stays where it is."""
    file = tmp_path / "pooler.log"
    book.configure(logfile=str(file))
    with pytest.raises(
        StartupError, match=r"cannot write to the log file .*: No such file or directory; see logfile"
    ):
        book.configure(logfile=str(tmp_path / "nowhere/pooler.log"))
    log.info("still here")
    assert _lines(file) == [("LOG", "still here")]


def test_quiet(book: Log, tmp_path: Path) -> None:
    """Then standard error gets nothing, whatever is configured later."""
    be_quiet()
    book.configure(logfile=str(tmp_path / "pooler.log"))
    log.info("hello")
    assert not book.stderr.read_text()
    assert "hello" in (tmp_path / "pooler.log").read_text()


def test_verbose(book: Log) -> None:
    """It goes before log_level."""
    book.configure(verbose=1)
    log.debug("hello")
    assert _lines(book.stderr) == [("DEBUG", "hello")]


def test_syslog(book: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Facility and level as RFC 3164 numbers them, name and process; neither time nor level in words."""
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(path)
        system.setblocking(False)
        monkeypatch.setattr(logs, "_DEV_LOG", path)
        book.configure(syslog=True, syslog_ident="pool", syslog_facility="local3")
        log.warning("hello")
        assert system.recv(1000).decode() == f"<{19 << 3 | 4}>pool[{os.getpid()}]: hello"
        book.configure()
        log.warning("hello")
        with pytest.raises(BlockingIOError):
            system.recv(1000)


def test_syslog_is_never_waited_for(tmp_path: Path) -> None:
    """Lines are dropped when nobody is there, and when nobody reads; a new log is found."""
    path = tmp_path / "log"
    syslog = Syslog("pool", "daemon", str(path))
    syslog.write("info", "lost")
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
            system.bind(str(path))
            for _ in range(2000):
                syslog.write("info", "many")
            assert b"many" in system.recv(1000)
        path.unlink()
    syslog.close()
