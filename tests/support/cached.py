"""A pooler with the result cache in front of a database whose rows are also changed behind its back.

Whether an answer comes from memory is seen by its age: a row that was changed behind the pooler's back has its old
value in it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, Self

from tests.support import rawclient as raw
from tests.support.network import free_port
from tests.support.postgres import ANN, TRUDY, Role
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.targets import Config

DATABASE: Final = "other"  # where a pooler may stay longer than a test

_SCHEMA: Final = """
DROP SCHEMA IF EXISTS cached CASCADE;
CREATE SCHEMA cached;
CREATE TABLE cached.item (id int PRIMARY KEY, name text NOT NULL, price numeric(10, 2), made timestamptz);
CREATE TABLE cached.note (id int PRIMARY KEY, item int REFERENCES cached.item ON DELETE CASCADE, words text);
CREATE TABLE cached.other (id int PRIMARY KEY, name text);
CREATE VIEW cached.cheap AS SELECT id, name FROM cached.item WHERE price < 10;
GRANT ALL ON SCHEMA cached TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA cached TO PUBLIC;
ALTER TABLE cached.other OWNER TO trudy;
"""
_ROWS: Final = """
TRUNCATE cached.item, cached.note, cached.other;
INSERT INTO cached.item SELECT i, 'item ' || i, i, timestamptz '2024-05-06 07:08:09+00' FROM generate_series(1, 20) i;
INSERT INTO cached.note SELECT i, i, 'note ' || i FROM generate_series(1, 20) i;
INSERT INTO cached.other SELECT i, 'other ' || i FROM generate_series(1, 20) i;
"""


def config_for(pg: PostgresCluster, cache: dict[str, Any] | bool | None = None, **pooler: object) -> Config:
    """Settings of a pooler with the databases ``app`` (cached), ``plain`` (not cached) and ``session``."""
    server = {"host": pg.host, "port": pg.port, "dbname": DATABASE}
    return {
        "pooler": {
            "listen_addr": "127.0.0.1",
            "listen_port": free_port(),
            "auth_type": "trust",
            "pool_mode": "transaction",
            "default_pool_size": 4,
            "max_client_conn": 300,
            **pooler,
        },
        "databases": {
            "app": {**server, "cache": {} if cache is None else cache},
            "plain": server,
            "session": {**server, "pool_mode": "session"},
        },
        "users": {TRUDY.name: {}, ANN.name: {"password": ANN.password}},
    }


@contextlib.contextmanager
def tables(pg: PostgresCluster) -> Iterator[None]:
    """The tables, for as long as it takes."""
    pg.sql(_SCHEMA, dbname=DATABASE)
    yield
    pg.sql("DROP SCHEMA cached CASCADE", dbname=DATABASE)


class Stage:
    """A pooler with the cache, its clients, and a way around it.

    Args:
        pooler: of `config_for`.
        pg: the server behind it.
    """

    def __init__(self, pooler: Pooler, pg: PostgresCluster) -> None:
        self.pooler = pooler
        self._pg = pg
        self._clients = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.behind(_ROWS)
        with self.client() as client:
            # What earlier tests have left is dropped, and the catalog is read.
            client.fetch(
                "UPDATE cached.item SET id = id; UPDATE cached.note SET id = id; UPDATE cached.other SET id = id"
            )
            self.behind("UPDATE cached.other SET name = 'warm' WHERE id = 0")
            # A pooler rests between two looks at a catalog that changes, for longer where a look takes longer.
            eventually(self._is_warm, within=40, what="the cache answers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clients.close()

    def _is_warm(self) -> bool:
        with self.client() as client:
            sql = "SELECT name AS is_warm FROM cached.other WHERE id = 20"
            client.fetch(sql)
            self.behind("UPDATE cached.other SET name = name || '!' WHERE id = 20")
            (before,) = self._pg.sql("SELECT name FROM cached.other WHERE id = 20", dbname=DATABASE)[0]
            return client.fetch(sql) != [[before.encode()]]

    def client(self, database: str = "app", role: Role = TRUDY, /, **parameters: str) -> Client:
        """A client that is logged in, until the end of the test."""
        client = self._clients.enter_context(Client((self.pooler.host, self.pooler.port)))
        last = client.login(database, role.name, role.password, **parameters)[-1]
        assert last.kind == b"Z", last.fields
        return client

    def direct(self, role: Role = TRUDY, /, **parameters: str) -> Client:
        """A client of PostgreSQL itself."""
        client = self._clients.enter_context(Client((self._pg.host, self._pg.port)))
        last = client.login(DATABASE, role.name, role.password, **parameters)[-1]
        assert last.kind == b"Z", last.fields
        return client

    def behind(self, sql: str) -> None:
        """Do something that the pooler does not see."""
        self._pg.sql(sql, dbname=DATABASE)

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask PostgreSQL itself."""
        return self._pg.sql(sql, dbname=DATABASE)

    def waiting(self) -> int:
        """How many queries wait for a lock."""
        return len(
            self.read("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'other'")
        )

    def rename(self, key: int, name: str, table: str = "item") -> None:
        """Change a row behind the pooler's back."""
        self._pg.sql(f"UPDATE cached.{table} SET name = %s WHERE id = %s", name, key, dbname=DATABASE)


class Client(raw.RawClient):
    """A client that asks for rows."""

    def fetch(self, sql: str) -> list[list[bytes | None]]:
        """The rows of a Query; all of its statements together."""
        self.send(raw.query(sql))
        return rows(self.receive_until())

    def frames(self, *data: bytes) -> list[raw.Frame]:
        """What is answered up to ReadyForQuery."""
        self.send(*data)
        return self.receive_until()


def rows(frames: list[raw.Frame]) -> list[list[bytes | None]]:
    """The rows among frames; there must be no error."""
    errors = [frame.fields for frame in frames if frame.kind == b"E"]
    assert not errors, errors
    return [frame.columns for frame in frames if frame.kind == b"D"]
