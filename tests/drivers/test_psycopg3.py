"""psycopg 3, which prepares statements that are executed more than five times."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest
from psycopg.types.json import Jsonb
from psycopg.types.range import Range

from tests.drivers.client import DbapiClient
from tests.drivers.common import CommonCells
from tests.drivers.session import SessionCells

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.drivers.common import Connect
    from tests.drivers.site import Site

NUMBERS = b"SELECT n FROM generate_series(1, 5000) AS n"
SLOW = "SELECT pg_sleep(20)"
NOTICES = b"DO $$ BEGIN FOR i IN 1..20 LOOP RAISE NOTICE 'note %', i; END LOOP; RAISE WARNING 'end'; END $$"


def arguments(site: Site, password: str | None, settings: dict[str, str]) -> dict[str, Any]:
    """What `connect` takes in psycopg 3 and psycopg2."""
    found = site.conninfo
    if password is not None:
        found["password"] = password
    if name := settings.pop("application_name", None):
        found["application_name"] = name
    if settings:
        found["options"] = " ".join(f"-c {key}={value}" for key, value in settings.items())
    return found


class Psycopg(DbapiClient):
    """A connection of psycopg 3 with its defaults."""

    error = psycopg.Error
    lost = (psycopg.OperationalError,)
    connection: psycopg.Connection[Any]

    @classmethod
    def open(cls, site: Site, /, *, password: str | None = None, **settings: str) -> Psycopg:
        """Connect."""
        return cls(psycopg.connect(**arguments(site, password, settings)))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """The driver's own block, which is a savepoint inside of another one."""
        self._depth += 1
        try:
            with self.connection.transaction():
                yield
        finally:
            self._depth -= 1

    @staticmethod
    def sqlstate(error: Any) -> str | None:
        """Where psycopg 3 has it."""
        return cast("str | None", error.sqlstate)


