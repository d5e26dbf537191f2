"""asyncpg, pg8000 and SQLAlchemy through the pooler: the same short checklist for each driver."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import io
import warnings
from typing import TYPE_CHECKING, Any

import asyncpg
import pg8000.native
import pytest
import sqlalchemy as sa

from tests.support.postgres import ANN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.support.poolers import Pooler


def _asyncpg(pooler: Pooler, mode: str, check: Callable[[Any], Awaitable[None]]) -> None:
    async def main() -> None:
        connection = await asyncpg.connect(
            host=pooler.host,
            port=pooler.port,
            user=ANN.name,
            password=ANN.password,
            database=mode,
            timeout=15,
            command_timeout=30,
            ssl="prefer",
            statement_cache_size=100 if mode == "session" else 0,
        )
        try:
            await check(connection)
        finally:
            await connection.close()

    asyncio.run(main())


class TestAsyncpg:
    """asyncpg, which sends its own mix of simple and extended protocol with Flush instead of Sync."""

    def test_values(self, pooler: Pooler, mode: str) -> None:
        """Parameters and binary results of common types are equal to what was sent."""

        async def check(connection: Any) -> None:
            moment = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
            row = await connection.fetchrow(
                "SELECT $1::int8, $2::text, $3::numeric, $4::timestamptz, $5::bytea, $6::int[]",
                2**40,
                "zwölf",
                decimal.Decimal("1.50"),
                moment,
                b"\0\1",
                [1, None, 3],
            )
            expected = (2**40, "zwölf", decimal.Decimal("1.50"), moment, b"\0\1", [1, None, 3])
            assert tuple(row) == expected

        _asyncpg(pooler, mode, check)

    def test_many_statements(self, pooler: Pooler, mode: str) -> None:
        """The same and different statements alternate on one connection."""

        async def check(connection: Any) -> None:
            for n in range(60):
                assert await connection.fetchval("SELECT $1::int", n) == n
                assert await connection.fetchval(f"SELECT {n % 7}") == n % 7

        _asyncpg(pooler, mode, check)

    def test_transactions_and_errors(self, pooler: Pooler, block_mode: str) -> None:
        """A transaction rolls back on an error, a nested one to its savepoint; the connection lives on."""

        async def fail(connection: Any) -> None:
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (2)")
                await connection.fetch("SELECT 1 / 0")

        async def check(connection: Any) -> None:
            async with connection.transaction():
                await connection.execute("CREATE TEMP TABLE t (n int) ON COMMIT DROP")
                await connection.execute("INSERT INTO t VALUES (1)")
                with pytest.raises(asyncpg.DivisionByZeroError):
                    await fail(connection)
                assert await connection.fetchval("SELECT array_agg(n) FROM t") == [1]
            assert await connection.fetchval("SELECT 1") == 1

        _asyncpg(pooler, block_mode, check)

    def test_copy(self, pooler: Pooler, mode: str) -> None:
        """Binary COPY in and text COPY out move all records."""
        table = f"asyncpg_copy_{mode}"

        async def check(connection: Any) -> None:
            await connection.execute(f"CREATE TABLE {table} (n int, t text)")
            await connection.execute(f"INSERT INTO {table} SELECT n, 'x' FROM generate_series(1, 10000) n")
            out = io.BytesIO()
            await connection.copy_from_query(f"SELECT * FROM {table} ORDER BY n", output=out)
            assert out.getvalue() == b"".join(b"%d\tx\n" % n for n in range(1, 10001))
            await connection.copy_to_table(table, source=io.BytesIO(out.getvalue()))
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 20_000
            await connection.execute(f"DROP TABLE {table}")

        _asyncpg(pooler, mode, check)

    def test_cursor_with_portions(self, pooler: Pooler, block_mode: str) -> None:
        """A cursor, that is a portal executed with a row limit, returns all rows in order."""

        async def check(connection: Any) -> None:
            async with connection.transaction():
                got = [
                    row[0] async for row in connection.cursor("SELECT generate_series(1, 500)", prefetch=50)
                ]
            assert got == list(range(1, 501))

        _asyncpg(pooler, block_mode, check)


class TestPg8000:
    """pg8000, pure Python, which prepares and closes a named statement around each query with parameters."""

    @pytest.fixture
    def connection(self, pooler: Pooler, mode: str) -> Iterator[pg8000.native.Connection]:
        """A connection to the database of each pool mode."""
        connection = pg8000.native.Connection(
            ANN.name,
            host=pooler.host,
            port=pooler.port,
            database=mode,
            password=ANN.password,
            timeout=15,
        )
        yield connection
        connection.close()

    def test_simple_queries(self, connection: pg8000.native.Connection) -> None:
        """Queries without parameters return typed rows."""
        assert connection.run("SELECT 1, 'zwei', NULL") == [[1, "zwei", None]]

    def test_errors(self, connection: pg8000.native.Connection) -> None:
        """An error carries the server's fields; the next query works."""
        with pytest.raises(pg8000.exceptions.DatabaseError) as caught:
            connection.run("SELECT * FROM does_not_exist")
        assert caught.value.args[0]["C"] == "42P01"
        assert connection.run("SELECT 2") == [[2]]

    def test_copy(self, connection: pg8000.native.Connection, mode: str) -> None:
        """COPY in and out move all lines."""
        table = f"pg8000_copy_{mode}"
        lines = b"".join(b"%d\n" % n for n in range(2000))
        connection.run(f"CREATE TABLE {table} (n int)")
        connection.run(f"COPY {table} FROM STDIN", stream=io.BytesIO(lines))
        out = io.BytesIO()
        connection.run(f"COPY {table} TO STDOUT", stream=out)
        assert out.getvalue() == lines
        connection.run(f"DROP TABLE {table}")

    def test_transaction(self, pooler: Pooler, block_mode: str) -> None:
        """Parameters inside a transaction stay on one server; ROLLBACK undoes all."""
        with pg8000.native.Connection(
            ANN.name,
            host=pooler.host,
            port=pooler.port,
            database=block_mode,
            password=ANN.password,
        ) as connection:
            connection.run("BEGIN")
            connection.run("CREATE TABLE pg8000_undone (n int)")
            connection.run("INSERT INTO pg8000_undone VALUES (:n)", n=5)
            assert connection.run("SELECT n FROM pg8000_undone WHERE n = :n", n=5) == [[5]]
            connection.run("ROLLBACK")
            assert connection.run("SELECT to_regclass('pg8000_undone')") == [[None]]


