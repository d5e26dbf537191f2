"""psycopg 3 with asyncio: the other half of its code."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest

from tests.drivers.client import AsyncClient
from tests.drivers.common import CommonCells
from tests.drivers.session import SessionCells
from tests.drivers.test_psycopg3 import NOTICES, NUMBERS, SLOW, arguments

if TYPE_CHECKING:
    import contextlib

    from tests.drivers.site import Site

Connection = psycopg.AsyncConnection[Any]


class AsyncPsycopg(AsyncClient):
    """A connection of psycopg 3 with its defaults."""

    error = psycopg.Error
    lost = (psycopg.OperationalError,)

    @classmethod
    def open(cls, site: Site, /, *, password: str | None = None, **settings: str) -> AsyncPsycopg:
        """Connect."""
        return cls.start(lambda: Connection.connect(**arguments(site, password, settings)))

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement, and commit it if it stands alone."""
        return self.run(self._rows(statement.replace("?", "%s").encode(), values or None))

    async def _rows(self, statement: bytes, values: tuple[object, ...] | None) -> list[tuple[Any, ...]]:
        if self.depth:
            return await self._execute(statement, values)
        try:
            found = await self._execute(statement, values)
        except psycopg.Error:
            if not self.connection.broken:
                await self.connection.rollback()
            raise
        await self.connection.commit()
        return found

    async def _execute(self, statement: bytes, values: tuple[object, ...] | None) -> list[tuple[Any, ...]]:
        async with self.connection.cursor() as cursor:
            await cursor.execute(statement, values)
            return await cursor.fetchall() if cursor.description else []

    def block(self) -> contextlib.AbstractAsyncContextManager[Any]:
        """The driver's own block, which is a savepoint inside of another one."""
        return cast("Connection", self.connection).transaction()

    async def disconnect(self) -> None:
        """Close the connection."""
        await self.connection.close()

    @staticmethod
    def sqlstate(error: Any) -> str | None:
        """Where psycopg 3 has it."""
        return cast("str | None", error.sqlstate)


async def connect(site: Site, *, autocommit: bool = False) -> Connection:
    """Connect, for an `async with`."""
    return await Connection.connect(**site.conninfo, autocommit=autocommit)


