"""Several hosts for one database: whose turn it is, what happens when one is gone, and where a cancel request goes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.network import free_port
from tests.support.poolers import config_for
from tests.support.proxy import FaultProxy
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.postgres import PostgresCluster
    from tests.support.targets import Config

pytestmark = pytest.mark.hyperpool_only  # pgbouncer has one port for all hosts


@pytest.fixture
def ways(pg: PostgresCluster) -> Iterator[tuple[FaultProxy, FaultProxy]]:
    """Two ways to the server, which count who comes along."""
    with FaultProxy(pg.port) as one, FaultProxy(pg.port) as two:
        yield one, two


def hosts(
    pg: PostgresCluster, host: str, port: list[int], pooler: dict[str, Any] | None = None, **more: Any
) -> Config:
    """Settings with these hosts for database `app`."""
    config = config_for(pg, **{"pool_mode": "session", "default_pool_size": 4, **(pooler or {})})
    config["databases"]["app"] = {"host": host, "port": port, **more}
    return config


def test_connections_go_round(
    make_pooler: PoolerFactory, pg: PostgresCluster, ways: tuple[FaultProxy, FaultProxy]
) -> None:
    """Each host has its turn."""
    ports = [way.port for way in ways]
    pooler = make_pooler(hosts(pg, "127.0.0.1,localhost", ports))
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(pooler.connect("app")).execute("SELECT 1")
        assert [way.accepted for way in ways] == [2, 2]


def test_one_host_until_it_fails(
    make_pooler: PoolerFactory, pg: PostgresCluster, ways: tuple[FaultProxy, FaultProxy]
) -> None:
    """``load_balance_hosts: disable``: the second one only stands in."""
    ports = [way.port for way in ways]
    pooler = make_pooler(hosts(pg, "127.0.0.1,127.0.0.1", ports, load_balance_hosts="disable"))
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(pooler.connect("app")).execute("SELECT 1")
        assert [way.accepted for way in ways] == [2, 0]
    ways[0].close()
    eventually(lambda: not pg.backends(), what="the servers behind the first way are gone")
    with pooler.connect("app") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert ways[1].accepted == 1


def test_a_host_that_is_gone(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Clients notice nothing: TCP and Unix sockets may stand in for each other."""
    pooler = make_pooler(hosts(pg, f"127.0.0.1,{pg.socket_dir}", [free_port(), pg.port]))
    for _ in range(3):
        with pooler.connect("app") as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_host_that_does_not_answer(
    make_pooler: PoolerFactory, pg: PostgresCluster, ways: tuple[FaultProxy, FaultProxy]
) -> None:
    """It accepts, and says nothing: the next one has its turn after ``host_connect_timeout``."""
    ways[0].stall(ways[0].to_target)
    pooler = make_pooler(
        hosts(pg, "127.0.0.1,127.0.0.1", [way.port for way in ways], {"host_connect_timeout": 0.3})
    )
    with pooler.connect("app") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert [way.accepted for way in ways] == [1, 1]
    ways[0].resume(ways[0].to_target)


def test_no_host_at_all(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """The client is told why each one failed."""
    ports = [free_port(), free_port()]
    pooler = make_pooler(hosts(pg, "127.0.0.1,/nowhere", ports))
    with pytest.raises(psycopg.OperationalError) as caught:
        pooler.connect("app")
    assert f"cannot connect to 127.0.0.1:{ports[0]}: Connection refused" in str(caught.value)
    assert f"cannot connect to /nowhere/.s.PGSQL.{ports[1]}: No such file or directory" in str(caught.value)


def test_a_cancel_request_goes_to_the_host_of_its_server(
    make_pooler: PoolerFactory, pg: PostgresCluster, ways: tuple[FaultProxy, FaultProxy]
) -> None:
    """Not to the one whose turn it is."""
    pooler = make_pooler(hosts(pg, "127.0.0.1,127.0.0.1", [way.port for way in ways]))
    with pooler.connect("app") as connection:
        connection.execute("SELECT 1")
        first = [way.accepted for way in ways]
        statement = "SELECT pg_sleep(30) /* to be canceled at its host */"
        for cancelled in (1, 2):
            elapsed = Stopwatch()
            with (
                pg.when_asleep(statement, connection.cancel_safe),
                pytest.raises(psycopg.errors.QueryCanceled),
            ):
                connection.execute(statement)
            connection.rollback()
            assert elapsed.seconds < 15
            assert [way.accepted for way in ways] == [count + (count and cancelled) for count in first]


def test_another_way_after_a_reload(
    make_pooler: PoolerFactory, pg: PostgresCluster, ways: tuple[FaultProxy, FaultProxy]
) -> None:
    """Connections that were made along the old way are replaced; a transport counts as a way."""
    config = hosts(pg, "127.0.0.1", [ways[0].port], {"pool_mode": "transaction"})
    pooler = make_pooler(config)
    with pooler.connect("app") as connection:
        (before,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        along_the_old_way = ways[0].accepted
        config["databases"]["app"]["transport"] = [{"tcp": {"host": "127.0.0.1", "port": ways[1].port}}]
        pooler.reload(config)
        eventually(lambda: before not in pg.backends(), what="the old connection is closed")
        (after,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        assert after != before
    assert [way.accepted for way in ways] == [along_the_old_way, 1]
