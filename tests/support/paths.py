"""Ways from a pooler to a PostgreSQL in a private network, with a fault proxy where the open network would be.

::

    pooler ── proxy ── the far end ── Unix socket in a directory that only its owner may enter ── PostgreSQL

The server listens on no network address. Where root runs the tests, the pooler runs as a user that cannot reach the
socket either: all that leads there is the far end, which is one of

- ``tcp``: a plain forwarder;
- ``gateway``: nginx, which terminates TLS and checks a service token, and websockify;
- ``ingress``: hyperpool's own far end, which the pooler connects to;
- ``agent``: hyperpool's own far end, which connects to the pooler.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from tests.support import launch
from tests.support.certificates import issue
from tests.support.counted import tasks_of
from tests.support.farend import FarEnd
from tests.support.gateways import HOST, OTHER_TOKEN, TOKEN, Nginx, Token, Websockify, find_program
from tests.support.network import ESTABLISHED, free_port, tcp_sockets
from tests.support.poolers import config_for
from tests.support.postgres import ROLES, PostgresCluster
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping
    from types import TracebackType

    from tests.support.launch import Process
    from tests.support.poolers import Pooler
    from tests.support.targets import Config

KINDS: Final = ("tcp", "gateway", "ingress", "agent")
"""The names of all ways."""

TUNNELS: Final = KINDS[1:]
"""Those that are more than a forwarder."""

SECRETS: Final = (TOKEN.secret, OTHER_TOKEN.secret, *(role.password for role in ROLES if role.password))
"""What no log may hold."""

_START_LIMIT: Final = 20.0  # seconds, for an interpreter that starts on a busy machine
_STOP_LIMIT: Final = 10.0
_UP: Final = "tunnel is up"
"""What a far end logs once it works."""


class PrivatePostgres(PostgresCluster):
    """A PostgreSQL that listens on a Unix socket alone, where only its owner (and root) may come."""

    def create(self) -> None:
        """Make the server, start it, and close it off."""
        super().create()
        self.stop()
        with (self._data / "postgresql.conf").open("a") as config:
            config.write("listen_addresses = ''\n")
        self.socket_dir.chmod(0o700)
        self.start()

    @property
    def socket_path(self) -> str:
        """The socket's file."""
        return f"{self.socket_dir}/.s.PGSQL.{self.port}"


class Path(ABC):
    """A way to the private PostgreSQL. A context manager: leaving it ends its processes.

    What not every far end can do raises NotImplementedError where it cannot.

    Args:
        pg: the server.
        keepalive: seconds between two pings, on the pooler's side.

    Attributes:
        pg: the server.
        proxy: between the pooler and the far end.
        spare: how many connections the pooler has at rest that carry no stream.
    """

    kind: ClassVar[str]
    spare: ClassVar[int] = 0

    def __init__(self, pg: PrivatePostgres, keepalive: float = 45.0) -> None:
        self.pg = pg
        self._keepalive = keepalive
        self.directory = FilePath(tempfile.mkdtemp(prefix="hpt-path-"))
        self.directory.chmod(0o755)
        self._stack = contextlib.ExitStack()
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.proxy: FaultProxy

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as failed:
            failed.callback(self._stack.close)
            self._start()
            failed.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @abstractmethod
    def _start(self) -> None:
        """Start the far end, and the proxy in front of it."""

    @abstractmethod
    def _transport(self) -> list[dict[str, Any]]:
        """The steps that lead to it."""

    def config(self, **pooler: object) -> Config:
        """Settings of a pooler whose databases `app` and `drivers` are at the far end."""
        defaults = {"pool_mode": "transaction", "server_login_retry": "200ms", "default_pool_size": 5}
        config = config_for(self.pg, **(defaults | pooler))
        database = {"host": "db.private", "port": 5432, "sslmode": "disable", "transport": self._transport()}
        config["databases"] = {"app": database, "drivers": dict(database)}
        return config

    def connections(self) -> int:
        """How many connections the pooler has to the far end."""
        return sum(one.state == ESTABLISHED for one in tcp_sockets(remote_port=self.proxy.port))

    def open_files(self) -> int:
        """How many files the far end has open, if it is hyperpool's; else 0."""
        return 0

    def tasks(self) -> Counter[str]:
        """The tasks of the far end by name, if it is hyperpool's; else none."""
        return Counter()

    def put_far_end_down(self) -> None:
        """Kill the far end with all that it carries."""
        raise NotImplementedError

    def put_far_end_up(self) -> None:
        """Start it again."""
        raise NotImplementedError

    def replace_token(self, pooler: Pooler, token: Token) -> None:
        """Let another token in, and no more the one before."""
        raise NotImplementedError

    def certify(self, pooler: Pooler, expires: dt.datetime | None = None) -> None:
        """Give whoever listens in the open network another certificate, for the same name."""
        raise NotImplementedError

    @abstractmethod
    def log_text(self) -> str:
        """All that the far end has logged."""