@pytest.mark.driver("psycopg3_async")
class TestAsyncPsycopg3(CommonCells, SessionCells):
    """psycopg 3, asynchronous."""

    kind = AsyncPsycopg
    refusal = psycopg.OperationalError
    misfit = psycopg.DataError

    def test_prepared_by_many_tasks(self, site: Site) -> None:
        """Eight tasks with a connection each, more than there are servers."""

        async def work(n: int) -> None:
            async with await connect(site) as connection:
                for turn in range(30):
                    async with connection.transaction():
                        cursor = await connection.execute("SELECT %s::int + 1", [turn])
                        assert await cursor.fetchone() == (turn + 1,)
                        cursor = await connection.execute(f"SELECT %s::int + {n}".encode(), [turn])
                        assert await cursor.fetchone() == (turn + n,)

        async def main() -> None:
            async with asyncio.TaskGroup() as tasks:
                for n in range(8):
                    tasks.create_task(work(n))

        asyncio.run(main())

    def test_pipelining(self, site: Site) -> None:
        """Statements sent ahead, in transactions of their own and in a common one."""

        async def main() -> None:
            async with await connect(site, autocommit=True) as connection:
                for _ in range(8):
                    await asyncio.to_thread(site.change_servers)
                    async with connection.pipeline():
                        cursors = [await connection.execute("SELECT %s::int + 1", [n]) for n in range(10)]
                        async with connection.transaction():
                            cursors += [
                                await connection.execute("SELECT %s::int * 2", [n]) for n in range(10)
                            ]
                        found = [await cursor.fetchone() for cursor in cursors]
                    assert found == [*[(n + 1,) for n in range(10)], *[(n * 2,) for n in range(10)]]

        asyncio.run(main())

    def test_pipelining_with_errors(self, site: Site) -> None:
        """An error is raised at the end of the block, and the connection is as before."""

        async def send(connection: Connection) -> None:
            async with connection.pipeline():
                await connection.execute("SELECT 1 / %s::int", [0])
                await connection.execute("SELECT 'skipped', %s::int", [0])

        async def main() -> None:
            async with await connect(site, autocommit=True) as connection:
                for turn in range(8):
                    await asyncio.to_thread(site.change_servers)
                    with pytest.raises(psycopg.errors.DivisionByZero):
                        await send(connection)
                    cursor = await connection.execute("SELECT %s::int + 1", [turn])
                    assert await cursor.fetchone() == (turn + 1,)

        asyncio.run(main())

    def test_copy(self, site: Site, table: str) -> None:
        """Rows go in and come out; a COPY that is given up leaves the connection usable."""
        rows = [(n, f"value {n}\t\\N") for n in range(5000)]

        async def give_up(cursor: psycopg.AsyncCursor[Any]) -> None:
            async with cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                await copy.write(b"1\tone\n")
                raise LookupError

        async def main() -> None:
            async with await connect(site, autocommit=True) as connection, connection.cursor() as cursor:
                await cursor.execute(f"CREATE TABLE {table} (n int, t text)".encode())
                async with cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                    for row in rows:
                        await copy.write_row(row)
                await asyncio.to_thread(site.change_servers)
                with pytest.raises(LookupError):
                    await give_up(cursor)
                async with cursor.copy(f"COPY {table} TO STDOUT".encode()) as copy:
                    copy.set_types(["int4", "text"])
                    assert [row async for row in copy.rows()] == rows

        asyncio.run(main())

    def test_cancel(self, site: Site) -> None:
        """A task that is cancelled cancels its query, and so does a cancel request by hand."""

        async def main() -> None:
            async with await connect(site, autocommit=True) as connection:
                for by_hand in (True, False):
                    task = asyncio.ensure_future(connection.execute(SLOW))
                    await asyncio.to_thread(site.wait_running, SLOW)
                    if by_hand:
                        await connection.cancel_safe()
                        with pytest.raises(psycopg.errors.QueryCanceled):
                            await task
                    else:
                        task.cancel()
                        with pytest.raises(asyncio.CancelledError):
                            await task
                    cursor = await connection.execute("SELECT 1")
                    assert await cursor.fetchone() == (1,)

        asyncio.run(main())

    def test_notices(self, site: Site) -> None:
        """They arrive in order."""
        seen: list[str | None] = []

        async def main() -> None:
            async with await connect(site, autocommit=True) as connection:
                connection.add_notice_handler(lambda diag: seen.append(diag.message_primary))
                await connection.execute(NOTICES)

        asyncio.run(main())
        assert seen == [*[f"note {n}" for n in range(1, 21)], "end"]

    def test_large_rows_in_portions(self, site: Site) -> None:
        """A server-side cursor and a stream."""

        async def main() -> None:
            async with await connect(site) as connection:
                async with connection.cursor(name="portions") as cursor:
                    cursor.itersize = 700
                    await cursor.execute(NUMBERS)
                    assert [n async for (n,) in cursor] == list(range(1, 5001))
                async with connection.cursor() as cursor:
                    assert [n async for (n,) in cursor.stream(NUMBERS)] == list(range(1, 5001))

        asyncio.run(main())

    def test_listen(self, site: Site) -> None:
        """Notifications of another client arrive while the listener waits for them."""

        async def main() -> None:
            async with (
                await connect(site, autocommit=True) as listener,
                await connect(site, autocommit=True) as other,
            ):
                await listener.execute("LISTEN psycopg3_async")
                for payload in ("one", "zwölf"):
                    await asyncio.to_thread(site.change_servers)
                    notifications = listener.notifies(timeout=10, stop_after=1)
                    heard = asyncio.ensure_future(anext(notifications))
                    await other.execute("SELECT pg_notify('psycopg3_async', %s)", [payload])
                    assert (await heard).payload == payload
                    await notifications.aclose()
                    cursor = await listener.execute("SELECT 1")
                    assert await cursor.fetchone() == (1,)

        asyncio.run(main())
