"""The log: it never stops the pooler, and never fails."""

from __future__ import annotations

import fcntl
import os
import select
from typing import TYPE_CHECKING

import pytest

from hyperpool.service.logs import LogFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG = "x" * (3 * select.PIPE_BUF) + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose writing end blocks, as standard error of a service does."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    for fileno in (reading, writing):
        try:
            os.close(fileno)
        except OSError:
            continue


def drain(fileno: int) -> str:
    """Read all that is there."""
    parts = []
    while select.select([fileno], [], [], 0)[0]:
        parts.append(os.read(fileno, 1 << 20))
        assert parts[-1], "the end of the pipe"
    return b"".join(parts).decode()


def fill(writing: int) -> LogFile:
    """A log whose pipe is full, and that has dropped one line."""
    log = LogFile(writing)
    for number in range(100_000):
        log.write(f"line {number} {'.' * 1000}\n")
        if log._dropped:
            return log
    raise AssertionError("the pipe takes everything")


def test_lines_come_as_they_are_written(pipe: tuple[int, int]) -> None:
    """In order, each once; a text of several lines, characters beyond ASCII and lone surrogates too."""
    log = LogFile(pipe[1])
    log.write("one\n")
    log.write("zwei ä\nthree \udc80\n")
    log.flush()
    assert drain(pipe[0]) == "one\nzwei ä\nthree \\udc80\n"


def test_a_line_longer_than_one_write(pipe: tuple[int, int]) -> None:
    """It goes out in several writes, none of which may block."""
    LogFile(pipe[1]).write(LONG)
    assert drain(pipe[0]) == LONG


def test_a_full_pipe_drops_lines_and_counts_them(pipe: tuple[int, int]) -> None:
    """Nobody reads: writing returns at once; when somebody reads again, he is told how many lines are missing."""
    log = fill(pipe[1])
    for _ in range(41):
        log.write("dropped\n")
    before = drain(pipe[0])
    assert "dropped" not in before
    log.write("here again\n")
    log.write("and so on\n")
    assert drain(pipe[0]) == "42 log lines were dropped: nobody took them\nhere again\nand so on\n"


def test_the_count_is_not_lost_when_there_is_still_no_room(pipe: tuple[int, int]) -> None:
    """Lines that are too long for the room that is left are counted, and the count is told once."""
    log = fill(pipe[1])
    drain(pipe[0])
    log.write("told\n")
    assert drain(pipe[0]).startswith("1 log lines were dropped")
    log.write("not told again\n")
    assert drain(pipe[0]) == "not told again\n"


def test_a_reader_that_is_gone_is_no_error(pipe: tuple[int, int]) -> None:
    """Lines are dropped, for good."""
    log = LogFile(pipe[1])
    os.close(pipe[0])
    for _ in range(3):
        log.write("nobody hears\n")
    log.write(LONG)
    assert log._dropped == 4


def test_a_file_takes_everything(tmp_path: Path) -> None:
    """A file is always ready."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = LogFile(file.fileno())
        for number in range(2000):
            log.write(f"line {number}\n")
        log.write(LONG)
        assert log._dropped == 0
    assert path.read_text() == "".join(f"line {number}\n" for number in range(2000)) + LONG


def test_a_descriptor_that_takes_nothing_is_no_error() -> None:
    """A device that is full fails each write."""
    fileno = os.open("/dev/full", os.O_WRONLY)
    try:
        log = LogFile(fileno)
        log.write("lost\n")
        assert log._dropped == 1
    finally:
        os.close(fileno)


def test_a_disk_that_is_full_cuts_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is dropped, and what follows begins a line of its own."""
    write = os.write
    with (tmp_path / "log").open("wb") as file:
        log = LogFile(file.fileno())
        monkeypatch.setattr(os, "write", lambda fileno, data: write(fileno, data[:4]))
        log.write("first line\n")
        monkeypatch.undo()
        log.write("second line\n")
    assert (tmp_path / "log").read_text() == (
        "firs\n1 log lines were dropped: nobody took them\nsecond line\n"
    )


def test_what_follows_a_cut_line_begins_a_new_one() -> None:
    """A pipe that fills up within a long line: the count of dropped lines is not glued to the part that went out."""
    read_end, write_end = os.pipe()
    try:
        os.set_blocking(read_end, False)
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 2 * select.PIPE_BUF)
        log = LogFile(write_end)
        log.write("x" * 3 * select.PIPE_BUF + "\n")
        cut = os.read(read_end, 1 << 20)
        assert cut == b"x" * len(cut)
        log.write("next\n")
        assert os.read(read_end, 1 << 20).startswith(b"\n1 log lines were dropped")
    finally:
        os.close(read_end)
        os.close(write_end)
