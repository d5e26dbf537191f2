"""A pooler at one end of a path, a private PostgreSQL at the other, and what is said and heard in between.

A test module takes the fixtures by name: ``private_pg, make_scene = scenes.private_pg, scenes.make_scene``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import psycopg
import pytest

from tests.support import rawclient as raw
from tests.support.counted import tasks_of
from tests.support.network import CLOSE_WAIT, ESTABLISHED, tcp_sockets
from tests.support.paths import SECRETS, WAYS, PrivatePostgres, missing_program
from tests.support.poolers import Pooler
from tests.support.postgres import ANN, find_binaries
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from tests.support.paths import Path
    from tests.support.targets import Config

_STRANGER: Final = "nobody"
_SOON: Final = 10.0  # seconds
_numbers = itertools.count()


@attrs.frozen
class Rest:
    """What two processes have: the pooler, and the far end if that is hyperpool's.

    Attributes:
        files: how many are open in each of them.
        tasks: of Trio, by name.
    """

    files: tuple[int, int]
    tasks: tuple[Counter[str], Counter[str]]


class Asking(threading.Thread):
    """A client that runs a statement that sleeps, and what became of it.

    Args:
        scene: where.

    Attributes:
        fields: of the error that it was told.
    """

    def __init__(self, scene: Scene) -> None:
        super().__init__(daemon=True)
        self._scene = scene
        self._statement = f"SELECT pg_sleep(60) /* {next(_numbers)} */"
        self.fields: dict[str, str] = {}

    def run(self) -> None:
        """Ask, and keep the error."""
        with self._scene.pooler.raw() as client:
            client.send(raw.query(self._statement))
            self.fields = next((one.fields for one in client.receive_all() if one.kind == b"E"), {})
            self._scene.heard.append(str(self.fields))

    def wait_running(self) -> None:
        """Wait until the statement runs on the server."""
        eventually(lambda: self._scene.pg.waiting("PgSleep", self._statement), what="the statement runs")

    def end_on_server(self) -> None:
        """End what sleeps on: PostgreSQL does not look whether somebody is still there while a query runs."""
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = %s"
        assert self._scene.pg.sql(ended, self._statement)


class Scene:
    """A pooler at the near end of a path, and all that is said and heard there.

    Args:
        path: the path.
        pooler: with the path's settings.

    Attributes:
        path: as given.
        pg: the private server.
        pooler: as given.
        heard: the errors that clients were told.
    """

    def __init__(self, path: Path, pooler: Pooler) -> None:
        self.path = path
        self.pg = path.pg
        self.pooler = pooler
        self.heard: list[str] = []

    def ask(self, database: str = "app") -> int:
        """Be a new client, and ask for the backend's process id."""
        with self.pooler.connect(database) as connection:
            row = connection.execute("SELECT pg_backend_pid()").fetchone()
            assert row is not None
            return int(row[0])

    def wait_served(self, within: float = 20.0) -> int:
        """Wait until a new client is served; return the backend's process id."""
        return eventually(
            self.ask, within=within, what="a client is served", despite=(psycopg.OperationalError,)
        )

    def wait_refused(self, within: float = 20.0) -> dict[str, str]:
        """Be one new client after the other, until one is refused; return the fields of the error."""
        return eventually(self._refusal, within=within, what="a client is refused")

    def _refusal(self) -> dict[str, str]:
        with self.pooler.open_raw() as client:
            last = client.login("app", ANN.name, ANN.password)[-1]
            if last.kind == b"Z":
                client.send(raw.query("SELECT 1"))
                while last.kind not in {b"E", b"C"}:
                    last = client.receive()
            if last.kind != b"E":
                return {}
            self.heard.append(str(last.fields))
            return last.fields

    def broken(self, connection: psycopg.Connection[Any], statement: str = "SELECT 1") -> psycopg.Error:
        """Run a statement that must fail because the server is lost; return the error."""
        with pytest.raises(psycopg.OperationalError) as caught:
            connection.execute(statement.encode())
        self.heard.append(str(caught.value))
        return caught.value

    @contextlib.contextmanager
    def asking(self) -> Iterator[Asking]:
        """A client that waits for a statement that sleeps; at the end of the block, it must hear that it failed."""
        asking = Asking(self)
        asking.start()
        asking.wait_running()
        yield asking
        asking.join(_SOON)
        assert not asking.is_alive(), "the client still waits"
        asking.end_on_server()

    def at_rest(self) -> Rest:
        """What the pooler and the far end have, once no client is there and the path has one stream."""
        clients = {ESTABLISHED, CLOSE_WAIT}

        def quiet() -> bool:
            mine = tcp_sockets(local_port=self.pooler.port)
            return (
                not any(one.state in clients for one in mine)
                and self.path.connections() == self.path.spare + 1
            )

        eventually(quiet, what="no client is there, and there is one server connection")
        files = self.pooler.open_files(), self.path.open_files()
        return Rest(files, (tasks_of(self.pooler.pid), self.path.tasks()))

    def wait_rest(self, expected: Rest) -> None:
        """Wait until all is as `at_rest` found it before: no file and no task has leaked."""

        def as_before() -> bool:
            found = self.at_rest()
            if found != expected:
                raise AssertionError(f"found {found}")
            return True

        eventually(as_before, what=f"there is again {expected}", despite=(AssertionError,))

    def end_servers(self) -> None:
        """End all backends of the pooler's, and wait until it has noticed."""
        self.pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", ANN.name)
        eventually(
            lambda: self.path.connections() <= self.path.spare, what="the pooler has closed its connections"
        )

    def logged(self, text: str, since: int = 0) -> None:
        """Wait until the pooler has logged something."""
        eventually(lambda: text in self.pooler.log_text(since), what=f"{text!r} is in the pooler's log")

    def no_secrets(self) -> None:
        """Check that no password and no token is in a log or in what clients were told."""
        told = {
            "the pooler's log": self.pooler.log_text(),
            "the far end's log": self.path.log_text(),
            "the server's log": self.pg.log_text(),
            "clients' errors": "\n".join(self.heard),
        }
        for place, text in told.items():
            assert not [secret for secret in SECRETS if secret in text], f"a secret in {place}"


