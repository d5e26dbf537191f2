"""`hyperpool top` as a command, with a real pooler."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import targets
from tests.support.network import free_port
from tests.support.postgres import BOB, CLARA
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler

pytestmark = pytest.mark.hyperpool_only


@pytest.fixture
def pooler(make_pooler: PoolerFactory) -> Pooler:
    """A pooler that bob may watch."""
    return make_pooler(stats_users="bob", pool_mode="transaction")


def _command(pooler: Pooler, *more: str, user: str = "bob") -> list[str]:
    return [
        *targets.hyperpool_command(),
        *("top", "--host", pooler.host, "--port", str(pooler.port), "--user", user, *more),
    ]


def _run(command: list[str], password: str = BOB.password) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PGPASSWORD": password, "COLUMNS": "160"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)


def test_once(pooler: Pooler) -> None:
    """What a client does is there: as a table, and as JSON with rates."""
    with pooler.connect(autocommit=False, application_name="shop") as client:
        client.execute("SELECT 1")
        done = _run(_command(pooler, "--once", "--interval", "0.1"))
        assert (done.returncode, done.stderr) == (0, "")
        assert "shop" in done.stdout
        assert "idle in transaction" in done.stdout
        found = json.loads(_run(_command(pooler, "--json", "--interval", "0.1")).stdout)
    panels: dict[str, list[dict[str, Any]]] = {
        one["key"]: [
            {field["name"]: cell for field, cell in zip(one["fields"], row, strict=True)}
            for row in one["rows"]
        ]
        for one in found
    }
    (summary,) = panels["summary"]
    assert (summary["state"], summary["clients"], summary["sv_active"]) == ("active", 1, 1)
    assert summary["queries"] == 0
    (way, *hops) = panels["ways"]
    assert (way["database"], way["user"], way["hop"]) == ("app", "ann", 1)
    assert [hop["name"].split()[0] for hop in hops][-1:] == ["login"]
    assert all(hop["time"] > 0 for hop in [way, *hops])


def test_who_is_not_let_in(pooler: Pooler) -> None:
    """One line, and exit code 1: wrong password, none, no reader, nobody there."""
    wrong = _run(_command(pooler, "--once"), "wrong")
    assert wrong.returncode == 1
    assert "password authentication failed" in wrong.stderr
    without = _run(_command(pooler, "--once"), "")
    assert without.returncode == 1
    assert without.stderr == (
        f'hyperpool: the pooler asks for the password of user "{BOB.name}": set PGPASSWORD, or ask to be asked for it '
        "(-W); -U names another user\n"
    )
    other = _run(_command(pooler, "--once", user="clara"), CLARA.password)
    assert other.returncode == 1
    assert "not allowed (users in admin_users and stats_users may use the console)" in other.stderr
    nobody = _run([*_command(pooler, "--once"), "--port", str(free_port())])
    assert nobody.returncode == 1
    assert "cannot connect to 127.0.0.1" in nobody.stderr
    assert nobody.stderr.count("127.0.0.1") == 1
    assert not any("Traceback" in done.stderr for done in (wrong, without, other, nobody))


class _Terminal:
    """The command on a terminal.

    Args:
        command: with its arguments.
    """

    def __init__(self, command: list[str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        environ = {**os.environ, "PGPASSWORD": BOB.password, "TERM": "xterm"}
        environ = {name: value for name, value in environ.items() if name not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self._text = ""

    def shows(self, words: str, without: str = "\0") -> None:
        """Wait for a picture with some words and without others; what was shown before is forgotten."""

        def there() -> bool:
            try:
                self._text += os.read(self._ours, 1 << 20).decode(errors="replace")
            except BlockingIOError:
                return False
            *pictures, _ = self._text.split("\x1b[H")
            return any(words in one and without not in one for one in pictures)

        eventually(there, within=20.0, what=f"the terminal shows {words!r}")
        self._text = ""

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    def close(self) -> None:
        """Take the terminal away."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal(pooler: Pooler) -> Iterator[_Terminal]:
    """`hyperpool top` on a terminal, that looks often."""
    terminal = _Terminal(_command(pooler, "--interval", "0.1"))
    yield terminal
    terminal.close()


def test_on_a_terminal(pooler: Pooler, terminal: _Terminal) -> None:
    """It goes on, also when the pooler has gone, until a key ends it."""
    terminal.shows("queries/s")
    with pooler.connect(autocommit=False, application_name="shop") as client:
        client.execute("SELECT 1")
        terminal.shows("idle in transaction")
        terminal.press(b"2")
        terminal.shows("Pools", without="Databases")
    pooler.stop()
    terminal.shows(f"{pooler.host}:{pooler.port}: ")
    terminal.press(b"q")
    assert terminal.process.wait(10) == 0
