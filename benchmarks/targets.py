"""What is measured: PostgreSQL itself, and each pooler in front of it, with the same limits and no log of clients.

All of them listen on free ports of 127.0.0.1 and keep everything in the workspace. A new target is one entry in
`TARGETS`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from typing import TYPE_CHECKING, Any, Final

import attrs
import yaml
from attrs import frozen

from benchmarks.processes import BenchError, clean_environment, free_port
from benchmarks.stage import MAX_CLIENTS, TRUST, Server
from benchmarks.ways import ROOT, Ways, find_program
from hyperpool.config.model import PoolerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from benchmarks.processes import Child
    from benchmarks.stage import Stage, Variant

PGPOOL_CLIENTS: Final = 110
"""Clients that pgpool-II serves at once: each takes a process, which is started in advance. More would wait."""

BACKLOG: Final = 4096
"""Of every pooler's listener: else a storm of logins shows how often the kernel asks again for a connection."""


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


def _always(_stage: Stage) -> str | None:
    return None


def _program(*names: str) -> Callable[[Stage], str | None]:
    """Whether programs are installed."""

    def missing(_stage: Stage) -> str | None:
        absent = [name for name in names if not find_program(name)]
        return f"{' and '.join(absent)} not installed" if absent else None

    return missing


@frozen
class Target:
    """Something that can be measured.

    Attributes:
        name: for tables and ``--targets``.
        about: one line for people who choose.
        start: starts it.
        missing: why it cannot be had on this machine; None where it can.
    """

    name: str
    about: str
    start: Callable[[Stage, Variant], Server]
    missing: Callable[[Stage], str | None] = _always


# -- PostgreSQL, pgbouncer, pgpool-II ----------------------------------------------------------------------------------


def _direct(stage: Stage, variant: Variant) -> Server:
    port = Ways(stage, variant).direct() if variant.round_trip else stage.postgres.endpoint.port
    return Server(stage.postgres.child, variant.endpoint(port), is_pooler=False)


def _no_pgbouncer(stage: Stage) -> str | None:
    return None if stage.pgbouncer else "not installed: benchmarks/get_pgbouncer.sh fetches it"


def _pgbouncer(stage: Stage, variant: Variant) -> Server:
    port, postgres = free_port(), stage.postgres.endpoint
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": variant.auth,
        "auth_file": stage.auth_file,
        "pool_mode": "transaction",
        "max_client_conn": MAX_CLIENTS,
        "default_pool_size": variant.pool_size,
        "listen_backlog": BACKLOG,
        "log_connections": 0,
        "log_disconnections": 0,
        "log_stats": 0,
    }
    if stage.workspace.user is not None:
        # It changes to this user by itself, after it has opened what only root may be able to read.
        settings["user"] = stage.workspace.user
    lines = ["[databases]", f"bench = host={postgres.host} port={postgres.port} dbname=bench user=bench"]
    lines += ["[pgbouncer]", *(f"{name} = {value}" for name, value in settings.items())]
    file = stage.workspace.directory / f"pgbouncer-{port}.ini"
    file.write_text("\n".join(lines) + "\n")
    child = stage.workspace.spawn("pgbouncer", [*stage.wrapper, *(stage.pgbouncer or ()), file])
    return Server(child, variant.endpoint(port))


def _pgpool(stage: Stage, variant: Variant, *, cache: bool) -> Server:
    """With its memory cache, in shared memory, or without (pgpool-II's documentation, "In Memory Query Cache")."""
    if variant.auth != TRUST:
        raise BenchError("pgpool-II is measured with auth_type trust only")
    port = free_port()
    directory = stage.workspace.owned_directory(f"pgpool-{port}")
    (directory / "oids").mkdir()
    if stage.workspace.user is not None:
        shutil.chown(directory / "oids", stage.workspace.user)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "pcp_port": free_port(),
        "pcp_socket_dir": directory,
        "backend_hostname0": stage.postgres.endpoint.host,
        "backend_port0": stage.postgres.endpoint.port,
        "backend_clustering_mode": "streaming_replication",
        "sr_check_period": 0,
        "sr_check_user": "bench",
        "health_check_user": "bench",
        "enable_pool_hba": "off",
        "num_init_children": PGPOOL_CLIENTS,
        "max_pool": 1,
        "memory_cache_enabled": "on" if cache else "off",
        "memqcache_method": "shmem",
        "memqcache_oiddir": directory / "oids",
        "log_destination": "stderr",
        "pid_file_name": directory / "pid",
        "logdir": directory,
        "work_dir": directory,
    }
    file = directory / "pgpool.conf"
    file.write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
    command: list[str | Path] = [find_program("pgpool") or "pgpool", "-n", "-f", file]
    return Server(stage.workspace.spawn("pgpool", command, as_service_user=True), variant.endpoint(port))


# -- hyperpool ---------------------------------------------------------------------------------------------------------


