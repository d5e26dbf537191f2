"""The same script on PostgreSQL itself and through a pooler; and the tables that scripts use."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Final, Self

from tests.support.network import free_port
from tests.support.pgscripts import SLEEP, Script, table
from tests.support.pgscripts_replay import NoAnswer, Player
from tests.support.pgscripts_run import PATIENCE, Recorder, Side
from tests.support.postgres import TRUDY
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from types import TracebackType

    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.targets import Config

_CLIENTS: Final = 8
_LITTLE_PATIENCE: Final = (
    0.5  # seconds that an answer may take when the test has failed, and scripts are shortened
)
_BACKENDS: Final = f"from pg_stat_activity where datname = current_database() and usename = '{TRUDY.name}'"

_SCHEMA: Final = """
create function fail(what text) returns int volatile language plpgsql
  as $$begin raise exception 'failed: %', what; end$$;
create function note(what text) returns int volatile language plpgsql
  as $$begin raise notice 'noted: %', what; return 1; end$$
"""


def config_for(
    pg: PostgresCluster, mode: str, servers: int, *, database: str = "app", **pooler: object
) -> Config:
    """Return the settings of a pooler that has a pool of its own for each database name that a client asks for.

    Args:
        pg: the server.
        mode: of pooling.
        servers: how many connections each pool may have.
        database: where all of them lead to.
        pooler: more settings.
    """
    return {
        "pooler": {
            "listen_addr": "127.0.0.1",
            "listen_port": free_port(),
            "auth_type": "trust",
            "pool_mode": mode,
            "default_pool_size": servers,
            "server_idle_timeout": 1,
            "log_connections": False,
            "log_disconnections": False,
            **pooler,
        },
        "databases": {"*": {"host": pg.host, "port": pg.port, "dbname": database}},
        "users": {TRUDY.name: {}},
    }


class Comparison:
    """Runs scripts directly and through a pooler. A context manager, which makes and drops the tables.

    Args:
        pg: where both runs end.
        pooler: through which the second run goes; None compares PostgreSQL with itself.
        servers: how many server connections the pooler may have.
        database: where both runs end.
    """

    _pools: Final = count()

    def __init__(
        self, pg: PostgresCluster, pooler: Pooler | None, servers: int, *, database: str = "app"
    ) -> None:
        self._database = database
        self._direct = pg.host, pg.port
        self._pooled = ("127.0.0.1", pooler.port) if pooler is not None else self._direct
        self._poolless = pooler is None
        self._servers = servers
        self._admin = pg.admin(database)
        self._patience = PATIENCE

    def __enter__(self) -> Self:
        self._drop()
        self._admin.execute(_SCHEMA)
        for client in range(_CLIENTS):
            name = table(client)
            self._admin.execute(f"create table {name} (n int primary key, t text)")
            self._admin.execute(f"grant all on {name} to {TRUDY.name}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end_all()
            self._drop()
        finally:
            self._admin.close()

    def check(self, script: Script | str) -> None:
        """Compare what one script is answered.

        Raises:
            Difference: it is not the same, or a transaction is left open when all clients have gone.
        """
        if isinstance(script, str):
            script = Script.of(script)
        self._prepare()
        with Side(self._direct, self._database, TRUDY.name, self._asleep) as side:
            events = Recorder(side, self._servers).run(script)
        self._prepare()
        # Another name is another pool: nothing is there that earlier scripts have left behind.
        database = self._database if self._poolless else f"pool{next(self._pools)}"
        try:
            with Side(self._pooled, database, TRUDY.name, self._asleep, self._patience) as side:
                Player(side).run(events)
            self._await_quiet()
        except NoAnswer:
            self._patience = _LITTLE_PATIENCE
            raise

    def _await_quiet(self) -> None:
        quiet = "select bool_and(xact_start is null) is not false"
        try:
            eventually(
                lambda: self._admin.execute(f"{quiet} {_BACKENDS}").fetchone() == (True,),
                within=self._patience,
                what="no transaction is open",
            )
        except AssertionError:
            raise NoAnswer("a transaction has been left open") from None

    def _prepare(self) -> None:
        """Make the tables as every run finds them."""
        self._end_all()
        tables = [table(client) for client in range(_CLIENTS)]
        rows = ";".join(
            f"insert into {name} select n, 'row ' || n from generate_series(1, 3) n" for name in tables
        )
        self._admin.execute(f"truncate {','.join(tables)}; {rows}".encode())

    def _end_all(self) -> None:
        """End what is left of a run that did not come to its end."""
        self._admin.execute(f"select pg_terminate_backend(pid, 10000) {_BACKENDS} and state <> 'idle'")

    def _asleep(self, client: int) -> str:
        found: Any = self._admin.execute(
            "select concat(pid, ' ', query_start) from pg_stat_activity"
            " where wait_event = 'PgSleep' and position(%s in query) > 0",
            [SLEEP.replace("@", table(client))],
        ).fetchone()
        return found[0] if found else ""

    def _drop(self) -> None:
        for client in range(_CLIENTS):
            self._admin.execute(f"drop table if exists {table(client)}")
        self._admin.execute("drop function if exists fail(text), note(text)")
