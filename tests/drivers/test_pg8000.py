"""pg8000, which sends Parse, then Describe and Bind, then Execute, and waits in between each time."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any, cast

import pg8000.dbapi
import pg8000.exceptions
import pg8000.native
import pytest

from tests.drivers.client import Client, DbapiClient
from tests.drivers.common import CommonCells
from tests.drivers.session import SessionCells
from tests.drivers.test_psycopg3 import NOTICES, NUMBERS
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.drivers.common import Connect
    from tests.drivers.site import Site

LOST = (pg8000.exceptions.InterfaceError, pg8000.exceptions.DatabaseError)
LINES = b"".join(b"%d\tvalue %d\n" % (n, n) for n in range(5000))
NOTES = [*[b"note %d" % n for n in range(1, 21)], b"end"]


def arguments(site: Site, password: str | None, settings: dict[str, str]) -> dict[str, Any]:
    """What both of its connections take."""
    name = settings.pop("application_name", None)
    return {
        "user": site.role.name,
        "host": site.host,
        "port": site.port,
        "database": site.database,
        "password": site.role.password if password is None else password,
        "application_name": name,
        "startup_params": settings,
    }


def sqlstate(error: Any) -> str | None:
    """Where pg8000 has it; errors of its own have none."""
    (fields,) = error.args
    return fields.get("C") if isinstance(fields, dict) else None


class Pg8000(DbapiClient):
    """A connection as PEP 249 has it, with its defaults."""

    error = pg8000.exceptions.Error
    lost = LOST

    @classmethod
    def open(cls, site: Site, /, *, password: str | None = None, **settings: str) -> Pg8000:
        """Connect."""
        return cls(pg8000.dbapi.connect(**arguments(site, password, settings)))

    sqlstate = staticmethod(sqlstate)


class Pg8000Native(Client):
    """A connection of pg8000's own kind, which begins no transactions by itself."""

    error = pg8000.exceptions.Error
    lost = LOST

    def __init__(self, connection: pg8000.native.Connection) -> None:
        self.connection = connection
        self._depth = 0

    @classmethod
    def open(cls, site: Site, /, *, password: str | None = None, **settings: str) -> Pg8000Native:
        """Connect."""
        return cls(pg8000.native.Connection(**arguments(site, password, settings)))

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement."""
        first, *others = statement.split("?")
        text = first + "".join(f":p{n}{part}" for n, part in enumerate(others))
        found = self.connection.run(text, **{f"p{n}": value for n, value in enumerate(values)})
        return [tuple(row) for row in found or ()]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """BEGIN and COMMIT by hand, and savepoints in between."""
        self._depth += 1
        nested = self._depth > 1
        name = f"level_{self._depth}"
        self.connection.run(f"SAVEPOINT {name}" if nested else "BEGIN")
        try:
            yield
        except BaseException:
            with contextlib.suppress(self.error):  # the connection may be gone
                self.connection.run(f"ROLLBACK TO {name}" if nested else "ROLLBACK")
            raise
        else:
            self.connection.run(f"RELEASE {name}" if nested else "COMMIT")
        finally:
            self._depth -= 1

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(self.error):
            self.connection.close()

    sqlstate = staticmethod(sqlstate)


def hear(client: Pg8000 | Pg8000Native, other: Client, channel: str, payload: str) -> None:
    """Send a notification and have it arrive; the driver takes notifications when it waits for an answer."""
    other.rows("SELECT pg_notify(?, ?)", channel, payload)
    heard = client.connection.notifications
    eventually(lambda: client.rows("SELECT 1") and heard, what="a notification")
    ((_, *found),) = heard
    assert found == [channel, payload]
    heard.clear()


@pytest.mark.driver("pg8000")
class TestPg8000(CommonCells, SessionCells):
    """pg8000 as PEP 249 has it."""

    kind = Pg8000
    refusal = pg8000.exceptions.DatabaseError
    misfit = pg8000.exceptions.DatabaseError
    prepares = False

    @pytest.fixture
    def connection(self, connect: Connect) -> Any:
        """A connection with the driver's defaults: the first statement begins a transaction."""
        return cast("Pg8000", connect()).connection

    def test_prepared_for_many_rows(self, site: Site, connection: Any, table: str) -> None:
        """`executemany` goes the whole way for each row."""
        cursor = connection.cursor()
        cursor.execute(f"CREATE TABLE {table} (n int, t text)")
        connection.commit()
        for turn in range(3):
            site.change_servers()
            rows = [(n, f"row {n}") for n in range(turn * 20, (turn + 1) * 20)]
            cursor.executemany(f"INSERT INTO {table} VALUES (%s, %s)", rows)
            connection.commit()
        cursor.execute(f"SELECT count(*), sum(n) FROM {table}")
        assert cursor.fetchall() == ([60, 1770],)

    def test_copy(self, site: Site, connection: Any, table: str) -> None:
        """Lines go in and come out, in the extended protocol; a COPY that fails leaves the connection usable."""
        cursor = connection.cursor()
        cursor.execute(f"CREATE TABLE {table} (n int, t text)")
        cursor.execute(f"COPY {table} FROM STDIN", stream=io.BytesIO(LINES))
        connection.commit()
        site.change_servers()
        out = io.BytesIO()
        cursor.execute(f"COPY {table} TO STDOUT", stream=out)
        assert out.getvalue() == LINES
        with pytest.raises(pg8000.exceptions.DatabaseError, match="22P02"):
            cursor.execute(f"COPY {table} FROM STDIN", stream=io.BytesIO(b"one\ttwo\n"))
        connection.rollback()
        cursor.execute(f"SELECT count(*) FROM {table}")
        assert cursor.fetchone() == [5000]

    def test_notices(self, site: Site, connection: Any) -> None:
        """They are collected in order."""
        connection.cursor().execute(NOTICES.decode())
        connection.commit()
        assert [notice[b"M"] for notice in connection.notices] == NOTES

    def test_large_rows_in_portions(self, site: Site, connection: Any) -> None:
        """A cursor in SQL."""
        cursor = connection.cursor()
        cursor.execute("DECLARE portions CURSOR FOR " + NUMBERS.decode())
        found: list[int] = []
        while True:
            cursor.execute("FETCH 700 FROM portions")
            portion = [n for (n,) in cursor.fetchall()]
            if not portion:
                break
            found += portion
        connection.commit()
        assert found == list(range(1, 5001))

    def test_listen(self, site: Site, connect: Connect) -> None:
        """Notifications of another client arrive with the answers to other statements."""
        client, other = cast("Pg8000", connect()), connect()
        client.rows("LISTEN pg8000")
        for payload in ("one", "two"):
            site.change_servers()
            hear(client, other, "pg8000", payload)
        client.rows("UNLISTEN pg8000")


