"""Several poolers behind one address: a cancel request that reaches the wrong one is passed on."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.peers.stage import Side, pgbouncer_command
from tests.support.network import free_port
from tests.support.poolers import config_for
from tests.support.postgres import ANN
from tests.support.rawclient import RawClient, cancel_packet, query
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only


@pytest.fixture
def peers(make_pooler: PoolerFactory, pg: PostgresCluster) -> Iterator[tuple[Pooler, Pooler]]:
    """Two processes that share a port, each with a Unix socket of its own."""
    with contextlib.ExitStack() as stack:
        directories = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(2)]
        port = free_port()
        made = []
        for number, directory in enumerate(directories, 1):
            config: Any = config_for(
                pg,
                listen_port=port,
                so_reuseport=True,
                peer_id=number,
                unix_socket_dir=directory,
                admin_users="ann",
            )
            config["peers"] = {
                other: {"host": where, "port": port} for other, where in enumerate(directories, 1)
            }
            made.append(make_pooler(config))
        yield made[0], made[1]


def _local(pooler: Pooler) -> RawClient:
    return RawClient(f"{pooler.config['pooler']['unix_socket_dir']}/.s.PGSQL.{pooler.port}")


def _log_in(client: RawClient) -> None:
    assert client.login("app", ANN.name, ANN.password)[-1].kind == b"Z"


def _cancel(through: RawClient, client: RawClient) -> None:
    with through:
        through.send(cancel_packet(client.pid, client.secret))
        assert through.receive_all() == []


def _sqlstate(client: RawClient) -> str:
    return next(frame.fields["C"] for frame in client.receive_until() if frame.kind == b"E")


def test_a_cancel_request_reaches_the_right_one(peers: tuple[Pooler, Pooler], pg: PostgresCluster) -> None:
    """Through the other one, and through its own; the peers are shown."""
    first, second = peers
    with _local(first) as client:
        _log_in(client)
        for through in (second, first):
            client.send(query("SELECT pg_sleep(30)"))
            eventually(lambda: pg.waiting("PgSleep", "SELECT pg_sleep(30)"), what="the query runs")
            _cancel(_local(through), client)
            assert _sqlstate(client) == "57014"
    where = {"host": second.config["pooler"]["unix_socket_dir"]}
    with psycopg.connect(**{**second.conninfo("pgbouncer"), **where}, autocommit=True) as console:
        assert console.execute("SHOW PEER_POOLS").fetchall() == [(1, 0, 0, 0, 0)]
        assert [row[0] for row in console.execute("SHOW PEERS")] == [1, 2]


def test_many_clients_that_share_a_port(peers: tuple[Pooler, Pooler], pg: PostgresCluster) -> None:
    """The kernel spreads connections, cancel requests too; each of them ends its own query, by libpq's own means."""

    def run(number: int) -> bool:
        statement = f"SELECT pg_sleep(30) /* {number} */"
        with (
            peers[0].connect() as connection,
            pg.when_asleep(statement, connection.cancel_safe),
            pytest.raises(psycopg.errors.QueryCanceled),
        ):
            connection.execute(statement.encode())
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(run, range(8)))


def test_a_peer_that_is_not_there(peers: tuple[Pooler, Pooler]) -> None:
    """The request is dropped, and so is one that has no hops left; the log says so."""
    first, _ = peers
    for peer_id, hops, told in ((99, 3, "there is no peer 99"), (2, 0, "too often")):
        secret = struct.pack("!I", 0x01020300 | hops)
        with _local(first) as through:
            through.send(cancel_packet(peer_id << 16, secret))
            assert through.receive_all() == []
        assert told in first.log_text()


def test_pgbouncer_among_the_peers(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Requests go both ways between it and hyperpool."""
    command = pgbouncer_command()
    if command is None:
        pytest.skip("no pgbouncer that is new enough; see benchmarks/get_pgbouncer.sh")
    port = free_port()
    with contextlib.ExitStack() as stack:
        ini = (
            f"[databases]\napp = host={pg.host} port={pg.port} dbname=app\n[peers]\n1 = host=127.0.0.1 port={port}\n"
            "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\npeer_id = 2\n"
            "auth_type = trust\nauth_file = {directory}/users\nadmin_users = ann\n"
        )
        other = Side("pgbouncer", command, ini, {"users": f'"ann" "{ANN.password}"\n'})
        stack.callback(other.close)
        config: Any = config_for(pg, peer_id=1)
        config["pooler"].update(listen_port=port)
        config["peers"] = {2: {"host": "127.0.0.1", "port": other.port}}
        make_pooler(config)
        other.wait()
        places = [("127.0.0.1", port), ("127.0.0.1", other.port)]
        for place, through in (places, reversed(places)):
            with RawClient(place) as client:
                _log_in(client)
                client.send(query("SELECT pg_sleep(30)"))
                eventually(lambda: pg.waiting("PgSleep", "SELECT pg_sleep(30)"), what="the query runs")
                _cancel(RawClient(through), client)
                assert _sqlstate(client) == "57014"
