"""Clients that share two server connections: what each of them sees of a session's state, on either server."""

from __future__ import annotations

import contextlib
import zlib
from typing import TYPE_CHECKING, Final, Self

from tests.support import rawclient as raw
from tests.support.network import free_port
from tests.support.postgres import ANN, SUPERUSER, TRUDY, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.targets import Config

SERVERS: Final = 2
"""The size of the pools."""

DATABASE: Final = "other"
"""Where all names lead to: a pooler may stay there longer than a test."""

_TRIES: Final = 10

ROOT: Final = "root"
"""The database whose pool logs in as a superuser."""

STATE: Final = """
SELECT concat_ws(E'\\n',
  (SELECT string_agg(name || '=' || setting, E'\\n' ORDER BY name) FROM pg_settings
    WHERE context IN ('user', 'superuser') AND name NOT LIKE ALL (ARRAY['transaction%', '%.%', 'seed'])),
  'my.setting=' || nullif(current_setting('my.setting', true), ''),
  'my.deep.setting=' || nullif(current_setting('my.deep.setting', true), ''),
  'user=' || session_user || ' ' || current_user,
  'listening=' || nullif(array(SELECT pg_listening_channels() ORDER BY 1)::text, '{}'),
  'locks=' || nullif(array(SELECT objid || mode FROM pg_locks WHERE locktype = 'advisory'
    AND pid = pg_backend_pid() ORDER BY 1)::text, '{}'),
  'prepared=' || nullif(array(SELECT name FROM pg_prepared_statements WHERE from_sql ORDER BY 1)::text, '{}'),
  'cursors=' || nullif(array(SELECT name FROM pg_cursors WHERE is_holdable ORDER BY 1)::text, '{}'),
  'temporary=' || nullif(array(SELECT relname::text FROM pg_class WHERE relnamespace = pg_my_temp_schema()
    UNION SELECT proname FROM pg_proc WHERE pronamespace = pg_my_temp_schema() ORDER BY 1)::text, '{}'))
""".replace("E'\\n'", "chr(10)").replace("\n", " ")
"""All state of a session that SQL can see, one line for each piece; what is the same as ever in most of them."""


def config_for(pg: PostgresCluster, dbname: str, **pooler: object) -> Config:
    """Return the settings of a pooler in transaction mode whose pools have two servers, and nobody needs a password.

    Args:
        pg: the server.
        dbname: the database that all names lead to; the name `ROOT` does so as a superuser.
        pooler: more settings.
    """
    return {
        "pooler": {
            "listen_addr": "127.0.0.1",
            "listen_port": free_port(),
            "auth_type": "trust",
            "pool_mode": "transaction",
            "default_pool_size": SERVERS,
            **pooler,
        },
        "databases": {
            ROOT: {"host": str(pg.socket_dir), "port": pg.port, "dbname": dbname, "user": SUPERUSER},
            "*": {"host": pg.host, "port": pg.port, "dbname": dbname},
        },
        "users": {TRUDY.name: {}, ANN.name: {"password": ANN.password}},
    }


def direct(pg: PostgresCluster, dbname: str, user: str = TRUDY.name, /, **parameters: str) -> raw.RawClient:
    """Connect to PostgreSQL itself, as the pooler of `config_for` does."""
    superuser = user == SUPERUSER
    client = raw.RawClient(f"{pg.socket_dir}/.s.PGSQL.{pg.port}" if superuser else (pg.host, pg.port))
    last = client.login(dbname, user, **parameters)[-1]
    assert last.kind == b"Z", last.fields
    return client


_SCHEMA: Final = r"""
    CREATE ROLE hat;
    CREATE ROLE "odd hat";
    GRANT hat, "odd hat" TO trudy;
    CREATE SCHEMA state;
    GRANT USAGE ON SCHEMA state TO PUBLIC;
    CREATE TABLE state.audited (n int);
    GRANT ALL ON state.audited TO PUBLIC;
    CREATE FUNCTION state.set_tenant(text) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('my.setting', $1, false); RETURN $1; END $$;
    CREATE FUNCTION state.sql_tenant(text) RETURNS text LANGUAGE sql AS
        $$ SELECT set_config('my.setting', $1, false) $$;
    CREATE FUNCTION state.caller(text) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN 'by ' || state.set_tenant($1); END $$;
    CREATE FUNCTION state.callers_caller() RETURNS text LANGUAGE sql AS $$ SELECT state.caller('x') $$;
    CREATE FUNCTION state.put_back() RETURNS text LANGUAGE plpgsql SET work_mem = '7MB' AS
        $$ BEGIN RETURN current_setting('work_mem'); END $$;
    CREATE PROCEDURE state.commits() LANGUAGE plpgsql AS
        $$ BEGIN SET work_mem = '7MB'; COMMIT; SET TimeZone = 'Asia/Tokyo'; ROLLBACK; END $$;
    CREATE FUNCTION state.take_lock(int) RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_lock($1) $$;
    CREATE FUNCTION state.make_table() RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN CREATE TEMP TABLE IF NOT EXISTS t (n int); END $$;
    CREATE FUNCTION state.hidden() RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE 'se' || 't work_mem = ''7MB'''; END $$;
    CREATE FUNCTION state.note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN SET work_mem = '7MB'; RETURN NEW; END $$;
    CREATE TRIGGER note BEFORE INSERT ON state.audited FOR EACH ROW EXECUTE FUNCTION state.note();
"""
_DROP: Final = 'DROP SCHEMA state CASCADE; DROP ROLE hat; DROP ROLE "odd hat"'


