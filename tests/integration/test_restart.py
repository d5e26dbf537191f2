"""One process steps into the place of another, and no client notices."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import launch, targets
from tests.support import rawclient as raw
from tests.support.network import free_port
from tests.support.poolers import config_for
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_CLIENTS = 4
_SECONDS = 3
"""How long they work: a busy machine has them do less, and takes no longer."""


class Line:
    """Poolers that follow one another.

    Attributes:
        directory: for their sockets and their pid file.
        workers: how many processes each of them is.
        first: the first one.
    """

    def __init__(self, directory: Path, workers: int) -> None:
        self.directory = directory
        self.workers = workers
        self.first: Pooler
        self._pids: list[int] = []

    def settings(self, **pooler: object) -> dict[str, object]:
        """Settings under `pooler` that let them find one another."""
        return {
            "pool_mode": "transaction",
            "workers": self.workers,
            "unix_socket_dir": str(self.directory),
            "pidfile": str(self.directory / "pid"),
            "control_socket": str(self.directory / "control"),
            **pooler,
        }

    @property
    def pid(self) -> int:
        """The process that the pid file names."""
        return int((self.directory / "pid").read_text())

    def command(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a command of hyperpool's that talks to the one that serves."""
        return launch.run(name, "--socket", str(self.directory / "control"), "--timeout", "60")

    def restart(self) -> int:
        """Have the process replaced, and return the number of the new one."""
        before = self.pid
        done = self.command("restart")
        assert done.returncode == 0, done.stderr + self.first.log_text()
        assert self.pid != before
        self._pids.append(self.pid)
        return self.pid

    def end(self) -> None:
        """End those that were started by others."""
        with contextlib.suppress(OSError, ValueError):
            if self.pid != self.first.pid:
                self._pids.append(self.pid)
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)
        eventually(lambda: not any(map(is_there, self._pids)), what="all have ended")


