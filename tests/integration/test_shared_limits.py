"""Limits that pools share, and limits on clients, while many clients want more at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import psycopg
import pytest

from tests.support.poolers import config_for
from tests.support.postgres import ANN, BOB, CLARA, Role
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only  # old versions of pgbouncer know some of these limits only


class Watch:
    """Looks at the console again and again, how many server connections there are.

    Attributes:
        most: the highest number so far of each database and of each user.
    """

    def __init__(self, pooler: Pooler) -> None:
        self.most: dict[str, int] = {}
        self._console = psycopg.connect(
            **pooler.conninfo("pgbouncer"), autocommit=True, cursor_factory=psycopg.ClientCursor
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.is_set():
            seen: dict[str, int] = {}
            for row in self._console.execute("SHOW SERVERS").fetchall():
                for key in (f"database {row[2]}", f"user {row[1]}"):
                    seen[key] = seen.get(key, 0) + 1
            for key, count in seen.items():
                self.most[key] = max(self.most.get(key, 0), count)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._console.close()


def _work(pooler: Pooler, database: str, role: Role, queries: int) -> int:
    with pooler.connect(database, role) as client:
        for number in range(queries):
            row = client.execute(f"SELECT {number}, current_user, pg_sleep(0.005)").fetchone()
            assert row is not None
            assert row[:2] == (number, role.name)
    return queries


def test_limits_hold_under_load(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Of a database and of a user, each reached and none passed, and every query is answered."""
    config = config_for(pg, pool_mode="transaction", admin_users=ANN.name, max_user_connections=4)
    server = {"host": pg.host, "port": pg.port, "dbname": "app"}
    config["databases"] = {"app": {**server, "max_db_connections": 3}, "more": server}
    pooler = make_pooler(config)
    with Watch(pooler) as watch, ThreadPoolExecutor(24) as threads:
        jobs = [
            threads.submit(_work, pooler, database, role, 20)
            for database, role in [("app", ANN), ("app", BOB), ("more", BOB), ("app", CLARA)] * 6
        ]
        assert [job.result(timeout=60) for job in jobs] == [20] * 24
    assert watch.most["database app"] == 3
    assert watch.most["user bob"] == 4
    assert max(watch.most.values()) == 4


def test_clients_are_let_in_up_to_a_limit(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Exactly, however many come at once; and again as many when they have left."""
    config = config_for(pg, pool_mode="transaction", max_db_client_connections=5)
    pooler = make_pooler(config)

    def come(_: int) -> psycopg.Connection[object] | None:
        try:
            return pooler.connect()
        except psycopg.OperationalError as error:
            assert "client connections exceeded (max_db_client_connections)" in str(error)  # noqa: PT017
            return None

    with ThreadPoolExecutor(20) as threads:
        for _ in range(2):
            inside = [one for one in threads.map(come, range(20)) if one is not None]
            assert len(inside) == 5
            for one in inside:
                one.close()
            eventually(lambda: _can_come(pooler), what="there is room again")


def _can_come(pooler: Pooler) -> bool:
    with pooler.open_raw() as client:
        return client.login("app", ANN.name, ANN.password)[-1].kind == b"Z"


def test_refusals(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """They have pgbouncer's words and SQLSTATE."""
    config = config_for(pg, max_user_client_connections=1)
    config["databases"]["app"]["max_db_client_connections"] = 2
    pooler = make_pooler(config)
    with pooler.raw():
        refused = pooler.refused()
        assert refused.fields["M"] == "client connections exceeded (max_user_client_connections)"
        assert refused.fields["C"] == "08P01"
        with pooler.raw("app", BOB):
            refused = pooler.refused("app", CLARA)
            assert refused.fields["M"] == "client connections exceeded (max_db_client_connections)"


def test_a_login_waits_for_a_server_no_longer_than_a_query(
    make_pooler: PoolerFactory, pg: PostgresCluster
) -> None:
    """When the database is full, and nobody knows yet what a server would tell the client."""
    pooler = make_pooler(config_for(pg, pool_mode="transaction", max_db_connections=1, query_wait_timeout=1))
    with pooler.raw() as busy:
        busy.value("BEGIN; SELECT 1")
        refused = pooler.refused("app", BOB)
        assert (refused.fields["M"], refused.fields["C"]) == ("query_wait_timeout", "08P01")
        busy.ask("COMMIT")
        with pooler.raw("app", BOB) as client:
            assert client.value("SELECT current_user") == BOB.name