@contextlib.contextmanager
def schema(pg: PostgresCluster, dbname: str) -> Iterator[None]:
    """Functions, a procedure and a table that change the session, in the schema `state`; and roles."""
    with pg.admin(dbname) as admin:
        admin.execute(_SCHEMA)
        yield
        admin.execute(_DROP)


class Sharing:
    """Clients of one pool with two servers.

    Args:
        pooler: made with `config_for`.
        database: as the pooler calls it.
        role: who logs in.
    """

    def __init__(self, pooler: Pooler, database: str = "app", role: Role = TRUDY) -> None:
        self.pooler = pooler
        self._database = database
        self._role = role
        self._stack = contextlib.ExitStack()
        self._mark = pooler.log_size()
        self._crowd = [self.client() for _ in range(SERVERS)]
        self.settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def client(self, **parameters: str) -> raw.RawClient:
        """A client that has logged in; it leaves abruptly at the end if it is still there then."""
        return self._stack.enter_context(self.pooler.raw(self._database, self._role, **parameters))

    def settle(self) -> None:
        """Wait until no client has a server; there are two afterwards."""
        for one in self._crowd:
            one.ask("BEGIN")
        for one in self._crowd:
            one.ask("ROLLBACK")

    @contextlib.contextmanager
    def crowded(self) -> Iterator[None]:
        """While this lasts, somebody else has the server that came back last, or the only one that is free."""
        self._crowd[0].ask("BEGIN")
        try:
            yield
        finally:
            self._crowd[0].ask("ROLLBACK")

    def everywhere(self, client: raw.RawClient, sql: str = STATE) -> str:
        """Ask the same on both servers, and check that the answer is the same."""
        seen: dict[int, str] = {}
        for _ in range(_TRIES):  # the pooler may have had a query of its own on the other server
            seen[pid_of(client)] = client.value(sql)
            with self.crowded():
                seen[pid_of(client)] = client.value(sql)
            if len(seen) == SERVERS:
                break
        assert len(seen) == SERVERS, "the client keeps its server"
        one, other = seen.values()
        assert one == other, f"another server, another answer: {differences(one, other)}"
        return one

    def stays(self, client: raw.RawClient) -> int:
        """Check that the client keeps its server; return that server's process id."""
        first = pid_of(client)
        with self.crowded():
            second = pid_of(client)
        assert first == second, "the client has changed its server"
        return first

    def reasons(self, client: raw.RawClient) -> list[str]:
        """What the pooler has logged about why it lets a client keep its server, one text per line of the log."""
        return [
            line.partition("reasons=")[2].strip().strip("'")
            for line in self.pooler.log_text(self._mark).splitlines()
            if "client keeps its server" in line and f"client=127.0.0.1:{client.port} " in line
        ]


def pid_of(client: raw.RawClient) -> int:
    """The process id of the server that serves a client's next query."""
    return int(client.value("SELECT pg_backend_pid()"))


def differences(one: str, other: str) -> str:
    """What lines only one of two texts has, for the message of a failure."""
    return "\n".join(sorted(set(one.splitlines()) ^ set(other.splitlines())))


def _simple(statements: Sequence[str]) -> Iterator[bytes]:
    yield from map(raw.query, statements)


def _one_text(statements: Sequence[str]) -> Iterator[bytes]:
    yield raw.query("; ".join(statements))


def _extended(statements: Sequence[str]) -> Iterator[bytes]:
    for statement in statements:
        yield raw.extended(statement) + raw.SYNC


def _pipeline(statements: Sequence[str]) -> Iterator[bytes]:
    yield b"".join(map(raw.extended, statements)) + raw.SYNC


def _prepared(statements: Sequence[str]) -> Iterator[bytes]:
    names = [f"s{zlib.crc32(statement.encode())}" for statement in statements]
    for name, statement in zip(names, statements, strict=True):
        yield raw.parse(statement, name) + raw.SYNC
    for name in names:
        yield raw.bind(name=name) + raw.execute() + raw.SYNC


WAYS: Final[dict[str, Callable[[Sequence[str]], Iterator[bytes]]]] = {
    "simple": _simple,
    "one text": _one_text,
    "extended": _extended,
    "pipeline": _pipeline,
    "prepared": _prepared,
}
"""How statements may be sent; each piece of bytes is answered by one ReadyForQuery."""


def in_turn(cases: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of cases and `WAYS`: each case as prepared statements, and in one of the other ways in turn."""
    others = [way for way in WAYS if way != "prepared"]
    return [
        (case, way) for number, case in enumerate(cases) for way in (others[number % len(others)], "prepared")
    ]


def leave(client: raw.RawClient, *, abruptly: bool) -> None:
    """Close a client's connection, with a Terminate message or as a crash does."""
    if abruptly:
        client.abort()
    else:
        client.close()


def answers(client: raw.RawClient, way: str, statements: Sequence[str]) -> list[raw.Frame]:
    """Send statements in one of the `WAYS`, and return all that comes back; a failed transaction is rolled back."""
    frames = []
    for piece in WAYS[way](statements):
        client.send(piece)
        frames += client.receive_until()
    if frames[-1].body != b"I":
        frames += client.ask("ROLLBACK")
    return frames
