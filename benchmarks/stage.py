"""What a run takes place on: one PostgreSQL for all, and the poolers that are started in front of it."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from benchmarks import postgres
from benchmarks.client import Client, Endpoint
from benchmarks.postgres import SCRAM_PASSWORD, SCRAM_USER
from benchmarks.processes import BenchError, Child, Workspace
from benchmarks.webclient import WebSocketClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.postgres import Tools
    from benchmarks.targets import Target

POOL_SIZE: Final = 20
MAX_CLIENTS: Final = 12_000
TRUST: Final = "trust"
SCRAM: Final = "scram-sha-256"

_PATIENCE: Final = 60.0
_SLOWLY: Final = 300.0
"""Seconds that a target has to start, and those for one that runs under a profiler."""

_TABLES: Final = Path(__file__).resolve().parent / "load" / "tables"


@frozen
class Variant:
    """How a target is set up, beside what it is.

    Attributes:
        auth: how clients log in, `TRUST` or `SCRAM`.
        pool_size: server connections that a pooler may have.
        round_trip: seconds that are added between PostgreSQL and who talks to it.
    """

    auth: str = TRUST
    pool_size: int = POOL_SIZE
    round_trip: float = 0.0

    def endpoint(self, port: int) -> Endpoint:
        """Where and as whom to log in."""
        return Endpoint(port, SCRAM_USER, SCRAM_PASSWORD) if self.auth == SCRAM else Endpoint(port)


@define(eq=False)
class Server:
    """A target that runs: PostgreSQL itself or a pooler in front of it.

    Attributes:
        child: its process.
        endpoint: where and as whom to log in.
        is_pooler: whether its CPU time and memory are a pooler's.
        is_caching: whether it is hyperpool with its result cache.
        is_gateway: whether clients have to speak WebSocket.
        started: all processes that were started for it, in that order.
    """

    child: Child
    endpoint: Endpoint
    is_pooler: bool = True
    is_caching: bool = False
    is_gateway: bool = False
    started: list[Child] = field(factory=list)

    def client(self) -> Client:
        """A client, logged in.

        Raises:
            BenchError: it is refused.
            OSError: no connection.
        """
        return WebSocketClient(self.endpoint) if self.is_gateway else Client(self.endpoint)

    def wait_until_up(self, timeout: float = _PATIENCE) -> None:
        """Wait until a client can log in (where it needs a password: until a connection is accepted).

        Raises:
            BenchError: the process ended, or nobody gets in within `timeout` seconds; with its log.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._knock()
            except (OSError, BenchError) as error:
                # PostgreSQL refuses logins while it starts up, and pgpool breaks some.
                if not self.child.alive or time.monotonic() > deadline:
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
            self.client().close()


@define(eq=False)
class Stage:
    """Starts the targets.

    Attributes:
        workspace: where they live.
        tools: PostgreSQL's programs.
        pgbouncer: how to start pgbouncer, None if there is none.
        overrides: pooler settings of hyperpool to add, by name.
        wrapper: what a pooler's command is appended to, such as a profiler.
        postgres: the server that all of them stand in front of.
        auth_file: the users, in pgbouncer's format.
        rates: the transactions per second that are possible at most, by query mode, as far as known.
    """

    workspace: Workspace
    tools: Tools
    pgbouncer: list[str] | None = None
    overrides: Mapping[str, str] = field(factory=dict)
    wrapper: tuple[str, ...] = ()
    postgres: Server = field(init=False)
    auth_file: Path = field(init=False)
    rates: dict[str, float] = field(factory=dict, init=False)
    _made: set[str] = field(factory=set, init=False)

    def start_postgres(self) -> None:
        """Start PostgreSQL and fill the tables of pgbench.

        Raises:
            BenchError: that fails.
        """
        child, port = postgres.launch(self.workspace, self.tools)
        Server(child, Endpoint(port, database="postgres"), is_pooler=False).wait_until_up()
        self.postgres = Server(child, Endpoint(port), is_pooler=False)
        self.auth_file = postgres.fill(self.workspace, self.tools, self.postgres.endpoint)

    def make_tables(self, name: str) -> None:
        """Run a script of ``load/tables``, the first time that it is wanted.

        Raises:
            BenchError: it fails.
            OSError: PostgreSQL is gone.
        """
        if name not in self._made:
            with Client(self.postgres.endpoint, patience=300.0) as client:
                client.execute((_TABLES / f"{name}.sql").read_text())
                client.execute("vacuum analyze")
                client.execute("checkpoint")
            self._made.add(name)

    def start(self, target: Target, variant: Variant) -> Server:
        """Start a target and wait until it lets clients in.

        Raises:
            BenchError: it does not start; with its log.
        """
        before = len(self.workspace.children)
        try:
            server = target.start(self, variant)
            if server.is_pooler:
                server.wait_until_up(_SLOWLY if self.wrapper else _PATIENCE)
        except BaseException:
            for child in reversed(self.workspace.children[before:]):
                self.workspace.stop(child)
            raise
        server.started = self.workspace.children[before:]
        return server

    @contextlib.contextmanager
    def running(self, target: Target, variant: Variant) -> Iterator[Server]:
        """A target for as long as the block runs.

        Raises:
            BenchError: as `start`.
        """
        server = self.start(target, variant)
        try:
            yield server
        finally:
            self.stop(server)

    def stop(self, server: Server) -> None:
        """End all that was started for a target."""
        for child in reversed(server.started):
            self.workspace.stop(child)
        server.started = []
