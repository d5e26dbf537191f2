"""Clients that vanish in the middle of something: the next client on the pool must not notice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import rawclient as raw
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.proxy import FaultProxy
    from tests.support.rawclient import RawClient

BIG = "SELECT repeat('secret', 20000) FROM generate_series(1, 1000)"


def _in_transaction(client: RawClient) -> None:
    client.ask("BEGIN; INSERT INTO loss VALUES (1)")


def _in_failed_transaction(client: RawClient) -> None:
    client.ask("BEGIN; INSERT INTO loss VALUES (1)")
    client.ask("SELECT 1 / 0")


def _in_copy_in(client: RawClient) -> None:
    client.send(raw.query("COPY loss FROM STDIN"), raw.copy_data(b"1\n"))
    client.receive_until(b"G")
    client.send(raw.copy_data(b"2\n")[:3])


def _in_copy_out(client: RawClient) -> None:
    client.send(raw.query(f"COPY ({BIG}) TO STDOUT"))
    client.receive_until(b"d")


def _in_result(client: RawClient) -> None:
    client.send(raw.query(BIG))
    client.receive_until(b"D")


def _before_answer(client: RawClient) -> None:
    client.send(raw.query("SELECT pg_sleep(0.2), 'secret'"))


def _in_pipeline(client: RawClient) -> None:
    client.send(raw.query("BEGIN"), *(raw.extended("SELECT 'secret'") + raw.SYNC for _ in range(50)))
    client.receive_until()


def _without_sync(client: RawClient) -> None:
    client.send(raw.extended("INSERT INTO loss VALUES (1)"), raw.FLUSH)
    client.receive_until(b"C")


def _in_half_a_message(client: RawClient) -> None:
    client.send(raw.query("SELECT 'never complete'")[:12])


def _in_half_a_message_of_a_transaction(client: RawClient) -> None:
    _in_transaction(client)
    client.send(raw.query("INSERT INTO loss VALUES (2)")[:12])


def _in_a_long_parameter(client: RawClient) -> None:
    whole = raw.parse("SELECT length($1)") + raw.bind(b"x" * 3_000_000)
    client.send(whole[:1_500_000])


def _in_portal(client: RawClient) -> None:
    client.send(raw.parse("SELECT generate_series(1, 100)"), raw.bind(), raw.execute(rows=3), raw.FLUSH)
    client.receive_until(b"s")


MOMENTS: list[Callable[[RawClient], None]] = [
    _in_transaction,
    _in_failed_transaction,
    _in_copy_in,
    _in_copy_out,
    _in_result,
    _before_answer,
    _in_pipeline,
    _without_sync,
    _in_half_a_message,
    _in_half_a_message_of_a_transaction,
    _in_a_long_parameter,
    _in_portal,
]
IN_STATEMENT_MODE = [
    moment
    for moment in MOMENTS
    if moment
    not in (_in_transaction, _in_failed_transaction, _in_half_a_message_of_a_transaction, _in_pipeline)
]
CASES = [(mode, moment) for mode in ("session", "transaction") for moment in MOMENTS]
CASES += [("statement", moment) for moment in IN_STATEMENT_MODE]


def _name(value: object) -> str:
    return str(getattr(value, "__name__", value)).lstrip("_")


@pytest.mark.parametrize("how", ["abort", "close"])
@pytest.mark.parametrize(("mode", "moment"), CASES, ids=_name)
def test_the_next_client_finds_a_clean_server(
    pooler: Pooler,
    pg: PostgresCluster,
    mode: str,
    moment: Callable[[RawClient], None],
    how: str,
) -> None:
    """After a client vanished (RST or FIN) the next ones get only their own answers, and no transaction is open."""
    pg.sql(
        "DROP TABLE IF EXISTS loss; CREATE TABLE loss (n int); GRANT ALL ON loss TO PUBLIC", dbname="shared"
    )
    client = pooler.raw(mode)
    moment(client)
    if how == "abort":
        client.abort()
    else:
        client.sock.close()
    for _ in range(3):
        with pooler.raw(mode) as other:
            frames = other.ask("SELECT 'mine', count(*) FROM loss")
            assert raw.kinds([got for got in frames if got.kind != b"S"]) == b"TDCZ"
            assert frames[1].columns == [b"mine", b"0"]
            assert frames[-1].body == b"I"
            other.close()
    eventually(lambda: set(pg.states("shared")) <= {"idle"}, what="nothing is left running or open")


def test_a_killed_client_process(pooler: Pooler, pg: PostgresCluster, block_mode: str) -> None:
    """A client process killed with SIGKILL inside a transaction leaves nothing behind."""
    script = (
        "import psycopg, sys\n"
        "c = psycopg.connect(sys.argv[1])\n"
        "c.execute('SELECT pg_advisory_xact_lock(99)')\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, pooler.url(block_mode)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)
    with pooler.raw(block_mode) as other:
        other.ask("SET statement_timeout = '20s'")
        assert raw.kinds(other.ask("SELECT pg_advisory_xact_lock(99)")) == b"TDCZ"
        other.ask("RESET statement_timeout")


def test_a_storm_of_vanishing_clients(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Many clients that vanish at all moments over two servers: every survivor reads exactly its own answers."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=2)
    pg.sql("DROP TABLE IF EXISTS loss; CREATE TABLE loss (n int); GRANT ALL ON loss TO PUBLIC", dbname="app")
    with pooler.raw() as survivor:
        for turn in range(4):
            for moment in MOMENTS:
                client = pooler.raw()
                moment(client)
                survivor.send(*(raw.extended(f"SELECT 'survivor {turn}.{k}'") + raw.SYNC for k in range(3)))
                client.abort()
                for k in range(3):
                    frames = survivor.receive_until()
                    assert raw.kinds(frames) == b"12DCZ"
                    assert frames[2].columns == [f"survivor {turn}.{k}".encode()]
        assert survivor.value("SELECT count(*) FROM loss") == "0"
    eventually(
        lambda: len(pg.backends()) <= 3, what="PostgreSQL ends the backends of servers that were closed"
    )
    pg.sql("DROP TABLE loss", dbname="app")


def test_a_client_that_stalls_mid_result_and_is_cut(
    make_pooler: PoolerFactory,
    make_proxy: Callable[[int], FaultProxy],
    pg: PostgresCluster,
) -> None:
    """A client whose network stalls in the middle of a result and then breaks frees its server."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    proxy = make_proxy(pooler.port)
    with raw.RawClient(("127.0.0.1", proxy.port)) as client:
        client.login("app", "ann", "ann's secret")
        proxy.stall(proxy.from_target)
        client.send(raw.query(BIG))
        eventually(
            lambda: pg.waiting("ClientWrite", BIG),
            what="PostgreSQL waits for its client",
        )
        proxy.cut_all()
        proxy.resume(proxy.from_target)
    with pooler.raw() as other:
        assert other.value("SELECT 'mine'") == "mine"


def test_the_clients_stream_is_cut_anywhere(
    make_pooler: PoolerFactory,
    pg: PostgresCluster,
) -> None:
    """A client whose stream is cut after any number of bytes leaves the one server clean for the next."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    pg.sql("DROP TABLE IF EXISTS loss; CREATE TABLE loss (n int); GRANT ALL ON loss TO PUBLIC", dbname="app")
    request = raw.query("BEGIN") + raw.extended("INSERT INTO loss VALUES ($1)", b"1") + raw.SYNC
    request += raw.query("INSERT INTO loss VALUES (2)")
    with pooler.raw() as other:
        for size in range(1, len(request), 3):
            client = pooler.raw()
            client.send(request[:size])
            client.abort()
            assert other.value("SELECT count(*) FROM loss") == "0"
            assert other.ask("")[-1].body == b"I"
    pg.sql("DROP TABLE loss", dbname="app")
