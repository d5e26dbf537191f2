"""Replication through the pooler: each such client has a server connection of its own, as if there were no pooler."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.support import rawclient as raw
from tests.support.poolers import config_for
from tests.support.postgres import ANN, RITA, PostgresCluster, find_binaries
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.targets import Config

pytestmark = pytest.mark.hyperpool_only  # pgbouncer replicates since 1.23

_ENVIRONMENT: Final = {**os.environ, "PGPASSWORD": RITA.password, "PGCONNECT_TIMEOUT": "15", "LC_ALL": "C"}
_STATUS_INTERVAL: Final = "--status-interval=1"


def _config(pg: PostgresCluster, **pooler: object) -> Config:
    config = config_for(pg, **{"pool_mode": "transaction", "default_pool_size": 3, **pooler})
    config["users"][RITA.name] = {"password": RITA.password}
    # Tools that replicate all of a server ask for a database of this name, which PostgreSQL ignores.
    config["databases"]["replication"] = {"host": pg.host, "port": pg.port}
    return config


@pytest.fixture
def pooler(make_pooler: PoolerFactory, pg: PostgresCluster) -> Pooler:
    """A pooler in transaction mode whose databases are `app` and `replication`."""
    return make_pooler(_config(pg))


@pytest.fixture(autouse=True)
def _clean(pg: PostgresCluster) -> Iterator[None]:
    """Leave no replication slot behind, and no walsender."""
    yield
    eventually(lambda: not _senders(pg), what="no walsender is left")
    pg.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


def _senders(pg: PostgresCluster) -> list[int]:
    rows = pg.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender' ORDER BY backend_start")
    return [row[0] for row in rows]


def _tool(name: str) -> str:
    """The path of a program that belongs to the server's version."""
    binaries = find_binaries()
    if binaries is None or not (binaries / name).exists():
        pytest.skip(f"this PostgreSQL comes without {name}")
    return str(binaries / name)


def _command(name: str, pooler: Pooler, *arguments: str) -> list[str]:
    return [_tool(name), "-h", pooler.host, "-p", str(pooler.port), "-U", RITA.name, *arguments]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=50, env=_ENVIRONMENT, check=False)


@contextlib.contextmanager
def _running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A tool that streams until it is interrupted; it is killed if it has not ended."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_ENVIRONMENT, **options
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def _position(pg: PostgresCluster) -> str:
    return str(pg.sql("SELECT pg_current_wal_lsn()")[0][0])


# -- what a client is given ------------------------------------------------------------------------------------------


def test_a_logical_connection(pooler: Pooler, pg: PostgresCluster) -> None:
    """It is a walsender in that database, understands replication commands and SQL, and ends with its client."""
    with pooler.raw("app", RITA, replication="database") as client:
        (system,) = [got for got in client.ask("IDENTIFY_SYSTEM") if got.kind == b"D"]
        assert system.columns[3] == b"app"
        assert client.value("SELECT 40 + 2") == "42"
        (sender,) = _senders(pg)
        assert client.value("SELECT pg_backend_pid()") == str(sender)
    eventually(lambda: not _senders(pg), what="the walsender is gone")


@pytest.mark.parametrize("value", ["true", "on", "yes", "1"])
def test_a_physical_connection(pooler: Pooler, pg: PostgresCluster, value: str) -> None:
    """It belongs to no database and runs no SQL; the pooler adds none of its own."""
    with pooler.raw("app", RITA, replication=value, application_name="physical") as client:
        (system,) = [got for got in client.ask("IDENTIFY_SYSTEM") if got.kind == b"D"]
        assert system.columns[3] is None
        assert client.value("SHOW application_name") == "physical"
        assert next(got.fields["C"] for got in client.ask("SELECT 1") if got.kind == b"E") == "0A000"
        assert pg.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'physical'") == [(1,)]


@pytest.mark.parametrize("value", ["false", "off", "no", "0"])
def test_an_ordinary_connection(pooler: Pooler, pg: PostgresCluster, value: str) -> None:
    """It shares the servers of its pool."""
    with pooler.raw("app", RITA) as one, pooler.raw("app", RITA, replication=value) as two:
        query = "SELECT pg_backend_pid()"
        eventually(lambda: one.value(query) == two.value(query), what="both have had the same server")
        assert not _senders(pg)


