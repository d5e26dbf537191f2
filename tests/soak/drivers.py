"""Visitors with real drivers: psycopg, psycopg2, asyncpg."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

import asyncpg
import psycopg
import psycopg2

from tests.soak.journal import WrongAnswer
from tests.soak.truth import ACCOUNTS, MARKS, MAX_AGE, STALE, TOTAL
from tests.soak.visitor import Visitor, code_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.soak.site import Site

_TRANSFERS: Final = 0.3
_DIVISION_BY_ZERO: Final = "22012"
_CANCELED: Final = "57014"
Rows = list[tuple[Any, ...]]


def _transfer(dice: random.Random) -> tuple[int, int, int]:
    """An amount, and from which account to which; the lower one is locked first, so that nobody deadlocks."""
    low, high = sorted(dice.sample(range(1, ACCOUNTS + 1), 2))
    return dice.randrange(-20, 20), low, high


class DbApiVisitor(Visitor):
    """Transfers between accounts, whose total is known, and small questions, whose answers are known."""

    @abstractmethod
    def connect(self) -> Any:
        """A connection of the driver, which begins transactions by itself."""

    def visit(self) -> None:
        """Do transfers and ask questions."""
        connection = self.connect()
        try:
            for _ in self.stays():
                step = self._transfer if self.dice.random() < _TRANSFERS else self._question
                step(connection)
                if not self.pause():
                    break
        finally:
            connection.close()

    def _transfer(self, connection: Any) -> None:
        amount, low, high = _transfer(self.dice)
        number = self.entries.draw()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            server = cursor.fetchone()
            for account, change in ((low, amount), (high, -amount)):
                cursor.execute("UPDATE account SET amount = amount + %s WHERE id = %s", (change, account))
                self.expect(cursor.rowcount, 1, "rows of an UPDATE")
            cursor.execute("INSERT INTO entry VALUES (%s, %s)", (self.number, number))
            cursor.execute("SELECT sum(amount), pg_backend_pid() FROM account")
            self.expect(cursor.fetchone(), (TOTAL, *server), "total and server in a transaction")
        if self.dice.random() < 0.2:
            connection.rollback()
            return
        self.entries.doubtful.add(number)
        connection.commit()
        self.entries.doubtful.discard(number)
        self.entries.committed.add(number)

    def _question(self, connection: Any) -> None:
        token, count = self.dice.random(), self.dice.randrange(1, 200)
        with connection.cursor() as cursor:
            if token < 0.1:
                self._fail(cursor)
                connection.rollback()
            cursor.execute(
                "SELECT %s::float8, i, repeat('x', i) FROM generate_series(1, %s) i", (token, count)
            )
            expected = [(token, i, "x" * i) for i in range(1, count + 1)]
            self.expect([tuple(row) for row in cursor.fetchall()], expected, "rows")
        connection.commit()

    def _fail(self, cursor: Any) -> None:
        try:
            cursor.execute("SELECT 1 / %s", (0,))
        except (psycopg.Error, psycopg2.Error) as error:
            if code_of(error) != _DIVISION_BY_ZERO:
                raise
        else:
            raise WrongAnswer("no error for a division by zero")


class PsycopgVisitor(DbApiVisitor):
    """psycopg: extended protocol, and prepared from the second time on."""

    kind = "psycopg (prepared)"

    def connect(self) -> psycopg.Connection[Any]:
        """Connect."""
        return psycopg.connect(**self.site.conninfo(self.route), prepare_threshold=1)


class Psycopg2Visitor(DbApiVisitor):
    """psycopg2: the simple protocol."""

    kind = "psycopg2 (simple)"

    def connect(self) -> Any:
        """Connect."""
        return psycopg2.connect(**self.site.conninfo(self.route))


class AsyncpgVisitor(Visitor):
    """asyncpg: prepared statements in binary, cursors, savepoints."""

    kind = "asyncpg (binary)"

    def visit(self) -> None:
        """Do transfers, and read with cursors."""
        asyncio.run(self._visit())

    async def _visit(self) -> None:
        info = self.site.conninfo(self.route)
        connection = await asyncpg.connect(
            host=info["host"],
            port=info["port"],
            user=info["user"],
            password=info["password"],
            database=self.route,
            timeout=20,
        )
        try:
            for _ in self.stays():
                step = self._transfer if self.dice.random() < _TRANSFERS else self._read
                await step(connection)
                if not self.pause():
                    break
            await connection.close(timeout=10)
        finally:
            connection.terminate()

    async def _transfer(self, connection: Any) -> None:
        amount, low, high = _transfer(self.dice)
        number = self.entries.draw()
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("UPDATE account SET amount = amount + $1 WHERE id = $2", amount, low)
        try:
            async with connection.transaction():
                await connection.fetchval("SELECT 1 / $1::int", 0)
        except asyncpg.DivisionByZeroError:
            pass
        else:
            raise WrongAnswer("no error for a division by zero")
        await connection.execute("UPDATE account SET amount = amount + $1 WHERE id = $2", -amount, high)
        await connection.execute("INSERT INTO entry VALUES ($1, $2)", self.number, number)
        self.expect(
            await connection.fetchval("SELECT sum(amount) FROM account"), TOTAL, "total in a transaction"
        )
        self.entries.doubtful.add(number)
        await transaction.commit()
        self.entries.doubtful.discard(number)
        self.entries.committed.add(number)

    async def _read(self, connection: Any) -> None:
        count = self.dice.randrange(1, 300)
        async with connection.transaction():
            query = "SELECT i FROM generate_series(1, $1::int) i"
            read = [row["i"] async for row in connection.cursor(query, count, prefetch=40)]
        self.expect(read, list(range(1, count + 1)), "rows of a cursor")


class SessionVisitor(Visitor):
    """Session state over many transactions: settings, a temporary table, notifications, an advisory lock."""

    kind = "session state"

    def visit(self) -> None:
        """Set what a session keeps, and look again and again whether it is there."""
        name = f"visitor {self.number}"
        with psycopg.connect(
            **self.site.conninfo(self.route), autocommit=True, prepare_threshold=None, application_name=name
        ) as connection:
            steps: list[Callable[[psycopg.Connection[Any], int], None]] = [self._settings, self._foreign]
            if keeps := self.dice.random() < 0.5:
                connection.execute("CREATE TEMP TABLE notes (n int)")
                connection.execute(f"LISTEN channel_{self.number}")
                steps += [self._temporary, self._notified]
            zone = self.dice.choice(["Asia/Tokyo", "Europe/Paris", "America/Lima"])
            connection.execute(f"SET TimeZone = '{zone}'")
            for n in self.stays():
                row = connection.execute(
                    "SELECT current_setting('application_name'), current_setting('TimeZone')"
                ).fetchone()
                self.expect(row, (name, zone), "settings of the session")
                self.dice.choice(steps)(connection, n)
                if not self.pause():
                    break
            if keeps:
                self._count(connection)

    def _settings(self, connection: psycopg.Connection[Any], n: int) -> None:
        connection.execute(f"SET soak.number = '{n}'")
        row = connection.execute("SELECT current_setting('soak.number')").fetchone()
        self.expect(row, (str(n),), "an own setting")
        with connection.transaction():
            connection.execute("SET LOCAL work_mem = '1MB'")
            self.expect(connection.execute("SHOW work_mem").fetchone(), ("1MB",), "a local setting")
        self.expect(connection.execute("SHOW work_mem").fetchone(), ("4MB",), "the setting after it")

    def _foreign(self, connection: psycopg.Connection[Any], n: int) -> None:
        row = connection.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        ).fetchone()
        self.expect(row, (0,), "advisory locks of others")
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (self.number,))

    def _temporary(self, connection: psycopg.Connection[Any], n: int) -> None:
        connection.execute("INSERT INTO notes VALUES (%s)", (self.number,))
        self._count(connection)

    def _count(self, connection: psycopg.Connection[Any]) -> None:
        row = connection.execute("SELECT count(*) FROM notes WHERE n <> %s", (self.number,)).fetchone()
        self.expect(row, (0,), "foreign rows in an own temporary table")

    def _notified(self, connection: psycopg.Connection[Any], n: int) -> None:
        connection.execute("SELECT pg_notify(%s, %s)", (f"channel_{self.number}", f"word {n}"))
        for notice in connection.notifies(timeout=10, stop_after=1):
            self.expect(
                (notice.channel, notice.payload), (f"channel_{self.number}", f"word {n}"), "a notification"
            )
            return
        raise WrongAnswer("no notification within 10 s")


class CachedVisitor(Visitor):
    """Cached reads: none older than promised, none older than what was written through the pooler.

    Args:
        site: where it goes.
        number: of the client, and of the mark that it writes.
        route: the database that it asks for.
        prepared: with prepared statements in place of literals.
    """

    kind: ClassVar[str] = "cached reads"

    def __init__(self, site: Site, number: int, route: str, *, prepared: bool, mark: int) -> None:
        super().__init__(site, number, route)
        self._prepared = prepared
        self._mark = mark

    def visit(self) -> None:
        """Read often, write now and then."""
        threshold = 1 if self._prepared else None
        with psycopg.connect(
            **self.site.conninfo(self.route), autocommit=True, prepare_threshold=threshold
        ) as connection:
            for _ in self.stays():
                if self.dice.random() < 0.1:
                    self._write(connection)
                for _ in range(3):
                    self._read(connection, self.dice.randrange(1, 2 * MARKS + 1))
                if not self.pause():
                    break

    def _write(self, connection: psycopg.Connection[Any]) -> None:
        marks = self.site.marks
        value = marks.begin(self._mark)
        found = connection.execute("UPDATE mark SET value = %s WHERE id = %s", (value, self._mark))
        self.expect(found.rowcount, 1, "rows of an UPDATE")
        marks.acknowledge(self._mark, value)
        self._read(connection, self._mark, own=True)

    def _read(self, connection: psycopg.Connection[Any], mark: int, *, own: bool = False) -> None:
        begin = time.monotonic()
        through = mark <= MARKS and (own or not self.site.two_processes)
        oldest = self.site.marks.oldest(mark, begin if through else begin - MAX_AGE - STALE)
        if self._prepared:
            row = connection.execute("SELECT value FROM mark WHERE id = %s", (mark,)).fetchone()
        else:
            row = connection.execute(f"SELECT value FROM mark WHERE id = {mark}").fetchone()
        assert row is not None
        self.site.marks.check(mark, row[0], oldest)
