"""Servers that are down, refuse, stall or die: clients are told at once, and service resumes by itself."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import rawclient as raw
from tests.support.network import free_port
from tests.support.poolers import config_for
from tests.support.proxy import Fault
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.proxy import FaultProxy
    from tests.support.targets import Config


def _through(pg: PostgresCluster, proxy: FaultProxy, **pooler: object) -> Config:
    """Return settings whose server is behind a fault proxy."""
    config = config_for(pg, pool_mode="transaction", default_pool_size=1, **pooler)
    config["databases"]["app"]["port"] = proxy.port
    return config


def _ask(pooler: Pooler, database: str = "app") -> object:
    with pooler.connect(database) as connection:
        return connection.execute("SELECT 'served'").fetchone()


def _served_again(pooler: Pooler, database: str = "app") -> object:
    """Wait, with a bound, until a client is served; return what it is served."""
    return eventually(
        lambda: _ask(pooler, database),
        within=20,
        what="the client is served",
        despite=(psycopg.OperationalError,),
    )


def _told(pooler: Pooler) -> psycopg.Error:
    """Connect and query where that must fail, and fail soon; return the error."""
    elapsed = Stopwatch()
    with pytest.raises(psycopg.Error) as caught:
        _ask(pooler)
    assert elapsed.seconds < 5
    return caught.value


class TestLoginFailures:
    """The server does not let the pooler in."""

    @pytest.fixture
    def one_connection(self, mortal_pg: PostgresCluster) -> Iterator[None]:
        """Allow Ann one connection to the mortal server."""
        eventually(lambda: not mortal_pg.backends(), what="the connections of earlier tests have ended")
        mortal_pg.sql("ALTER ROLE ann CONNECTION LIMIT 1")
        yield
        mortal_pg.sql("ALTER ROLE ann CONNECTION LIMIT -1")

    @pytest.mark.hyperpool_only  # pgbouncer lets clients wait for query_wait_timeout or says it its own way
    def test_wrong_password(self, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
        """A wrong password in the settings of a database is told to clients at once, in the server's words."""
        config = config_for(pg)
        config["databases"]["app"] |= {"user": "bob", "password": "wrong"}
        pooler = make_pooler(config)
        for _ in range(3):
            assert 'password authentication failed for user "bob"' in str(_told(pooler))

    @pytest.mark.hyperpool_only
    def test_waiting_clients_are_told_too(self, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
        """All clients that wait for the failing login hear of it at once, with the server's SQLSTATE."""
        config = config_for(pg, pool_mode="transaction")
        config["databases"]["app"] |= {"user": "bob", "password": "wrong"}
        pooler = make_pooler(config)
        errors: list[str | None] = []

        def try_it() -> None:
            with pooler.open_raw() as client:
                last = client.login("app", "ann", "ann's secret")[-1]
                if last.kind == b"Z":
                    client.send(raw.query("SELECT 1"))
                    last = next(got for got in client.receive_all() if got.kind == b"E")
                errors.append(last.fields["C"])

        threads = [threading.Thread(target=try_it) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert errors == ["28P01"] * 10

    @pytest.mark.hyperpool_only
    @pytest.mark.usefixtures("one_connection")
    def test_too_many_connections(
        self,
        make_mortal_pooler: PoolerFactory,
        mortal_pg: PostgresCluster,
    ) -> None:
        """`53300` of a server that is full reaches the client; with room again the client is served."""
        pooler = make_mortal_pooler(pool_mode="transaction", server_login_retry=1)
        with psycopg.connect(
            host=mortal_pg.host,
            port=mortal_pg.port,
            user="ann",
            password="ann's secret",
            dbname="app",
        ):
            assert "too many connections" in str(_told(pooler))
        assert _served_again(pooler) == ("served",)

    @pytest.mark.hyperpool_only
    @pytest.mark.usefixtures("one_connection")
    def test_a_pool_that_cannot_grow_serves_with_what_it_has(
        self,
        make_mortal_pooler: PoolerFactory,
    ) -> None:
        """When a further login fails, clients go on over the servers that there are."""
        pooler = make_mortal_pooler(pool_mode="transaction", default_pool_size=5)
        with pooler.raw() as one:
            assert one.value("SELECT 1") == "1"
            with pooler.raw() as two:
                for n in range(20):
                    assert one.value(f"SELECT {n}") == two.value(f"SELECT {n}") == str(n)


class TestUnreachable:
    """No connection to the server."""

    @pytest.mark.hyperpool_only  # pgbouncer lets clients wait
    def test_connection_refused(self, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
        """When nobody listens at the server's address, clients are told at once."""
        config = config_for(pg)
        config["databases"]["app"]["port"] = free_port()
        pooler = make_pooler(config)
        for _ in range(3):
            error = _told(pooler)
            assert "refused" in str(error)

    @pytest.mark.hyperpool_only
    def test_a_server_that_never_answers(
        self,
        make_pooler: PoolerFactory,
        make_proxy: Callable[[int], FaultProxy],
        pg: PostgresCluster,
    ) -> None:
        """A server that accepts and says nothing is given up after `server_connect_timeout`."""
        proxy = make_proxy(pg.port)
        proxy.stall(proxy.from_target)
        pooler = make_pooler(_through(pg, proxy, server_connect_timeout=1, server_login_retry=1))
        elapsed = Stopwatch()
        assert "1 s" in str(_told(pooler))
        assert elapsed.seconds > 0.5
        proxy.from_target = Fault()
        assert _served_again(pooler) == ("served",)

    @pytest.mark.hyperpool_only  # pgbouncer lets clients wait
    def test_recovery_with_default_settings(
        self,
        make_mortal_pooler: PoolerFactory,
        mortal_pg: PostgresCluster,
    ) -> None:
        """A server that comes up late is found by the pooler without help."""
        pooler = make_mortal_pooler(pool_mode="transaction")
        assert _ask(pooler) == ("served",)
        mortal_pg.stop()
        with pytest.raises(psycopg.Error):
            eventually(lambda: not _ask(pooler), within=20, what="clients are told")
        mortal_pg.start()
        back = Stopwatch()
        assert _served_again(pooler) == ("served",)
        assert back.seconds < 20


class TestKill:
    """PostgreSQL dies under load."""

    @pytest.mark.parametrize("backends", [True, False], ids=["with its backends", "the postmaster alone"])
    @pytest.mark.parametrize(
        "mode",
        # pgbouncer lets those clients wait that have no server at the moment.
        ["session", pytest.param("transaction", marks=pytest.mark.hyperpool_only)],
    )
    def test_kill_under_load(
        self,
        make_mortal_pooler: PoolerFactory,
        mortal_pg: PostgresCluster,
        mode: str,
        backends: bool,
    ) -> None:
        """After kill -9 every client gets an error, none hangs; when PostgreSQL is back, service resumes."""
        pooler = make_mortal_pooler(pool_mode=mode, default_pool_size=5, server_login_retry=1)
        counts = [0] * 10 if mode == "transaction" else [0] * 5
        outcomes: list[str] = []

        def work(number: int) -> None:
            try:
                with pooler.connect() as connection:
                    while counts[number] >= 0:
                        row = connection.execute("SELECT %s::int", [counts[number]]).fetchone()
                        assert row == (counts[number],)
                        counts[number] += 1
            except psycopg.Error:
                outcomes.append("told")
            else:
                outcomes.append("no error")

        threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(len(counts))]
        for thread in threads:
            thread.start()
        eventually(lambda: all(count > 20 for count in counts), within=20, what="all clients are busy")
        mortal_pg.kill(backends=backends)
        for thread in threads:
            thread.join(20)
        assert outcomes == ["told"] * len(counts)
        mortal_pg.start()
        assert _served_again(pooler) == ("served",)

    def test_a_restart_between_transactions(
        self,
        make_mortal_pooler: PoolerFactory,
        mortal_pg: PostgresCluster,
    ) -> None:
        """An idle client in transaction mode survives a restart of PostgreSQL and does not even notice it."""
        pooler = make_mortal_pooler(pool_mode="transaction", server_login_retry=1)
        with pooler.raw() as client:
            assert client.value("SELECT 1") == "1"
            mortal_pg.stop()
            mortal_pg.start()
            assert client.value("SELECT 2") == "2"


class TestBrokenStreams:
    """The byte stream between pooler and server breaks."""

    def test_cut_during_login(
        self,
        make_pooler: PoolerFactory,
        make_proxy: Callable[[int], FaultProxy],
        pg: PostgresCluster,
    ) -> None:
        """A server that is cut off anywhere within its login answers costs clients an error, not a hang."""
        config = config_for(pg, pool_mode="transaction", server_login_retry=1, query_wait_timeout=4)
        places = [0, 1, 5, 9, 13, 80, 200, 333]
        proxies = {f"cut_{place}": make_proxy(pg.port) for place in places}
        for place, (name, proxy) in zip(places, proxies.items(), strict=True):
            proxy.from_target = Fault(cut_after=place)
            config["databases"][name] = {"dbname": "app", "host": "127.0.0.1", "port": proxy.port}
        pooler = make_pooler(config)
        for name, proxy in proxies.items():
            with pytest.raises(psycopg.Error):
                _ask(pooler, name)
            proxy.from_target = Fault()
        for name in proxies:
            assert _served_again(pooler, name) == ("served",)

    def test_cut_within_a_result(
        self,
        make_pooler: PoolerFactory,
        make_proxy: Callable[[int], FaultProxy],
        pg: PostgresCluster,
    ) -> None:
        """A result that breaks off anywhere ends that client's connection; no rest of it reaches the next."""
        proxy = make_proxy(pg.port)
        pooler = make_pooler(_through(pg, proxy, server_login_retry=1))
        for more in (0, 1, 4, 5, 6, 40, 1000, 70_000, 90_000):
            with pooler.raw() as client:
                assert client.value("SELECT 1") == "1"
                fault, proxy.from_target = proxy.from_target, Fault()
                fault.cut_after = fault.passed + more
                client.send(raw.query("SELECT repeat('secret', 1000) FROM generate_series(1, 100)"))
                assert b"Z" not in raw.kinds(client.receive_all())
            with pooler.raw() as other:
                assert other.value("SELECT 'mine'") == "mine"

    @pytest.mark.hyperpool_only
    def test_the_client_is_told_why(
        self,
        make_pooler: PoolerFactory,
        make_proxy: Callable[[int], FaultProxy],
        pg: PostgresCluster,
    ) -> None:
        """A server that breaks off before its answer is reported as an error of class 08."""
        proxy = make_proxy(pg.port)
        pooler = make_pooler(_through(pg, proxy))
        with pooler.raw() as client:
            client.ask("BEGIN")
            statement = "SELECT pg_sleep(20) /* to be cut off */"
            client.send(raw.query(statement))
            eventually(lambda: pg.waiting("PgSleep", statement), what="the query runs")
            proxy.cut_all()
            (error,) = client.receive_all()
            assert error.kind == b"E"
            assert error.fields["C"].startswith("08")
        pg.sql("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", pg.backends())

    @pytest.mark.hyperpool_only  # pgbouncer wants some messages of the login in one packet
    @pytest.mark.parametrize("side", ["client", "server"])
    def test_fragments(
        self,
        make_pooler: PoolerFactory,
        make_proxy: Callable[[int], FaultProxy],
        pg: PostgresCluster,
        side: str,
    ) -> None:
        """Login, queries, pipelines, errors and COPY work over a network that delivers tiny pieces."""
        if side == "server":
            proxy = make_proxy(pg.port)
            pooler = make_pooler(_through(pg, proxy))
            address = ("127.0.0.1", pooler.port)
        else:
            pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
            proxy = make_proxy(pooler.port)
            address = ("127.0.0.1", proxy.port)
        for fragment, delay in ((1, 0.0), (3, 0.0), (5, 0.0), (64, 0.0005)):
            proxy.to_target = Fault(fragment=fragment, delay=delay)
            proxy.from_target = Fault(fragment=fragment, delay=delay)
            with raw.RawClient(address) as client:
                client.login("app", "ann", "ann's secret")
                self._talk(client)
            proxy.cut_all()  # the next round has new connections, on both sides of the pooler
            assert _served_again(pooler) == ("served",)
            proxy.cut_all()

    @staticmethod
    def _talk(client: raw.RawClient) -> None:
        assert client.value("SELECT repeat('x', 3000)") == "x" * 3000
        client.send(*(raw.extended(f"SELECT {n}") + raw.SYNC for n in range(20)))
        for n in range(20):
            frames = client.receive_until()
            assert (raw.kinds(frames), frames[2].columns) == (b"12DCZ", [str(n).encode()])
        assert raw.kinds(client.ask("SELECT * FROM nowhere")) == b"EZ"
        client.send(raw.query("COPY (SELECT generate_series(1, 50)) TO STDOUT"))
        assert raw.kinds(client.receive_until()) == b"H" + b"d" * 50 + b"cCZ"
        client.ask("BEGIN; CREATE TEMP TABLE pieces (n int) ON COMMIT DROP")
        client.send(raw.query("COPY pieces FROM STDIN"), *(raw.copy_data(b"%d\n" % n) for n in range(50)))
        client.send(raw.COPY_DONE, raw.query("SELECT count(*) FROM pieces"), raw.query("COMMIT"))
        assert raw.kinds(client.receive_until()) == b"GCZ"
        assert client.receive_until()[1].columns == [b"50"]
        assert raw.kinds(client.receive_until()) == b"CZ"

    def test_a_stalled_server_holds_up_its_own_client_alone(
        self,
        make_pooler: PoolerFactory,
        make_proxy: Callable[[int], FaultProxy],
        pg: PostgresCluster,
    ) -> None:
        """While one server's stream stalls, clients of another database are served."""
        proxy = make_proxy(pg.port)
        config = _through(pg, proxy)
        config["databases"]["other"] = {"host": pg.host, "port": pg.port}
        pooler = make_pooler(config)
        with pooler.raw() as stalled, pooler.raw("other") as free:
            assert stalled.value("SELECT 1") == "1"
            proxy.stall(proxy.from_target)
            stalled.send(raw.query("SELECT 'late'"))
            for n in range(50):
                assert free.value(f"SELECT {n}") == str(n)
            proxy.resume(proxy.from_target)
            assert stalled.receive_until()[1].columns == [b"late"]


def test_server_connections_are_reused(
    make_pooler: PoolerFactory,
    make_proxy: Callable[[int], FaultProxy],
    pg: PostgresCluster,
) -> None:
    """Fifty short-lived clients need one server connection, and a login adds no byte to it."""
    proxy = make_proxy(pg.port)
    pooler = make_pooler(_through(pg, proxy))
    with pooler.raw() as first:
        first.value("SELECT 1")
        before = proxy.to_target.passed
        for _ in range(49):
            pooler.raw().close()
        assert proxy.to_target.passed == before
        assert first.value("SELECT 2") == "2"
    assert proxy.accepted == 1
