"""A pooler as systemd runs it: with sockets that are open already, with secrets in a directory, and asked how it is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml

from tests.support import launch, targets
from tests.support.notified import NotifySocket
from tests.support.poolers import config_for
from tests.support.postgres import ANN
from tests.support.rawclient import RawClient
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only


class Unit:
    """What systemd does for a service.

    Attributes:
        directory: of the service at run time.
        notify: where it tells how it is.
        tcp: a socket for clients.
        unix: another one.
        main: the main process, as the service says.
    """

    def __init__(self, directory: Path, notify: NotifySocket, pg: PostgresCluster) -> None:
        self.directory = directory
        self.notify = notify
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(str(directory / ".s.PGSQL.6432"))
        self.unix.listen()
        self._config = directory / "pooler.yaml"
        self._log = directory / "log"
        self._settings: dict[str, Any] = config_for(pg, pool_mode="transaction", min_pool_size=1)
        self._settings["databases"]["app"] |= {"user": ANN.name, "password_file": "credential:ann"}
        self._settings["users"] = {ANN.name: {"password_file": "credential:ann"}}
        self.configure(listen_addr="203.0.113.1")  # of no use: it is nobody's
        (directory / "credentials").mkdir()
        (directory / "credentials" / "ann").write_text(ANN.password)
        self._process: subprocess.Popen[bytes]
        self.main = 0

    def configure(self, **pooler: object) -> None:
        """Write the settings file, with these under `pooler`."""
        self._settings["pooler"] |= pooler
        self._config.write_text(yaml.safe_dump(self._settings))

    def start(self, name: str = "hyperpool.socket") -> None:
        """Start the service, and wait until it is ready.

        Args:
            name: of its sockets.
        """
        fds = [self.tcp.fileno(), self.unix.fileno()]
        script = f'exec 3<&{fds[0]} 4<&{fds[1]}; LISTEN_PID=$$ exec "$@"'
        environment = {
            **targets.environment(),
            "LISTEN_FDS": "2",
            "LISTEN_FDNAMES": f"{name}:{name}",
            "FDSTORE": "16",
            "NOTIFY_SOCKET": self.notify.address,
            "WATCHDOG_USEC": "300000",
            "RUNTIME_DIRECTORY": str(self.directory),
            "CREDENTIALS_DIRECTORY": str(self.directory / "credentials"),
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", script, "bash", *targets.hyperpool_command("serve", str(self._config))],
                pass_fds=fds,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.main = self._process.pid
        self.wait_for("READY=1")

    def wait_for(self, *assignments: str) -> None:
        """Wait until something is told; shows the log if it is not."""
        try:
            self.notify.wait_for(*assignments)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._log.read_text()}") from None

    def answers(self) -> None:
        """Have a query answered over each socket."""
        for host, port in (self.tcp.getsockname(), (str(self.directory), 6432)):
            with psycopg.connect(
                host=host, port=port, user=ANN.name, password=ANN.password, dbname="app", connect_timeout=10
            ) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)

    def close(self) -> None:
        """End all."""
        for pid in {self._process.pid, self.main}:
            if self._process.poll() is None or pid != self._process.pid:
                os.kill(pid, signal.SIGQUIT)
        assert self._process.wait(10) == 0, self._log.read_text()
        self.tcp.close()
        self.unix.close()
        assert "Traceback" not in self._log.read_text()


@pytest.fixture
def service(pg: PostgresCluster, request: pytest.FixtureRequest) -> Iterator[Unit]:
    """A service that is up, of as many workers as the parameter says."""
    with tempfile.TemporaryDirectory(prefix="hpt-") as path, NotifySocket(Path(path)) as notify:
        found = Unit(Path(path), notify, pg)
        found.configure(workers=getattr(request, "param", 1))
        found.start()
        try:
            yield found
        finally:
            found.close()


def test_a_service(service: Unit) -> None:
    """It serves on the sockets that it was given and on no other, is ready with warm pools, and tells how it is."""
    assert service.notify.has("STATUS=Filling pools: app/ann")
    service.answers()
    service.wait_for("WATCHDOG=1")
    service.wait_for("STATUS=Serving: 0 clients, 1 server")
    os.kill(service.main, signal.SIGHUP)
    service.wait_for("RELOADING=1", "MONOTONIC_USEC=")
    eventually(lambda: service.notify.read().count(["READY=1"]) == 2, what="the reload is over")
    assert not service.notify.has("FDSTORE=1")


@pytest.mark.parametrize("service", [1, 2], indirect=True, ids=["one process", "two workers"])
def test_a_restart_of_a_service(service: Unit) -> None:
    """The new process is the service, with the same sockets and secrets, before it says a word of its own."""
    control = str(service.directory / "control")
    with ThreadPoolExecutor(1) as threads:
        # Meanwhile, somebody has to read what is told.
        done = threads.submit(launch.run, "restart", "--socket", control, "--timeout", "60")
        service.wait_for("BARRIER=1")
        assert done.result().returncode == 0, done.result().stderr
    told = service.notify.read()
    (main,) = [message for message in told if message[0].startswith("MAINPID=")]
    service.main = int(main[0].removeprefix("MAINPID="))
    eventually(lambda: service._process.poll() == 0, what="the old one has ended")
    eventually(lambda: ["READY=1"] in service.notify.read()[told.index(main) :], what="the new one is ready")
    service.answers()
    before = len(service.notify.read())
    eventually(lambda: ["WATCHDOG=1"] in service.notify.read()[before:], what="it lives")
    assert ["READY=1"] in told[: told.index(main)]
    assert ["READY=1"] not in told[told.index(main) : told.index(["BARRIER=1"])]


def test_sockets_that_systemd_keeps(pg: PostgresCluster) -> None:
    """They are the pooler's own: the next process goes on with them, and serves who has connected in between."""
    with tempfile.TemporaryDirectory(prefix="hpt-") as path, NotifySocket(Path(path)) as notify:
        service = Unit(Path(path), notify, pg)
        port = service.tcp.getsockname()[1]
        service.unix.close()
        service.unix = socket.socket(socket.AF_UNIX)
        service.unix.bind(f"{path}/.s.PGSQL.{port}")
        service.configure(listen_addr="127.0.0.1", listen_port=port, unix_socket_dir=path)
        with RawClient(service.tcp.getsockname()) as early:
            service.start("stored-clients")
            assert early.login("app", ANN.name, ANN.password)[-1].kind == b"Z"
        # What it asks to have kept leads to the same sockets, and its end leaves the file alone.
        eventually(lambda: len(notify.read()) and len(notify.fds) == 2, what="both are kept")
        kept = {os.fstat(fd).st_ino for fd in notify.fds}
        assert kept == {os.fstat(sock.fileno()).st_ino for sock in (service.tcp, service.unix)}
        service.close()
        assert (service.directory / f".s.PGSQL.{port}").exists()


def test_a_service_of_several_workers(pg: PostgresCluster) -> None:
    """The supervisor is the service: it tells how all of them are, and has its own sockets kept."""
    with tempfile.TemporaryDirectory(prefix="hpt-") as path, NotifySocket(Path(path)) as notify:
        service = Unit(Path(path), notify, pg)
        service.configure(workers=2)
        service.start()
        try:
            for _ in range(4):
                service.answers()
            service.wait_for("WATCHDOG=1")
            service.wait_for("STATUS=Serving: 0 clients, 2 workers")
            os.kill(service.main, signal.SIGHUP)
            service.wait_for("RELOADING=1", "MONOTONIC_USEC=")
            eventually(lambda: notify.read().count(["READY=1"]) == 2, what="the reload is over")
            assert not notify.has("FDSTORE=1")
        finally:
            service.close()
        service.wait_for("STOPPING=1")
