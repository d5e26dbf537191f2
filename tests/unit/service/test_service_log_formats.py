"""What the log looks like, and what is never in it."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.config import DatabaseSettings, PoolerSettings, Secret, Settings, UserSettings
from hyperpool.service.logform import plain
from hyperpool.service.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Format = Literal["auto", "console", "json"]
FORMATS: Final[list[Format]] = ["auto", "console", "json"]

log = structlog.get_logger("test")


class Terminal:
    """A file that says it is a terminal.

    Args:
        file: where the text goes.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def fileno(self) -> int:
        """The file's descriptor."""
        return self._file.fileno()

    def isatty(self) -> bool:
        """Yes."""
        return True


class StandardError:
    """Where the log goes: a file."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path = path
        self._monkeypatch = monkeypatch
        self._file = path.open("w")

    def configure(self, *, terminal: bool = False, **settings: Any) -> None:
        """Configure the log. Not before the test itself: pytest sets standard error for each of its phases."""
        self._monkeypatch.setattr(sys, "stderr", Terminal(self._file) if terminal else self._file)
        configure_logging(PoolerSettings(**settings))

    def lines(self) -> list[str]:
        """What has been logged."""
        return self._path.read_text().splitlines()

    def text(self) -> str:
        """What has been logged, as it is."""
        return self._path.read_bytes().decode()

    def objects(self) -> list[dict[str, Any]]:
        """What has been logged as JSON."""
        return [json.loads(line) for line in self.lines()]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@pytest.fixture
def stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandardError]:
    """Standard error."""
    before = structlog.get_config()
    found = StandardError(tmp_path / "stderr", monkeypatch)
    yield found
    found.close()
    structlog.configure(**before)


def fail(secret: str) -> None:
    """Fail, with a secret in a local variable."""
    raise ValueError(f"a secret of {len(secret)} characters")


def test_json(stderr: StandardError) -> None:
    """One object per line, with level and time, there as soon as it is logged."""
    stderr.configure(log_format="json")
    log.info("first", count=1, name="a b")
    (first,) = stderr.objects()
    assert (first["event"], first["level"], first["count"], first["name"]) == ("first", "info", 1, "a b")
    assert datetime.fromisoformat(first["timestamp"]).utcoffset() is not None
    log.warning("second")
    assert [entry["level"] for entry in stderr.objects()] == ["info", "warning"]


@pytest.mark.parametrize("form", ["auto", "console"])
def test_lines_for_people(stderr: StandardError, form: Format) -> None:
    """Time, level, event, and what belongs to it; no colours in a file."""
    stderr.configure(log_format=form)
    log.info("client logged in", pool="app/ann", count=1)
    (line,) = stderr.lines()
    when, _, rest = line.partition(" ")
    assert datetime.fromisoformat(when).utcoffset() is not None
    assert " ".join(rest.split()) == "[info ] client logged in count=1 pool=app/ann"


@pytest.mark.parametrize(("form", "coloured"), [("auto", True), ("console", False), ("json", False)])
def test_colours(stderr: StandardError, form: Format, coloured: bool) -> None:
    """For a terminal, unless another format was asked for."""
    stderr.configure(terminal=True, log_format=form)
    log.info("hello")
    assert ("\x1b[" in stderr.lines()[0]) == coloured


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
        ("critical", []),
    ],
)
def test_levels(stderr: StandardError, level: str, expected: list[str]) -> None:
    """``log_level`` is the least that is logged; loggers that were there before obey, too."""
    stderr.configure(log_format="json", log_level=level)
    for one in ("debug", "info", "warning", "error"):
        getattr(log, one)("hello")
    assert [entry["level"] for entry in stderr.objects()] == expected


def test_a_reload_changes_the_format(stderr: StandardError) -> None:
    """From the next entry on."""
    stderr.configure(log_format="json")
    log.info("first")
    stderr.configure(log_format="console", log_level="warning")
    log.info("second")
    log.warning("third")
    first, third = stderr.lines()
    assert json.loads(first)["event"] == "first"
    assert third.split()[-1] == "third"


@pytest.mark.parametrize("form", FORMATS)
def test_secrets_are_never_shown(stderr: StandardError, form: Format) -> None:
    """Neither as values, nor within settings, nor as variables of a traceback."""
    secret = "correct horse".replace(" ", "-")  # a traceback shows lines of code: they do not hold it
    settings = Settings(
        databases={"app": DatabaseSettings(user="owner", password=Secret(secret))},
        users={"ann": UserSettings(password=Secret(secret))},
        userlist={"bob": Secret(secret)},
    )
    stderr.configure(log_format=form, log_level="debug")
    pool = settings.pool_for("app", "ann")
    assert pool is not None
    assert pool.password == Secret(secret)
    log.info("values", secret=Secret(secret), settings=settings, pool=pool, users=settings.credentials)
    try:
        fail(secret)
    except ValueError as error:
        log.error("failed", exc_info=error)
    text = "\n".join(stderr.lines())
    assert "***" in text
    assert "a secret of 13 characters" in text
    assert "test_secrets_are_never_shown" in text
    assert secret not in text


@pytest.mark.parametrize("form", FORMATS)
def test_names_that_clients_choose_make_no_lines(stderr: StandardError, form: Format) -> None:
    """Whatever a client calls itself, it cannot forge an entry; nor do bytes that are no UTF-8 do harm."""
    stderr.configure(log_format=form)
    name = "x\n2026-01-01T00:00:00Z [info     ] all is well\r\x1b[2J\udcff"
    log.info("login refused", reason=f'role "{name}" does not exist')
    (line,) = stderr.lines()
    assert "\x1b" not in line
    assert "\\n" in line


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["\x1b[2J", "\x0b", "\x85", "\u2028", "\u202e", "\x7f"], ids=ascii)
def test_names_that_clients_choose_move_no_cursor(
    stderr: StandardError, form: Format, name: str, *, terminal: bool
) -> None:
    """A name need not hold a space to be told from a word: nothing that cannot be seen is written as it is."""
    stderr.configure(log_format=form, terminal=terminal)
    log.info("login refused", user=name)
    (line,) = stderr.text().split("\n")[:-1]
    assert name not in line
    assert "\\" in line or form == "json"


_VALUES = (
    st.integers()
    | st.none()
    | st.text(st.characters(codec="utf-8", exclude_categories=["C"])).filter(str.isprintable)
)


@given(
    st.dictionaries(st.sampled_from(["pool", "user", "age", "id"]), _VALUES),
    st.sampled_from(["info", "error"]),
)
def test_plain_lines_are_those_of_structlog(values: dict[str, Any], level: str) -> None:
    """But for what cannot be seen."""
    renderer = structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
    expected = renderer(None, level, {"level": level, "event": "told", **values})
    assert plain({"level": level, "event": "told", **values}).partition(" ")[2] == expected


@pytest.mark.parametrize("form", FORMATS)
def test_exceptions(stderr: StandardError, form: Format) -> None:
    """They come with their traceback: as one field of one object, or as lines below the entry."""
    stderr.configure(log_format=form)
    try:
        fail("x")
    except ValueError as error:
        log.error("failed", exc_info=error)
    text = stderr.objects()[0]["exception"] if form == "json" else "\n".join(stderr.lines())
    assert "Traceback" in text
    assert "in fail" in text
    assert text.rstrip().endswith("ValueError: a secret of 1 characters")