class TcpPath(Path):
    """A plain forwarder."""

    kind = "tcp"

    def _start(self) -> None:
        self._port = free_port()
        self._log = self.directory / "forwarder.log"
        self._process: Process | None = None
        self._stack.callback(self.put_far_end_down)
        self.put_far_end_up()
        self.proxy = self._stack.enter_context(FaultProxy(self._port))

    def _transport(self) -> list[dict[str, Any]]:
        return [{"tcp": {"host": HOST, "port": self.proxy.port}}]

    def put_far_end_down(self) -> None:
        """Kill the forwarder."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_LIMIT)
            self._process = None

    def put_far_end_up(self) -> None:
        """Start it again."""
        words = ["--round-trip", "0", f"{HOST}:{self._port}", self.pg.socket_path]
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "benchmarks.delay", *words]
            self._process = launch.start(command, log, FilePath.cwd())
        eventually(
            lambda: _listens(self._port),
            what="the forwarder listens",
            within=_START_LIMIT,
            despite=(OSError,),
        )

    def log_text(self) -> str:
        """It logs nothing."""
        return self._log.read_text(errors="replace")


class _UnixWebsockify(Websockify):
    """Websockify that leads to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__(0)
        self._path = path

    def _command(self) -> list[str]:
        program = find_program("websockify")
        assert program is not None
        return [program, f"--unix-target={self._path}", f"{HOST}:{self.port}"]


class GatewayPath(Path):
    """nginx and websockify."""

    kind = "gateway"

    def _start(self) -> None:
        websockify = self._stack.enter_context(_UnixWebsockify(self.pg.socket_path))
        self._nginx = self._stack.enter_context(Nginx(websockify.port))
        self.proxy = self._stack.enter_context(FaultProxy(self._nginx.port))

    def _transport(self) -> list[dict[str, Any]]:
        steps = self._nginx.steps(keepalive=self._keepalive)
        steps[0]["tcp"]["port"] = self.proxy.port
        return steps

    def put_far_end_down(self) -> None:
        """Kill nginx."""
        self._nginx.stop()

    def put_far_end_up(self) -> None:
        """Start it again."""
        self._nginx.start()

    def replace_token(self, pooler: Pooler, token: Token) -> None:
        """Tell nginx; who is connected stays."""
        self._nginx.token = token
        self._nginx.reload()

    def certify(self, pooler: Pooler, expires: dt.datetime | None = None) -> None:
        """Tell nginx."""
        self._nginx.certify("localhost", expires=expires)
        self._nginx.reload()

    def log_text(self) -> str:
        """What nginx has logged."""
        return self._nginx.log_text()


