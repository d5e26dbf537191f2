"""The warm pool: how many servers there are, who gets the next one, and when a server is let go."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support import rawclient as raw
from tests.support.network import half_closed_towards
from tests.support.poolers import config_for
from tests.support.postgres import ANN, BOB, process_exists
from tests.support.proxy import Fault
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import PoolerFactory
    from tests.support.postgres import PostgresCluster
    from tests.support.proxy import FaultProxy
    from tests.support.targets import Config


def _forced(pg: PostgresCluster, **pooler: Any) -> Config:
    """Return settings whose database logs in as Ann whoever the client is."""
    config = config_for(pg, **pooler)
    config["databases"]["app"] |= {"user": ANN.name, "password": ANN.password}
    return config


class TestSize:
    """How many servers a pool holds."""

    @pytest.mark.hyperpool_only  # pgbouncer 1.18 fills a pool once a first client has made it
    @pytest.mark.parametrize("where", ["pooler", "database"])
    def test_min_pool_size_without_clients(
        self,
        make_pooler: PoolerFactory,
        pg: PostgresCluster,
        where: str,
    ) -> None:
        """`min_pool_size` servers are opened at start, before any client, for a database with a forced user."""
        config = _forced(pg, min_pool_size=3 if where == "pooler" else 1)
        if where == "database":
            config["databases"]["app"]["min_pool_size"] = 3
        make_pooler(config)
        eventually(lambda: len(pg.backends()) == 3, what="three servers are connected")

    @pytest.mark.hyperpool_only
    def test_min_pool_size_is_kept(self, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
        """Servers that are lost are replaced up to `min_pool_size`, still without any client."""
        make_pooler(_forced(pg, min_pool_size=2, server_login_retry=1))
        eventually(lambda: len(pg.backends()) == 2, what="two servers are connected")
        first = pg.backends()
        pg.sql("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", first)
        eventually(
            lambda: len(pids := pg.backends()) == 2 and not set(pids) & set(first),
            what="both servers are replaced",
        )

    def test_no_server_without_need(self, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
        """With `min_pool_size: 0` an idle pooler has no server connection."""
        pooler = make_pooler(_forced(pg))
        with pooler.open_raw():
            assert pg.backends() == []

    def test_growth_up_to_default_pool_size(self, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
        """50 clients at once grow the pool to `default_pool_size` and never beyond; all are served."""
        pooler = make_pooler(pool_mode="transaction", default_pool_size=5)
        peak = 0
        done = threading.Event()

        def work(number: int) -> set[int]:
            pids = set()
            with pooler.connect() as connection:
                for _ in range(5):
                    row = connection.execute("SELECT pg_backend_pid() FROM pg_sleep(0.01)").fetchone()
                    assert row is not None
                    pids.add(row[0])
            return pids

        def watch() -> None:
            nonlocal peak
            with pg.admin() as connection:
                while not done.is_set():
                    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app'"
                    row = connection.execute(count).fetchone()
                    assert row is not None
                    peak = max(peak, row[0])

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with ThreadPoolExecutor(50) as executor:
                pids = set().union(*executor.map(work, range(50)))
        finally:
            done.set()
            watcher.join(10)
        assert len(pids) == 5
        assert peak <= 5

    @pytest.mark.parametrize(
        "where",
        ["database", pytest.param("user", marks=pytest.mark.hyperpool_only)],  # pgbouncer: since 1.24
    )
    def test_pool_size_overrides(self, make_pooler: PoolerFactory, pg: PostgresCluster, where: str) -> None:
        """`pool_size` of the database or of the user overrides `default_pool_size`."""
        config = config_for(pg, default_pool_size=4, query_wait_timeout=1)
        if where == "database":
            config["databases"]["app"]["pool_size"] = 1
        else:
            config["users"]["ann"]["pool_size"] = 1
        pooler = make_pooler(config)
        with pooler.connect() as one:
            one.execute("SELECT 1")
            with pytest.raises(psycopg.Error, match="query_wait_timeout"):
                pooler.connect().execute("SELECT 1")

    def test_users_have_pools_of_their_own(self, make_pooler: PoolerFactory) -> None:
        """Without a forced user each user has its own servers, logged in as that user."""
        pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
        with pooler.raw("app", ANN) as ann, pooler.raw("app", BOB) as bob:
            ann.ask("BEGIN")
            assert bob.value("SELECT current_user") == "bob"
            assert ann.value("SELECT current_user") == "ann"

    def test_reserve_pool(self, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
        """A client that has waited `reserve_pool_timeout` gets a server beyond the pool's size."""
        pooler = make_pooler(
            pool_mode="transaction",
            default_pool_size=1,
            reserve_pool_size=1,
            reserve_pool_timeout=1,
        )
        with pooler.raw() as one, pooler.raw() as two:
            one.ask("BEGIN")
            waited = Stopwatch()
            assert two.value("SELECT 'from the reserve'") == "from the reserve"
            assert waited.seconds > 0.5
            assert len(pg.backends()) == 2
            one.ask("COMMIT")