@pytest.mark.driver("pg8000_native")
class TestPg8000Native(CommonCells, SessionCells):
    """pg8000's own interface."""

    kind = Pg8000Native
    refusal = pg8000.exceptions.DatabaseError
    misfit = pg8000.exceptions.DatabaseError
    prepares = False

    @pytest.fixture
    def connection(self, connect: Connect) -> Any:
        """A connection with the driver's defaults."""
        return cast("Pg8000Native", connect()).connection

    def test_prepared_on_request(self, site: Site, connect: Connect) -> None:
        """Named statements that the application keeps; two connections use the same names for other texts."""
        connections = [cast("Pg8000Native", connect()).connection for _ in range(2)]
        kept = [
            connection.prepare(f"SELECT CAST(:a AS int) + {n}") for n, connection in enumerate(connections)
        ]
        for turn in range(12):
            site.change_servers()
            for n, statement in enumerate(kept):
                assert statement.run(a=turn) == [[turn + n]]
                with pytest.raises(pg8000.exceptions.DatabaseError, match="22P02"):
                    statement.run(a="x")
        assert connections[0].run("SELECT count(*) > 0 FROM pg_prepared_statements") == [[True]]
        for statement in kept:
            statement.close()
        again = connections[0].prepare("SELECT CAST(:a AS text)")
        assert again.run(a="again") == [["again"]]
        again.close()

    def test_copy(self, site: Site, connection: Any, table: str) -> None:
        """Lines go in and come out."""
        connection.run(f"CREATE TABLE {table} (n int, t text)")
        connection.run(f"COPY {table} FROM STDIN", stream=io.BytesIO(LINES))
        site.change_servers()
        out = io.BytesIO()
        connection.run(f"COPY {table} TO STDOUT", stream=out)
        assert out.getvalue() == LINES
        with pytest.raises(pg8000.exceptions.DatabaseError, match="22P02"):
            connection.run(f"COPY {table} FROM STDIN", stream=io.BytesIO(b"one\ttwo\n"))
        assert connection.run(f"SELECT count(*) FROM {table}") == [[5000]]

    def test_notices(self, site: Site, connection: Any) -> None:
        """They are collected in order."""
        connection.run(NOTICES.decode())
        assert [notice[b"M"] for notice in connection.notices] == NOTES

    def test_large_rows_in_portions(self, site: Site, connection: Any) -> None:
        """A cursor in SQL that is kept beyond its transaction."""
        connection.run("DECLARE kept CURSOR WITH HOLD FOR " + NUMBERS.decode())
        for first in range(1, 5001, 1000):
            site.change_servers()
            assert connection.run("FETCH 1000 FROM kept") == [[n] for n in range(first, first + 1000)]
        connection.run("CLOSE kept")

    def test_listen(self, site: Site, connect: Connect) -> None:
        """Notifications of another client arrive with the answers to other statements."""
        client, other = cast("Pg8000Native", connect()), connect()
        client.rows("LISTEN pg8000_native")
        for payload in ("one", "two"):
            site.change_servers()
            hear(client, other, "pg8000_native", payload)
        client.rows("UNLISTEN pg8000_native")
