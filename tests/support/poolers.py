"""The pooler as a process: started, watched, asked to end, and checked for a clean end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg

from tests.support import launch, targets
from tests.support.network import all_read_by, free_port
from tests.support.postgres import ANN, BOB, CLARA, MIRA, Role, children_of
from tests.support.rawclient import Frame, RawClient, cancel_packet
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.postgres import PostgresCluster
    from tests.support.targets import Config

MODES: Final = ("session", "transaction", "statement")
_START_LIMIT: Final = 20.0  # seconds, for an interpreter that starts on a busy machine
_STOP_LIMIT: Final = 15.0


def config_for(pg: PostgresCluster, **pooler: object) -> Config:
    """Return settings with the database `app` and all password users; keyword arguments go under `pooler`."""
    return {
        "pooler": {
            "listen_addr": "127.0.0.1",
            "listen_port": free_port(),
            "auth_type": "scram-sha-256",
            **pooler,
        },
        "databases": {"app": {"host": pg.host, "port": pg.port}},
        "users": {role.name: {"password": role.password} for role in (ANN, BOB, CLARA, MIRA)},
    }


class Pooler:
    """One running pooler.

    Args:
        config: its settings; `pooler.listen_port` is the port that the helpers of this class connect to.
        open_files: the soft and the hard limit on open files to start it with, if not those of the tests.
        user: who runs it; by default whoever runs the tests.

    Attributes:
        host: the address that the helpers connect to, as libpq wants it (a directory stands for its socket).
        port: the TCP port.
        config: the settings it was started or reloaded with.
        killed: a test killed it on purpose, so that its end is not checked.
    """

    def __init__(
        self, config: Config, open_files: tuple[int, int] | None = None, user: str | None = None
    ) -> None:
        self.config = config
        self.port = int(config["pooler"]["listen_port"])
        self.host = (
            "127.0.0.1" if config["pooler"]["listen_addr"] else str(config["pooler"]["unix_socket_dir"])
        )
        directory = config["pooler"].get("unix_socket_dir")
        self._socket_path = f"{directory}/.s.PGSQL.{self.port}" if directory else None
        self.killed = False
        self._directory = Path(tempfile.mkdtemp(prefix="hpt-pooler-"))
        self.log_path = self._directory / "log"
        self._config_path = targets.write_config(self._directory, config)
        if user is not None:
            for path in (self._directory, self._config_path):
                shutil.chown(path, user)
        with self.log_path.open("wb") as log:
            self.process = launch.start(
                [*_limited(open_files), *targets.command(self._config_path)], log, self._directory, user
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def wait_listening(self) -> None:
        """Wait until the pooler accepts connections; fails at once when it ends instead."""

        def accepts() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"the pooler ended with {self.process.returncode}:\n{self.log_text()}")
            with self.open_raw():
                pass
            if self._socket_path is not None:
                with RawClient(self._socket_path):
                    pass
            return True

        eventually(accepts, within=_START_LIMIT, what="the pooler listens", despite=(OSError,))

    def log_text(self, since: int = 0) -> str:
        """Return the log from a mark on; nothing when the pooler is destroyed already."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            log.seek(since)
            return log.read().decode(errors="replace")

    def log_size(self) -> int:
        """Return the size of the log in bytes, as a mark for `log_text`."""
        return self.log_path.stat().st_size

    def reload(self, config: Config) -> None:
        """Write new settings and send SIGHUP; the effect is for the caller to wait for."""
        self.write(config)
        self.process.send_signal(signal.SIGHUP)

    def write(self, config: Config) -> None:
        """Write new settings, for a reload that is asked for otherwise."""
        self.config = config
        targets.write_config(self._directory, config)

    def wait_exit(self, within: float = _STOP_LIMIT) -> int:
        """Wait for the end of the process and return its exit code; a hang prints all stacks into the log."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(_STOP_LIMIT)
            raise AssertionError(
                f"the pooler did not end within {within} s:\n{self.log_text()[-8000:]}"
            ) from None

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ask the pooler to end and check that it does so cleanly.

        Raises:
            AssertionError: it hung, ended with an error, logged a traceback or left a process behind.
        """
        if self.killed:
            return
        children = children_of(self.pid)
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.wait_exit()
        assert code == 0, f"exit code {code}:\n{self.log_text()[-8000:]}"
        self.check_log()
        left = [pid for pid in children if Path(f"/proc/{pid}").exists()]
        assert not left, f"processes left behind: {left}"

    def forget(self) -> None:
        """Expect nothing more of this pooler: a test killed it on purpose."""
        self.killed = True

    def check_log(self, since: int = 0) -> None:
        """Fail if there is a traceback in the log from a mark on."""
        text = self.log_text(since)
        assert "Traceback" not in text, f"a traceback in the pooler's log:\n{text[-8000:]}"

    def destroy(self) -> None:
        """End the process by force if it still runs and remove its files."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(_STOP_LIMIT)
        shutil.rmtree(self._directory, ignore_errors=True)

    def conninfo(self, database: str = "app", role: Role = ANN, **options: str) -> dict[str, Any]:
        """Return libpq's connection parameters."""
        return {
            "host": self.host,
            "port": self.port,
            "dbname": database,
            "user": role.name,
            "password": role.password,
            "connect_timeout": 15,
            **options,
        }

    def url(self, database: str = "app", role: Role = ANN) -> str:
        """Return a connection URL for psql, pgbench and drivers."""
        password = role.password.replace("'", "%27").replace(" ", "%20")
        return f"postgresql://{role.name}:{password}@{self.host}:{self.port}/{database}"

    def connect(
        self,
        database: str = "app",
        role: Role = ANN,
        *,
        autocommit: bool = True,
        **options: str,
    ) -> psycopg.Connection[Any]:
        """Connect with psycopg, without server-side prepared statements."""
        return psycopg.connect(
            **self.conninfo(database, role, **options),
            autocommit=autocommit,
            prepare_threshold=None,
        )

    def open_raw(self) -> RawClient:
        """Open a connection of exact bytes and send nothing."""
        if self._socket_path is not None and self.host.startswith("/"):
            return RawClient(self._socket_path)
        return RawClient((self.host, self.port))

    def raw(self, database: str = "app", role: Role = ANN, /, **parameters: str) -> RawClient:
        """Open a connection of exact bytes and log in."""
        client = self.open_raw()
        last = client.login(database, role.name, role.password, **parameters)[-1]
        assert last.kind == b"Z", last.fields
        return client

    def wait_read(self, client: RawClient) -> None:
        """Wait until the pooler has read all that a client has sent."""
        eventually(
            lambda: all_read_by(self.port, client.port), what="the pooler has read what the client has sent"
        )

    def cancel(self, pid: int, secret: bytes) -> None:
        """Send a CancelRequest and wait until the pooler closes the connection, as libpq does."""
        with self.open_raw() as client:
            client.send(cancel_packet(pid, secret))
            assert client.receive_all() == []

    def refused(self, database: str = "app", role: Role = ANN, /, **parameters: str) -> Frame:
        """Log in where a refusal is expected; check that the connection ends; return the ErrorResponse."""
        with self.open_raw() as client:
            last = client.login(database, role.name, role.password, **parameters)[-1]
            assert last.kind == b"E", "the login was accepted"
            assert client.receive_all() == []
            return last

    def memory(self, field: str = "VmRSS") -> int:
        """Return a memory figure of the process in bytes; `VmHWM` is the peak (proc(5), "status")."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def reset_peak_memory(self) -> int:
        """Set the peak back to the present figure (proc(5), "clear_refs") and return it in bytes."""
        with contextlib.suppress(PermissionError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self.memory("VmHWM")

    def open_files(self) -> int:
        """Return the number of open file descriptors of the process."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208 - names are enough


def _limited(open_files: tuple[int, int] | None) -> list[str]:
    """Return the command line that runs the rest of it under limits on open files."""
    if open_files is None:
        return []
    soft, hard = open_files
    return ["sh", "-c", f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$@"', "sh"]
