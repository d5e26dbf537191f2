"""The console through drivers as they are: with the extended protocol, parameters, binary results, transactions."""

from __future__ import annotations

import asyncio
import subprocess
from decimal import Decimal
from typing import TYPE_CHECKING

import asyncpg
import pg8000.dbapi
import psycopg
import pytest

from tests.support.poolers import config_for
from tests.support.postgres import ANN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only


@pytest.fixture(scope="module")
def _driven(make_module_pooler: PoolerFactory, _pg: PostgresCluster) -> Pooler:
    return make_module_pooler(config_for(_pg, admin_users="ann"))


@pytest.fixture
def driven(_driven: Pooler, watch: Callable[[Pooler], Pooler]) -> Pooler:
    """A pooler with a console for ann."""
    return watch(_driven)


def test_psycopg_in_text_and_binary(driven: Pooler) -> None:
    """Whatever the format, numbers are the same; transactions that psycopg begins do no harm."""
    with psycopg.connect(**driven.conninfo("pgbouncer")) as console:
        for binary in (False, True):
            cursor = console.cursor(binary=binary)
            cursor.execute("SHOW POOLS")
            assert cursor.fetchone() == ("pgbouncer", "pgbouncer", 1, *(0,) * 12, "statement", None)
            cursor.execute("SHOW TOTALS")
            assert dict(cursor.fetchall())["total_server_assignment_count"] == Decimal(0)
            cursor.execute("SHOW FDS")
            assert [type(row[0]) for row in cursor.fetchall()] == [int]
        console.commit()
        with pytest.raises(psycopg.errors.ProtocolViolation):
            console.execute("nonsense")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            console.execute("SHOW STATE")
        console.rollback()
        assert console.execute("SHOW STATE").fetchone() == ("active", "yes")


def test_psycopg_with_prepared_statements_and_parameters(driven: Pooler) -> None:
    """Statements that are prepared on the server, and values that are not part of the text."""
    with psycopg.connect(**driven.conninfo("pgbouncer"), autocommit=True) as console:
        for _ in range(3):
            assert console.execute("SHOW STATE", prepare=True).fetchall()[0] == ("active", "yes")
        assert (
            console.execute("SET query_wait_timeout = %s", [77]).statusmessage == "SET query_wait_timeout=77"
        )
        with pytest.raises(psycopg.errors.ProtocolViolation, match="no such database: my-db"):
            console.execute("PAUSE %s", ["my-db"])
        with console.pipeline():
            cursors = [console.execute(text) for text in ("SHOW STATE", "SHOW VERSION", "SHOW LISTS")]
        assert [len(cursor.fetchall()) for cursor in cursors] == [3, 1, 14]
        with console.cursor() as cursor:
            assert len(list(cursor.stream("SHOW CONFIG"))) > 50


def test_asyncpg(driven: Pooler) -> None:
    """It knows the extended protocol alone, and asks for binary results."""

    async def use() -> None:
        console = await asyncpg.connect(
            host=driven.host, port=driven.port, user=ANN.name, password=ANN.password, database="pgbouncer"
        )
        try:
            rows = await console.fetch("SHOW DATABASES")
            assert {row["name"]: row["paused"] for row in rows} == {"app": 0, "pgbouncer": 0}
            assert await console.fetchval("SHOW VERSION") == await console.fetchval("SELECT version")
            totals = dict(await console.fetch("SHOW TOTALS"))
            assert totals["total_query_count"] > 0
            with pytest.raises(asyncpg.exceptions.ProtocolViolationError):
                await console.execute("PAUSE nothing")
            assert await console.execute("RECONNECT") == "RECONNECT"
        finally:
            await console.close()

    asyncio.run(use())


def test_pg8000(driven: Pooler) -> None:
    """It begins transactions by itself."""
    console = pg8000.dbapi.connect(
        user=ANN.name, password=ANN.password, host=driven.host, port=driven.port, database="pgbouncer"
    )
    cursor = console.cursor()
    cursor.execute("SHOW STATE")
    assert ["active", "yes"] in [list(row) for row in cursor.fetchall()]
    console.commit()
    console.close()


def test_psql(driven: Pooler, psql: str) -> None:
    """What operators type; psql warns of nothing but of the version."""
    for text, expected in (
        ("SHOW STATE", "active|yes"),
        ("show version;", "PgBouncer 1.25.2"),
        ("RECONNECT app", "RECONNECT"),
        ("SHOW HELP", ""),
    ):
        run = subprocess.run(
            [psql, "-XAtw", driven.url("pgbouncer"), "-c", text], capture_output=True, text=True, check=True
        )
        assert expected in run.stdout
        if text == "SHOW HELP":
            assert "KILL_CLIENT <client_id>" in run.stderr
            assert "SHOW PINS|TRANSPORTS|TUNNELS" in run.stderr