def test_startup_parameters_go_to_the_server(pooler: Pooler) -> None:
    """As they are, also those that no ordinary client could have; and the client is told what became of them."""
    parameters = {
        "application_name": "my subscription",
        "client_encoding": "latin1",
        "DateStyle": "German",
        "timezone": "Asia/Tokyo",
        "options": "-c extra_float_digits=3 -c intervalstyle=iso_8601 -c work_mem=5MB",
        "statement_timeout": "77s",
    }
    with pooler.raw("app", RITA, replication="database", **parameters) as client:
        assert client.parameters["application_name"] == "my subscription"
        assert client.parameters["client_encoding"] == "LATIN1"
        assert client.parameters["DateStyle"] == "German, DMY"
        assert client.parameters["TimeZone"] == "Asia/Tokyo"
        assert client.parameters["IntervalStyle"] == "iso_8601"
        for name, value in (("work_mem", "5MB"), ("extra_float_digits", "3"), ("statement_timeout", "77s")):
            assert client.value(f"SHOW {name}") == value


def test_everybody_has_a_server_of_its_own(pooler: Pooler, pg: PostgresCluster) -> None:
    """Beside each other, and beside ordinary clients, whose servers stay as they are."""
    with (
        pooler.raw("app", RITA) as ordinary,
        pooler.raw("app", RITA, replication="database") as one,
        pooler.raw("app", RITA, replication="database") as two,
    ):
        pids = [client.value("SELECT pg_backend_pid()") for client in (ordinary, one, two)]
        assert len(set(pids)) == 3
        assert ordinary.value("SELECT pg_backend_pid()") == pids[0]
        one.ask("SET work_mem = '7MB'")
        two.close()
        assert one.value("SHOW work_mem") == "7MB"
        with pooler.raw("app", RITA, replication="database") as three:
            assert three.value("SELECT pg_backend_pid()") not in pids
        assert ordinary.value("SELECT pg_backend_pid()") == pids[0]