def _hyperpool(
    stage: Stage,
    variant: Variant,
    *,
    cache: bool = False,
    environment: Mapping[str, str] | None = None,
    **settings: object,
) -> Server:
    port, postgres = free_port(), stage.postgres.endpoint
    pooler: dict[str, Any] = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "auth_type": variant.auth,
        "auth_file": str(stage.auth_file),
        "pool_mode": "transaction",
        "max_client_conn": MAX_CLIENTS,
        "default_pool_size": variant.pool_size,
        "listen_backlog": BACKLOG,
        "log_connections": False,
        "log_disconnections": False,
        "log_stats": False,
        "state_dir": str(stage.workspace.directory / "state"),
        **settings,
    }
    pooler |= {name: yaml.safe_load(value) for name, value in stage.overrides.items()}
    database: dict[str, Any] = {
        "host": postgres.host,
        "port": postgres.port,
        "dbname": "bench",
        "user": "bench",
    }
    if cache:
        database["cache"] = True
        pooler["stats_users"] = "bench"
    file = stage.workspace.directory / f"hyperpool-{port}.yaml"
    file.write_text(yaml.safe_dump({"pooler": pooler, "databases": {"bench": database}}, sort_keys=False))
    child = stage.workspace.spawn(
        "hyperpool",
        [*stage.wrapper, sys.executable, "-m", "hyperpool", "serve", file],
        environment=clean_environment(PYTHONPATH=str(ROOT), **(environment or {})),
    )
    return Server(child, variant.endpoint(port), is_caching=cache)


def _pure(stage: Stage, variant: Variant) -> Server:
    return _hyperpool(stage, variant, environment={"HYPERPOOL_PURE": "1"})


def _no_workers(_stage: Stage) -> str | None:
    known = any(setting.name == "workers" for setting in attrs.fields(PoolerSettings))
    return None if known else "this hyperpool has no setting `workers`"


def _workers(stage: Stage, variant: Variant) -> Server:
    return _hyperpool(stage, variant, workers=max(2, len(os.sched_getaffinity(0))))


# -- ways: hyperpool near the client, tunnels to PostgreSQL ------------------------------------------------------------


def _way(open_way: Callable[[Ways], tuple[int, Child]]) -> Callable[[Stage, Variant], Server]:
    def start(stage: Stage, variant: Variant) -> Server:
        port, child = open_way(Ways(stage, variant))
        return Server(child, variant.endpoint(port))

    return start


def _near_cache(stage: Stage, variant: Variant) -> Server:
    port, child = Ways(stage, variant).tcp(cache=True)
    return Server(child, variant.endpoint(port), is_caching=True)


def _gateway(stage: Stage, variant: Variant) -> Server:
    port, child = Ways(stage, variant).websockify_port()
    return Server(child, variant.endpoint(port), is_pooler=False, is_gateway=True)


TARGETS: Final = {
    target.name: target
    for target in (
        Target("direct", "PostgreSQL itself", _direct),
        Target("pgbouncer", "pgbouncer, what ratios are to", _pgbouncer, _no_pgbouncer),
        Target("pgpool", "pgpool-II", lambda *way: _pgpool(*way, cache=False), _program("pgpool")),
        Target(
            "pgpool-cache",
            "pgpool-II with its memory cache",
            lambda *way: _pgpool(*way, cache=True),
            _program("pgpool"),
        ),
        Target("hyperpool-pure", "hyperpool as it is written, in Python", _pure),
        Target("hyperpool", "hyperpool, compiled", _hyperpool),
        Target("hyperpool-cache", "with its result cache", lambda *way: _hyperpool(*way, cache=True)),
        Target("hyperpool-workers", "with a process for each core, at least two", _workers, _no_workers),
        Target("tcp", "hyperpool near the client, plain TCP to PostgreSQL", _way(Ways.tcp)),
        Target("tcp-cache", "the same, with its result cache", _near_cache),
        Target(
            "passed-on",
            "hyperpool, plain TCP that one more process passes on, as a gateway does",
            _way(Ways.passed_on),
        ),
        Target(
            "websockify",
            "hyperpool, a WebSocket to websockify",
            _way(Ways.websockify),
            _program("websockify"),
        ),
        Target(
            "nginx",
            "hyperpool, a WebSocket in TLS to nginx, which checks a token, and websockify behind it",
            _way(Ways.nginx),
            _program("websockify", "nginx", "openssl"),
        ),
        Target(
            "ingress",
            "hyperpool, a WebSocket to hyperpool's ingress",
            _way(lambda ways: ways.ingress(tls=False)),
        ),
        Target(
            "ingress-tls",
            "the same, within TLS",
            _way(lambda ways: ways.ingress(tls=True)),
            _program("openssl"),
        ),
        Target("agent", "hyperpool, a WebSocket that hyperpool's agent opens to it", _way(Ways.agent)),
        Target(
            "gateway",
            "websockify with a client that speaks WebSocket itself",
            _gateway,
            _program("websockify"),
        ),
    )
}
"""By name, in the order of the tables."""