@pytest.mark.driver("psycopg3")
class TestPsycopg3(CommonCells, SessionCells):
    """psycopg 3, synchronous."""

    kind = Psycopg
    refusal = psycopg.OperationalError
    misfit = psycopg.DataError

    @pytest.fixture
    def connection(self, connect: Connect) -> psycopg.Connection[Any]:
        """A connection with the driver's defaults: the first statement begins a transaction."""
        return cast("Psycopg", connect()).connection

    @pytest.fixture
    def single(self, connect: Connect) -> psycopg.Connection[Any]:
        """A connection whose statements are transactions of their own."""
        connection = cast("Psycopg", connect()).connection
        connection.autocommit = True
        return connection

    def test_types_in_binary(self, site: Site, connection: psycopg.Connection[Any]) -> None:
        """Results in binary format are equal to those in text; documents and ranges too."""
        for turn in range(7):
            site.change_servers()
            for binary in (False, True):
                with connection.cursor(binary=binary) as cursor:
                    cursor.execute("SELECT %s, int4range(1, 5), %s", [Jsonb({"a": [1, None]}), turn])
                    assert cursor.fetchone() == ({"a": [1, None]}, Range(1, 5), turn)
            connection.commit()

    def test_prepared_on_request(self, site: Site, single: psycopg.Connection[Any]) -> None:
        """Statements are prepared at once where that is asked for; of more than a hundred the oldest are given up."""
        for turn in range(3):
            site.change_servers()
            for n in range(0, 130, 1 + turn):
                statement = f"SELECT %s::int + {n}".encode()
                assert single.execute(statement, [turn], prepare=True).fetchone() == (turn + n,)

    def test_prepared_for_many_rows(
        self, site: Site, connection: psycopg.Connection[Any], table: str
    ) -> None:
        """`executemany` prepares at once, and sends all rows ahead."""
        connection.execute(f"CREATE TABLE {table} (n int, t text)".encode())
        connection.commit()
        insert = f"INSERT INTO {table} VALUES (%s, %s)".encode()
        for turn in range(3):
            site.change_servers()
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(insert, [(n, f"row {n}") for n in range(turn * 100, (turn + 1) * 100)])
                assert cursor.rowcount == 100
        found = connection.execute(f"SELECT n, t FROM {table} ORDER BY n".encode()).fetchall()
        assert found == [(n, f"row {n}") for n in range(300)]

    def test_pipelining(self, site: Site, connect: Connect) -> None:
        """Two connections send ahead what is prepared and what is not, with transactions in between."""
        connections = [cast("Psycopg", connect()).connection for _ in range(2)]
        for connection in connections:
            connection.autocommit = True
        for turn in range(8):
            site.change_servers()
            for connection in connections:
                with connection.pipeline():
                    cursors = [connection.execute("SELECT %s::int + 1", [n]) for n in range(10)]
                    with connection.transaction():
                        cursors += [connection.execute("SELECT %s::int * 2", [n]) for n in range(10)]
                    cursors.append(connection.execute(f"SELECT {turn}".encode()))
                    found = [cursor.fetchone() for cursor in cursors]
                assert found == [*[(n + 1,) for n in range(10)], *[(n * 2,) for n in range(10)], (turn,)]

    def test_pipelining_with_errors(self, site: Site, single: psycopg.Connection[Any], table: str) -> None:
        """What follows an error is skipped up to the next synchronisation, and works behind it.

        psycopg takes a statement for prepared even if that was skipped, so it is not used elsewhere.
        """
        single.execute(f"CREATE TABLE {table} (n int)".encode())
        insert = f"INSERT INTO {table} VALUES (%s)".encode()

        def send(turn: int) -> None:
            with single.pipeline() as pipeline:
                single.execute(insert, [turn])
                pipeline.sync()
                single.execute(insert, [-1])
                single.execute("SELECT 1 / %s::int", [0])
                single.execute(b"DELETE FROM %s WHERE n = %%s" % table.encode(), [turn])

        for turn in range(7):
            site.change_servers()
            with pytest.raises(psycopg.errors.DivisionByZero):
                send(turn)
            found = single.execute(f"SELECT n FROM {table} ORDER BY n".encode()).fetchall()
            assert found == [(n,) for n in range(turn + 1)]

    def test_copy(self, site: Site, connection: psycopg.Connection[Any], table: str) -> None:
        """Rows go in and come out in text and in binary format; COPY that fails leaves the connection usable."""
        rows = [(n, f"value {n}\t\\N") for n in range(5000)]
        connection.execute(f"CREATE TABLE {table} (n int, t text)".encode())
        connection.commit()
        for form in ("text", "binary"):
            site.change_servers()
            with connection.cursor() as cursor:
                with cursor.copy(f"COPY {table} FROM STDIN (FORMAT {form})".encode()) as copy:
                    copy.set_types(["int4", "text"])
                    for row in rows:
                        copy.write_row(row)
                selection = f"SELECT * FROM {table} ORDER BY n"
                with cursor.copy(f"COPY ({selection}) TO STDOUT (FORMAT {form})".encode()) as copy:
                    copy.set_types(["int4", "text"])
                    assert list(copy.rows()) == rows
                cursor.execute(f"TRUNCATE {table}".encode())
            connection.commit()
            self._copy_badly(connection, table)
            connection.rollback()
        assert connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)

    @staticmethod
    def _copy_badly(connection: psycopg.Connection[Any], table: str) -> None:
        with (
            pytest.raises(psycopg.errors.InvalidTextRepresentation),
            connection.cursor() as cursor,
            cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy,
        ):
            copy.write(b"not a number\ttext\n")

    def test_cancel(self, site: Site, connection: psycopg.Connection[Any]) -> None:
        """Another thread cancels a query; what follows on the connection is not hit."""
        for _ in range(2):
            site.change_servers()
            with ThreadPoolExecutor(1) as threads:
                running = threads.submit(connection.execute, SLOW)
                site.wait_running(SLOW)
                connection.cancel_safe()
                with pytest.raises(psycopg.errors.QueryCanceled):
                    running.result()
            connection.rollback()
            assert connection.execute("SELECT 1").fetchone() == (1,)
            connection.commit()

    def test_notices(self, site: Site, connection: psycopg.Connection[Any]) -> None:
        """They arrive in order, with severity and code."""
        seen: list[tuple[str | None, ...]] = []
        connection.add_notice_handler(lambda diag: seen.append((diag.severity, diag.message_primary)))
        for _ in range(2):
            site.change_servers()
            seen.clear()
            connection.execute(NOTICES)
            connection.commit()
            assert seen == [*[("NOTICE", f"note {n}") for n in range(1, 21)], ("WARNING", "end")]

    def test_large_rows_in_portions(self, site: Site, connection: psycopg.Connection[Any]) -> None:
        """A server-side cursor in a transaction, and one that is kept beyond it."""
        for turn in range(2):
            site.change_servers()
            with connection.cursor(name="portions") as cursor:
                cursor.itersize = 700
                assert [n for (n,) in cursor.execute(NUMBERS)] == list(range(1, 5001))
            connection.commit()
            with connection.cursor(name="kept", withhold=True) as cursor:
                cursor.execute(NUMBERS)
                connection.commit()
                for first in range(1, 5001, 1000):
                    site.change_servers()
                    found = cursor.fetchmany(1000)
                    connection.commit()
                    assert found == [(n,) for n in range(first, first + 1000)], turn
            connection.commit()

    def test_large_rows_one_by_one(self, site: Site, connection: psycopg.Connection[Any]) -> None:
        """`stream` takes rows as they come."""
        with connection.cursor() as cursor:
            assert [n for (n,) in cursor.stream(NUMBERS)] == list(range(1, 5001))
        connection.commit()

    def test_listen(
        self, site: Site, single: psycopg.Connection[Any], connection: psycopg.Connection[Any]
    ) -> None:
        """Notifications of another client arrive, also after other statements, until UNLISTEN."""
        single.execute("LISTEN psycopg3")
        for payload in ("one", "zwölf", ""):
            site.change_servers()
            assert single.execute("SELECT 1").fetchone() == (1,)
            connection.execute("SELECT pg_notify('psycopg3', %s)", [payload])
            connection.commit()
            (heard,) = single.notifies(timeout=10, stop_after=1)
            assert (heard.channel, heard.payload) == ("psycopg3", payload)
        single.execute("UNLISTEN psycopg3")
        connection.execute("NOTIFY psycopg3")
        connection.commit()
        assert single.execute("SELECT 1").fetchone() == (1,)
        assert list(single.notifies(timeout=0)) == []