class SceneFactory(Protocol):
    """Makes scenes that end with the test."""

    def __call__(self, kind: str, *, keepalive: float = 45.0, **pooler: object) -> Scene:
        """Start a far end of a kind, and a pooler with these settings."""


@pytest.fixture(scope="session")
def private_pg() -> Iterator[PrivatePostgres]:
    """A server that only far ends can reach."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL on this machine")
    server = PrivatePostgres(binaries)
    try:
        server.create()
        yield server
    finally:
        server.destroy()


@pytest.fixture
def make_scene(private_pg: PrivatePostgres) -> Iterator[SceneFactory]:
    """A factory of scenes. In the end, everything ends in good order, and no secret was said anywhere."""
    if not private_pg.running:
        private_pg.start()
    with contextlib.ExitStack() as stack:

        def make(kind: str, *, keepalive: float = 45.0, **pooler: object) -> Scene:
            if (program := missing_program(kind)) is not None:
                pytest.skip(f"no {program} on this machine")
            path = stack.enter_context(WAYS[kind](private_pg, keepalive))
            scene = Scene(path, stack.enter_context(started(path.config(**pooler))))
            stack.callback(scene.no_secrets)
            return scene

        yield make
    eventually(lambda: not private_pg.backends(), what="no server connection is left behind")


@contextlib.contextmanager
def started(config: Config) -> Iterator[Pooler]:
    """A pooler that runs as a user who cannot reach the private server; it must end cleanly.

    What it has logged is printed, for tests that fail.
    """
    pooler = Pooler(config, user=_STRANGER if os.geteuid() == 0 else None)
    try:
        pooler.wait_listening()
        yield pooler
        pooler.stop()
    finally:
        sys.stdout.write(pooler.log_text())
        pooler.destroy()
