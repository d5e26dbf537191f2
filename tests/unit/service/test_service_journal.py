"""systemd's journal, and entries of the log that are alike."""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import TYPE_CHECKING

import pytest
import structlog
from structlog.testing import CapturingLogger

from hyperpool.config import PoolerSettings
from hyperpool.errors import StartupError
from hyperpool.service import journal
from hyperpool.service.journal import Journal, leads_to_journal
from hyperpool.service.logs import configure_logging
from hyperpool.service.repeats import Repeats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = structlog.get_logger("test")


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What stands for the journal."""
    path = str(tmp_path / "journal")
    before = structlog.get_config()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.setblocking(False)
        monkeypatch.setattr(journal, "SOCKET", path)
        yield sock
        monkeypatch.undo()
        configure_logging(PoolerSettings(log_format="console"))
        structlog.configure(**before)


def _entry(listener: socket.socket) -> dict[str, str]:
    """The fields of the next entry, as journald reads them."""
    data, fields = listener.recv(1 << 20), {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", data)
            value, data = data[8 : 8 + length], data[9 + length :]
        fields[name.decode()] = value.decode()
    return fields


def test_an_entry_keeps_its_values(listener: socket.socket) -> None:
    """They are fields; the message says them, too."""
    configure_logging(PoolerSettings(log_format="journald"))
    log.warning("closing client", reason="it's\nover", id=3)
    assert _entry(listener) == {
        "MESSAGE": 'closing client id=3 reason="it\'s\\nover"',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "hyperpool",
        "HYPERPOOL_EVENT": "closing client",
        "HYPERPOOL_REASON": "it's\nover",
        "HYPERPOOL_ID": "3",
    }


def test_an_exception_is_in_the_message(listener: socket.socket) -> None:
    """With all of its lines; no value can pretend to be a field."""
    configure_logging(PoolerSettings(log_format="journald"))
    log.error("failed", exc_info=ValueError("x\nPRIORITY=0"))
    entry = _entry(listener)
    assert entry["PRIORITY"] == "3"
    assert entry["MESSAGE"].startswith("failed\n")
    assert "PRIORITY=0" in entry["MESSAGE"]


@pytest.mark.parametrize(("leads", "form"), [(True, "auto"), (False, "journald")])
def test_standard_error_gets_nothing_twice(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leads: bool, form: str
) -> None:
    """Where it leads to the journal, this gets the entries themselves."""
    with (tmp_path / "stderr").open("w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        found = os.fstat(stderr.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}" if leads else "1:1")
        configure_logging(_settings(form))
        log.info("here")
    assert _entry(listener)["MESSAGE"] == "here"
    assert (tmp_path / "stderr").read_text() == ""


def _settings(form: str) -> PoolerSettings:
    return PoolerSettings(log_format=form)  # type: ignore[arg-type]  # one of its words


def test_where_standard_error_leads_to(tmp_path: Path) -> None:
    """It may have been sent elsewhere since systemd has said so."""
    with (tmp_path / "a").open("w") as file:
        found = os.fstat(file.fileno())
        assert leads_to_journal(file.fileno(), {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not leads_to_journal(file.fileno(), {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        assert not leads_to_journal(file.fileno(), {})
        number = file.fileno()
    assert not leads_to_journal(number, {"JOURNAL_STREAM": "1:1"})


def test_a_journal_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said at once; one that goes later costs entries, and nothing else."""
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "nowhere"))
    with pytest.raises(StartupError, match="log_format is journald"):
        configure_logging(PoolerSettings(log_format="journald"))
    gone = Journal(str(tmp_path / "nowhere"))
    assert gone(None, "info", {"event": "lost", "level": "info"}) == {"event": "lost", "level": "info"}
    gone.close()


# -- entries that are alike ----------------------------------------------------------------------------------------


class _Log:
    """A log with a clock."""

    def __init__(self, burst: int = 2) -> None:
        self.now = 0.0
        self.repeats = Repeats(lambda: self.now)
        self.repeats.burst, self.repeats.interval = burst, 60.0
        self.told: list[dict[str, object]] = []

    def __call__(self, level: str = "warning", event: str = "refused", **values: object) -> bool:
        try:
            self.repeats(None, level, {"event": event, "level": level, **values})
        except structlog.DropEvent:
            return False
        return True


def test_what_is_alike_is_counted() -> None:
    """When enough of it has been logged; the next interval begins anew."""
    book = _Log()
    assert [book(reason="x") for _ in range(4)] == [True, True, False, False]
    with structlog.testing.capture_logs() as told:
        book.repeats.sweep()
        assert not told
        book.now = 60.0
        assert not book(reason="x")
        book.repeats.sweep()
    assert [(entry["event"], entry["entry"], entry["details"], entry["count"]) for entry in told] == [
        ("alike entries were not logged", "refused", "reason=x", 3)
    ]
    assert [book(reason="x") for _ in range(3)] == [True, True, False]


def test_what_is_alike() -> None:
    """What differs only in numbers of connections is; another client, another reason or another level is not."""
    book = _Log(1)
    assert book(client="192.0.2.1:5", id=1, age=3, reason="x")
    assert not book(client="192.0.2.1:6", id=2, age=4, reason="x")
    assert book(client="192.0.2.2:6", reason="x")
    assert book(client="192.0.2.1:6", reason="y")
    assert book("error", client="192.0.2.1:6", reason="x")


def test_what_is_not_limited() -> None:
    """What is no warning; and nothing at all without a limit."""
    book = _Log(1)
    assert all(book("info") for _ in range(5))
    assert all(book("critical") for _ in range(5))
    book.repeats.burst = 0
    assert all(book() for _ in range(5))


def test_what_was_quiet_begins_anew() -> None:
    """Without being told of."""
    book = _Log(1)
    assert book()
    book.now = 61.0
    assert book()
    with structlog.testing.capture_logs() as told:
        book.now = 200.0
        book.repeats.sweep()
    assert not told


def test_kinds_are_bounded() -> None:
    """Those that came first are forgotten."""
    book = _Log(1)
    assert all(book(reason=number) for number in range(1500))
    assert not book(reason=1499)
    assert book(reason=0)
    assert len(book.repeats._kinds) == 1000


def test_the_limit_comes_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds for what the log gets."""
    before = structlog.get_config()
    configure_logging(PoolerSettings(log_repeats=3))
    sink = CapturingLogger()
    structlog.configure(logger_factory=lambda *_: sink)
    try:
        for _ in range(5):
            log.warning("again and again")
    finally:
        configure_logging(PoolerSettings(log_repeats=0))
        structlog.configure(**before)
    assert len(sink.calls) == 3
