"""The admin console as operators use it: who is let in, what it does to clients and servers."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.support import rawclient as raw
from tests.support.poolers import config_for
from tests.support.postgres import ANN, BOB, CLARA, Role
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

Row = dict[str, Any]


@pytest.fixture(scope="module")
def _console_pooler(make_module_pooler: PoolerFactory, _pg: PostgresCluster) -> Iterator[Pooler]:
    with tempfile.TemporaryDirectory() as directory:
        config = config_for(_pg, admin_users=["ann"], stats_users=["bob"], unix_socket_dir=directory)
        config["databases"]["app"].update(pool_mode="transaction", pool_size=2)
        yield make_module_pooler(config)


@pytest.fixture
def consoled(_console_pooler: Pooler, watch: Callable[[Pooler], Pooler]) -> Pooler:
    """A pooler with a console: ann is an administrator, bob may read."""
    return watch(_console_pooler)


@pytest.fixture
def admin(consoled: Pooler) -> Iterator[psycopg.Connection[Row]]:
    """The console, as ann; afterwards, nothing is paused any more."""
    with _console(consoled) as connection:
        yield connection
        state = {row["key"]: row["value"] for row in connection.execute("SHOW STATE")}
        assert state == {"active": "yes", "paused": "no", "suspended": "no"}
        assert not [row for row in connection.execute("SHOW DATABASES") if row["paused"] or row["disabled"]]


def _console(
    pooler: Pooler, role: Role = ANN, database: str = "pgbouncer", **more: str
) -> psycopg.Connection[Row]:
    return psycopg.connect(
        **{**pooler.conninfo(database, role), **more}, autocommit=True, row_factory=dict_row
    )


def _show(console: psycopg.Connection[Row], what: str, **where: object) -> list[Row]:
    return [row for row in console.execute(f"SHOW {what}") if where.items() <= row.items()]


def _refusal(error: psycopg.Error) -> tuple[str | None, str]:
    return error.sqlstate, error.diag.message_primary or str(error).split("FATAL:  ")[-1].split("\n")[0]


# -- who is let in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["pgbouncer", "hyperpool"])
def test_both_names_of_the_console(consoled: Pooler, database: str) -> None:
    """It is one console."""
    with _console(consoled, database=database) as console:
        assert _show(console, "CLIENTS", database="pgbouncer", user="ann", id=_own_id(console))


def _own_id(console: psycopg.Connection[Row]) -> int:
    return max(int(row["id"]) for row in _show(console, "CLIENTS", database="pgbouncer"))


def test_who_may_not_use_it(consoled: Pooler) -> None:
    """A user that is in neither list, and one whose password is wrong."""
    with pytest.raises(psycopg.OperationalError, match="not allowed"):
        _console(consoled, CLARA)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        _console(consoled, Role("ann", "wrong", "scram-sha-256"))


def test_who_may_read(consoled: Pooler) -> None:
    """They see everything but file descriptors, and change nothing."""
    with _console(consoled, BOB) as console:
        assert _show(console, "CONFIG", key="max_client_conn")
        for command in (
            "SHOW FDS",
            "PAUSE",
            "RELOAD",
            "KILL app",
            "KILL_CLIENT 1",
            "SET query_timeout = 1",
            "SHUTDOWN",
        ):
            with pytest.raises(psycopg.Error) as caught:
                console.execute(command)
            assert _refusal(caught.value) == ("08P01", "admin access needed")
        assert console.execute("SET extra_float_digits = 3").statusmessage == "SET"


def test_the_pooler_s_own_user_needs_no_password(consoled: Pooler) -> None:
    """Through the Unix socket, as the user pgbouncer, for the console alone."""
    directory = consoled.config["pooler"]["unix_socket_dir"]
    owner = Role("pgbouncer", "", "trust")
    with _console(consoled, owner, host=directory) as console:
        assert _show(console, "FDS", task="pooler")
        (row,) = _show(console, "CLIENTS", user="pgbouncer")
        assert (row["addr"], row["remote_pid"]) == ("unix", os.getpid())
    for other in ({"host": consoled.host}, {"host": directory, "dbname": "app"}):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(**{**consoled.conninfo("pgbouncer", owner), **other})


def test_it_is_there_when_all_places_are_taken(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Whoever has to find out why needs it."""
    pooler = make_pooler(max_client_conn=1, admin_users="ann")
    with pooler.connect(), _console(pooler) as console:
        assert _show(console, "POOLS", database="app", cl_active=1)
        with pytest.raises(psycopg.OperationalError, match="no more connections"):
            pooler.connect()