def is_there(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def line(make_pooler: PoolerFactory, request: pytest.FixtureRequest) -> Iterator[Line]:
    """A place for poolers."""
    with tempfile.TemporaryDirectory(prefix="hpt-") as path:
        directory = Path(path)
        directory.chmod(0o777)
        found = Line(directory, request.param)
        try:
            yield found
        finally:
            found.end()


@pytest.mark.parametrize("connecting", [False, True], ids=["clients that stay", "clients that come and go"])
def test_no_transaction_fails_under_load(
    line: Line, make_pooler: PoolerFactory, pg: PostgresCluster, pgbench: str, connecting: bool
) -> None:
    """With clients that keep their connections, and with those that connect for each transaction."""
    line.first = make_pooler(config_for(pg, **line.settings(min_pool_size=2)))
    options = ["-C"] if connecting else ["-M", "prepared"]
    script = line.directory / "script.sql"
    script.write_text("BEGIN;\nSELECT 1;\nSELECT 2;\nCOMMIT;\n")
    load = subprocess.Popen(
        [pgbench, "-n", "-f", script, "-c", str(_CLIENTS), "-T", str(_SECONDS), *options, line.first.url()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: "client logged in" in line.first.log_text(), what="it has begun")
    restarts = 0
    while restarts < 2 and load.poll() is None:
        line.restart()
        restarts += 1
    out, err = load.communicate(timeout=50)
    assert load.returncode == 0, err + line.first.log_text()
    processed = re.search(r"actually processed: (\d+)", out)
    assert processed is not None
    assert int(processed[1]) > _CLIENTS
    failed = re.search(r"failed transactions: (\d+)", out)
    assert failed is None or failed[1] == "0"
    assert not re.search("error|FATAL", err), err
    assert restarts
    assert line.first.wait_exit() == 0
    with line.first.connect() as connection:
        assert connection.execute("SELECT 'after'").fetchone() == ("after",)


def test_who_stays_and_who_comes(line: Line, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Clients in the middle of something stay with the old process; over TCP and Unix sockets, new ones get the new."""
    line.first = pooler = make_pooler(config_for(pg, **line.settings()))
    with pooler.raw() as busy, pooler.raw() as idle:
        busy.ask("BEGIN")
        early = pooler.open_raw()
        new = line.restart()
        assert raw.kinds(busy.ask("SELECT 1")) == b"TDCZ"
        assert raw.kinds(busy.ask("COMMIT")) == b"CZ"
        assert idle.value("SELECT 'still here'") == "still here"
        # It had connected before, and logs in now.
        assert early.login("app", "ann", "ann's secret")[-1].kind == b"Z"
        assert early.value("SELECT 'in time'") == "in time"
        early.close()
        for host in ("127.0.0.1", str(line.directory)):
            with pooler.connect(host=host) as late:
                assert late.execute("SELECT 1").fetchone() == (1,)
        assert pooler.process.poll() is None
    assert pooler.wait_exit() == 0
    assert is_there(new)
    assert (line.directory / f".s.PGSQL.{pooler.port}").exists()
    assert (line.directory / "control").exists()


def test_the_old_process_ends_in_time(line: Line, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Its clients are closed as for any other end: one after the other when they are idle, all of them at last."""
    line.first = pooler = make_pooler(config_for(pg, **line.settings(drain_rate=100, drain_timeout=2)))
    with pooler.raw() as busy, pooler.raw() as idle:
        busy.ask("BEGIN")
        idle.value("SELECT 1")
        line.restart()
        assert [frame.fields["C"] for frame in idle.receive_all()] == ["57P01"]
        assert raw.kinds(busy.ask("SELECT 1")) == b"TDCZ"
        assert [frame.fields["C"] for frame in busy.receive_all()] == ["57P01"]
    assert pooler.wait_exit() == 0
    with pooler.connect() as late:
        assert late.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("line", [2], indirect=True, ids=["two workers"])
def test_signals_to_the_old_process(line: Line, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """It obeys them as one process does that drains, and the new one notices nothing."""
    line.first = pooler = make_pooler(config_for(pg, **line.settings()))
    with pooler.raw() as client:
        client.value("SELECT 1")
        line.restart()
        mark = pooler.log_size()
        for number, told in ((signal.SIGHUP, "reloaded"), (signal.SIGUSR2, "signal ignored")):
            pooler.process.send_signal(number)
            eventually(lambda told=told: told in pooler.log_text(mark), what=told)  # type: ignore[misc]
        client.ask("BEGIN")
        pooler.process.send_signal(signal.SIGINT)
        eventually(lambda: "waiting for servers" in pooler.log_text(mark), what="it waits for servers")
        assert raw.kinds(client.ask("COMMIT")) == b"CZ"
        assert [frame.fields["C"] for frame in client.receive_all()] == ["57P01"]
    assert pooler.wait_exit() == 0
    with pooler.connect() as late:
        assert late.execute("SELECT 1").fetchone() == (1,)


def test_cancel_requests_find_their_client(
    line: Line, make_pooler: PoolerFactory, pg: PostgresCluster
) -> None:
    """Also over two processes: they come to the newest one, and their client is with the oldest."""
    line.first = pooler = make_pooler(config_for(pg, **line.settings()))
    with pooler.connect() as client:
        line.restart()
        line.restart()
        statement = "SELECT pg_sleep(30) /* to be canceled */"
        with pg.when_asleep(statement, client.cancel), pytest.raises(psycopg.errors.QueryCanceled):
            client.execute(statement)
        assert client.execute("SELECT 1").fetchone() == (1,)


def _is_kept(pooler: Pooler, pg: PostgresCluster) -> bool:
    """Whether a client gets an answer that is no longer true."""
    with pooler.raw() as client:
        before = client.value("SELECT name FROM restarted WHERE id = 2")
        pg.sql("UPDATE restarted SET name = name || '!' WHERE id = 2", dbname="app")
        return client.value("SELECT name FROM restarted WHERE id = 2") == before


def test_nothing_is_answered_from_memory_while_two_processes_serve(
    line: Line, make_pooler: PoolerFactory, pg: PostgresCluster
) -> None:
    """Neither knows what clients of the other one write."""
    config = config_for(pg, **line.settings())
    config["databases"]["app"]["cache"] = {}
    sql = "SELECT name FROM restarted WHERE id = 1"
    pg.sql("CREATE TABLE restarted (id int, name text); GRANT ALL ON restarted TO PUBLIC", dbname="app")
    pg.sql("INSERT INTO restarted VALUES (1, 'one'), (2, 'two')", dbname="app")
    try:
        line.first = pooler = make_pooler(config)
        eventually(lambda: _is_kept(pooler, pg), what="answers are kept")
        with pooler.raw() as old:
            assert [old.value(sql) for _ in range(2)] == ["one", "one"]
            line.restart()
            with pooler.raw() as new:
                for name, (writer, reader) in {"two": (old, new), "three": (new, old)}.items():
                    reader.value(sql)
                    writer.ask(f"UPDATE restarted SET name = '{name}' WHERE id = 1")
                    assert reader.value(sql) == name
                assert not _is_kept(pooler, pg)
        assert pooler.wait_exit() == 0
        eventually(lambda: _is_kept(pooler, pg), what="answers are kept by the new one")
    finally:
        pg.sql("DROP TABLE restarted", dbname="app")


@pytest.mark.parametrize("line", [1], indirect=True, ids=["one process"])
def test_another_number_of_workers(line: Line, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """More than before, fewer, and one process again: nobody who has connected already is cut off."""
    config = config_for(pg, **line.settings())
    line.first = pooler = make_pooler(config)
    for workers in (3, 2, 1, 2):
        early = [pooler.open_raw() for _ in range(8)]
        config["pooler"]["workers"] = workers
        pooler.write(config)
        line.restart()
        for client in early:
            assert client.login("app", "ann", "ann's secret")[-1].kind == b"Z"
            assert client.value("SELECT 1") == "1"
            client.close()
        for host in ("127.0.0.1", str(line.directory)):
            with pooler.connect(host=host) as late:
                assert late.execute("SELECT 1").fetchone() == (1,)
    assert pooler.wait_exit() == 0


def test_a_new_process_that_cannot_start(line: Line, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """The old one goes on, keeps its files, and can be restarted when the settings are right again."""
    config = config_for(pg, **line.settings())
    line.first = pooler = make_pooler(config)
    pid = line.pid
    right = dict(config["pooler"])
    for wrong in ({"pool_mode": "none"}, {"client_tls_sslmode": "require", "client_tls_cert_file": "/none"}):
        config["pooler"] = {**right, **wrong}
        pooler.write(config)
        done = line.command("restart")
        assert done.returncode == 1
        assert "cannot restart: the process that was to follow has ended" in done.stderr
        assert pooler.process.poll() is None
        assert line.pid == pid
        for host in ("127.0.0.1", str(line.directory)):
            with pooler.connect(host=host) as client:
                assert client.execute("SELECT 1").fetchone() == (1,)
    config["pooler"] = {**right, "default_pool_size": 3}
    pooler.write(config)
    line.restart()
    assert pooler.wait_exit() == 0


@pytest.mark.parametrize("line", [1], indirect=True, ids=["one process"])
def test_drain_waits_for_the_end(line: Line, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """As a hook before the stop needs it; idle clients are closed at the rate that is set, and the signal is late."""
    line.first = pooler = make_pooler(config_for(pg, **line.settings(drain_rate=100)))
    with pooler.raw() as client:
        client.value("SELECT 1")
        began = time.monotonic()
        done = line.command("drain")
        assert done.returncode == 0, done.stderr
        assert time.monotonic() - began >= 1.0
        assert pooler.wait_exit() == 0
        (farewell,) = client.receive_all()
        assert (farewell.kind, farewell.fields["C"]) == (b"E", "57P01")
    assert line.command("drain").returncode == 1


def test_a_running_process_is_taken_over(
    line: Line, make_pooler: PoolerFactory, pg: PostgresCluster, tmp_path: Path
) -> None:
    """By one that was started by hand (`serve --take-over`); without anybody there, it just starts."""
    config = config_for(pg, **line.settings())
    line.first = make_pooler(config)
    log = (tmp_path / "log").open("wb")
    with log:
        path = line.first._config_path
        new = launch.start([*targets.hyperpool_command("serve", "--take-over", str(path))], log, tmp_path)
    assert line.first.wait_exit() == 0
    eventually(lambda: line.pid == new.pid, what="the new one has the pid file")
    with line.first.connect() as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    new.send_signal(signal.SIGINT)
    assert new.wait(10) == 0
    assert list(line.directory.iterdir()) == []


@pytest.mark.parametrize("line", [1], indirect=True, ids=["one process"])
def test_what_cannot_change_hands(line: Line, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Agents would stay with the old process: it says so, and goes on."""
    config = config_for(pg, **line.settings())
    token = {"id": "a", "secret": "x" * 32}
    config["agents"] = {"listen_addr": "127.0.0.1", "listen_port": free_port(), "tokens": {"a": token}}
    line.first = pooler = make_pooler(config)
    done = line.command("restart")
    assert done.returncode == 1
    assert "cannot restart: agents would stay with this process" in done.stderr
    assert pooler.process.poll() is None
    with pooler.connect() as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
