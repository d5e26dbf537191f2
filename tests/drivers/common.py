"""The cells that are the same statements with every Python driver; what is special about each stands with it."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.drivers.client import Client
    from tests.drivers.site import Site

_MOMENT: Final = dt.datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=dt.UTC)

VALUES: Final[Mapping[str, object]] = {
    "bool": True,
    "int2": -(2**15),
    "int4": 2**31 - 1,
    "int8": -(2**63),
    "float8": 1.5e-300,
    "numeric": decimal.Decimal("12345678901234567890.1234567890"),
    "text": "zwölf 'quotes', a \\ and 🐘",
    "bytea": b"\x00\xff bytes",
    "date": dt.date(2024, 2, 29),
    "time": dt.time(23, 59, 59, 1),
    "timestamp": _MOMENT.replace(tzinfo=None),
    "timestamptz": _MOMENT,
    "interval": dt.timedelta(days=3, seconds=7),
    "uuid": uuid.UUID("12345678-1234-5678-1234-567812345678"),
    "int4[]": [1, None, 3],
    "text[]": ["a", 'b "c"', None, "d,e"],
}
"""PostgreSQL's common types, and a value of each as most drivers take and give it."""

LITERALS: Final[Mapping[str, str]] = {
    "bool": "true",
    "int2": "'-32768'",
    "int4": "'2147483647'",
    "int8": "'-9223372036854775808'",
    "float8": "'1.5e-300'",
    "numeric": "'12345678901234567890.1234567890'",
    "text": "'zwölf ''quotes'', a \\ and 🐘'",
    "bytea": "'\\x00ff206279746573'",
    "date": "'2024-02-29'",
    "time": "'23:59:59.000001'",
    "timestamp": "'2024-02-29 23:59:59.999999'",
    "timestamptz": "'2024-02-29 23:59:59.999999+00'",
    "interval": "'3 days 00:00:07'",
    "uuid": "'12345678-1234-5678-1234-567812345678'",
    "int4[]": "'{1,NULL,3}'",
    "text[]": '\'{a,"b \\"c\\"",NULL,"d,e"}\'',
}
"""The same values in SQL."""

CLIENTS: Final = 8
"""Clients at a time where there are more of them than server connections."""


class Connect(Protocol):
    """Opens connections of the driver that the test is about; they are closed when it ends."""

    def __call__(self, *, password: str | None = None, **settings: str) -> Client:
        """Connect, see `Client.open`."""