class _TunnelPath(Path):
    """With ``hyperpool tunnel`` at the far end."""

    @abstractmethod
    def _settings(self) -> Mapping[str, object]:
        """Who connects to whom: the section that makes it a far end of its kind."""

    def _document(self) -> dict[str, Any]:
        """All settings of the far end."""
        target = {"app": {"host": str(self.pg.socket_dir), "port": self.pg.port}}
        return {"targets": target, **self._settings()}

    def _start(self) -> None:
        self._token = TOKEN
        self._port = free_port()
        self._files = issue(self.directory / "tls", "localhost")
        self.proxy = self._stack.enter_context(FaultProxy(self._port))
        self._far = self._stack.enter_context(FarEnd(self._document()))
        self._far.wait_for(_UP)

    def _gate(self, entry: str) -> dict[str, Any]:
        """The section of whoever listens."""
        return {
            "listen_addr": HOST,
            "listen_port": self._port,
            "tls_cert_file": str(self._files.cert),
            "tls_key_file": str(self._files.key),
            "keepalive": self._keepalive,
            "tokens": {entry: {"id": self._token.id, "secret": self._token.secret}},
        }

    def _steps(self) -> list[dict[str, Any]]:
        """The way to whoever listens."""
        return [
            {
                "websocket": {
                    "url": f"wss://localhost:{self.proxy.port}",
                    "ca_file": str(self._files.ca),
                    "token_id": TOKEN.id,
                    "token_secret": TOKEN.secret,
                    "keepalive": self._keepalive,
                }
            },
        ]

    def open_files(self) -> int:
        """How many files it has open."""
        return self._far.open_files()

    def tasks(self) -> Counter[str]:
        """Its tasks by name."""
        return tasks_of(self._far.process.pid)

    def put_far_end_down(self) -> None:
        """Kill it."""
        self._far.kill()

    def put_far_end_up(self) -> None:
        """Start it again."""
        before = self._far.log_text().count(_UP)
        self._far.start()
        self._far.wait_for(_UP, before + 1)

    def log_text(self) -> str:
        """All that it has logged."""
        return self._far.log_text()


class IngressPath(_TunnelPath):
    """hyperpool's ingress."""

    kind = "ingress"

    def _settings(self) -> Mapping[str, object]:
        return {"ingress": self._gate("pooler")}

    def _transport(self) -> list[dict[str, Any]]:
        return self._steps()

    def replace_token(self, pooler: Pooler, token: Token) -> None:
        """Tell the ingress; who came with another one is sent away."""
        self._token = token
        self._far.reload(self._document())

    def certify(self, pooler: Pooler, expires: dt.datetime | None = None) -> None:
        """Tell the ingress."""
        self._files = issue(self.directory / "tls", "localhost", expires=expires)
        self._far.reload(self._document())


class AgentPath(_TunnelPath):
    """hyperpool's agent."""

    kind = "agent"
    spare = 6

    def connections(self) -> int:
        """How many connections the agent has to the pooler."""
        return sum(one.state == ESTABLISHED for one in tcp_sockets(local_port=self._port))

    def _settings(self) -> Mapping[str, object]:
        return {"poolers": {"outside": {"transport": self._steps(), "ready": self.spare, "retry_max": 1}}}

    def _transport(self) -> list[dict[str, Any]]:
        return [{"agent": {"name": "site"}}]

    def _agents(self) -> dict[str, Any]:
        return {**self._gate("site"), "wait_timeout": 1}

    def config(self, **pooler: object) -> Config:
        """With the section where agents arrive."""
        config = super().config(**pooler)
        config["agents"] = self._agents()
        return config

    def replace_token(self, pooler: Pooler, token: Token) -> None:
        """Tell the pooler; who came with another one is sent away."""
        self._token = token
        _reload(pooler, {**pooler.config, "agents": self._agents()})

    def certify(self, pooler: Pooler, expires: dt.datetime | None = None) -> None:
        """Tell the pooler."""
        self._files = issue(self.directory / "tls", "localhost", expires=expires)
        _reload(pooler, pooler.config)


WAYS: Final[Mapping[str, type[Path]]] = {
    way.kind: way for way in (TcpPath, GatewayPath, IngressPath, AgentPath)
}
"""Every way by its name."""


def missing_program(kind: str) -> str | None:
    """A program that this machine lacks for a way, or None."""
    needed = ("nginx", "websockify") if kind == GatewayPath.kind else ()
    return next((name for name in needed if not find_program(name)), None)


def _reload(pooler: Pooler, config: Config) -> None:
    mark = pooler.log_size()
    pooler.reload(config)
    eventually(lambda: "reload" in pooler.log_text(mark), what="the pooler reloads")


def _listens(port: int) -> bool:
    with socket.create_connection((HOST, port), 1):
        return True
