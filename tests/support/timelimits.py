"""Situations of clients that take long, how they end, and how long that takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import attrs

from tests.support import rawclient as raw
from tests.support.network import free_port
from tests.support.postgres import ANN, BOB, TRUDY, Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.targets import Config

LIMIT: Final = 0.5
"""Seconds; the limit that situations are made for."""

NEVER: Final = 100
"""Seconds; a limit that no test comes to."""

_LATE: Final = 0.3  # seconds that may pass until it is seen that a limit is exceeded
_EARLY: Final = 0.02  # seconds that two readings of the clock may differ
_TRIES: Final = 3  # on a busy machine, one of so many is in time

STATES: Final = {
    "query_timeout": "57014",
    "transaction_timeout": "25P04",
    "idle_transaction_timeout": "25P03",
    "client_idle_timeout": "57P05",
    "query_wait_timeout": "08P01",
}
"""The limits, and the SQLSTATEs of their errors."""


@attrs.define
class Client:
    """One client, and the time at which that began for which there is a limit.

    Attributes:
        client: its connection.
        since: `time.monotonic` seconds.
        pid: the process id of its server, once it has asked for it.
        ended: the error that has ended the connection, if it has come already.
    """

    client: raw.RawClient
    since: float = 0.0
    pid: int = 0
    ended: list[raw.Frame] = attrs.field(factory=list)

    def begin(self) -> None:
        """From now on counts the time."""
        self.since = time.monotonic()

    def ask(self, sql: str) -> None:
        """Run a query; the server is noted if it tells its process id, and so is the end of the connection."""
        self.client.send(raw.query(sql))
        kind = b""
        while kind != b"Z" and not self.ended:
            got = self.client.receive()
            kind = got.kind
            if kind == b"E" and got.fields["S"] == "FATAL":
                self.ended.append(got)
            if kind == b"D" and "pg_backend_pid" in sql:
                self.pid = int(got.columns[-1] or b"0")

    def busy(self, seconds: float, sql: str = "SELECT 1") -> None:
        """Run a query again and again for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.ask(sql)
            time.sleep(0.05)


def idle(one: Client) -> None:
    """Do nothing after the login."""
    one.begin()


def idle_after_a_query(one: Client) -> None:
    """Do nothing after a query that was nearly too long."""
    one.begin()
    one.ask(f"SELECT pg_sleep({LIMIT * 0.8})")
    one.begin()


def idle_and_listening(one: Client) -> None:
    """Wait for notifications."""
    one.ask("LISTEN news")
    one.begin()


def query(one: Client) -> None:
    """Run a query that takes long."""
    one.ask("SELECT pg_backend_pid()")
    one.begin()
    one.client.send(raw.query("SELECT pg_sleep(2)"))


def extended_query(one: Client) -> None:
    """Do that with the extended protocol."""
    one.ask("SELECT pg_backend_pid()")
    one.begin()
    one.client.send(raw.extended("SELECT pg_sleep(2)"), raw.SYNC)


def query_with_notices(one: Client) -> None:
    """Run a query that sends something all the time."""
    one.ask("SELECT pg_backend_pid()")
    one.begin()
    body = "FOR n IN 1..40 LOOP PERFORM pg_sleep(0.05); RAISE NOTICE '%', n; END LOOP"
    one.client.send(raw.query(f"DO $$ BEGIN {body}; END $$"))


def query_with_rows(one: Client) -> None:
    """Run a query whose rows come slowly, and never as a whole."""
    one.ask("SELECT pg_backend_pid()")
    one.begin()
    one.client.send(raw.query("SELECT repeat('x', 20000), pg_sleep(0.05) FROM generate_series(1, 40)"))


def query_in_a_transaction(one: Client) -> None:
    """Run such a query when some time of the transaction has passed."""
    one.ask("BEGIN")
    one.ask("SELECT pg_backend_pid()")
    time.sleep(LIMIT * 0.8)
    one.begin()
    one.client.send(raw.query("SELECT pg_sleep(2)"))


def copy(one: Client) -> None:
    """Begin a COPY, and send no data."""
    one.ask("BEGIN; CREATE TEMP TABLE t (n int) ON COMMIT DROP")
    one.ask("SELECT pg_backend_pid()")
    one.begin()
    one.client.send(raw.query("COPY t FROM STDIN"))
    one.client.receive_until(b"G")


def transaction(one: Client) -> None:
    """Run short queries in a transaction, until that is ended."""
    one.begin()
    one.ask("BEGIN; SELECT pg_backend_pid()")
    while not one.ended:
        time.sleep(0.03)
        one.ask("SELECT 1")


def idle_transaction(one: Client) -> None:
    """Do nothing in a transaction."""
    one.begin()
    one.ask("BEGIN; SELECT pg_backend_pid()")
    one.begin()


def idle_transaction_after_a_query(one: Client) -> None:
    """Do nothing in a transaction, after a query that was nearly too long."""
    one.ask("BEGIN")
    one.ask(f"SELECT pg_sleep({LIMIT * 0.8}), pg_backend_pid()")
    one.begin()


def failed_transaction(one: Client) -> None:
    """Do nothing in a transaction that has failed."""
    one.ask("BEGIN; SELECT pg_backend_pid()")
    one.ask("SELECT 1/0")
    one.begin()