# -- what it shows -------------------------------------------------------------------------------------------


def test_clients_and_servers_that_belong_together(consoled: Pooler, admin: psycopg.Connection[Row]) -> None:
    """Each points to the other while a transaction is open."""
    with psycopg.connect(**consoled.conninfo(application_name="shown")) as connection:
        (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (None,)
        (client,) = _show(admin, "CLIENTS", application_name="shown")
        (server,) = _show(admin, "SERVERS", remote_pid=pid)
        assert (client["link"], server["link"]) == (server["ptr"], client["ptr"])
        assert (client["type"], client["user"], client["database"], client["state"]) == (
            "C",
            "ann",
            "app",
            "active",
        )
        assert (server["type"], server["state"], server["port"]) == (
            "S",
            "active",
            consoled.config["databases"]["app"]["port"],
        )
        assert _show(admin, "POOLS", database="app", user="ann", sv_active=1, pool_mode="transaction")
        connection.rollback()
        (client,) = _show(admin, "CLIENTS", application_name="shown")
        assert (client["state"], client["link"]) == ("idle", "")
        assert _show(admin, "SERVERS", remote_pid=pid, state="idle", link="")


def test_counters(consoled: Pooler, admin: psycopg.Connection[Row]) -> None:
    """What a client does is counted, whatever way it takes through the relay."""

    def counted() -> Row:
        return _show(admin, "STATS_TOTALS", database="app")[0]

    with psycopg.connect(**consoled.conninfo(), autocommit=True) as connection:
        connection.execute("SELECT 1")
        before = counted()
        for _ in range(3):
            connection.execute("SELECT %s::int", [1], prepare=True)
        connection.execute("SELECT pg_sleep(0.05)")
        with connection.transaction():
            connection.execute("SELECT 1")
            connection.execute("SELECT pg_sleep(0.02)")
        after = counted()
    done = {name: after[name] - before[name] for name in before if name != "database"}
    assert (done["query_count"], done["xact_count"], done["server_assignment_count"]) == (9, 6, 6)
    assert (done["client_parse_count"], done["server_parse_count"], done["bind_count"]) == (1, 1, 3)
    assert 70_000 <= done["query_time"] < 5_000_000
    assert done["xact_time"] >= done["query_time"] - 1
    assert done["bytes_received"] > 100
    assert done["bytes_sent"] > 300
    assert done["client_login_count"] == 0
    (totals,) = [row["value"] for row in admin.execute("SHOW TOTALS") if row["name"] == "total_query_count"]
    assert totals >= after["query_count"]


def test_averages_of_a_period(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Per second of the newest period that is over."""
    pooler = make_pooler(admin_users="ann", stats_period=0.2)
    with pooler.connect() as connection, _console(pooler) as console:

        def busy() -> bool:
            for _ in range(20):
                connection.execute("SELECT 1")
            (row,) = _show(console, "STATS", database="app")
            return bool(row["avg_query_count"] > 20 and row["avg_query_time"] > 0 and row["avg_recv"] > 200)

        eventually(busy, what="a period with queries is over")


def test_pins(consoled: Pooler, admin: psycopg.Connection[Row]) -> None:
    """Who keeps a server connection, and why."""
    with consoled.connect() as connection:
        connection.execute("LISTEN a")
        connection.execute("SELECT 1")
        (row,) = _show(admin, "PINS", database="app", user="ann")
        assert row["reasons"] == "LISTEN"
        assert _show(admin, "SERVERS", id=row["server_id"], state="active")
    eventually(lambda: not _show(admin, "PINS"), what="nobody is pinned any more")


def test_no_secret_is_shown(consoled: Pooler, admin: psycopg.Connection[Row]) -> None:
    """In no view."""
    views = (
        "CLIENTS SERVERS SOCKETS ACTIVE_SOCKETS POOLS PEERS PEER_POOLS LISTS USERS DATABASES CONFIG FDS DNS_HOSTS"
        " DNS_ZONES STATS STATS_TOTALS STATS_AVERAGES TOTALS MEM STATE VERSION PINS TRANSPORTS TUNNELS"
    )
    with consoled.connect() as connection:
        connection.execute("SELECT 1")
        shown = str([admin.execute(f"SHOW {view}").fetchall() for view in views.split()])
    for role in (ANN, BOB, CLARA):
        assert role.password not in shown


# -- what it does --------------------------------------------------------------------------------------------


def _in_thread(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def test_pause_waits_for_transactions(consoled: Pooler, admin: psycopg.Connection[Row]) -> None:
    """And closes all servers; who asks something meanwhile waits until it is resumed."""
    with consoled.connect(autocommit=False) as connection, consoled.connect() as other:
        connection.execute("SELECT 1")
        paused = _in_thread(lambda: admin.execute("PAUSE app"))
        with _console(consoled) as second:
            eventually(lambda: _show(second, "DATABASES", name="app", paused=1), what="it is paused")
            asked = _in_thread(lambda: other.execute("SELECT 1"))
            eventually(lambda: _show(second, "POOLS", database="app", cl_waiting=1), what="a client waits")
            assert connection.execute("SELECT 2").fetchone() == (2,)
            assert paused.is_alive()
            connection.commit()
            paused.join(10)
            assert not _show(second, "SERVERS")
            assert asked.is_alive()
            assert second.execute("RESUME app").statusmessage == "RESUME"
            asked.join(10)
            assert not asked.is_alive()


def test_pause_that_is_canceled(consoled: Pooler, admin: psycopg.Connection[Row]) -> None:
    """Ctrl-C in psql: everything goes on."""
    with consoled.connect(autocommit=False) as connection, _console(consoled) as second:
        connection.execute("SELECT 1")
        caught: list[psycopg.Error] = []

        def pause() -> None:
            try:
                admin.execute("PAUSE")
            except psycopg.Error as error:
                caught.append(error)

        thread = _in_thread(pause)
        eventually(lambda: _show(second, "STATE", key="paused", value="yes"), what="it is paused")
        admin.cancel_safe()
        thread.join(10)
        assert [error.sqlstate for error in caught] == ["57014"]
        assert _show(second, "STATE", key="active", value="yes")
        assert connection.execute("SELECT 2").fetchone() == (2,)


def test_disable(consoled: Pooler, admin: psycopg.Connection[Row]) -> None:
    """Nobody new is let in; those who are there stay."""
    with consoled.connect() as connection:
        admin.execute("DISABLE app")
        with pytest.raises(psycopg.OperationalError, match='database "app" is disabled'):
            consoled.connect()
        assert connection.execute("SELECT 1").fetchone() == (1,)
        admin.execute("ENABLE app")
        consoled.connect().close()


def test_reconnect(consoled: Pooler, admin: psycopg.Connection[Row]) -> None:
    """Servers are replaced as they become free, which WAIT_CLOSE waits for."""
    with consoled.connect(autocommit=False) as connection:
        (old,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (None,)
        admin.execute("RECONNECT app")
        assert _show(admin, "SERVERS", remote_pid=old, close_needed=1)
        waits = _in_thread(lambda: admin.execute("WAIT_CLOSE app"))
        assert connection.execute("SELECT pg_backend_pid()").fetchone() == (old,)
        assert waits.is_alive()
        connection.commit()
        waits.join(10)
        assert not waits.is_alive()
        assert connection.execute("SELECT pg_backend_pid()").fetchone() != (old,)


def test_kill(consoled: Pooler, admin: psycopg.Connection[Row]) -> None:
    """Clients and servers are closed at once, and the database is paused."""
    with consoled.connect(autocommit=False) as connection:
        connection.execute("SELECT 1")
        admin.execute("KILL app")
        assert not _show(admin, "SERVERS")
        with pytest.raises(psycopg.OperationalError) as caught:
            connection.execute("SELECT 1")
        assert _refusal(caught.value) == ("57P01", "admin forced disconnect")
    admin.execute("RESUME app")
    consoled.connect().close()


def test_kill_client(consoled: Pooler, admin: psycopg.Connection[Row]) -> None:
    """The one with that id, as SHOW CLIENTS has it."""
    with (
        psycopg.connect(**consoled.conninfo(application_name="victim")) as connection,
        consoled.connect() as other,
    ):
        (row,) = _show(admin, "CLIENTS", application_name="victim")
        assert admin.execute("KILL_CLIENT %s", [row["id"]]).statusmessage == "KILL_CLIENT"
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        assert other.execute("SELECT 1").fetchone() == (1,)


def test_suspend(consoled: Pooler, admin: psycopg.Connection[Row]) -> None:
    """Nothing moves until it is resumed, also inside of a transaction; then everything goes on where it was."""
    with consoled.connect(autocommit=False) as connection:
        connection.execute("SELECT 1")
        assert admin.execute("SUSPEND").statusmessage == "SUSPEND"
        assert _show(admin, "STATE", key="suspended", value="yes")
        asked = _in_thread(lambda: connection.execute("SELECT 2"))
        asked.join(0.3)
        assert asked.is_alive()
        admin.execute("RESUME")
        asked.join(10)
        assert not asked.is_alive()


def test_suspend_ends_with_its_console(consoled: Pooler) -> None:
    """Nobody could resume otherwise."""
    with consoled.connect() as connection:
        with _console(consoled) as console:
            console.execute("SUSPEND")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_set_lasts_until_a_reload(consoled: Pooler, admin: psycopg.Connection[Row]) -> None:
    """It takes effect at once."""
    assert admin.execute("SET query_timeout = '0.2'").statusmessage == "SET query_timeout=0.2"
    assert _show(admin, "CONFIG", key="query_timeout", value="0.2")
    with consoled.connect() as connection, pytest.raises(psycopg.OperationalError, match="query_timeout"):
        connection.execute("SELECT pg_sleep(5)")
    assert admin.execute("RELOAD").statusmessage == "RELOAD"
    assert _show(admin, "CONFIG", key="query_timeout", value="0")


def test_a_reload_that_fails_says_why(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """And changes nothing."""
    config = config_for(pg, admin_users="ann", max_client_conn=50)
    pooler = make_pooler(config)
    with _console(pooler) as console:
        broken = {**config, "pooler": {**config["pooler"], "max_client_conn": 60, "pool_mode": "nonsense"}}
        pooler.write(broken)
        with pytest.raises(psycopg.Error) as caught:
            console.execute("RELOAD")
        assert _refusal(caught.value) == ("F0000", "RELOAD failed, see logs for additional details")
        assert "pooler.pool_mode: found the text 'nonsense'" in (caught.value.diag.message_detail or "")
        assert _show(console, "CONFIG", key="max_client_conn", value="50")
        pooler.write({**config, "pooler": {**config["pooler"], "max_client_conn": 60}})
        console.execute("RELOAD")
        assert _show(console, "CONFIG", key="max_client_conn", value="60")


def test_a_reload_with_many_clients_costs_nobody_a_query(
    make_pooler: PoolerFactory, pg: PostgresCluster
) -> None:
    """Five hundred have asked something, and most of them wait: all are answered, whatever the settings say by then."""
    config = config_for(pg, auth_type="trust", admin_users="ann", max_client_conn=600, default_pool_size=5)
    config["databases"]["app"] |= {"pool_mode": "transaction", "user": BOB.name, "password": BOB.password}
    pooler = make_pooler(config)
    with contextlib.ExitStack() as stack:
        console = stack.enter_context(_console(pooler))
        clients = [stack.enter_context(pooler.raw("app", ANN)) for _ in range(500)]
        for number in range(3):
            for client in clients:
                client.send(raw.query(f"SELECT {number}"))
            config["databases"]["app"]["connect_query"] = f"SELECT {number}"
            pooler.write(config)
            console.execute("RELOAD")
            answers = [client.receive_until() for client in clients]
            assert {tuple(frame.kind for frame in frames) for frames in answers} == {(b"T", b"D", b"C", b"Z")}
            assert {frames[1].columns[0] for frames in answers} == {b"%d" % number}


def test_reloads_under_load_cost_nobody_a_query(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Nor do RECONNECT, and PAUSE with RESUME: servers are replaced between transactions."""
    config = config_for(pg, admin_users="ann", default_pool_size=3)
    config["databases"]["app"]["pool_mode"] = "transaction"
    pooler = make_pooler(config)
    done = threading.Event()
    counts: list[int] = []

    def work() -> None:
        with pooler.connect() as connection:
            count = 0
            while not done.is_set():
                with connection.transaction():
                    first = connection.execute("SELECT pg_backend_pid()").fetchone()
                    assert connection.execute("SELECT pg_backend_pid()").fetchone() == first
                count += 1
            counts.append(count)

    with _console(pooler) as console:
        threads = [_in_thread(work) for _ in range(10)]
        eventually(lambda: _show(console, "POOLS", database="app", user="ann"), what="they work")
        for number in range(6):
            config["databases"]["app"]["connect_query"] = f"SELECT {number}"
            config["databases"]["app"]["pool_size"] = 2 + number % 3
            pooler.write(config)
            console.execute("RELOAD")
            before = _show(console, "STATS_TOTALS", database="app")[0]["xact_count"]
            eventually(
                lambda before=before: (
                    _show(console, "STATS_TOTALS", database="app")[0]["xact_count"] > before + 10
                ),  # type: ignore[misc]
                what="they go on",
            )
            console.execute("RECONNECT app")
            console.execute("PAUSE app")
            console.execute("RESUME app")
        done.set()
        for thread in threads:
            thread.join(20)
    assert len(counts) == 10
    assert min(counts) > 0