class TestQueue:
    """Clients that wait for a server."""

    def test_first_come_first_served(self, make_pooler: PoolerFactory) -> None:
        """Waiting clients are served in the order in which they began to wait."""
        pooler = make_pooler(pool_mode="transaction", default_pool_size=1, session_state="keep")
        with pooler.raw() as holder:
            holder.ask("BEGIN")
            holder.ask("CREATE TEMP SEQUENCE turn")
            waiters = [pooler.raw() for _ in range(8)]
            order = [3, 0, 7, 1, 6, 2, 5, 4]
            for number in order:
                waiters[number].send(raw.query("SELECT nextval('turn')"))
                pooler.wait_read(waiters[number])
            holder.ask("COMMIT")
            turns = [int(waiter.receive_until()[1].columns[0] or 0) for waiter in waiters]
            for waiter in waiters:
                waiter.close()
        assert [turns.index(place + 1) for place in range(8)] == order

    def test_query_wait_timeout(self, make_pooler: PoolerFactory) -> None:
        """A client that waits longer than `query_wait_timeout` is told so and disconnected."""
        pooler = make_pooler(pool_mode="transaction", default_pool_size=1, query_wait_timeout=1)
        with pooler.raw() as holder, pooler.raw() as waiter:
            holder.ask("BEGIN")
            waiter.send(raw.query("SELECT 1"))
            errors = [got.fields for got in waiter.receive_all() if got.kind == b"E"]
            assert [error["M"] for error in errors] == ["query_wait_timeout"]
            assert errors[0]["S"] == "FATAL"
            assert raw.kinds(holder.ask("COMMIT")) == b"CZ"

    @pytest.mark.hyperpool_only  # since pgbouncer 1.24
    @pytest.mark.parametrize("where", ["databases", "users"])
    def test_query_wait_timeout_override(
        self,
        make_pooler: PoolerFactory,
        pg: PostgresCluster,
        where: str,
    ) -> None:
        """`query_wait_timeout` of the database or of the user overrides the pooler's."""
        config = config_for(pg, pool_mode="transaction", default_pool_size=1, query_wait_timeout=100)
        config[where]["app" if where == "databases" else "ann"]["query_wait_timeout"] = "700ms"
        pooler = make_pooler(config)
        with pooler.raw() as holder, pooler.raw() as waiter:
            holder.ask("BEGIN")
            waiter.send(raw.query("SELECT 1"))
            errors = [got.fields["M"] for got in waiter.receive_all() if got.kind == b"E"]
            assert errors == ["query_wait_timeout"]

    @pytest.mark.hyperpool_only  # pgbouncer does not look at waiting clients
    def test_a_client_that_leaves_the_queue(self, make_pooler: PoolerFactory) -> None:
        """A waiting client that disconnects loses its place; its request is never run."""
        pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
        with pooler.raw() as holder, pooler.raw() as after:
            holder.ask("CREATE TABLE left_queue (n int)")
            holder.ask("BEGIN")
            gone = pooler.raw()
            gone.send(raw.query("INSERT INTO left_queue VALUES (1)"))
            pooler.wait_read(gone)
            after.send(raw.query("SELECT count(*) FROM left_queue"))
            pooler.wait_read(after)
            before = pooler.open_files()
            gone.abort()
            eventually(lambda: pooler.open_files() < before, what="the pooler has noticed the leave")
            holder.ask("COMMIT")
            assert after.receive_until()[1].columns == [b"0"]
            after.ask("DROP TABLE left_queue")


