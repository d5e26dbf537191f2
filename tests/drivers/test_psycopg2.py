"""psycopg2, which puts parameters into the text of statements and uses the simple protocol alone."""

from __future__ import annotations

import io
import select
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import psycopg2
import psycopg2.errors
import psycopg2.extras
import pytest

from tests.drivers.client import DbapiClient
from tests.drivers.common import CommonCells
from tests.drivers.session import SessionCells
from tests.drivers.test_psycopg3 import NOTICES, NUMBERS, SLOW, arguments

if TYPE_CHECKING:
    from tests.drivers.common import Connect
    from tests.drivers.site import Site

KINDS = "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"


class Psycopg2(DbapiClient):
    """A connection of psycopg2 with its defaults."""

    error = psycopg2.Error
    lost = (psycopg2.OperationalError, psycopg2.InterfaceError)

    @classmethod
    def open(cls, site: Site, /, *, password: str | None = None, **settings: str) -> Psycopg2:
        """Connect."""
        return cls(psycopg2.connect(**arguments(site, password, settings)))

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement; what the driver gives as memory becomes bytes, to be compared."""
        found = super().rows(statement, *values)
        return [tuple(bytes(v) if isinstance(v, memoryview) else v for v in row) for row in found]

    @staticmethod
    def sqlstate(error: Any) -> str | None:
        """Where psycopg2 has it."""
        return cast("str | None", error.pgcode)


@pytest.mark.driver("psycopg2")
class TestPsycopg2(CommonCells, SessionCells):
    """psycopg2."""

    kind = Psycopg2
    refusal = psycopg2.OperationalError
    misfit = psycopg2.DataError
    prepares = False
    values = {"uuid": "12345678-1234-5678-1234-567812345678"}  # noqa: RUF012

    @pytest.fixture
    def connection(self, connect: Connect) -> Any:
        """A connection with the driver's defaults: the first statement begins a transaction."""
        return cast("Psycopg2", connect()).connection

    @pytest.fixture
    def single(self, connect: Connect) -> Any:
        """A connection whose statements are transactions of their own."""
        connection = cast("Psycopg2", connect()).connection
        connection.autocommit = True
        return connection

    def test_parameters_by_name(self, site: Site, connection: Any) -> None:
        """Parameters by name, documents, and many rows in one statement."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT %(n)s + %(n)s, %(d)s", {"n": 3, "d": psycopg2.extras.Json({"a": [1, None]})}
            )
            assert cursor.fetchone() == (6, '{"a": [1, null]}')
            found = psycopg2.extras.execute_values(
                cursor, "SELECT * FROM (VALUES %s) AS v", [(n, "x") for n in range(300)], fetch=True
            )
            assert found == [(n, "x") for n in range(300)]
        connection.commit()

    def test_prepared_by_statement(self, site: Site, connect: Connect) -> None:
        """PREPARE and EXECUTE in SQL, the only way with this driver; two connections use one name."""
        connections = [cast("Psycopg2", connect()).connection for _ in range(2)]
        for n, connection in enumerate(connections):
            with connection, connection.cursor() as cursor:
                cursor.execute(f"PREPARE plan (int) AS SELECT $1 + {n}")
        for turn in range(8):
            site.change_servers()
            for n, connection in enumerate(connections):
                with connection, connection.cursor() as cursor:
                    cursor.execute("EXECUTE plan (%s)", (turn,))
                    assert cursor.fetchone() == (turn + n,)
        with connections[0] as connection, connection.cursor() as cursor:
            cursor.execute("DEALLOCATE plan")
        with (
            pytest.raises(psycopg2.errors.InvalidSqlStatementName),
            connections[0] as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("EXECUTE plan (1)")

    def test_transactions_of_other_kinds(self, site: Site, connection: Any) -> None:
        """Isolation level and access mode that are set for the connection hold in each of its transactions."""
        connection.set_session(isolation_level="SERIALIZABLE", readonly=True)
        for _ in range(3):
            site.change_servers()
            with connection, connection.cursor() as cursor:
                cursor.execute(KINDS)
                assert cursor.fetchone() == ("serializable", "on")

    def test_settings_of_the_session(self, site: Site, single: Any, connect: Connect) -> None:
        """The same where each statement is a transaction: then the driver sets the session's defaults."""
        single.set_session(isolation_level="REPEATABLE READ", readonly=True)
        other = connect()
        for _ in range(3):
            site.change_servers()
            with single.cursor() as cursor:
                cursor.execute(KINDS)
                assert cursor.fetchone() == ("repeatable read", "on")
            assert other.one("SHOW transaction_isolation") == "read committed"

    def test_copy(self, site: Site, connection: Any, table: str) -> None:
        """Lines go in and come out; a COPY that the server refuses leaves the connection usable."""
        lines = "".join(f"{n}\tvalue {n}\n" for n in range(5000))
        with connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {table} (n int, t text)")
            cursor.copy_from(io.StringIO(lines), table)
        site.change_servers()
        out = io.StringIO()
        with connection, connection.cursor() as cursor:
            cursor.copy_expert(f"COPY (SELECT * FROM {table} ORDER BY n) TO STDOUT", out)
        assert out.getvalue() == lines
        with (
            pytest.raises(psycopg2.errors.InvalidTextRepresentation),
            connection,
            connection.cursor() as cursor,
        ):
            cursor.copy_from(io.StringIO("one\ttwo\n"), table)
        with connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {table}")
            assert cursor.fetchone() == (5000,)

    def test_cancel(self, site: Site, connection: Any) -> None:
        """Another thread cancels a query; what follows on the connection is not hit."""
        for _ in range(2):
            site.change_servers()
            with connection.cursor() as cursor, ThreadPoolExecutor(1) as threads:
                running = threads.submit(cursor.execute, SLOW)
                site.wait_running(SLOW)
                connection.cancel()
                with pytest.raises(psycopg2.errors.QueryCanceled):
                    running.result()
            connection.rollback()
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                assert cursor.fetchone() == (1,)

    def test_notices(self, site: Site, connection: Any) -> None:
        """They are collected in order."""
        with connection, connection.cursor() as cursor:
            cursor.execute(NOTICES)
        assert connection.notices == [*[f"NOTICE:  note {n}\n" for n in range(1, 21)], "WARNING:  end\n"]

    def test_large_rows_in_portions(self, site: Site, connection: Any) -> None:
        """A server-side cursor in a transaction, and one that is kept beyond it."""
        for _ in range(2):
            site.change_servers()
            with connection, connection.cursor("portions") as cursor:
                cursor.itersize = 700
                cursor.execute(NUMBERS)
                assert [n for (n,) in cursor] == list(range(1, 5001))
            with connection.cursor("kept", withhold=True) as cursor:
                cursor.execute(NUMBERS)
                connection.commit()
                for first in range(1, 5001, 1000):
                    site.change_servers()
                    assert cursor.fetchmany(1000) == [(n,) for n in range(first, first + 1000)]
                    connection.commit()
            connection.commit()

    def test_listen(self, site: Site, single: Any, connect: Connect) -> None:
        """Notifications of another client arrive on the idle connection, also after other statements."""
        other = connect()
        with single.cursor() as cursor:
            cursor.execute("LISTEN psycopg2")
            for payload in ("one", "zwölf"):
                site.change_servers()
                cursor.execute("SELECT 1")
                other.rows("SELECT pg_notify('psycopg2', ?)", payload)
                while not single.notifies:
                    assert select.select([single], [], [], 10)[0], "no notification within 10 s"
                    single.poll()
                (heard,) = single.notifies
                assert (heard.channel, heard.payload) == ("psycopg2", payload)
                single.notifies.clear()
            cursor.execute("UNLISTEN *")
