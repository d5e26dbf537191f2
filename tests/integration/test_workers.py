"""Two workers are one pooler: limits, console, cancel requests, and what happens when one of them dies."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from hyperpool.service.control import command
from tests.support import rawclient as raw
from tests.support.poolers import config_for
from tests.support.postgres import ANN, BOB, process_exists
from tests.support.team import WORKERS, Team, config
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_POOL_SIZE = 3


@pytest.fixture(scope="module")
def _pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Pooler:
    own = config(config_for(_pg), default_pool_size=_POOL_SIZE, max_client_conn=40)
    own["users"]["bob"]["max_user_client_connections"] = 5
    return make_module_pooler(own)


@pytest.fixture
def team(_pooler: Pooler, watch: Callable[[Pooler], Pooler]) -> Iterator[Team]:
    """Both workers, with clients that end with the test."""
    with Team(watch(_pooler)) as team:
        yield team


def _backends(pg: PostgresCluster) -> int:
    """How many servers ann's pool has, as PostgreSQL counts them."""
    ((found,),) = pg.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'other' AND usename = %s", ANN.name
    )
    return int(found)


class TestLimits:
    """They are those of one pooler, exactly."""

    def test_pool_size(self, team: Team, pg: PostgresCluster) -> None:
        """Clients of both workers want more: there are as many server connections as there may be, and never more."""
        most: list[int] = []
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.002):
                most.append(_backends(pg))

        def work(number: int) -> int:
            with team.pooler.connect() as client:
                for _ in range(10):
                    row = client.execute("SELECT %s::int, pg_sleep(0.005)", (number,)).fetchone()
                    assert row is not None
                    assert row[0] == number
            return number

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with ThreadPoolExecutor(20) as threads:
                assert list(threads.map(work, range(20))) == list(range(20))
        finally:
            over.set()
            watcher.join()
        assert max(most) == _POOL_SIZE

    @pytest.mark.parametrize(("most", "kept"), [(1, 1), (2, 2), (10, _POOL_SIZE - 1)])
    def test_max_pinned(self, make_pooler: PoolerFactory, pg: PostgresCluster, most: int, kept: int) -> None:
        """So many keep their server connection, wherever they land; one connection is left for all others."""
        own = config(config_for(pg), default_pool_size=_POOL_SIZE, max_pinned=most)
        with Team(make_pooler(own)) as team:
            clients = [client for _ in range(3) for client in team.clients()]
            answers = [raw.kinds(client.ask("LISTEN news")) for client in clients]
            assert answers == [b"CZ"] * kept + [b"EZ"] * (len(clients) - kept)
            assert [client.value("SELECT 'served'") for client in clients] == ["served"] * len(clients)
            clients[0].ask("UNLISTEN *")
            # The server is asked behind its answer whether anything is left.
            eventually(
                lambda: raw.kinds(clients[-1].ask("LISTEN news")) == b"CZ", what="there is a place again"
            )
            assert raw.kinds(clients[-2].ask("LISTEN news")) == b"EZ"

    def test_who_dies_keeps_nothing(self, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
        """What its clients have kept, others may."""
        with Team(make_pooler(config(config_for(pg), max_pinned=1))) as team:
            one, other = team.clients()
            assert raw.kinds(one.ask("LISTEN news")) == b"CZ"
            assert raw.kinds(other.ask("LISTEN news")) == b"EZ"
            os.kill(team.pids()[0], signal.SIGKILL)
            eventually(lambda: raw.kinds(other.ask("LISTEN news")) == b"CZ", what="somebody else may listen")

    def test_what_a_client_keeps_is_of_no_use_to_others_of_its_worker(
        self, make_pooler: PoolerFactory, pg: PostgresCluster
    ) -> None:
        """They get their turn at what is left, however much the other worker could do with it."""
        over = threading.Event()
        done: list[str] = []

        def work(client: raw.RawClient) -> None:
            while not over.is_set():
                done.append(client.value("SELECT 'done', pg_sleep(0.002)"))

        own = config(config_for(pg), default_pool_size=2, max_pinned=1)
        with Team(make_pooler(own)) as team, ThreadPoolExecutor(3) as threads:
            clients = [client for _ in range(3) for client in team.clients()]
            assert raw.kinds(clients[0].ask("LISTEN news")) == b"CZ"
            busy = [threads.submit(work, client) for client in clients[1::2]]
            try:
                eventually(lambda: len(done) > 100, what="the other worker has what is left")
                assert clients[2].value("SELECT 'served'") == "served"
            finally:
                over.set()
            for one in busy:
                one.result()

    def test_one_worker_may_have_all(self, team: Team) -> None:
        """Where nobody else needs them; and parts with them for somebody who waits at the other one."""
        clients = [client for _ in range(_POOL_SIZE) for client in team.clients()]
        own, others = clients[::2], clients[1::2]
        for client in own:
            assert client.ask("BEGIN")[-1].kind == b"Z"
        others[0].send(raw.query("SELECT 1"))
        for client in own:
            client.ask("COMMIT")
        assert others[0].receive_until()[-1].kind == b"Z"

    @pytest.mark.parametrize(
        ("role", "limit", "setting"),
        [(ANN, 40, "max_client_conn"), (BOB, 5, "max_user_client_connections")],
    )
    def test_clients(self, team: Team, role: object, limit: int, setting: str) -> None:
        """As many come in as may, however many come at once and wherever they land."""

        def come(_: int) -> psycopg.Connection[object] | None:
            try:
                return team.pooler.connect("app", role)  # type: ignore[arg-type]
            except psycopg.OperationalError as error:
                assert setting in str(error)  # noqa: PT017
                return None

        def is_empty() -> bool:
            return not [row for row in team.show("CLIENTS") if row["database"] == "app"]

        eventually(is_empty, what="the clients of other tests have left")
        with ThreadPoolExecutor(16) as threads:
            inside = [one for one in threads.map(come, range(limit + 10)) if one is not None]
        try:
            assert len(inside) == limit
        finally:
            for one in inside:
                one.close()


class TestConsole:
    """Whichever worker a client of the console lands on, it sees and does the same."""

    def test_show(self, team: Team) -> None:
        """Tables have what is at both workers; numbers are sums."""
        before = {row["database"]: row["total_query_count"] for row in team.show("STATS")}
        clients = team.clients()
        for client in clients:
            for _ in range(5):
                assert client.value("SELECT 1") == "1"
        workers = team.show("WORKERS")
        assert [row["worker"] for row in workers] == list(range(WORKERS))
        assert len({row["pid"] for row in workers}) == WORKERS
        assert all(row["clients"] for row in workers)
        ports = {row["port"] for row in team.show("CLIENTS")}
        assert {client.port for client in clients} <= ports
        pools = [row for row in team.show("POOLS") if (row["database"], row["user"]) == ("app", ANN.name)]
        assert len(pools) == 1
        assert pools[0]["cl_active"] >= WORKERS
        after = {row["database"]: row["total_query_count"] for row in team.show("STATS")}
        assert after["app"] - before.get("app", 0) >= 5 * WORKERS
        counted = {row["what"]: row["count"] for row in team.show("LATENCIES") if row["user"] == ANN.name}
        assert counted["query"] >= 5 * WORKERS
        lists = {row["list"]: row["items"] for row in team.show("LISTS")}
        assert lists["pools"] == len(team.show("POOLS"))

    def test_pause_and_resume(self, team: Team) -> None:
        """Clients of both workers wait until it is over."""
        clients = team.clients()
        team.command("PAUSE app")
        try:
            for client in clients:
                client.send(raw.query("SELECT 1"))
            eventually(
                lambda: sum(row["cl_waiting"] for row in team.show("POOLS")) == len(clients),
                what="the clients wait",
            )
            assert [row["paused"] for row in team.show("DATABASES") if row["name"] == "app"] == [1]
        finally:
            team.command("RESUME app")
        for client in clients:
            assert client.receive_until()[-1].kind == b"Z"

    def test_reconnect_kill_and_disable(self, team: Team) -> None:
        """They are done at both workers before the console answers."""
        clients = team.clients()
        backends = [client.value("SELECT pg_backend_pid()") for client in clients]
        team.command("RECONNECT app")
        for client in clients:
            assert client.value("SELECT pg_backend_pid()") not in backends
        team.command("DISABLE app")
        try:
            for _ in range(2 * WORKERS):
                assert team.pooler.refused().fields["C"]
        finally:
            team.command("ENABLE app")
        team.command("KILL app")
        try:
            for client in clients:
                assert [frame.kind for frame in client.receive_all()] == [b"E"]
        finally:
            team.command("RESUME app")

    def test_set_and_reload(self, team: Team) -> None:
        """Both workers have the same settings."""
        base = team.pooler.config
        more = {**base, "databases": {**base["databases"], "added": base["databases"]["app"]}}
        team.pooler.write(more)
        team.command("RELOAD")
        try:
            for client in team.clients("added"):
                assert client.value("SELECT 1") == "1"
        finally:
            team.pooler.write(base)
            team.command("RELOAD")
        for _ in range(2 * WORKERS):
            assert team.pooler.refused("added").fields["C"] == "3D000"
        team.command("SET max_client_conn = 41")
        for _ in range(2 * WORKERS):
            assert [row["value"] for row in team.show("CONFIG") if row["key"] == "max_client_conn"] == ["41"]
        team.command("RELOAD")


def test_a_cancel_request_that_lands_at_the_other_worker(team: Team, pg: PostgresCluster) -> None:
    """It reaches the query."""
    for worker, client in enumerate(team.clients()):
        with team.connection_to(1 - worker) as sock:
            client.send(raw.query("SELECT pg_sleep(60)"))
            eventually(
                lambda: pg.sql(
                    "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active'"
                ),
                what="it runs",
            )
            sock.sendall(raw.cancel_packet(client.pid, client.secret))
            assert sock.recv(1) == b""
        errors = [frame.fields["C"] for frame in client.receive_until() if frame.kind == b"E"]
        assert errors == ["57014"]


def test_prepared_statements(team: Team) -> None:
    """Each client has its own, on servers of its worker."""
    for number, client in enumerate(team.clients()):
        client.send(raw.parse(f"SELECT {number}", "same name"), raw.SYNC)
        client.receive_until()
    for number, client in enumerate(team.clients()):
        client.send(raw.parse(f"SELECT {number}", "same name") + raw.bind(name="same name") + raw.execute())
        client.send(raw.SYNC)
        rows = [frame.columns for frame in client.receive_until() if frame.kind == b"D"]
        assert rows == [[str(number).encode()]]


def test_a_worker_that_dies(team: Team, pg: PostgresCluster) -> None:
    """Its clients are cut off and nobody else's; another one takes its place, with the same limits."""
    lost, kept = team.clients()
    before = team.pids()
    for client in (lost, kept):
        client.ask("BEGIN")
    queries = {row["database"]: row["total_query_count"] for row in team.show("STATS")}
    os.kill(before[0], signal.SIGKILL)
    with pytest.raises(raw.ConnectionEnded):
        lost.receive()
    assert kept.value("SELECT 1") == "1"
    kept.ask("COMMIT")

    def is_back() -> bool:
        return len(team.show("WORKERS")) == WORKERS

    eventually(is_back, within=30, what="the worker is back", despite=(psycopg.OperationalError,))
    after = team.pids()
    assert after[0] != before[0]
    assert after[1] == before[1]
    for client in team.clients():
        assert client.value("SELECT 1") == "1"
    eventually(lambda: _backends(pg) <= _POOL_SIZE, what="the lost server connections have ended")
    counted = {row["database"]: row["total_query_count"] for row in team.show("STATS")}
    # What was counted in the last second before it died is lost.
    assert counted["app"] >= queries["app"] - 10


def test_the_process_that_starts_workers_dies(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Nobody could be started anew: the pooler says so and ends, and whoever looks after it starts all of it anew."""
    pooler = make_pooler(config(config_for(pg)))
    with Team(pooler) as team:
        pids = team.pids().values()
        (client, _) = team.clients()
        children = Path(f"/proc/{pooler.process.pid}/task/{pooler.process.pid}/children").read_text()
        (forks,) = map(int, children.split())
        pooler.forget()
        os.kill(forks, signal.SIGKILL)
        assert [frame.fields["C"] for frame in client.receive_all()] == ["57P01"]
        assert pooler.process.wait(10) == 70
        eventually(lambda: not any(map(process_exists, pids)), what="the workers have ended")
    assert "the process that starts workers has ended: so does the pooler" in pooler.log_text()


def test_workers_end_with_their_supervisor(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """However it ends: nobody goes on without the accounts."""
    pooler = make_pooler(config(config_for(pg)))
    with Team(pooler) as team:
        pids = team.pids().values()
        clients = team.clients()
        pooler.forget()
        pooler.process.kill()
        for client in clients:
            client.receive_all()
        eventually(lambda: not any(map(process_exists, pids)), what="the workers have ended")


def test_commands_from_this_machine(make_pooler: PoolerFactory, pg: PostgresCluster, tmp_path: Path) -> None:
    """`drain` waits for clients of both workers; `restart` is in `test_restart`."""
    path = tmp_path / "control"
    pooler = make_pooler(config(config_for(pg), control_socket=str(path)))
    eventually(lambda: "ready" in pooler.log_text(), what="it is ready")
    with Team(pooler) as team:
        clients = team.clients()
        with ThreadPoolExecutor(1) as thread:
            drained = thread.submit(command, str(path), "drain", 30.0)
            eventually(lambda: "told to drain" in pooler.log_text(), what="it drains")
            for client in clients:
                assert client.value("SELECT 1") == "1"
                client.close()
            assert drained.result() == ""
    assert pooler.wait_exit() == 0


def test_shutting_down_waits_for_clients_of_all_workers(
    make_pooler: PoolerFactory, pg: PostgresCluster
) -> None:
    """SIGTERM: the pooler ends when the last one has left."""
    pooler = make_pooler(config(config_for(pg)))
    with Team(pooler) as team:
        clients = team.clients()
        others = team.pids()
        pooler.process.send_signal(signal.SIGTERM)
        for client in clients:
            assert client.value("SELECT 1") == "1"
        clients[0].sock.close()
        assert clients[1].value("SELECT 1") == "1"
    pooler.wait_exit()
    assert not any(map(process_exists, others.values()))
