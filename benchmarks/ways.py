"""Ways from a hyperpool to the benchmark's PostgreSQL: plain TCP, and tunnels, with or without a round trip added."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import yaml

from benchmarks.processes import BenchError, clean_environment, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.processes import Child
    from benchmarks.stage import Stage, Variant

Way: TypeAlias = "tuple[int, Child]"

ROOT: Final = Path(__file__).resolve().parents[1]

READY: Final = 20
"""Connections that an agent keeps, and server connections that a pooler may have."""

WARM: Final = 16
"""Server connections that a pooler opens before anybody asks."""

_HOST: Final = "127.0.0.1"
_TOKEN: Final = {"id": "bench", "secret": "a-token-of-the-benchmark"}
_HEADERS: Final = {"token_id": _TOKEN["id"], "token_secret": _TOKEN["secret"]}
_PATIENCE: Final = 20.0


def find_program(name: str) -> str | None:
    """The path of websockify or nginx; /usr/sbin is not on the PATH of an ordinary user on Debian."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Ways:
    """Starts what is at both ends of ways.

    A way is the port where clients connect to, and the process of the pooler there.

    Args:
        stage: PostgreSQL runs.
        variant: how clients log in, and what is added between the pooler and the far end.
    """

    def __init__(self, stage: Stage, variant: Variant) -> None:
        self._auth = variant.auth
        self._auth_file = stage.auth_file
        self._workspace = stage.workspace
        self._round_trip = variant.round_trip
        self._postgres = stage.postgres.endpoint.port
        self._certificate: Path | None = None

    def direct(self) -> int:
        """The port that leads straight to PostgreSQL."""
        return self._delayed(self._postgres)

    def tcp(self, *, cache: bool = False) -> Way:
        """Plain TCP, to a pooler without or with a result cache."""
        return self._near([_tcp(self.direct())], cache=cache)

    def passed_on(self) -> Way:
        """Plain TCP that one more process passes on: the path of a gateway, without a tunnel."""
        port = free_port()
        words = ["--round-trip", "0", _address(port), _address(self._postgres)]
        self._spawn("passer", [sys.executable, "-m", "benchmarks.delay", *words], port)
        return self._near([_tcp(self._delayed(port))])

    def websockify_port(self) -> Way:
        """A websockify that leads to PostgreSQL, without a pooler."""
        port = free_port()
        command = [find_program("websockify") or "websockify", _address(port), _address(self._postgres)]
        return port, self._spawn("websockify", command, port)

    def websockify(self) -> Way:
        """A WebSocket to websockify."""
        return self._near([_tcp(self._delayed(self.websockify_port()[0])), {"websocket": {}}])

    def nginx(self) -> Way:
        """A WebSocket within TLS to nginx, which checks a token and passes it on to websockify."""
        port, directory = free_port(), self._workspace.directory / "nginx"
        directory.mkdir(exist_ok=True)
        file = directory / "nginx.conf"
        file.write_text(self._nginx_conf(directory, port, self.websockify_port()[0]))
        command: list[str | Path] = [
            find_program("nginx") or "nginx",
            "-p",
            directory,
            "-c",
            file,
            "-e",
            "stderr",
        ]
        self._spawn("nginx", command, port)
        return self._near(self._secured(self._delayed(port)))

    def ingress(self, *, tls: bool) -> Way:
        """A WebSocket to hyperpool's ingress."""
        port = free_port()
        gate: dict[str, Any] = {"listen_addr": _HOST, "listen_port": port, "tokens": {"bench": _TOKEN}}
        if tls:
            gate["tls_cert_file"] = str(self._certified())
        self._tunnel({"ingress": gate}, port)
        delayed = self._delayed(port)
        return self._near(self._secured(delayed) if tls else [_tcp(delayed), {"websocket": dict(_HEADERS)}])

    def agent(self) -> Way:
        """A WebSocket that hyperpool's agent opens to the pooler."""
        port = free_port()
        way = [_tcp(self._delayed(port)), {"websocket": dict(_HEADERS)}]
        self._tunnel({"poolers": {"near": {"transport": way, "ready": READY, "retry_max": 1}}})
        agents = {"listen_addr": _HOST, "listen_port": port, "tokens": {"site": _TOKEN}}
        return self._near([{"agent": {"name": "site"}}], agents=agents)

    def _spawn(self, name: str, command: Sequence[str | Path], port: int | None = None) -> Child:
        """Start a process, and wait until it listens on a port."""
        child = self._workspace.spawn(name, command, environment=clean_environment(PYTHONPATH=str(ROOT)))
        deadline = time.monotonic() + _PATIENCE
        while port is not None:
            try:
                socket.create_connection((_HOST, port), 1).close()
                break
            except OSError as error:
                if not child.alive or time.monotonic() > deadline:
                    raise BenchError(f"{name} does not listen: {error}\n{child.log_tail()}") from error
                time.sleep(0.02)
        return child

    def _delayed(self, target: int) -> int:
        """The port that leads to another one, later."""
        if not self._round_trip:
            return target
        port = free_port()
        words = ["--round-trip", f"{self._round_trip * 1e3:g}ms", _address(port), _address(target)]
        self._spawn("delay", [sys.executable, "-m", "benchmarks.delay", *words], port)
        return port

    def _tunnel(self, settings: Mapping[str, object], port: int | None = None) -> None:
        file = self._workspace.directory / f"tunnel-{free_port()}.yaml"
        targets = {"bench": {"host": _HOST, "port": self._postgres}}
        file.write_text(yaml.safe_dump({"targets": targets, **settings}))
        self._spawn("tunnel", [sys.executable, "-m", "hyperpool", "tunnel", file], port)

    def _near(
        self, transport: Sequence[Mapping[str, Any]], *, cache: bool = False, **sections: object
    ) -> Way:
        port = free_port()
        pooler = {
            "listen_addr": _HOST,
            "listen_port": port,
            "auth_type": self._auth,
            "auth_file": str(self._auth_file),
            "pool_mode": "transaction",
            "default_pool_size": READY,
            "min_pool_size": WARM,
            "server_login_retry": "200ms",
            "log_connections": False,
            "log_disconnections": False,
            "log_stats": False,
        }
        database: dict[str, Any] = {"dbname": "bench", "user": "bench", "sslmode": "disable"}
        database["transport"] = list(transport)
        if cache:
            database["cache"] = True
        file = self._workspace.directory / f"near-{port}.yaml"
        file.write_text(yaml.safe_dump({"pooler": pooler, "databases": {"bench": database}, **sections}))
        return port, self._spawn("hyperpool", [sys.executable, "-m", "hyperpool", "serve", file], port)

    def _secured(self, port: int) -> list[dict[str, Any]]:
        tls = {"server_name": "localhost", "ca_file": str(self._certified())}
        return [_tcp(port), {"tls": tls}, {"websocket": {"host": "localhost", **_HEADERS}}]

    def _certified(self) -> Path:
        """A certificate for localhost that is its own authority, with its key in the same file."""
        if self._certificate is None:
            file = self._workspace.directory / "certificate.pem"
            kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
            names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
            where = ["-keyout", f"{file}.key", "-out", f"{file}.crt"]
            self._workspace.run("openssl", ["openssl", "req", "-x509", *kind, *names, *where], timeout=30)
            file.write_text(Path(f"{file}.crt").read_text() + Path(f"{file}.key").read_text())
            self._certificate = file
        return self._certificate

    def _nginx_conf(self, directory: Path, port: int, gateway: int) -> str:
        file = self._certified()
        temporary = "\n".join(
            f"{kind}_temp_path {directory}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return f"""\
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid {directory}/pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
    {temporary}
    access_log off;
    map "$http_cf_access_client_id $http_cf_access_client_secret" $is_known {{
        default 0;
        "{_TOKEN["id"]} {_TOKEN["secret"]}" 1;
    }}
    server {{
        listen {_HOST}:{port} ssl;
        ssl_certificate {file};
        ssl_certificate_key {file};
        location / {{
            if ($is_known = 0) {{ return 403; }}
            proxy_pass http://{_HOST}:{gateway};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
        }}
    }}
}}
"""


def _address(port: int) -> str:
    return f"{_HOST}:{port}"


def _tcp(port: int) -> dict[str, Any]:
    return {"tcp": {"host": _HOST, "port": port}}