def half_a_pipeline(one: Client) -> None:
    """Do nothing in the middle of a pipeline that has been answered so far."""
    one.ask("SELECT pg_backend_pid()")
    one.client.send(raw.extended("SELECT 1"), raw.FLUSH)
    one.client.receive_until(b"C")
    one.begin()


def busy(one: Client) -> None:
    """Run short queries."""
    one.busy(LIMIT * 2.5)


def busy_with_transactions(one: Client) -> None:
    """Run short transactions."""
    one.busy(LIMIT * 2.5, "BEGIN; SELECT pg_sleep(0.1); COMMIT")


def busy_in_a_transaction(one: Client) -> None:
    """Run short queries in a transaction that is too long."""
    one.ask("BEGIN")
    one.busy(LIMIT * 2.5)
    one.ask("COMMIT")


def long_query(one: Client) -> None:
    """Run a query that is too long."""
    one.ask(f"SELECT pg_sleep({LIMIT * 2.5})")


def long_transaction(one: Client) -> None:
    """Do nothing for too long in a transaction."""
    one.ask("BEGIN")
    time.sleep(LIMIT * 2.5)
    one.ask("COMMIT")


def long_rest(one: Client) -> None:
    """Do nothing for too long."""
    one.ask("SELECT 1")
    time.sleep(LIMIT * 2.5)


def long_rest_with_a_pin(one: Client) -> None:
    """Do nothing for too long while there is a temporary table."""
    one.ask("CREATE TEMP TABLE t (n int)")
    time.sleep(LIMIT * 2.5)
    one.ask("DROP TABLE t")


@attrs.frozen
class Outcome:
    """What has become of a client.

    Attributes:
        seconds: until its connection ended.
        error: the fields of the error that it was told.
        pid: the process id of its server.
        next_pid: that of the server that the next client of the pool got.
    """

    seconds: float
    error: dict[str, str]
    pid: int
    next_pid: int


def run(pooler: Pooler, database: str, situation: Callable[[Client], None], role: Role = TRUDY) -> Outcome:
    """Bring a client into a situation, and wait for its end."""
    with pooler.raw(database, role) as client:
        one = Client(client)
        situation(one)
        frames = one.ended + client.receive_all()
        seconds = time.monotonic() - one.since
    with pooler.raw(database, role) as following:
        next_pid = int(following.value("SELECT pg_backend_pid()"))
    errors = [got.fields for got in frames if got.kind == b"E"]
    return Outcome(seconds, errors[-1] if errors else {}, one.pid, next_pid)


def run_waiting(pooler: Pooler, database: str, role: Role = TRUDY) -> Outcome:
    """Have a client wait for the only server, until it is told that this takes too long."""
    with pooler.raw(database, role) as holder, pooler.raw(database, role) as client:
        holder.ask("BEGIN")
        since = time.monotonic()
        client.send(raw.query("SELECT 'not to be seen'"))
        frames = client.receive_all()
        seconds = time.monotonic() - since
        holder.ask("COMMIT")
    return Outcome(seconds, frames[-1].fields, 0, 0)


def in_time(run: Callable[[], Outcome], limit: float = LIMIT) -> Outcome:
    """Do something until it has ended in time: a busy machine sees late that it has ended, or that it has begun."""
    for _ in range(_TRIES):
        outcome = run()
        if limit - _EARLY <= outcome.seconds <= limit + _LATE:
            break
    return outcome


def goes_on(pooler: Pooler, database: str, situation: Callable[[Client], None]) -> list[bytes]:
    """Run a situation that no limit ends. Returns the answer to a last query."""
    with pooler.raw(database, TRUDY) as client:
        situation(Client(client))
        return [got.kind for got in client.ask("SELECT 1")]


def config(
    pg: PostgresCluster,
    dbname: str,
    databases: dict[str, dict[str, Any]],
    users: dict[str, dict[str, Any]] | None = None,
    **pooler: object,
) -> Config:
    """Return settings with databases that have one server connection each, and settings of their own."""
    common = {"host": pg.host, "port": pg.port, "dbname": dbname, "pool_size": 1}
    return {
        "pooler": {
            "listen_addr": "127.0.0.1",
            "listen_port": free_port(),
            "auth_type": "trust",
            "pool_mode": "transaction",
            "max_client_conn": 500,
            "query_wait_notify": 0,
            **dict.fromkeys(STATES, NEVER),
            **pooler,
        },
        "databases": {name: {**common, **own} for name, own in databases.items()},
        "users": {
            role.name: {
                **({"password": role.password} if role.password else {}),
                **(users or {}).get(role.name, {}),
            }
            for role in (ANN, BOB, TRUDY)
        },
    }


def check(outcome: Outcome, limit: str, seconds: float = LIMIT) -> None:
    """Check that a client was told which limit it was, at the right time."""
    assert (outcome.error["S"], outcome.error["C"]) == ("FATAL", STATES[limit]), outcome.error
    assert outcome.error["M"] == limit
    assert limit in outcome.error["H"]
    assert seconds - _EARLY <= outcome.seconds <= seconds + _LATE, outcome.seconds
