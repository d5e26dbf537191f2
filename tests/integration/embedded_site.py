"""Where tests of the embedded PostgreSQL play poolers: start them, kill them, and see what they leave."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import psycopg

from hyperpool.embedded.postmaster import command_of
from hyperpool.errors import StartupError
from tests.support.postgres import children_of
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT: Final = Path(__file__).parents[2]
PASSWORD: Final = "it's \\ secret"


class Pooler:
    """A process with one embedded database; see `tests.integration.embedded_pooler`.

    Attributes:
        host: directory of the database's socket.
        port: number of its socket.
    """

    host: str
    port: int

    def __init__(self, options: dict[str, object]) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.integration.embedded_pooler"),
                *(f"--{name.replace('_', '-')}={value}" for name, value in options.items()),
            ],
            cwd=CHECKOUT,
            env={**os.environ, "PGHOST": "nowhere", "A_SECRET": "of the pooler"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_started(self) -> None:
        """Wait until the database runs.

        Raises:
            StartupError: it could not start.
        """
        said: dict[str, Any] = json.loads(self.wait_said("{") or "{}")
        if "host" not in said:
            self._end()
            raise StartupError(said.get("error", "it said nothing"))
        self.host, self.port = said["host"], said["port"]

    def wait_said(self, what: str) -> str:
        """Wait for a line of its output that holds `what`; empty if it ended before."""
        assert self._process.stdout is not None
        return next((line for line in self._process.stdout if what in line), "")

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement as the user demo in the database demo."""
        with psycopg.connect(
            host=self.host, port=self.port, user="demo", password=PASSWORD, dbname="demo", autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """Let it stop its database and end."""
        assert self._end() == 0

    def kill(self) -> None:
        """Kill it, as the system does when memory is short."""
        self._process.kill()
        self._end()

    def interrupt(self) -> None:
        """Do what Ctrl-C on its terminal does."""
        os.killpg(self._process.pid, signal.SIGINT)

    def _end(self) -> int:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            return self._process.wait(30)


@attrs.frozen
class Site:
    """Where poolers find PostgreSQL and keep databases.

    Attributes:
        packages: a directory with PostgreSQL's package, the first that is searched.
        state_dir: their state directory.
        user: whom they run as.
        started: all of them, to be killed when a test fails.
    """

    packages: Path
    state_dir: Path
    user: str
    started: list[Pooler] = attrs.Factory(list)

    @property
    def home(self) -> Path:
        """The directory of their database."""
        return self.state_dir / "demo"

    @property
    def postmaster(self) -> int:
        """The process id in ``postmaster.pid``."""
        return int((self.home / "data" / "postmaster.pid").read_text().split()[0])

    def begin_pooler(self, **changes: object) -> Pooler:
        """Start a pooler, with these options instead of the standard ones."""
        entry = pwd.getpwnam(self.user)
        options = {
            "packages": self.packages,
            "state_dir": self.state_dir,
            "uid": entry.pw_uid,
            "gid": entry.pw_gid,
            "role": "demo",
            "password": PASSWORD,
            "dbname": "demo",
            "cache": "/nonexistent",
        }
        pooler = Pooler({**options, **changes})
        self.started.append(pooler)
        return pooler

    def pooler(self, **changes: object) -> Pooler:
        """Start a pooler, and wait until its database runs."""
        pooler = self.begin_pooler(**changes)
        pooler.wait_started()
        return pooler

    def own(self, path: Path) -> None:
        """Make `path` theirs."""
        entry = pwd.getpwnam(self.user)
        os.chown(path, entry.pw_uid, entry.pw_gid)

    def processes(self) -> list[int]:
        """Each postmaster that runs in this place, and its children."""
        mark = f"hyperpool.directory={self.state_dir.parent}/"
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        masters = [pid for pid in pids if any(argument.startswith(mark) for argument in command_of(pid))]
        return [*masters, *(child for pid in masters for child in children_of(pid))]

    def kill_postgresql(self) -> None:
        """Kill the postmaster, and wait until all its children have noticed."""
        processes = self.processes()
        os.kill(self.postmaster, signal.SIGKILL)
        eventually(lambda: not any(map(command_of, processes)), what="PostgreSQL's processes have ended")

    def clear(self) -> None:
        """End and remove everything.

        Raises:
            AssertionError: something still ran.
        """
        for pooler in self.started:
            pooler.kill()
        left = self.processes()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)
        eventually(lambda: not self.processes(), what="PostgreSQL has ended")
        assert left == []


def memory() -> Path | None:
    """A file system in memory if there is one with room: the tests write much and keep nothing."""
    path = Path("/dev/shm")
    roomy = path.is_dir() and os.access(path, os.W_OK) and shutil.disk_usage(path).free > 1 << 30
    return path if roomy else None


@contextlib.contextmanager
def public_directory(name: str, base: Path | None = None) -> Iterator[Path]:
    """A temporary directory that every user can enter; pytest's are private."""
    directory = Path(tempfile.mkdtemp(prefix=f"hpt-{name}-", dir=base))
    try:
        directory.chmod(0o755)
        yield directory
    finally:
        shutil.rmtree(directory)


def copy(source: Path, target: Path) -> None:
    """Copy a directory with owners and modes."""
    subprocess.run(["cp", "-a", "--sparse=always", source, target], check=True)
