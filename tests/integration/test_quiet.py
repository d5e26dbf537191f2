"""A pooler that waits for somebody else must sleep: no situation may turn the event loop into a busy loop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import rawclient as raw
from tests.support.poolers import config_for
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.proxy import FaultProxy

_BIG = "SELECT repeat('x', 100000) FROM generate_series(1, 1000)"


def _cpu_seconds(pooler: Pooler) -> float:
    fields = Path(f"/proc/{pooler.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _assert_quiet(pooler: Pooler, pg: PostgresCluster) -> None:
    """Check that the process uses hardly any CPU while PostgreSQL, asked past the pooler, sleeps for a while.

    What has just come may still be worked on: a pooler that is busy in vain is so in every such while.
    """

    def is_quiet() -> bool:
        before = _cpu_seconds(pooler)
        elapsed = Stopwatch()
        pg.sql("SELECT pg_sleep(0.8)")
        return _cpu_seconds(pooler) - before < 0.15 * elapsed.seconds

    eventually(is_quiet, what="the pooler is quiet", within=3)


@pytest.fixture
def pooler(make_pooler: PoolerFactory) -> Pooler:
    """A pooler in transaction mode with one server."""
    return make_pooler(pool_mode="transaction", default_pool_size=1)


def _wait_client_write(pg: PostgresCluster) -> None:
    eventually(
        lambda: pg.waiting("ClientWrite", _BIG),
        what="PostgreSQL waits for its client",
    )


def test_idle_connections(pooler: Pooler, pg: PostgresCluster) -> None:
    """An idle client and an idle server."""
    with pooler.raw() as client:
        client.value("SELECT 1")
        _assert_quiet(pooler, pg)


def test_a_running_query_and_a_queue(pooler: Pooler, pg: PostgresCluster) -> None:
    """A client whose query runs, and one that waits for the server."""
    with pooler.raw() as busy, pooler.raw() as waiting:
        statement = "SELECT pg_sleep(1.5) /* and a queue */"
        busy.send(raw.query(statement))
        eventually(lambda: pg.waiting("PgSleep", statement), what="the query runs")
        waiting.send(raw.query("SELECT 1"))
        pooler.wait_read(waiting)
        _assert_quiet(pooler, pg)
        busy.receive_until()
        waiting.receive_until()


def test_a_client_that_does_not_read(pooler: Pooler, pg: PostgresCluster) -> None:
    """A result that the client does not take."""
    with pooler.raw() as client:
        client.send(raw.query(_BIG))
        _wait_client_write(pg)
        _assert_quiet(pooler, pg)


def test_a_client_that_does_not_read_and_sends_more(pooler: Pooler, pg: PostgresCluster) -> None:
    """A result that the client does not take, while it sends further requests."""
    with pooler.raw() as client:
        client.send(raw.query(_BIG))
        _wait_client_write(pg)
        client.sock.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            client.send(raw.query("SELECT 1") * 100_000)
        _assert_quiet(pooler, pg)


def test_a_server_that_does_not_read(proxied: tuple[Pooler, FaultProxy], pg: PostgresCluster) -> None:
    """COPY data that the server does not take."""
    pooler, proxy = proxied
    with pooler.raw() as client:
        client.ask("CREATE TABLE not_taken (t text)")
        client.send(raw.query("COPY not_taken FROM STDIN"))
        client.receive_until(b"G")
        proxy.stall(proxy.to_target)
        client.sock.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while True:
                client.sock.send(raw.copy_data(b"x" * 99_999 + b"\n"))
        _assert_quiet(pooler, pg)
        client.abort()
        proxy.resume(proxy.to_target)
    pg.sql("DROP TABLE not_taken", dbname="app")


def test_half_messages(pooler: Pooler, pg: PostgresCluster) -> None:
    """Half a StartupMessage, half a password, and half a query."""
    startup = raw.startup_packet({"user": "ann", "database": "app"})
    with (
        pooler.open_raw() as silent,
        pooler.open_raw() as half,
        pooler.open_raw() as asked,
        pooler.raw() as logged_in,
    ):
        half.send(startup[:9])
        asked.send(startup)
        asked.receive()
        logged_in.send(raw.query("SELECT 1")[:7])
        for client in (silent, half, asked, logged_in):
            pooler.wait_read(client)
        _assert_quiet(pooler, pg)


def test_a_client_that_closed_its_sending_side(pooler: Pooler, pg: PostgresCluster) -> None:
    """A client that half-closes its connection while its query runs, or while it is idle."""
    with pooler.raw() as one, pooler.raw() as two:
        statement = "SELECT pg_sleep(1.5) /* and no more requests */"
        one.send(raw.query(statement))
        eventually(lambda: pg.waiting("PgSleep", statement), what="the query runs")
        one.sock.shutdown(socket.SHUT_WR)
        two.sock.shutdown(socket.SHUT_WR)
        _assert_quiet(pooler, pg)


def test_a_dead_server_in_a_transaction(pooler: Pooler, pg: PostgresCluster) -> None:
    """A client that does not take the error about its lost server."""
    with pooler.raw() as client:
        client.ask("BEGIN")
        pg.sql("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", pg.backends())
        eventually(lambda: not pg.backends(), what="the server is gone")
        _assert_quiet(pooler, pg)


@pytest.mark.hyperpool_only  # pgbouncer tries again at once for a while
def test_a_server_that_is_down(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """A pool that must be filled while the server refuses connections."""
    config = config_for(pg, pool_mode="transaction", min_pool_size=5)
    config["databases"]["app"] |= {"port": 1, "user": "trudy"}
    pooler = make_pooler(config)
    eventually(lambda: "refused" in pooler.log_text(), what="the pooler has tried")
    _assert_quiet(pooler, pg)


@pytest.mark.hyperpool_only
def test_drain(pooler: Pooler, pg: PostgresCluster) -> None:
    """A drain that waits for a client to leave."""
    with pooler.raw() as client:
        client.value("SELECT 1")
        mark = pooler.log_size()
        pooler.process.send_signal(signal.SIGTERM)
        eventually(lambda: pooler.log_size() > mark, what="the pooler has noticed the signal")
        _assert_quiet(pooler, pg)
        client.close()
        assert pooler.wait_exit() == 0


@pytest.mark.hyperpool_only
def test_no_more_open_files(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Connections that cannot be accepted because the limit on open files is reached."""
    pooler = make_pooler(open_files=(50, 50), max_client_conn=500)
    with contextlib.ExitStack() as stack:
        mark = pooler.log_size()
        for _ in range(70):
            stack.enter_context(pooler.open_raw())
        eventually(lambda: pooler.log_size() > mark, what="the pooler has noticed")
        _assert_quiet(pooler, pg)
