"""Where the soak takes place: PostgreSQL, a far end with a tunnel to it, and the pooler in front of both."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg

from tests.soak.journal import Journal
from tests.soak.truth import MARKS, MAX_AGE, SCHEMA, STALE, Marks
from tests.support import farend, launch
from tests.support.counted import tasks_of
from tests.support.network import free_port
from tests.support.poolers import Pooler
from tests.support.postgres import ANN, CLARA, PostgresCluster, find_binaries, process_exists
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from types import TracebackType

    from tests.support.targets import Config

DIRECT: Final = ("direct", "session", "cached")
TUNNELED: Final = ("tunnel", "cachedtunnel")
ROUTES: Final = frozenset(DIRECT + TUNNELED)
_CHANGES: Final[tuple[dict[str, object], ...]] = (
    {},
    {"default_pool_size": 3, "max_prepared_statements": 20},
    {"default_pool_size": 8, "server_idle_timeout": "2s", "log_level": "debug"},
    {"server_lifetime": "5s", "query_wait_timeout": "90s", "min_pool_size": 1},
    {"server_reset_query_always": True, "server_check_delay": "0s", "max_prepared_memory": "1MiB"},
)
"""Settings under `pooler` that reloads change to, one after the other."""


class Site:
    """All that is needed, running.

    Args:
        seed: of all dice.
        pause: seconds between two steps of a client, on average.
        tell: takes a line about what must not be.

    Attributes:
        journal: what was done and seen.
        marks: what the cached table must hold.
        is_open: clients come only while this is set.
        ended: set in the end.
        two_processes: one process is taking the place of another, each with a cache of its own.
        pg: the server.
        far: the far end of the tunnel.
        pooler: the first process of the pooler.
        http_port: where the pooler serves metrics and the dashboard.
    """

    def __init__(self, seed: int, pause: float, tell: Callable[[str], None]) -> None:
        self.seed = seed
        self.pause = pause
        self.journal = Journal(tell)
        self.marks = Marks()
        self.is_open = threading.Event()
        self.ended = threading.Event()
        self.two_processes = False
        self.pg: PostgresCluster
        self.far: farend.FarEnd
        self.pooler: Pooler
        self.http_port = free_port()
        self._change = 0
        self._stack = contextlib.ExitStack()
        self._directory: Path

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpt-soak-")))
            self._directory.chmod(0o777)
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self._stack.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        binaries = find_binaries()
        if binaries is None:
            raise RuntimeError("no PostgreSQL on this machine and the extra `embedded` is not installed")
        self.pg = PostgresCluster(binaries)
        stack.callback(self.pg.destroy)
        self.pg.create()
        # What was committed must be there after a crash of the server.
        self.pg.sql("ALTER SYSTEM SET synchronous_commit = on")
        self.pg.sql("SELECT pg_reload_conf()")
        self.pg.sql(SCHEMA, dbname="app")
        self.far = farend.FarEnd(farend.ingress(self.pg.port))
        stack.callback(self.far.destroy)
        self.far.wait_for("listening")
        self.pooler = Pooler(self._config())
        stack.callback(self.pooler.destroy)
        stack.callback(self._end_successor)
        self.pooler.wait_listening()

    def _config(self, **changed: object) -> Config:
        server = {"host": self.pg.host, "port": self.pg.port, "dbname": "app"}
        far = {"dbname": "app", "transport": farend.to_ingress(self.far.port)}
        cache = {"max_age": f"{MAX_AGE}s", "stale_while_revalidate": f"{STALE}s"}
        port = self.pooler.port if hasattr(self, "pooler") else free_port()
        return {
            "pooler": {
                "listen_addr": "127.0.0.1",
                "listen_port": port,
                "unix_socket_dir": str(self._directory),
                "pidfile": str(self._directory / "pid"),
                "control_socket": str(self._directory / "control"),
                "auth_type": "scram-sha-256",
                "admin_users": [CLARA.name],
                "pool_mode": "transaction",
                "default_pool_size": 5,
                "server_login_retry": "500ms",
                "cache_size": "8MiB",
                "query_wait_timeout": "60s",
                **changed,
            },
            "http": {"listen_port": self.http_port},
            "databases": {
                "direct": dict(server),
                "session": {**server, "pool_mode": "session", "pool_size": 10},
                "cached": {**server, "cache": cache},
                "tunnel": dict(far),
                "cachedtunnel": {**far, "cache": cache},
            },
            "users": {role.name: {"password": role.password} for role in (ANN, CLARA)},
        }

    def change_settings(self) -> None:
        """Write the next settings and have them read."""
        self._change = (self._change + 1) % len(_CHANGES)
        self.pooler.write(self._config(**_CHANGES[self._change]))
        self.command("RELOAD")

    def conninfo(self, route: str) -> dict[str, Any]:
        """How a client connects."""
        return {
            "host": "127.0.0.1",
            "port": self.pooler.port,
            "dbname": route,
            "user": ANN.name,
            "password": ANN.password,
            "connect_timeout": 30,
        }

    def console(self) -> psycopg.Connection[Any]:
        """A connection to the console."""
        return self.pooler.connect("pgbouncer", CLARA)

    def command(self, text: str) -> list[tuple[Any, ...]]:
        """Run one command on the console, and return its rows."""
        with self.console() as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def pid(self) -> int:
        """The process that serves."""
        return int((self._directory / "pid").read_text())

    def restart(self) -> None:
        """Replace the process while clients work, and wait until the old one has ended.

        Raises:
            AssertionError: that failed.
        """
        before = self.pid
        self.two_processes = True
        done = launch.run(
            "restart", "--socket", str(self._directory / "control"), "--timeout", "60", timeout=90
        )
        assert done.returncode == 0, done.stderr
        assert self.pid != before
        if before == self.pooler.pid:
            code = self.pooler.wait_exit(within=90)
            assert code == 0, f"the process that was replaced has ended with {code}"
        else:
            eventually(lambda: not _runs(before), within=90, what="the process that was replaced has ended")
        # What the new one keeps from before may be as old as promised, and no older.
        self.ended.wait(MAX_AGE + STALE)
        self.two_processes = False

    def _end_successor(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if (pid := self.pid) != self.pooler.pid and _runs(pid):
                os.kill(pid, signal.SIGQUIT)
                eventually(lambda: not _runs(pid), within=20, what="the pooler has ended")

    def tasks(self) -> tuple[Counter[str], Counter[str]]:
        """The Trio tasks of the first process of the pooler, and of the far end."""
        return tasks_of(self.pooler.pid), tasks_of(self.far.process.pid)

    def check_entries(self, client: int) -> list[int]:
        """The entries of a client that are in the database."""
        return [row[0] for row in self.pg.sql("SELECT n FROM entry WHERE client = %s", client, dbname="app")]

    def write_behind(self) -> None:
        """Change marks past the pooler, until the end; a connection that is lost is made again."""
        mark = MARKS
        while not self.ended.is_set():
            with contextlib.suppress(psycopg.Error, OSError), self.pg.admin("app") as connection:
                while not self.ended.wait(0.1):
                    mark = mark + 1 if mark < 2 * MARKS else MARKS + 1
                    value = self.marks.begin(mark)
                    connection.execute("UPDATE mark SET value = %s WHERE id = %s", (value, mark))
                    self.marks.acknowledge(mark, value)
            self.ended.wait(0.2)


def _runs(pid: int) -> bool:
    """Whether a process runs, which is not so for one that nobody has waited for."""
    if not process_exists(pid):
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
