"""Where a driver connects to: PostgreSQL itself, or hyperpool in transaction mode in front of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg

from tests.support.poolers import Pooler, config_for
from tests.support.postgres import ANN, Role
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.support.postgres import PostgresCluster

TARGETS: Final = ("direct", "pooled")
DATABASE: Final = "drivers"
"""The database that drivers use on every target and server."""

POOL_SIZE: Final = 5
_WAIT: Final = 15  # seconds; a client that gets no server then is told so, well before the test's bound


def prepare(pg: PostgresCluster) -> None:
    """Make the drivers' database, if the server does not have it yet."""
    if not pg.sql("SELECT 1 FROM pg_database WHERE datname = %s", DATABASE):
        pg.sql(f"CREATE DATABASE {DATABASE}")
        pg.sql("GRANT CREATE ON SCHEMA public TO PUBLIC", dbname=DATABASE)


def start_pooler(pg: PostgresCluster) -> Pooler:
    """Start hyperpool in transaction mode with few server connections, and with its defaults for all else."""
    config = config_for(pg, pool_mode="transaction", default_pool_size=POOL_SIZE, query_wait_timeout=_WAIT)
    config["databases"] = {DATABASE: {"host": pg.host, "port": pg.port}}
    pooler = Pooler(config)
    try:
        pooler.wait_listening()
    except BaseException:
        pooler.destroy()
        raise
    return pooler


class Site:
    """One target of the drivers' checks.

    Args:
        pg: the server.
        pooler: what stands in front of it; None is a direct connection.
        database: the database as the pooler, or else the server, calls it.

    Attributes:
        pg: the server, for looking at it past the pooler.
        pooled: whether there is a pooler in front of it.
        host: the address that drivers connect to.
        port: the TCP port.
        database: the database.
        role: user and password.
        tables: what `clean` drops.
    """

    def __init__(self, pg: PostgresCluster, pooler: Pooler | None = None, database: str = DATABASE) -> None:
        self.pg = pg
        self.pooled = pooler is not None
        self.host = pg.host
        self.port = pg.port if pooler is None else pooler.port
        self.database: Final = database
        self.role: Final[Role] = ANN
        self.tables: list[str] = []
        self._crowd: list[psycopg.Connection[Any]] = []

    @property
    def conninfo(self) -> dict[str, Any]:
        """The connection parameters by libpq's names."""
        return {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.role.name,
            "password": self.role.password,
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same as libpq's environment variables, which most drivers know."""
        return {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGDATABASE": self.database,
            "PGUSER": self.role.name,
            "PGPASSWORD": self.role.password,
        }

    def change_servers(self) -> None:
        """See to it that clients without a transaction get another server connection than they had last.

        The pooler gives out the server connection that came back last. One of two bystanders takes that one and
        keeps it in a transaction, until the other takes its turn. Directly there is nothing to change.
        """
        if not self.pooled:
            return
        if not self._crowd:
            self._crowd = [self._bystander(), self._bystander()]
        taker, keeper = self._crowd
        taker.execute("BEGIN")
        if keeper.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
            keeper.execute("ROLLBACK")
        self._crowd.reverse()

    def check_servers(self, pids: Collection[int]) -> None:
        """Check that a client met several servers, by their process ids, where there is a pooler."""
        assert pids
        if self.pooled:
            assert len(set(pids)) > 1, "the client was served by one and the same server connection"
        else:
            assert len(set(pids)) == 1

    def wait_running(self, statement: str) -> None:
        """Wait until exactly this statement runs on the server and waits there, for example in `pg_sleep`."""
        eventually(
            lambda: self.pg.sql(
                "SELECT pid FROM pg_stat_activity"
                " WHERE state = 'active' AND query = %s AND wait_event_type = 'Timeout'",
                statement,
            ),
            what=f"the server runs {statement}",
        )

    def restart(self) -> None:
        """Restart the server; the pooler, if there is one, stays."""
        self.close()
        self.pg.stop()
        self.pg.start()
        if self.pooled:
            # A login that was cut off by the stop is what clients are told, for as long as the pooler pauses then.
            eventually(self._is_served, what="clients are served", despite=(psycopg.OperationalError,))

    def _is_served(self) -> bool:
        with psycopg.connect(**self.conninfo) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)

    def close(self) -> None:
        """Send the bystanders away."""
        for bystander in self._crowd:
            bystander.close()
        self._crowd = []

    def clean(self) -> None:
        """Check that no client has left a transaction open on the server, and drop the tests' tables."""
        try:
            eventually(
                lambda: all(state == "idle" for state in self.pg.states(self.database)),
                what="every server connection is idle and in no transaction",
            )
        finally:
            with self.pg.admin(self.database) as connection:
                connection.execute("SET lock_timeout = '5s'")
                for table in self.tables:
                    connection.execute(f"DROP TABLE IF EXISTS {table} CASCADE".encode())

    def _bystander(self) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.conninfo, autocommit=True, prepare_threshold=None)