class TestLetGo:
    """When a server connection ends."""

    def test_server_idle_timeout(self, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
        """A server that is idle for `server_idle_timeout` is closed, down to `min_pool_size`."""
        pooler = make_pooler(_forced(pg, pool_mode="transaction", min_pool_size=1, server_idle_timeout=1))
        clients = [pooler.raw() for _ in range(3)]
        for client in clients:
            client.ask("BEGIN")
        assert len(pg.backends()) == 3
        for client in clients:
            client.ask("COMMIT")
            client.close()
        eventually(lambda: len(pg.backends()) == 1, within=15, what="the idle servers are closed")

    def test_server_lifetime(self, make_pooler: PoolerFactory) -> None:
        """A server older than `server_lifetime` is replaced between transactions, unseen by the client."""
        pooler = make_pooler(pool_mode="transaction", default_pool_size=1, server_lifetime=1)
        with pooler.raw() as client:
            first = client.value("SELECT pg_backend_pid()")
            eventually(
                lambda: client.value("SELECT pg_backend_pid()") != first,
                within=15,
                what="the client is served by another server",
            )

    def test_a_server_in_use_outlives_its_lifetime(self, make_pooler: PoolerFactory) -> None:
        """A transaction that lasts longer than `server_lifetime` is not disturbed."""
        pooler = make_pooler(pool_mode="transaction", default_pool_size=1, server_lifetime=1)
        with pooler.raw() as client:
            client.ask("BEGIN")
            pid = client.value("SELECT pg_backend_pid()")
            client.ask("SELECT pg_sleep(2.5)")
            assert client.value("SELECT pg_backend_pid()") == pid
            assert raw.kinds(client.ask("COMMIT")) == b"CZ"

    def test_a_server_killed_while_idle_is_replaced(
        self,
        make_pooler: PoolerFactory,
        pg: PostgresCluster,
    ) -> None:
        """An idle server that is terminated is noticed; no client ever sees the error."""
        pooler = make_pooler(pool_mode="transaction", default_pool_size=2)
        with pooler.connect() as connection:
            for _ in range(3):
                connection.execute("SELECT 1")
                pids = pg.backends()
                pg.sql("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", pids)
                eventually(lambda: not any(map(process_exists, pids)), what="the servers are gone")  # noqa: B023
                eventually(lambda: not half_closed_towards(pg.port), what="the pooler closed its ends")

    def test_a_server_killed_in_use(self, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
        """The client of a server that dies in a transaction gets the server's error; the next one is served."""
        pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
        with pooler.raw() as client:
            client.ask("BEGIN")
            (pid,) = pg.backends()
            pg.sql("SELECT pg_terminate_backend(%s)", pid)
            frames = client.receive_all()
            assert frames[0].fields["C"] == "57P01"
        with pooler.raw() as other:
            assert other.value("SELECT pg_backend_pid()") != str(pid)

    @pytest.mark.hyperpool_only  # pgbouncer has no limit on the time of a check
    def test_a_server_that_fell_silent(
        self,
        make_pooler: PoolerFactory,
        make_proxy: Callable[[int], FaultProxy],
        pg: PostgresCluster,
    ) -> None:
        """A server that does not answer the check before reuse is given up; the client gets another one."""
        proxy = make_proxy(pg.port)
        config = config_for(pg, pool_mode="transaction", default_pool_size=1, server_check_delay=0)
        config["pooler"]["server_connect_timeout"] = 2
        config["databases"]["app"]["port"] = proxy.port
        pooler = make_pooler(config)
        with pooler.raw() as client:
            assert client.value("SELECT 1") == "1"
            proxy.stall(proxy.from_target)
            proxy.from_target = Fault()
            assert client.value("SELECT 2") == "2"
            assert proxy.accepted == 2

    def test_a_reset_query_that_fails(self, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
        """A server that cannot be reset is closed; the next client gets a new one and no error."""
        pooler = make_pooler(pool_mode="session", default_pool_size=1, server_reset_query="SELECT nonsense")
        pids = []
        for _ in range(3):
            with pooler.raw() as client:
                pids.append(client.value("SELECT pg_backend_pid()"))
                client.close()
        assert len(set(pids)) == 3

    @pytest.mark.hyperpool_only  # pgbouncer tries again and again
    def test_a_connect_query_that_fails(self, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
        """When `connect_query` fails, clients are told so, and the pooler does not try again without a pause."""
        config = config_for(pg, pool_mode="transaction", query_wait_timeout=2)
        config["databases"]["app"]["connect_query"] = "SELECT nonsense"
        pooler = make_pooler(config)
        with pooler.open_raw() as client:
            frames = client.login("app", ANN.name, ANN.password)
            if frames[-1].kind == b"Z":
                client.send(raw.query("SELECT 1"))
                frames = client.receive_all()
            errors = [got.fields["M"] for got in frames if got.kind == b"E"]
        assert len(errors) == 1
        assert "nonsense" in errors[0]
        assert pooler.log_text().count("new connection to server") < 10

    def test_health_check_on_reuse(self, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
        """With `server_check_delay: 0` a server is checked before reuse, and clients see nothing of it."""
        check = "SET application_name = 'checked'"
        pooler = make_pooler(
            pool_mode="transaction",
            default_pool_size=1,
            server_check_delay=0,
            server_check_query=check,
        )
        with pooler.raw() as client:
            for n in range(5):
                assert client.value(f"SELECT {n}") == str(n)
            mark = pg.log_size()
            frames = client.ask("SELECT 'last'")
            assert raw.kinds([got for got in frames if got.kind != b"S"]) == b"TDCZ"
            assert "ERROR" not in pg.log_text(mark)


def test_login_needs_no_server_round_trip(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Once a pool is warm, clients log in while every server is busy, with the server's parameters."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.raw() as holder:
        holder.ask("BEGIN")
        with pooler.raw() as client:
            same = ("server_version", "server_encoding", "integer_datetimes", "TimeZone", "DateStyle")
            assert {k: client.parameters[k] for k in same} == {k: holder.parameters[k] for k in same}
        assert len(pg.backends()) == 1


@pytest.mark.hyperpool_only
@pytest.mark.parametrize("settings", [{}, {"connect_query": "SELECT pg_sleep(0.3)"}], ids=["plain", "slow"])
def test_one_client_has_one_server(
    make_pooler: PoolerFactory, pg: PostgresCluster, settings: dict[str, str]
) -> None:
    """A server that has come, and is asked something before it serves, is the one that the first login waits for."""
    config = config_for(pg, pool_mode="transaction")
    config["databases"]["app"] |= settings
    pooler = make_pooler(config)
    with pooler.raw() as client:
        for number in range(20):
            assert client.value(f"SELECT {number}") == str(number)
        # What has been opened beside it would have been logged in by now.
        assert client.value("SELECT 'done' FROM pg_sleep(0.5)") == "done"
        assert len(pg.backends()) == 1