def test_the_databases_entry(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """It is found by the name that the client asks for, as with pgbouncer; ``*`` serves every name."""
    config = _config(pg)
    del config["databases"]["replication"]
    refused = make_pooler(config).refused("replication", RITA, replication="true")
    assert (refused.fields["C"], refused.fields["M"]) == ("3D000", 'database "replication" does not exist')
    config = _config(pg)
    config["databases"] = {"*": {"host": pg.host, "port": pg.port}}
    with make_pooler(config).raw("replication", RITA, replication="true") as client:
        assert raw.kinds(client.ask("IDENTIFY_SYSTEM")) == b"TDCZ"


def test_the_servers_refusal(pooler: Pooler, pg: PostgresCluster) -> None:
    """A client that may not replicate reads what PostgreSQL says; others of its pool are not concerned."""
    with raw.RawClient((pg.host, pg.port)) as direct:
        expected = direct.login("app", ANN.name, ANN.password, replication="database")[-1]
    assert expected.kind == b"E"
    with pooler.raw() as ordinary:
        for _ in range(3):
            assert pooler.refused("app", ANN, replication="database").body == expected.body
        assert ordinary.value("SELECT 1") == "1"
    assert pooler.refused("app", RITA, replication="perhaps").fields["C"] == "22023"


def test_pool_size(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """It bounds replication clients, too; they are counted by themselves, and their places are free at once."""
    pooler = make_pooler(_config(pg, default_pool_size=1))
    with pooler.raw("app", RITA) as ordinary:
        assert ordinary.value("SELECT 1") == "1"
        for _ in range(3):
            with pooler.raw("app", RITA, replication="database") as client:
                assert client.value("SELECT 2") == "2"
                assert pooler.refused("app", RITA, replication="true").fields["C"] == "53300"
                client.close()
            eventually(lambda: not _senders(pg), what="the walsender is gone")
    with pooler.raw("app", RITA, replication="database"):
        pass
    eventually(lambda: not _senders(pg), what="a server that was never used is closed")


# -- commands and streams --------------------------------------------------------------------------------------------


def test_what_a_walsender_does_not_understand(pooler: Pooler, pg: PostgresCluster) -> None:
    """Extended queries and nonsense are answered as without the pooler, and the connection goes on."""
    sent = (
        raw.query("NONSENSE"),
        raw.extended("SELECT 1") + raw.SYNC,
        raw.query("IDENTIFY_SYSTEM NOW"),
        raw.query("SELECT 1; SELECT 2"),
        raw.query(""),
    )
    answers: list[list[list[tuple[bytes, bytes]]]] = []
    with (
        pooler.raw("app", RITA, replication="database") as client,
        raw.RawClient((pg.host, pg.port)) as direct,
    ):
        direct.login("app", RITA.name, RITA.password, replication="database")
        for one in (client, direct):
            answers.append([])
            for request in sent:
                one.send(request)
                answers[-1].append([(got.kind, got.body) for got in one.receive_until()])
    assert answers[0] == answers[1]


def _start(client: raw.RawClient, pg: PostgresCluster) -> None:
    """Start a physical stream, and wait until it runs."""
    client.send(raw.query(f"START_REPLICATION {_position(pg)}"))
    assert client.receive().kind == b"W"


def test_a_stream_that_the_client_ends(pooler: Pooler, pg: PostgresCluster) -> None:
    """CopyDone from both sides; then the connection takes the next command, again and again."""
    with pooler.raw("app", RITA, replication="true") as client:
        for _ in range(3):
            _start(client, pg)
            client.send(raw.COPY_DONE)
            frames = client.receive_until()
            assert raw.kinds(frames).lstrip(b"d") == b"cCCZ"
            assert raw.kinds(client.ask("IDENTIFY_SYSTEM")) == b"TDCZ"


def test_a_stream_that_is_canceled(pooler: Pooler, pg: PostgresCluster) -> None:
    """A cancel request reaches the walsender."""
    with pooler.raw("app", RITA, replication="true") as client:
        _start(client, pg)
        with pooler.open_raw() as canceler:
            canceler.send(raw.cancel_packet(client.pid, client.secret))
            assert canceler.receive_all() == []
        frames = client.receive_until(b"E")
        assert frames[-1].fields["C"] == "57014"
        client.send(raw.COPY_DONE)
        assert client.receive_until()[-1].body == b"I"
        assert raw.kinds(client.ask("IDENTIFY_SYSTEM")) == b"TDCZ"


def test_a_client_that_dies(pooler: Pooler, pg: PostgresCluster) -> None:
    """Its walsender ends with it, in the middle of a stream as well as of a message."""
    for left in (b"", raw.copy_data(b"r" + b"\0" * 33)[:11]):
        with pooler.raw("app", RITA, replication="true") as client:
            _start(client, pg)
            assert len(_senders(pg)) == 1
            client.send(left)
            client.abort()
        eventually(lambda: not _senders(pg), what="the walsender is gone")


def test_a_server_that_ends_the_stream(pooler: Pooler, pg: PostgresCluster) -> None:
    """The client reads the server's own words."""
    with pooler.raw("app", RITA, replication="true") as client:
        _start(client, pg)
        pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'")
        last = client.receive_all()[-1]
        assert (last.kind, last.fields["C"]) == (b"E", "57P01")


def test_reload(pooler: Pooler, pg: PostgresCluster) -> None:
    """A stream goes on with its server when new clients are sent elsewhere; with its database gone, it ends."""
    with pooler.raw("app", RITA, replication="database") as client:
        pid = client.value("SELECT pg_backend_pid()")
        config = _config(pg)
        config["pooler"]["listen_port"] = pooler.port
        config["databases"]["app"]["dbname"] = "other"
        pooler.reload(config)
        eventually(lambda: "reloaded" in pooler.log_text(), what="the settings are reloaded")
        with pooler.raw("app", RITA, replication="database") as new:
            assert new.value("SELECT current_database()") == "other"
        assert client.value("SELECT current_database()") == "app"
        assert client.value("SELECT pg_backend_pid()") == pid
        del config["databases"]["app"]
        pooler.reload(config)
        (last,) = client.receive_all()
        assert last.fields["C"] == "57P01"


def test_sigterm_waits_for_a_stream(pooler: Pooler, pg: PostgresCluster) -> None:
    """As for any client."""
    with pooler.raw("app", RITA, replication="true") as client:
        _start(client, pg)
        pooler.process.send_signal(signal.SIGTERM)
        eventually(lambda: "waiting for clients" in pooler.log_text(), what="the pooler waits")
        client.send(raw.COPY_DONE)
        assert raw.kinds(client.receive_until()).lstrip(b"d") == b"cCCZ"
        assert pooler.process.poll() is None
        client.close()
        assert pooler.wait_exit() == 0


# -- PostgreSQL's own tools ------------------------------------------------------------------------------------------


def test_pg_receivewal(pooler: Pooler, pg: PostgresCluster, tmp_path: Path) -> None:
    """Streams WAL into a file up to a position, and stops at a signal."""
    assert _run(_command("pg_receivewal", pooler, "--create-slot", "--slot=wal")).returncode == 0
    arguments = ["--slot=wal", "--directory", str(tmp_path), _STATUS_INTERVAL]
    pg.sql("CREATE TABLE wal AS SELECT generate_series(1, 1000)")
    assert _run(_command("pg_receivewal", pooler, *arguments, f"--endpos={_position(pg)}")).returncode == 0
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    with _running(_command("pg_receivewal", pooler, *arguments, "--no-loop")) as tool:
        pg.sql("DROP TABLE wal")
        pg.sql("SELECT pg_switch_wal()")
        eventually(
            lambda: any(path.suffix != ".partial" for path in tmp_path.iterdir()),
            what="a segment is complete",
        )
        tool.send_signal(signal.SIGINT)
        assert tool.wait(10) == 0
    assert _run(_command("pg_receivewal", pooler, "--drop-slot", "--slot=wal")).returncode == 0


def test_pg_recvlogical(pooler: Pooler, pg: PostgresCluster) -> None:
    """Streams the changes of one database while ordinary clients make them."""
    if not _has_decoder(pg):
        pytest.skip("this PostgreSQL comes without test_decoding")
    with pooler.raw() as client:
        client.ask("CREATE TABLE changes (n int)")
        slot = ["--dbname=app", "--slot=changes"]
        done = _run(_command("pg_recvlogical", pooler, *slot, "--create-slot", "--plugin=test_decoding"))
        assert (done.returncode, done.stderr) == (0, "")
        arguments = [*slot, "--start", "--file=-", _STATUS_INTERVAL, "--no-loop", "--option=include-xids=off"]
        with _running(_command("pg_recvlogical", pooler, *arguments)) as tool:
            client.ask("INSERT INTO changes SELECT generate_series(1, 500)")
            assert tool.stdout is not None
            lines = [tool.stdout.readline() for _ in range(502)]
            assert (lines[0], lines[-1]) == ("BEGIN\n", "COMMIT\n")
            assert lines[500] == "table public.changes: INSERT: n[integer]:500\n"
        client.ask("DROP TABLE changes")
        end = _position(pg)
        done = _run(_command("pg_recvlogical", pooler, *arguments, f"--endpos={end}"))
        assert done.returncode == 0
        eventually(lambda: not _senders(pg), what="the walsender is gone")
        assert _run(_command("pg_recvlogical", pooler, *slot, "--drop-slot")).returncode == 0


def _has_decoder(pg: PostgresCluster) -> bool:
    with contextlib.suppress(psycopg.Error):
        pg.sql("SELECT pg_create_logical_replication_slot('probe', 'test_decoding', true)", dbname="app")
        return True
    return False


def test_pg_basebackup(pooler: Pooler, tmp_path: Path) -> None:
    """Two connections: one sends the files, the other one the WAL meanwhile."""
    backup = tmp_path / "backup"
    command = _command(
        "pg_basebackup", pooler, f"--pgdata={backup}", "--checkpoint=fast", "--wal-method=stream"
    )
    done = _run([*command, "--no-sync"])
    assert (done.returncode, done.stderr) == (0, "")
    assert _run([_tool("pg_verifybackup"), str(backup)]).returncode == 0


class _Standby(PostgresCluster):
    """A copy of a server, made and kept up to date through a pooler."""

    def __init__(self, pooler: Pooler) -> None:
        binaries = find_binaries()
        assert binaries is not None
        super().__init__(binaries)
        self._pooler = pooler

    def create(self) -> None:
        """Copy the server, and start to follow it."""
        source = make_conninfo(
            host=self._pooler.host, port=self._pooler.port, user=RITA.name, password=RITA.password
        )
        options = ["--checkpoint=fast", "--no-sync", "--write-recovery-conf"]
        self._run([_tool("pg_basebackup"), f"--dbname={source}", f"--pgdata={self._data}", *options])
        with (self._data / "postgresql.conf").open("a") as config:
            config.write(f"port = {self.port}\nunix_socket_directories = '{self.socket_dir}'\n")
        self.start()


def test_a_standby(pooler: Pooler, pg: PostgresCluster) -> None:
    """A server that is copied through the pooler follows through it, and follows again when it was cut off."""
    _tool("pg_basebackup")
    standby = _Standby(pooler)
    try:
        standby.create()
        pg.sql("CREATE TABLE followed (n int)", dbname="other")
        for number in (1, 2):
            eventually(lambda: len(_senders(pg)) == 1, what="the standby follows")
            pg.sql("INSERT INTO followed VALUES (%s)", number, dbname="other")
            eventually(
                lambda: standby.sql("SELECT count(*) FROM followed", dbname="other") == [(number,)],  # noqa: B023
                what="the row has arrived",
                despite=(psycopg.Error,),
            )
            pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'")
    finally:
        standby.destroy()
        pg.sql("DROP TABLE IF EXISTS followed", dbname="other")


# -- logical replication between two servers -------------------------------------------------------------------------


def test_a_subscription(pooler: Pooler, pg: PostgresCluster, mortal_pg: PostgresCluster) -> None:
    """What the table held is copied, and what is changed arrives; the subscriber knows the pooler alone."""
    source = make_conninfo(
        host=pooler.host, port=pooler.port, dbname="app", user=RITA.name, password=RITA.password
    )
    with pooler.raw() as client, mortal_pg.admin("app") as subscriber:
        client.ask("CREATE TABLE published (n int PRIMARY KEY, t timestamptz, f float8)")
        client.ask(f"GRANT SELECT ON published TO {RITA.name}")
        client.ask("INSERT INTO published SELECT n, to_timestamp(n), n / 3.0 FROM generate_series(1, 5000) n")
        pg.sql("CREATE PUBLICATION everything FOR TABLE published", dbname="app")
        subscriber.execute("CREATE TABLE published (n int PRIMARY KEY, t timestamptz, f float8)")
        create = sql.SQL("CREATE SUBSCRIPTION through_pooler CONNECTION {} PUBLICATION everything")
        subscriber.execute(create.format(sql.Literal(source)))
        try:
            total = "SELECT count(*), sum(n), sum(f), max(t) FROM published"

            def is_same() -> bool:
                return subscriber.execute(total).fetchone() == pg.sql(total, dbname="app")[0]

            eventually(is_same, within=30, what="the table is copied")
            client.ask("INSERT INTO published VALUES (9999, now(), 0.1)")
            client.ask("UPDATE published SET f = pi() WHERE n % 10 = 0; DELETE FROM published WHERE n < 100")
            eventually(is_same, within=30, what="the changes have arrived")
        finally:
            subscriber.execute("DROP SUBSCRIPTION through_pooler")
            subscriber.execute("DROP TABLE published")
            pg.sql("DROP PUBLICATION everything", dbname="app")
            client.ask("DROP TABLE published")
    assert pg.sql("SELECT slot_name FROM pg_replication_slots") == []
