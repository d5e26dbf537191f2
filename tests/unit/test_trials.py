"""The trial under a real systemd, as a command; what it tries is tried by hand, as root."""

from __future__ import annotations

import sys

import pytest

from tests.systemd import __main__ as command


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--hlep", 2)])
def test_a_question_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argument: str, code: int
) -> None:
    """Help is printed, and so is what an argument is that is not known."""
    monkeypatch.setattr(command, "obstacle", lambda: "a test forbids it")
    monkeypatch.setattr(sys, "argv", ["tests.systemd", argument])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == code
    printed = capsys.readouterr()
    assert "usage: python -m tests.systemd" in printed.out + printed.err
    assert "a test forbids it" not in printed.out
