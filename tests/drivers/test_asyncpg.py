"""asyncpg, which prepares every statement that has not been met before, and sends Flush in place of Sync."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import pytest

from tests.drivers.client import AsyncClient
from tests.drivers.common import CommonCells
from tests.drivers.session import SessionCells
from tests.drivers.test_psycopg3 import NOTICES, NUMBERS, SLOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.drivers.site import Site


def arguments(site: Site) -> dict[str, Any]:
    """What `connect` and `create_pool` take."""
    return {
        "host": site.host,
        "port": site.port,
        "user": site.role.name,
        "password": site.role.password,
        "database": site.database,
    }


class Asyncpg(AsyncClient):
    """A connection of asyncpg with its defaults."""

    error = asyncpg.PostgresError
    lost = (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.InterfaceError, OSError)

    @classmethod
    def open(cls, site: Site, /, *, password: str | None = None, **settings: str) -> Asyncpg:
        """Connect."""
        options = arguments(site)
        if password is not None:
            options["password"] = password
        return cls.start(lambda: asyncpg.connect(**options, server_settings=settings))

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement, which is a transaction of its own by default."""
        first, *others = statement.split("?")
        text = first + "".join(f"${n}{part}" for n, part in enumerate(others, 1))
        return [tuple(row) for row in self.run(self.connection.fetch(text, *values))]

    def block(self) -> contextlib.AbstractAsyncContextManager[Any]:
        """The driver's own block, which is a savepoint inside of another one."""
        return cast("contextlib.AbstractAsyncContextManager[Any]", self.connection.transaction())

    async def disconnect(self) -> None:
        """Close the connection."""
        await self.connection.close()

    @staticmethod
    def sqlstate(error: Any) -> str | None:
        """Where asyncpg has it."""
        return cast("str | None", error.sqlstate)


@contextlib.asynccontextmanager
async def connected(site: Site) -> AsyncIterator[Any]:
    """A connection with the driver's defaults."""
    connection = await asyncpg.connect(**arguments(site))
    try:
        yield connection
    finally:
        await connection.close()


