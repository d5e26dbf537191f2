"""SQLAlchemy on psycopg 3 and on asyncpg, and Alembic with each of them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import alembic.command
import alembic.config
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from tests.drivers.client import AsyncClient, Client
from tests.drivers.common import CommonCells
from tests.drivers.session import SessionCells
from tests.drivers.test_psycopg3 import NUMBERS, arguments

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.drivers.common import Connect
    from tests.drivers.site import Site

_NUMBERS = sa.text(NUMBERS.decode())


def url(site: Site, driver: str, password: str | None = None) -> sa.URL:
    """The address of the site for an engine."""
    return sa.URL.create(
        f"postgresql+{driver}",
        site.role.name,
        site.role.password if password is None else password,
        site.host,
        site.port,
        site.database,
    )


def bound(statement: str, values: tuple[object, ...]) -> tuple[sa.TextClause, dict[str, object]]:
    """A statement with its parameters as SQLAlchemy has them."""
    first, *others = statement.split("?")
    text = first + "".join(f":p{n}{part}" for n, part in enumerate(others))
    return sa.text(text), {f"p{n}": value for n, value in enumerate(values)}


class SqlAlchemyClient(Client):
    """A connection of either kind, and what it raises."""

    error = sa.exc.DBAPIError
    lost = (sa.exc.DBAPIError,)

    @staticmethod
    def sqlstate(error: Any) -> str | None:
        """Where the driver has it."""
        return cast("str | None", error.orig.sqlstate)

    @contextlib.contextmanager
    def loses_connection(self) -> Iterator[None]:
        """Expect that SQLAlchemy notices the loss, so that its pool makes a new connection."""
        with pytest.raises(sa.exc.DBAPIError) as caught:
            yield
        assert caught.value.connection_invalidated


class SqlAlchemy(SqlAlchemyClient):
    """A connection of an engine on psycopg 3, with the defaults of both."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection

    @classmethod
    def open(cls, site: Site, /, *, password: str | None = None, **settings: str) -> SqlAlchemy:
        """Connect."""
        options = arguments(site, password, settings)
        options = {key: options[key] for key in ("application_name", "options") if key in options}
        engine = sa.create_engine(url(site, "psycopg", password), connect_args=options)
        return cls(engine.connect())

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement, and commit it if it stands alone."""
        alone = not self.connection.in_transaction()
        try:
            result = self.connection.execute(*bound(statement, values))
            found = [tuple(row) for row in result] if result.returns_rows else []
        except self.error:
            if alone:
                self.connection.rollback()
            raise
        if alone:
            self.connection.commit()
        return found

    def transaction(self) -> contextlib.AbstractContextManager[object]:
        """SQLAlchemy's own blocks."""
        connection = self.connection
        return connection.begin_nested() if connection.in_transaction() else connection.begin()

    def close(self) -> None:
        """Give the connection back, and let the engine close it."""
        self.connection.close()
        self.connection.engine.dispose()


class AsyncSqlAlchemy(SqlAlchemyClient, AsyncClient):
    """A connection of an engine on asyncpg, with the defaults of both."""

    connection: AsyncConnection

    @classmethod
    def open(cls, site: Site, /, *, password: str | None = None, **settings: str) -> AsyncSqlAlchemy:
        """Connect."""

        async def connect() -> AsyncConnection:
            options = {"server_settings": settings} if settings else {}
            return await create_async_engine(url(site, "asyncpg", password), connect_args=options).connect()

        return cls.start(connect)

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement, and commit it if it stands alone."""
        return self.run(self._rows(*bound(statement, values)))

    async def _rows(self, statement: sa.TextClause, values: dict[str, object]) -> list[tuple[Any, ...]]:
        alone = not self.connection.in_transaction()
        try:
            result = await self.connection.execute(statement, values)
            found = [tuple(row) for row in result] if result.returns_rows else []
        except self.error:
            if alone:
                await self.connection.rollback()
            raise
        if alone:
            await self.connection.commit()
        return found

    def block(self) -> contextlib.AbstractAsyncContextManager[Any]:
        """SQLAlchemy's own blocks."""
        connection = self.connection
        return connection.begin_nested() if connection.in_transaction() else connection.begin()

    async def disconnect(self) -> None:
        """Give the connection back, and let the engine close it."""
        await self.connection.close()
        await self.connection.engine.dispose()


@contextlib.asynccontextmanager
async def async_engine(site: Site) -> AsyncIterator[AsyncEngine]:
    """An engine with its defaults, a pool of connections among them."""
    engine = create_async_engine(url(site, "asyncpg"))
    try:
        yield engine
    finally:
        await engine.dispose()


class Base(DeclarativeBase):
    """The models."""


