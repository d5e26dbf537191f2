"""pgbouncer's command line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from click.testing import CliRunner

from hyperpool import COMPATIBLE, FORM, __version__
from hyperpool.errors import StartupError
from hyperpool.pgbouncer import main
from hyperpool.service import Manner

if TYPE_CHECKING:
    from pathlib import Path

_INI = "[databases]\n* =\n[pgbouncer]\nlisten_addr = 127.0.0.1\nauth_type = trust\n"


@pytest.fixture
def ini(tmp_path: Path) -> str:
    """A settings file."""
    file = tmp_path / "pgbouncer.ini"
    file.write_text(_INI)
    return str(file)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """In what manner something was served."""
    manners: list[Any] = []

    def serve(_settings: Any, _path: Path, manner: Manner) -> int:
        manners.append(manner)
        return 0

    monkeypatch.setattr("hyperpool.service.serve", serve)
    return manners


@pytest.mark.parametrize(
    ("arguments", "manner"),
    [
        ([], Manner()),
        (["-d"], Manner(daemon=True)),
        (["-R", "-d"], Manner(daemon=True, take_over=True)),
        (["-q", "-u", "web"], Manner(quiet=True, user="web")),
        (["-v", "-v", "-v"], Manner(verbose=3)),
        (
            ["--daemon", "--reboot", "--quiet", "--user=web", "--verbose"],
            Manner(daemon=True, take_over=True, quiet=True, user="web", verbose=1),
        ),
    ],
)
def test_options(ini: str, served: list[Any], arguments: list[str], manner: Manner) -> None:
    """Each, short and long."""
    assert CliRunner().invoke(main, [*arguments, ini]).exit_code == 0
    assert [attrs.evolve(one, command=()) for one in served] == [manner]


def test_how_another_process_is_started(ini: str, served: list[Any]) -> None:
    """With the same options, but for those that only a first process needs."""
    assert CliRunner().invoke(main, ["-d", "-u", "web", "-v", "-v", ini]).exit_code == 0
    (manner,) = served
    assert manner.command[0] == sys.executable
    assert manner.command[-7:] == ("-R", "-q", "-u", "web", "-v", "-v", ini)


def test_the_version_is_one_that_scripts_understand() -> None:
    """Pgbouncer's, and our own."""
    for option in ("-V", "--version"):
        result = CliRunner().invoke(main, [option])
        assert result.output == f"PgBouncer {COMPATIBLE} (hyperpool {__version__}, {FORM})\n"


def test_help() -> None:
    """Both options for it."""
    for option in ("-h", "--help"):
        result = CliRunner().invoke(main, [option])
        assert result.exit_code == 0
        assert "CONFIG_FILE" in result.output


def test_wrong_settings(ini: str, served: list[Any], tmp_path: Path) -> None:
    """All problems, and another exit code than for what fails later."""
    (tmp_path / "pgbouncer.ini").write_text(f"{_INI}log_stats = yes\nnosuch = 1\n")
    result = CliRunner().invoke(main, [ini])
    assert result.exit_code == 2
    assert "pgbouncer.ini:6: log_stats" in result.stderr
    assert "pgbouncer.ini:7: nosuch" in result.stderr
    assert not served


def test_what_cannot_start(ini: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told why."""

    def serve(*_given: Any) -> int:
        raise StartupError("the port is taken")

    monkeypatch.setattr("hyperpool.service.serve", serve)
    result = CliRunner().invoke(main, [ini])
    assert (result.exit_code, result.stderr) == (1, "pgbouncer: cannot start: the port is taken\n")


def test_without_a_file() -> None:
    """That is a wrong argument."""
    assert CliRunner().invoke(main, []).exit_code == 2