class CommonCells:
    """The cells of every Python driver.

    Attributes:
        kind: how the driver is spoken to.
        refusal: what it raises when the login is refused.
        prepares: whether it makes prepared statements of statements that are executed again and again.
        misfit: what it raises for a parameter that does not fit its type.
        values: its own types where they are not those of `VALUES`.
    """

    kind: ClassVar[type[Client]]
    refusal: ClassVar[type[Exception]]
    misfit: ClassVar[type[Exception]]
    prepares: ClassVar[bool] = True
    values: ClassVar[Mapping[str, object]] = {}

    def test_connect(self, site: Site, connect: Connect) -> None:
        """More clients than server connections log in, each under its own name; a wrong password is refused."""
        clients = {name: connect(application_name=name) for name in map("client {}".format, range(CLIENTS))}
        for name, client in clients.items():
            found = client.rows(
                "SELECT current_user::text, current_database()::text, current_setting('application_name')"
            )
            assert found == [(site.role.name, site.database, name)]
        with pytest.raises(self.refusal, match="password authentication failed"):
            connect(password="wrong")

    def test_types(self, site: Site, connect: Connect) -> None:
        """Values that the server makes come back as the driver's types, also from a statement used often."""
        client = connect()
        values = {**VALUES, **self.values}
        statement = "SELECT " + ", ".join(f"CAST({LITERALS[name]} AS {name})" for name in values)
        for _ in range(7):
            site.change_servers()
            assert client.rows(statement) == [tuple(values.values())]

    def test_parameters(self, site: Site, connect: Connect) -> None:
        """Parameters come back as they were sent, NULL and long ones too; one that does not fit is an error."""
        client = connect()
        for name, value in {**VALUES, **self.values}.items():
            statement = f"SELECT CAST(? AS {name})"
            for _ in range(7):
                assert client.one(statement, value) == value, name
            site.change_servers()
            assert client.one(statement, None) is None, name
        long = "é" * 500_000
        assert client.one("SELECT CAST(? AS text)", long) == long
        many = range(500)
        assert client.one("SELECT " + " + ".join(["CAST(? AS int)"] * len(many)), *many) == sum(many)
        with pytest.raises(self.misfit):
            client.one("SELECT CAST(? AS int)", "seven")
        assert client.one("SELECT CAST(? AS int)", 7) == 7

    def test_prepared(self, site: Site, connect: Connect) -> None:
        """Three connections alternate between a common statement, one of their own, and new ones."""
        clients = [connect() for _ in range(3)]
        met: list[set[int]] = [set() for _ in clients]
        for turn in range(24):
            site.change_servers()
            for n, client in enumerate(clients):
                ((value, pid),) = client.rows("SELECT CAST(? AS int) + 1, pg_backend_pid()", turn)
                assert value == turn + 1
                met[n].add(pid)
                with client.transaction():
                    assert client.one(f"SELECT CAST(? AS int) * {n + 2}", turn) == turn * (n + 2)
                    assert client.one("SELECT CAST(? AS int) + 1", turn) == turn + 1
                assert client.one(f"SELECT CAST(? AS text) || '{turn}'", "turn ") == f"turn {turn}"
        for pids in met:
            site.check_servers(pids)
        if self.prepares:
            assert clients[0].one("SELECT count(*) FROM pg_prepared_statements") > 0

    def test_prepared_that_fail(self, site: Site, connect: Connect) -> None:
        """An error when it is executed, or when it is first read, does no harm to a statement or to others."""
        client, other = connect(), connect()
        for turn in range(12):
            site.change_servers()
            assert client.one("SELECT 12 / CAST(? AS int)", 3) == 4
            with other.fails("22012"):
                other.one("SELECT 12 / CAST(? AS int)", 0)
            with client.fails("42P01"):
                client.rows(f"SELECT CAST(? AS int) FROM nowhere_{turn // 4}", turn)
            assert other.one("SELECT 12 / CAST(? AS int)", 4) == 3

    def test_prepared_in_parallel(self, site: Site) -> None:
        """More clients than server connections execute common statements and their own at the same time."""

        def work(n: int) -> None:
            with contextlib.closing(self.kind.open(site)) as client:
                for turn in range(40):
                    assert client.one("SELECT CAST(? AS int) + 1", turn) == turn + 1
                    assert client.one(f"SELECT CAST(? AS int) + {n}", turn) == turn + n
                    with client.transaction():
                        pid = client.one("SELECT pg_backend_pid()")
                        assert client.one("SELECT CAST(? AS int) = pg_backend_pid()", pid) is True

        with ThreadPoolExecutor(CLIENTS) as threads:
            list(threads.map(work, range(CLIENTS)))

    def test_transactions(self, site: Site, connect: Connect, table: str) -> None:
        """COMMIT makes changes visible, an exception undoes them, and the next statement is of a new transaction."""
        client, other = connect(), connect()
        count = f"SELECT count(*) FROM {table}"
        client.rows(f"CREATE TABLE {table} (n int)")
        for turn in range(6):
            site.change_servers()
            with client.transaction():
                client.rows(f"INSERT INTO {table} VALUES (?)", turn)
                assert client.one(count) == turn + 1
                assert other.one(count) == turn
            assert other.one(count) == turn + 1
            with client.undone():
                client.rows(f"INSERT INTO {table} VALUES (?)", turn)
            assert client.one(count) == other.one(count) == turn + 1

    def test_transactions_that_fail(self, site: Site, connect: Connect, table: str) -> None:
        """After an error in a transaction everything fails with 25P02 until its end, and nothing of it stays."""
        client, other = connect(), connect()
        client.rows(f"CREATE TABLE {table} (n int)")
        for _ in range(3):
            site.change_servers()
            with client.undone():
                client.rows(f"INSERT INTO {table} VALUES (1)")
                with client.fails("22012"):
                    client.rows("SELECT 1 / CAST(? AS int)", 0)
                with client.fails("25P02"):
                    client.rows("SELECT 1")
            assert client.one(f"SELECT count(*) FROM {table}") == 0
            assert other.one(f"SELECT count(*) FROM {table}") == 0

    def test_savepoints(self, site: Site, connect: Connect, table: str) -> None:
        """What fails behind a savepoint is undone alone; a transaction in a transaction is such a savepoint."""
        client = connect()
        client.rows(f"CREATE TABLE {table} (n int PRIMARY KEY)")
        for turn in range(3):
            site.change_servers()
            first = turn * 10
            with client.transaction():
                client.rows(f"INSERT INTO {table} VALUES (?)", first)
                with client.undone():
                    client.rows(f"INSERT INTO {table} VALUES (?)", first + 1)
                    with client.fails("23505"):
                        client.rows(f"INSERT INTO {table} VALUES (?)", first)
                with client.transaction():
                    client.rows(f"INSERT INTO {table} VALUES (?)", first + 2)
                    with client.transaction():
                        client.rows(f"INSERT INTO {table} VALUES (?)", first + 3)
        found = client.rows(f"SELECT n FROM {table} ORDER BY n")
        assert found == [(turn * 10 + n,) for turn in range(3) for n in (0, 2, 3)]

    def test_large_rows(self, site: Site, connect: Connect) -> None:
        """A value of 5 MB in each direction and 50,000 rows arrive complete and in order."""
        client = connect()
        large = "0123456789" * 500_000
        assert client.one("SELECT repeat('0123456789', CAST(? AS int))", 500_000) == large
        site.change_servers()
        assert client.one("SELECT length(CAST(? AS text))", large) == len(large)
        rows = client.rows("SELECT n, 'row ' || n FROM generate_series(1, 50000) AS n")
        assert rows == [(n, f"row {n}") for n in range(1, 50_001)]

    def test_reconnect(self, mortal_site: Site, mortal_connect: Connect) -> None:
        """A restart ends the transaction with the driver's own error for it, and a new connection works.

        Behind the pooler, clients that have no transaction open do not notice.
        """
        client, idle = mortal_connect(), mortal_connect()
        for turn in range(8):
            assert idle.one("SELECT CAST(? AS int) + 1", turn) == turn + 1
        with client.loses_connection(), client.transaction():
            assert client.one("SELECT 1") == 1
            mortal_site.restart()
            client.one("SELECT 2")
        if mortal_site.pooled:
            assert idle.one("SELECT CAST(? AS int) + 1", 8) == 9
        else:
            with idle.loses_connection():
                idle.one("SELECT CAST(? AS int) + 1", 8)
        anew = mortal_connect()
        assert anew.one("SELECT CAST(? AS int) + 1", 9) == 10