class Author(Base):
    """Who writes books."""

    __tablename__ = "sqlalchemy_author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list[Book]] = relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    """What authors write."""

    __tablename__ = "sqlalchemy_book"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("sqlalchemy_author.id"))
    title: Mapped[str]
    pages: Mapped[int] = mapped_column(default=0)
    author: Mapped[Author] = relationship(back_populates="books")


def write_books(session: Session, turn: int) -> None:
    """Store objects with others that belong to them."""
    author = Author(name=f"author {turn}")
    author.books = [Book(title=f"book {n}", pages=n) for n in range(turn * 20, (turn + 1) * 20)]
    session.add(author)
    session.commit()


def change_books(session: Session, turn: int) -> None:
    """Find objects, change them, have a constraint refuse one, and delete some."""
    author = session.scalars(
        sa.select(Author).options(selectinload(Author.books)).filter_by(name=f"author {turn}")
    ).one()
    assert [book.title for book in sorted(author.books, key=lambda book: book.id)] == [
        f"book {n}" for n in range(turn * 20, (turn + 1) * 20)
    ]
    for book in author.books:
        book.pages += 1
    nested = session.begin_nested()
    session.add(Author(name=author.name))
    with pytest.raises(sa.exc.IntegrityError):
        session.flush()
    nested.rollback()
    author.books = [book for book in author.books if book.pages % 2]
    session.commit()
    total = (
        sa.select(sa.func.count(), sa.func.sum(Book.pages))
        .join(Book.author)
        .where(Author.name == author.name)
    )
    assert session.execute(total).one() == (10, sum(n + 1 for n in range(turn * 20, (turn + 1) * 20, 2)))
    session.execute(sa.update(Book).where(Book.author_id == author.id).values(pages=0))
    session.rollback()
    assert (
        session.scalar(sa.select(sa.func.min(Book.pages)).where(Book.author_id == author.id)) == turn * 20 + 1
    )


def delete_books(session: Session, turn: int) -> None:
    """Delete an object with those that belong to it."""
    session.delete(session.scalars(sa.select(Author).filter_by(name=f"author {turn}")).one())
    session.commit()


STEPS = (write_books, change_books, delete_books)


def migrate(site: Site, address: sa.URL) -> None:
    """Take the database up to the newest schema and down again, twice."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("alembic")))
    config.set_main_option("sqlalchemy.url", address.render_as_string(hide_password=False).replace("%", "%%"))
    site.tables += ["alembic_book", "alembic_shelf", "alembic_version"]
    columns = (
        "SELECT attname FROM pg_attribute WHERE attrelid = 'alembic_book'::regclass AND attnum > 0 ORDER BY 1"
    )
    for _ in range(2):
        site.change_servers()
        alembic.command.upgrade(config, "first")
        site.change_servers()
        alembic.command.upgrade(config, "head")
        assert site.pg.sql(columns, dbname=site.database) == [
            ("binding",),
            ("id",),
            ("shelf_id",),
            ("title",),
        ]
        assert site.pg.sql("SELECT to_regclass('alembic_title') IS NULL", dbname=site.database) == [(False,)]
        shelves = "SELECT count(*) FROM alembic_shelf WHERE name LIKE '%%!'"
        assert site.pg.sql(shelves, dbname=site.database) == [(20,)]
        site.change_servers()
        alembic.command.downgrade(config, "base")
        assert site.pg.sql("SELECT to_regclass('alembic_book')", dbname=site.database) == [(None,)]


