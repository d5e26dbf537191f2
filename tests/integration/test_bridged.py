"""PostgreSQL behind streams that are no sockets: everything goes through bridges, and works as it does without."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import targets
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = [pytest.mark.hyperpool_only, pytest.mark.bound(60)]


@pytest.fixture
def bridged(make_pooler: PoolerFactory, monkeypatch: pytest.MonkeyPatch) -> Pooler:
    """A pooler all of whose server connections are bridged."""

    def command(config_path: Path) -> list[str]:
        return [sys.executable, "-W", "error", "-m", "tests.support.bridged", "serve", str(config_path)]

    monkeypatch.setattr(targets, "command", command)
    return make_pooler(pool_mode="transaction", default_pool_size=4, server_idle_timeout=600)


def test_queries_of_all_sizes(bridged: Pooler) -> None:
    """What goes in comes out, from a byte to more than every buffer on the way."""
    with bridged.connect("app") as connection:
        for size in (1, 100, 16384, 65536, 262144, 262145, 5_000_000):
            text = "x" * size
            assert connection.execute("SELECT %s::text", (text,)).fetchone() == (text,)


def test_copy_both_ways(bridged: Pooler) -> None:
    """100 MB in and out through one connection, whole and in order."""
    row = b"0123456789abcdef" * 625 + b"\n"
    count = 10_000
    with bridged.connect("app") as connection, connection.transaction():
        cursor = connection.cursor()
        cursor.execute("CREATE TEMP TABLE bulk (line text) ON COMMIT DROP")
        with cursor.copy("COPY bulk FROM STDIN") as copy:
            for _ in range(count):
                copy.write(row)
        digest = hashlib.sha256()
        with cursor.copy("COPY bulk TO STDOUT") as copy:
            for data in copy:
                digest.update(data)
        assert digest.hexdigest() == hashlib.sha256(row * count).hexdigest()


def test_a_slow_reader_holds_up_the_server(bridged: Pooler, pg: PostgresCluster) -> None:
    """A client that does not read makes the server wait, not the pooler grow."""

    def resident() -> int:
        return int(Path(f"/proc/{bridged.pid}/statm").read_text().split()[1]) * 4096

    with bridged.connect("app") as connection:
        connection.execute("SELECT 1")
        before = resident()
        connection.pgconn.send_query(b"SELECT repeat('x', 1000) FROM generate_series(1, 200000) /* slow */")
        eventually(
            lambda: pg.sql(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'ClientWrite' AND query LIKE %s", "%slow%"
            ),
            what="the server waits until it can send more",
        )
        assert resident() - before < 32 * 1024**2
        connection.pgconn.finish()


def test_a_cancel_request_goes_the_same_way(bridged: Pooler, pg: PostgresCluster) -> None:
    """It reaches the query, and the connection goes on."""
    statement = "SELECT pg_sleep(30) /* bridged sleep */"
    with bridged.connect("app") as connection:
        elapsed = Stopwatch()
        with pg.when_asleep(statement, connection.cancel_safe), pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(statement)
        assert elapsed.seconds < 15
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_dies(bridged: Pooler, pg: PostgresCluster) -> None:
    """Its last words arrive in front of the end, and the next query gets another server."""
    with bridged.connect("app") as connection:
        connection.execute("BEGIN")
        (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        with pytest.raises(psycopg.errors.AdminShutdown):
            connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    with bridged.connect("app") as connection:
        assert connection.execute("SELECT pg_backend_pid() <> %s", (pid,)).fetchone() == (True,)


def test_the_end_is_polite(bridged: Pooler, pg: PostgresCluster) -> None:
    """When the pooler ends, servers are told (Terminate): none of them complains about a lost connection."""
    with bridged.connect("app") as connection:
        connection.execute("SELECT 1")
    bridged.stop()
    eventually(lambda: not pg.backends(), what="every server process has ended")


def test_pgbench(bridged: Pooler, pgbench: str) -> None:
    """Many clients on few servers, with prepared statements."""
    info = bridged.conninfo("app")
    address = ["-h", info["host"], "-p", str(info["port"]), "-U", info["user"], info["dbname"]]
    done = subprocess.run(
        [pgbench, "-n", "-M", "prepared", "-c", "8", "-j", "2", "-t", "200", "-f", "/dev/stdin", *address],
        input="SELECT :client_id + 1;\n",
        text=True,
        capture_output=True,
        env={**targets.environment(), "PGPASSWORD": info["password"]},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "number of failed transactions: 0 " in done.stdout, done.stdout
