"""WebSocket-to-TCP gateways as real programs: websockify, and nginx before it with TLS and a check of the token."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from tests.support.certificates import issue
from tests.support.network import free_port
from tests.support.postgres import children_of
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import datetime as dt
    from types import TracebackType

    from tests.support.certificates import Files

HOST: Final = "127.0.0.1"
_START_LIMIT: Final = 20.0  # seconds, for an interpreter that starts on a busy machine
_STOP_LIMIT: Final = 10.0


def find_program(name: str) -> str | None:
    """The path of websockify or nginx, or None where the system has none."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")


@attrs.frozen
class Token:
    """A service token.

    Attributes:
        id: its public half.
        secret: its other half.
    """

    id: str
    secret: str = attrs.field(repr=False)


TOKEN: Final = Token("4f1c2b.access", "51a8d0-not-for-logs-97be")
OTHER_TOKEN: Final = Token("0d9e77.access", "e2460c-not-for-logs-1b3f")


class _Program(ABC):
    """A program that listens on a port of its own, with a directory of its own."""

    def __init__(self, name: str) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix=f"hpt-{name}-"))
        self.directory.chmod(0o755)
        self.log_path = self.directory / "log"
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.destroy()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.destroy()

    @abstractmethod
    def _command(self) -> list[str]:
        """What starts it."""

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        # The interpreter of the system, and not the one of the tests, runs websockify.
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL"))
        }
        with self.log_path.open("ab") as log:
            self._process = process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.directory,
                start_new_session=True,
            )

        def listens() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"{self._name} ended with {process.returncode}:\n{self.log_text()}")
            with socket.create_connection((HOST, self.port), 1):
                return True

        eventually(listens, within=_START_LIMIT, what=f"{self._name} listens", despite=(OSError,))

    def stop(self) -> None:
        """Kill it with all that it carries, as a crash would, and wait for its end."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_STOP_LIMIT)
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again on the same port."""
        self.stop()
        self.start()

    def destroy(self) -> None:
        """End it and remove its files."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and to all its children."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def log_text(self) -> str:
        """All that it has logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


class Websockify(_Program):
    """websockify: one process for every WebSocket, and plain TCP on its other side.

    Args:
        target_port: the port at the loopback address that it forwards to.
        heartbeat: seconds between two pings; 0 for none.
    """

    def __init__(self, target_port: int, heartbeat: int = 0) -> None:
        super().__init__("websockify")
        self._target_port = target_port
        self._heartbeat = heartbeat

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ws://{HOST}:{self.port}/"

    def _command(self) -> list[str]:
        program = find_program("websockify")
        assert program is not None
        options = [f"--heartbeat={self._heartbeat}"] if self._heartbeat else []
        return [program, *options, f"{HOST}:{self.port}", f"{HOST}:{self._target_port}"]


class Nginx(_Program):
    """nginx in front of a WebSocket gateway: TLS for `localhost`, and only those with the token come through.

    Args:
        gateway_port: the gateway's port at the loopback address.

    Attributes:
        token: whom it lets in; what is put here counts from the next `reload` on.
        refusal: what others get: a status, and an address for redirects.
        read_timeout: seconds of silence after which a connection is cut.
        files: the certificate, its key, and the authority.
        plain_port: where it listens without TLS.
    """

    def __init__(self, gateway_port: int) -> None:
        super().__init__("nginx")
        self.token = TOKEN
        self.refusal = "302 https://team.example.com/cdn-cgi/access/login/localhost?meta=x"
        self.read_timeout = 60
        self.plain_port = free_port()
        self.files: Files = issue(self.directory / "tls", "localhost")
        self._gateway_port = gateway_port
        self._generation = 0

    def url(self, path: str = "/") -> str:
        """Where it listens with TLS, by the name in its certificate."""
        return f"wss://localhost:{self.port}{path}"

    def steps(
        self, path: str = "/", token: Token | None = TOKEN, **websocket: object
    ) -> list[dict[str, Any]]:
        """The transport of a database that is reached through it."""
        credentials = {} if token is None else {"token_id": token.id, "token_secret": token.secret}
        return [
            {"tcp": {"host": "localhost", "port": self.port}},
            {"tls": {"ca_file": str(self.files.ca)}},
            {"websocket": {"path": path, **credentials, **websocket}},
        ]

    def certify(self, *names: str, expires: dt.datetime | None = None) -> None:
        """Replace the certificate; it counts from the next `reload` on."""
        self.files = issue(self.directory / "tls", *names, expires=expires)

    def reload(self) -> None:
        """Take the settings in without a restart: those who are connected stay."""
        self._generation += 1
        self._write()
        process = self._process
        assert process is not None
        process.send_signal(signal.SIGHUP)
        expected = str(self._generation).encode()

        def taken_in() -> bool:
            url = f"http://{HOST}:{self.plain_port}/generation"
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.read() != expected:
                    return False
            # A new worker answers. The old one has "is shutting down" in its title once it takes no connections.
            titles = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children_of(process.pid)]
            return sum(title.rstrip(b"\0 ").endswith(b"worker process") for title in titles) == 1

        eventually(taken_in, what="nginx has taken the new settings in", despite=(OSError,))

    def _command(self) -> list[str]:
        program = find_program("nginx")
        assert program is not None
        self._write()
        return [program, "-p", str(self.directory), "-c", str(self.directory / "nginx.conf"), "-e", "stderr"]

    def _write(self) -> None:
        directory = self.directory
        temporary = "\n".join(
            f"    {kind}_temp_path {directory}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (directory / "nginx.conf").write_text(f"""\
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid {directory}/pid;
error_log stderr info;
events {{ worker_connections 512; }}
http {{
{temporary}
    access_log off;
    map "$http_cf_access_client_id $http_cf_access_client_secret" $is_known {{
        default 0;
        "{self.token.id} {self.token.secret}" 1;
    }}
    server {{
        listen {HOST}:{self.port} ssl;
        listen {HOST}:{self.plain_port};
        ssl_certificate {self.files.cert};
        ssl_certificate_key {self.files.key};
        location = /generation {{ return 200 {self._generation}; }}
        location = /page {{ return 200 hello; }}
        location = /forbidden {{ return 403; }}
        location = /unauthorized {{ return 401; }}
        location = /gone {{ proxy_pass http://{HOST}:1; }}
        location / {{
            if ($is_known = 0) {{ return {self.refusal}; }}
            proxy_pass http://{HOST}:{self._gateway_port};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout {self.read_timeout}s;
            proxy_send_timeout {self.read_timeout}s;
        }}
    }}
}}
""")