@pytest.mark.driver("sqlalchemy_psycopg")
class TestSqlAlchemyOnPsycopg(CommonCells, SessionCells):
    """SQLAlchemy, synchronous, on psycopg 3."""

    kind = SqlAlchemy
    refusal = sa.exc.OperationalError
    misfit = sa.exc.DataError

    @pytest.fixture
    def engine(self, site: Site) -> Iterator[sa.Engine]:
        """An engine with its defaults, a pool of connections among them."""
        engine = sa.create_engine(url(site, "psycopg"))
        yield engine
        engine.dispose()

    def test_pipelining(self, site: Site, engine: sa.Engine, table: str) -> None:
        """One statement for many rows goes to the driver as a whole, which sends all of them ahead."""
        rows = sa.Table(
            table, sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer)
        )
        rows.create(engine)
        update = sa.update(rows).where(rows.c.id == sa.bindparam("which")).values(n=100 // sa.bindparam("by"))
        for turn in range(3):
            site.change_servers()
            with engine.begin() as connection:
                connection.execute(sa.delete(rows))
                connection.execute(sa.insert(rows), [{"id": n, "n": 0} for n in range(1, 101)])
                connection.execute(update, [{"which": n, "by": n} for n in range(1, 101)])
            with pytest.raises(sa.exc.DataError), engine.begin() as connection:
                connection.execute(update, [{"which": n, "by": 50 - n} for n in range(1, 101)])
            with engine.connect() as connection:
                found = connection.scalars(sa.select(rows.c.n).order_by(rows.c.id)).all()
            assert found == [100 // n for n in range(1, 101)], turn

    def test_large_rows_in_portions(self, site: Site, connect: Connect) -> None:
        """A server-side cursor."""
        connection = cast("SqlAlchemy", connect()).connection.execution_options(yield_per=700)
        for _ in range(2):
            site.change_servers()
            with connection.begin():
                assert [row.n for row in connection.execute(_NUMBERS)] == list(range(1, 5001))

    def test_reconnect_of_the_pool(self, mortal_site: Site) -> None:
        """After the loss of one connection, the engine's pool makes new ones."""
        engine = sa.create_engine(url(mortal_site, "psycopg"))
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
            mortal_site.restart()
            with pytest.raises(sa.exc.OperationalError):
                connection.execute(sa.text("SELECT 2"))
        with engine.connect() as one, engine.connect() as two:
            for connection in (one, two):
                assert connection.scalar(sa.text("SELECT 3")) == 3
        engine.dispose()

    def test_models(self, site: Site, engine: sa.Engine) -> None:
        """Each step in a session of its own, and all steps twice, so that statements are used again."""
        site.tables += [table.name for table in Base.metadata.tables.values()]
        Base.metadata.create_all(engine)
        for turn in range(6):
            for step in STEPS:
                site.change_servers()
                with Session(engine) as session:
                    step(session, turn)

    def test_migrations(self, site: Site) -> None:
        """Alembic, one migration with an index that is made outside of a transaction."""
        migrate(site, url(site, "psycopg"))

    def test_migrations_looked_at(self, site: Site, engine: sa.Engine) -> None:
        """The inspector's queries of the catalog find what was made."""
        site.tables += [table.name for table in Base.metadata.tables.values()]
        Base.metadata.create_all(engine)
        site.change_servers()
        found = sa.MetaData()
        found.reflect(engine, only=["sqlalchemy_book"])
        (key,) = found.tables["sqlalchemy_book"].foreign_keys
        assert key.target_fullname == "sqlalchemy_author.id"


@pytest.mark.driver("sqlalchemy_asyncpg")
class TestSqlAlchemyOnAsyncpg(CommonCells, SessionCells):
    """SQLAlchemy, asynchronous, on asyncpg."""

    kind = AsyncSqlAlchemy
    refusal = sa.exc.DBAPIError
    misfit = sa.exc.DBAPIError

    def test_prepared_in_a_pool(self, site: Site) -> None:
        """Twenty tasks share the engine's pool."""

        async def work(engine: AsyncEngine, n: int) -> None:
            for turn in range(5):
                async with engine.begin() as connection:
                    squared = await connection.scalar(
                        sa.text("SELECT CAST(:n AS int) * CAST(:n AS int)"), {"n": n}
                    )
                    added = await connection.scalar(
                        sa.text(f"SELECT CAST(:turn AS int) + {n % 3}"), {"turn": turn}
                    )
                    assert (squared, added) == (n * n, turn + n % 3)

        async def main() -> None:
            async with async_engine(site) as engine, asyncio.TaskGroup() as tasks:
                for n in range(20):
                    tasks.create_task(work(engine, n))

        asyncio.run(main())

    def test_pipelining(self, site: Site, table: str) -> None:
        """One statement for many rows goes to the driver as a whole, which sends all of them ahead."""
        insert = sa.text(f"INSERT INTO {table} VALUES (:n, 100 / CAST(:n AS int))")

        async def main() -> None:
            async with async_engine(site) as engine:
                async with engine.begin() as connection:
                    await connection.execute(sa.text(f"CREATE TABLE {table} (n int, q int)"))
                for turn in range(3):
                    await asyncio.to_thread(site.change_servers)
                    async with engine.begin() as connection:
                        await connection.execute(insert, [{"n": n} for n in range(1, 101)])
                    with pytest.raises(sa.exc.DBAPIError, match="division by zero"):
                        async with engine.begin() as connection:
                            await connection.execute(insert, [{"n": 50 - n} for n in range(100)])
                    async with engine.connect() as connection:
                        count = await connection.scalar(sa.text(f"SELECT count(*) FROM {table}"))
                    assert count == (turn + 1) * 100

        asyncio.run(main())

    def test_large_rows_in_portions(self, site: Site) -> None:
        """A stream, which is a portal that is executed with a row limit."""

        async def main() -> None:
            async with async_engine(site) as engine:
                for _ in range(2):
                    await asyncio.to_thread(site.change_servers)
                    async with engine.connect() as connection:
                        stream = await connection.stream(_NUMBERS)
                        assert [row.n async for row in stream] == list(range(1, 5001))

        asyncio.run(main())

    def test_models(self, site: Site) -> None:
        """Each step in a session of its own, and all steps often, so that statements are used again."""
        site.tables += [table.name for table in Base.metadata.tables.values()]

        async def main() -> None:
            async with async_engine(site) as engine:
                async with engine.begin() as connection:
                    await connection.run_sync(Base.metadata.create_all)
                for turn in range(6):
                    for step in STEPS:
                        await asyncio.to_thread(site.change_servers)
                        async with AsyncSession(engine) as session:
                            await session.run_sync(step, turn)

        asyncio.run(main())

    def test_migrations(self, site: Site) -> None:
        """Alembic, one migration with an index that is made outside of a transaction."""
        migrate(site, url(site, "asyncpg"))