@pytest.mark.driver("asyncpg")
class TestAsyncpg(CommonCells, SessionCells):
    """asyncpg."""

    kind = Asyncpg
    refusal = asyncpg.InvalidPasswordError
    misfit = asyncpg.DataError

    def test_types_of_the_application(self, site: Site) -> None:
        """Documents with a codec of the application, enumerations and records, which the driver looks up."""

        async def main() -> None:
            async with connected(site) as connection:
                await connection.set_type_codec(
                    "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
                )
                for turn in range(3):
                    await asyncio.to_thread(site.change_servers)
                    document = {"a": [turn, None]}
                    assert await connection.fetchval("SELECT $1::jsonb", document) == document
                    row = await connection.fetchval("SELECT ROW($1::int, 'x'::text)", turn)
                    assert tuple(row) == (turn, "x")

        asyncio.run(main())

    def test_types_that_are_looked_up(self, site: Site, table: str) -> None:
        """For a type that it does not know, the driver asks the catalog between Parse and Bind."""

        async def main() -> None:
            async with connected(site) as one, connected(site) as two:
                await one.execute(f"CREATE TABLE {table} (n int, t text)")
                for turn, connection in enumerate((one, two, one)):
                    await asyncio.to_thread(site.change_servers)
                    row = await connection.fetchval(f"SELECT $1::{table}", (turn, "x"))
                    assert dict(row) == {"n": turn, "t": "x"}
                    rows = await connection.fetchval(f"SELECT ARRAY[$1::{table}]", (turn, "y"))
                    assert [tuple(row) for row in rows] == [(turn, "y")]

        asyncio.run(main())

    def test_prepared_on_request(self, site: Site) -> None:
        """Statements that the application keeps; and more than the hundred that the driver keeps."""

        async def main() -> None:
            async with connected(site) as one, connected(site) as two:
                kept = [await connection.prepare("SELECT $1::int + 1") for connection in (one, two)]
                assert [kind.name for kind in kept[0].get_parameters()] == ["int4"]
                for turn in range(130):
                    if turn % 10 == 0:
                        await asyncio.to_thread(site.change_servers)
                    for statement in kept:
                        assert await statement.fetchval(turn) == turn + 1
                    for connection in (one, two):
                        assert await connection.fetchval(f"SELECT $1::int * {turn}", 2) == turn * 2
                assert await one.fetchval("SELECT $1::int * 0", 2) == 0

        asyncio.run(main())

    def test_prepared_in_a_pool(self, site: Site) -> None:
        """The driver's own pool, which resets a connection when it is given back."""

        async def work(pool: Any, n: int) -> None:
            async with pool.acquire() as connection:
                assert await connection.fetchval("SELECT $1::int * $1::int", n) == n * n
                await connection.execute(f"SET application_name = 'worker {n}'")
                async with connection.transaction():
                    assert await connection.fetchval("SELECT $1::int + 1", n) == n + 1
                assert await connection.fetchval("SHOW application_name") == f"worker {n}"

        async def main() -> None:
            async with asyncpg.create_pool(**arguments(site), min_size=8, max_size=8) as pool:
                async with asyncio.TaskGroup() as tasks:
                    for n in range(100):
                        tasks.create_task(work(pool, n))
                assert await pool.fetchval("SHOW application_name") == ""

        asyncio.run(main())

    def test_pipelining(self, site: Site, table: str) -> None:
        """`executemany` sends all rows ahead; one that fails undoes all of them."""

        async def main() -> None:
            async with connected(site) as connection:
                await connection.execute(f"CREATE TABLE {table} (n int PRIMARY KEY, t text)")
                insert = f"INSERT INTO {table} VALUES ($1, $2)"
                for turn in range(3):
                    await asyncio.to_thread(site.change_servers)
                    rows = [(n, f"row {n}") for n in range(turn * 1000, (turn + 1) * 1000)]
                    await connection.executemany(insert, rows)
                    with pytest.raises(asyncpg.UniqueViolationError):
                        await connection.executemany(insert, [(-1, "new"), (0, "again"), (-2, "skipped")])
                    found = await connection.fetchmany(
                        f"SELECT $1::int FROM {table} WHERE n < 0", [(1,), (2,)]
                    )
                    assert found == []
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 3000

        asyncio.run(main())

    def test_copy(self, site: Site, table: str) -> None:
        """Records go in and come out, in binary format and in text; a COPY that fails does no harm."""
        records = [(n, f"value {n}") for n in range(5000)]

        async def main() -> None:
            async with connected(site) as connection:
                await connection.execute(f"CREATE TABLE {table} (n int, t text)")
                await connection.copy_records_to_table(table, records=records)
                await asyncio.to_thread(site.change_servers)
                out = io.BytesIO()
                await connection.copy_from_query(
                    f"SELECT * FROM {table} WHERE n >= $1 ORDER BY n", 0, output=out
                )
                assert out.getvalue() == "".join(f"{n}\t{text}\n" for n, text in records).encode()
                with pytest.raises(asyncpg.InvalidTextRepresentationError):
                    await connection.copy_to_table(table, source=io.BytesIO(b"one\ttwo\n"))
                await connection.copy_to_table(table, source=io.BytesIO(out.getvalue()))
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 10_000

        asyncio.run(main())

    def test_cancel(self, site: Site) -> None:
        """A task that is cancelled, and a timeout of the driver, cancel the query on the server."""

        async def main() -> None:
            async with connected(site) as connection:
                task = asyncio.ensure_future(connection.fetch(SLOW))
                await asyncio.to_thread(site.wait_running, SLOW)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await connection.fetchval("SELECT 1") == 1
                with pytest.raises(TimeoutError):
                    await connection.fetch(SLOW, timeout=0.1)
                assert await connection.fetchval("SELECT $1::int", 2) == 2

        asyncio.run(main())

    def test_notices(self, site: Site) -> None:
        """They reach the listener in order."""
        seen: list[str] = []

        async def main() -> None:
            async with connected(site) as connection:
                connection.add_log_listener(lambda _, message: seen.append(message.message))
                await connection.execute(NOTICES.decode())
                await asyncio.sleep(0)

        asyncio.run(main())
        assert seen == [*[f"note {n}" for n in range(1, 21)], "end"]

    def test_large_rows_in_portions(self, site: Site) -> None:
        """A portal that is executed with a row limit, again and again in one transaction."""

        async def main() -> None:
            async with connected(site) as connection:
                for _ in range(2):
                    await asyncio.to_thread(site.change_servers)
                    async with connection.transaction():
                        found = [row["n"] async for row in connection.cursor(NUMBERS.decode(), prefetch=700)]
                        assert found == list(range(1, 5001))
                        cursor = await connection.cursor(NUMBERS.decode())
                        assert await cursor.forward(10) == 10
                        assert [row["n"] for row in await cursor.fetch(2)] == [11, 12]

        asyncio.run(main())

    def test_listen(self, site: Site) -> None:
        """Notifications of another client are heard until the listener is removed."""

        async def main() -> None:
            async with connected(site) as listener, connected(site) as other:
                heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

                def hear(_connection: Any, _pid: int, channel: str, payload: str) -> None:
                    heard.put_nowait((channel, payload))

                await listener.add_listener("asyncpg", hear)
                for payload in ("one", "zwölf"):
                    await asyncio.to_thread(site.change_servers)
                    assert await listener.fetchval("SELECT $1::int", 1) == 1
                    await other.execute("SELECT pg_notify('asyncpg', $1)", payload)
                    assert await asyncio.wait_for(heard.get(), 10) == ("asyncpg", payload)
                await listener.remove_listener("asyncpg", hear)
                await other.execute("NOTIFY asyncpg")
                assert await listener.fetchval("SELECT $1::int", 1) == 1
                assert heard.empty()

        asyncio.run(main())