class TestSqlAlchemy:
    """SQLAlchemy's core on psycopg; its first connection opens a transaction, so no statement mode."""

    @pytest.fixture
    def engine(self, pooler: Pooler, block_mode: str) -> Iterator[sa.Engine]:
        """An engine on the database of each pool mode that allows transactions."""
        url = pooler.url(block_mode).replace("postgresql://", "postgresql+psycopg://")
        engine = sa.create_engine(url, connect_args={"prepare_threshold": None})
        yield engine
        engine.dispose()

    def test_tables_and_rows(self, engine: sa.Engine, block_mode: str) -> None:
        """A table is created, filled with one multi-row INSERT, queried and dropped."""
        table = sa.Table(
            f"sqlalchemy_{block_mode}",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("name", sa.Text, nullable=False),
        )
        table.create(engine)
        with engine.begin() as connection:
            connection.execute(table.insert(), [{"id": n, "name": f"n{n}"} for n in range(500)])
        with engine.connect() as connection:
            found = connection.execute(sa.select(table.c.name).where(table.c.id > 497).order_by(table.c.id))
            assert [row.name for row in found] == ["n498", "n499"]
            assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() == 500
        table.drop(engine)

    def test_an_error_leaves_the_engine_usable(self, engine: sa.Engine) -> None:
        """A failed statement raises SQLAlchemy's error for its SQLSTATE; the next connection works."""
        with engine.connect() as connection, pytest.raises(sa.exc.ProgrammingError):
            connection.execute(sa.text("SELECT * FROM does_not_exist"))
        with engine.connect() as connection:
            assert connection.execute(sa.text("SELECT :x + 1"), {"x": 1}).scalar_one() == 2

    def test_reflection(self, engine: sa.Engine) -> None:
        """The inspector's catalog queries work through the pooler."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sa.exc.SAWarning)
            assert "pg_class" in sa.inspect(engine).get_table_names(schema="pg_catalog")
