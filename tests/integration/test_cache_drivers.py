"""The result cache and drivers, with their default settings: what they ask again is answered from memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import pytest

from tests.support.postgres import TRUDY

if TYPE_CHECKING:
    from tests.support.cached import Stage

pytestmark = pytest.mark.hyperpool_only


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("parameters", [False, True])
def test_psycopg(stage: Stage, *, binary: bool, parameters: bool) -> None:
    """Simple queries, unnamed statements, and named ones from the sixth time on."""
    sql = f"SELECT name, made FROM cached.item WHERE id = {'%s' if parameters else '1'}"
    values = (1,) if parameters else None
    with psycopg.connect(**stage.pooler.conninfo("app", TRUDY), autocommit=True) as connection:
        first = connection.execute(sql, values, binary=binary).fetchone()
        connection.execute(sql, values, binary=binary)
        stage.rename(1, "behind")
        for _ in range(5):
            # From the sixth time on, psycopg has it prepared: another form, which is not in memory yet.
            found = connection.execute(sql, values, binary=binary, prepare=False).fetchone()
            assert found == first
        connection.execute("UPDATE cached.item SET name = 'written' WHERE id = 1")
        for _ in range(10):
            row = connection.execute(sql, values, binary=binary).fetchone()
            assert row is not None
            assert row[0] == "written"


def test_psycopg_with_prepared_statements(stage: Stage) -> None:
    """Prepared on one connection, answered from memory on each."""
    sql = "SELECT name FROM cached.item WHERE id = %s"
    connections = [psycopg.connect(**stage.pooler.conninfo("app", TRUDY), autocommit=True) for _ in range(3)]
    try:
        for connection in connections:
            assert connection.execute(sql, (1,), prepare=True).fetchone() == ("item 1",)
        stage.rename(1, "behind")
        for connection in connections:
            for _ in range(3):
                assert connection.execute(sql, (1,), prepare=True).fetchone() == ("item 1",)
            assert connection.execute(sql, (2,), prepare=True).fetchone() == ("item 2",)
    finally:
        for connection in connections:
            connection.close()


def test_asyncpg(stage: Stage) -> None:
    """It prepares by itself, with binary answers, and resets its session when a pool takes a connection back.

    It asks what a statement looks like with Flush in place of Sync, and for one row with a limit.
    """

    async def main() -> None:
        conninfo: dict[str, Any] = {
            "host": stage.pooler.host,
            "port": stage.pooler.port,
            "user": TRUDY.name,
            "database": "app",
        }
        sql = "SELECT name, price FROM cached.item WHERE id = $1"
        async with asyncpg.create_pool(**conninfo, min_size=2, max_size=2) as pool:
            async with pool.acquire() as connection:
                for _ in range(2):
                    first = await connection.fetch(sql, 1)
                    assert await connection.fetchrow(sql, 1) == first[0]
                    assert await connection.fetchval(sql, 1) == "item 1"
                await asyncio.to_thread(stage.rename, 1, "behind")
                for _ in range(5):
                    assert await connection.fetch(sql, 1) == first
                    assert await connection.fetchrow(sql, 1) == first[0]
                    assert await connection.fetchval(sql, 1) == "item 1"
                fresh = await asyncpg.connect(**conninfo)
                assert await fresh.fetchrow(sql, 1) == first[0]
                assert await fresh.fetchval("SHOW hyperpool.cache") == "on"
                await fresh.close()
            async with pool.acquire() as connection:
                await connection.execute("UPDATE cached.item SET name = 'written' WHERE id = 1")
                for _ in range(3):
                    assert (await connection.fetch(sql, 1))[0]["name"] == "written"
                    assert await connection.fetchval(sql, 1) == "written"

    asyncio.run(main())
