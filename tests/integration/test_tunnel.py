"""Databases that nobody can connect to: through the ingress and through agents, with real processes all the way."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.support.farend import NEW_SECRET, SECRET, FarEnd, agent, agents, ingress, to_ingress
from tests.support.poolers import config_for
from tests.support.postgres import ANN
from tests.support.rawclient import query
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.targets import Config

    Start = Callable[[dict[str, Any]], FarEnd]

pytestmark = pytest.mark.hyperpool_only

_BROKEN = (psycopg.OperationalError,)


@pytest.fixture
def far_end() -> Iterator[Start]:
    """Starts far ends; each must end cleanly, without a secret in its log."""
    with contextlib.ExitStack() as started:
        yield lambda document: started.enter_context(FarEnd(document))


def _through_ingress(pg: PostgresCluster, port: int, **change: Any) -> Config:
    config = config_for(
        pg, pool_mode="transaction", server_login_retry=0.2, query_wait_timeout=5, stats_users=[ANN.name]
    )
    config["databases"]["app"] = {"dbname": "app", "transport": to_ingress(port, **change)}
    return config


def _through_agent(pg: PostgresCluster, section: dict[str, Any], target: str = "") -> Config:
    config = config_for(
        pg, pool_mode="transaction", server_login_retry=0.2, query_wait_timeout=5, stats_users=[ANN.name]
    )
    config["databases"]["app"] = {
        "dbname": "app",
        "transport": [{"agent": {"name": "site", "target": target}}],
    }
    config["agents"] = section
    return config


@pytest.fixture(params=["ingress", "agent"])
def tunneled(
    request: pytest.FixtureRequest, pg: PostgresCluster, make_pooler: PoolerFactory, far_end: Start
) -> tuple[Pooler, FarEnd]:
    """A pooler that reaches its database through a tunnel, of either kind."""
    if request.param == "ingress":
        far = far_end(ingress(pg.port))
        far.wait_for("tunnel is up")
        return make_pooler(_through_ingress(pg, far.port)), far
    section = agents()
    pooler = make_pooler(_through_agent(pg, section))
    far = far_end(agent(pg.port, section))
    far.wait_for("connected to the pooler")
    return pooler, far


def _answers(pooler: Pooler) -> bool:
    with pooler.connect() as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def _refusal(pooler: Pooler) -> str:
    """Why a client is not served, as it must not be."""
    with pytest.raises(psycopg.OperationalError) as caught:
        _answers(pooler)
    return str(caught.value)


def _end_backends(pg: PostgresCluster) -> None:
    """End all server connections of the database, and wait until they have ended."""
    pids = pg.backends()
    pg.sql("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", pids)
    eventually(lambda: not set(pg.backends()) & set(pids), what="the servers are gone")


def _check_secrets(pooler: Pooler) -> None:
    text = pooler.log_text()
    assert SECRET not in text
    assert NEW_SECRET not in text


class TestBothWays:
    """What a client may do, whichever way its database is reached."""

    def test_queries_and_copies(self, tunneled: tuple[Pooler, FarEnd]) -> None:
        """Megabytes arrive as they were sent, in both directions."""
        pooler, _ = tunneled
        with pooler.connect() as connection:
            connection.execute("CREATE TABLE carried (n int, content text)")
            try:
                with connection.cursor().copy("COPY carried FROM STDIN") as copy:
                    for number in range(8000):
                        copy.write_row((number, f"{number}" * 200))
                wanted = connection.execute(
                    "SELECT count(*), sum(length(content)), sum(n) FROM carried"
                ).fetchone()
                rows = [0, 0, 0]
                with connection.cursor().copy("COPY carried TO STDOUT") as copy:
                    for row in copy.rows():
                        assert row[1] == row[0] * 200
                        rows = [rows[0] + 1, rows[1] + len(row[1]), rows[2] + int(row[0])]
                assert tuple(rows) == wanted
            finally:
                connection.execute("DROP TABLE carried")
        _check_secrets(pooler)

    def test_what_the_console_calls_the_server(self, tunneled: tuple[Pooler, FarEnd]) -> None:
        """Not by an address that the settings do not have: nobody here knows the one that it has there."""
        pooler, far = tunneled
        assert _answers(pooler)
        with psycopg.connect(
            **pooler.conninfo("pgbouncer"), autocommit=True, cursor_factory=psycopg.ClientCursor
        ) as console:
            cursor = console.cursor(row_factory=dict_row)
            found = {(one["addr"], one["port"]) for one in cursor.execute("SHOW SERVERS").fetchall()}
        name = f"127.0.0.1:{far.port}" if far.port else "agent site"
        assert found == {(f"PostgreSQL behind {name}", 0)}

    def test_cancel(self, tunneled: tuple[Pooler, FarEnd], pg: PostgresCluster) -> None:
        """A cancel request takes the same way."""
        pooler, _ = tunneled
        statement = "SELECT pg_sleep(30) /* to be canceled in a tunnel */"
        with pooler.connect() as connection:
            with (
                pg.when_asleep(statement, connection.cancel_safe),
                pytest.raises(psycopg.errors.QueryCanceled),
            ):
                connection.execute(statement)
            assert connection.execute("SELECT 1").fetchone() == (1,)

    def test_slow_reader(self, tunneled: tuple[Pooler, FarEnd]) -> None:
        """A client that does not read stops its server through all buffers on the way, and no other client."""
        pooler, _ = tunneled
        with pooler.raw() as slow:
            slow.send(query("SELECT repeat('x', 1000000) FROM generate_series(1, 300)"))
            for _ in range(20):
                assert _answers(pooler)
            assert pooler.memory() < 300_000_000

    def test_the_far_end_dies(self, tunneled: tuple[Pooler, FarEnd], pg: PostgresCluster) -> None:
        """In the middle of a query the client is told at once; when the far end is back, so is the database."""
        pooler, far = tunneled
        statement = "SELECT pg_sleep(30) /* to lose its tunnel */"
        with (
            pooler.connect() as connection,
            pg.when_asleep(statement, far.kill),
            pytest.raises(psycopg.OperationalError),
        ):
            connection.execute(statement)
        _end_backends(pg)
        # A server connection that was being made when the far end died has another reason, which holds for a while.
        eventually(
            lambda: re.search("Connection refused|agent site is not connected", _refusal(pooler)),
            what="clients are told that the far end is away",
        )
        far.start()
        eventually(lambda: _answers(pooler), within=20, what="the database is back", despite=_BROKEN)

    def test_nothing_is_left(self, tunneled: tuple[Pooler, FarEnd], pg: PostgresCluster) -> None:
        """Descriptors of streams that ended are closed at both ends."""
        pooler, far = tunneled
        _answers(pooler)
        near_before, far_before = pooler.open_files(), far.open_files()
        times = 5
        for _ in range(times):
            _end_backends(pg)
            eventually(lambda: _answers(pooler), what="there are new ones", despite=_BROKEN)
        # A connection of the agent's that waits for work may have come only after they were counted.
        eventually(lambda: far.open_files() < far_before + times, what="the far end has closed its streams")
        eventually(lambda: pooler.open_files() < near_before + times, what="the pooler has, too")

    def test_drain(self, tunneled: tuple[Pooler, FarEnd]) -> None:
        """SIGTERM lets streams go on and takes nothing new; a second signal ends it."""
        pooler, far = tunneled
        with pooler.connect() as connection, connection.transaction():
            connection.execute("SELECT 1")
            far.process.send_signal(signal.SIGTERM)
            far.wait_for("waiting for streams to end")
            assert connection.execute("SELECT 2").fetchone() == (2,)
        far.process.send_signal(signal.SIGINT)
        assert far.process.wait(10) == 0


class TestIngress:
    """Tokens and targets."""

    def test_wrong_token(self, pg: PostgresCluster, make_pooler: PoolerFactory, far_end: Start) -> None:
        """The pooler says what to check, the ingress who it was; neither says the secret."""
        far = far_end(ingress(pg.port))
        far.wait_for("tunnel is up")
        pooler = make_pooler(_through_ingress(pg, far.port, secret=NEW_SECRET))
        with pytest.raises(psycopg.OperationalError, match="refused the service token"):
            _answers(pooler)
        assert "refused" in far.log_text()
        assert "token=pooler.access" in far.log_text()
        assert pg.backends() == []
        _check_secrets(pooler)

    def test_target_that_is_not_allowed(
        self, pg: PostgresCluster, make_pooler: PoolerFactory, far_end: Start
    ) -> None:
        """Names and addresses that are not in the list lead nowhere, and are logged."""
        far = far_end(ingress(pg.port))
        far.wait_for("tunnel is up")
        pooler = make_pooler(_through_ingress(pg, far.port, path="/?address=127.0.0.1:22"))
        with pytest.raises(psycopg.OperationalError, match="404"):
            pooler.connect()
        assert "target '127.0.0.1:22' is not one that this token may reach" in far.log_text()

    @pytest.mark.parametrize("path", ["/", "/db", "/?target=db", "/v1?address=127.0.0.1:{port}"])
    def test_ways_to_name_a_target(
        self, pg: PostgresCluster, make_pooler: PoolerFactory, far_end: Start, path: str
    ) -> None:
        """By nothing, by name, or by address."""
        far = far_end(ingress(pg.port))
        far.wait_for("tunnel is up")
        assert _answers(make_pooler(_through_ingress(pg, far.port, path=path.format(port=pg.port))))

    def test_rotation(self, pg: PostgresCluster, make_pooler: PoolerFactory, far_end: Start) -> None:
        """A second secret is added, the pooler takes it, the first one is removed: its streams end at once."""
        document = ingress(pg.port)
        far = far_end(document)
        far.wait_for("tunnel is up")
        config = _through_ingress(pg, far.port)
        pooler = make_pooler(config)
        tokens = document["ingress"]["tokens"]
        new = {"id": "pooler.access", "secret": NEW_SECRET}
        with pooler.connect() as connection:
            far.reload({**document, "ingress": {**document["ingress"], "tokens": {**tokens, "new": new}}})
            assert connection.execute("SELECT 1").fetchone() == (1,)
            connection.execute("BEGIN")
            far.reload({**document, "ingress": {**document["ingress"], "tokens": {"new": new}}})
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        eventually(lambda: "its token is revoked" in far.log_text(), what="the log tells why")
        with pytest.raises(psycopg.OperationalError, match="refused the service token"):
            _answers(pooler)
        config["databases"]["app"]["transport"] = to_ingress(far.port, NEW_SECRET)
        pooler.reload(config)
        eventually(lambda: _answers(pooler), what="the new secret is used", despite=_BROKEN)
        _check_secrets(pooler)


class TestAgents:
    """Agents come, go, fail and come back."""

    def test_wrong_token(self, pg: PostgresCluster, make_pooler: PoolerFactory, far_end: Start) -> None:
        """The agent says what to check, the pooler who it was; clients are told that there is no agent."""
        section = agents(wait_timeout=0.2)
        pooler = make_pooler(_through_agent(pg, section))
        far = far_end(agent(pg.port, section, secret=NEW_SECRET))
        far.wait_for("refused the service token")
        assert "token=site.access" in pooler.log_text()
        with pytest.raises(psycopg.OperationalError, match="agent site is not connected, and has not been"):
            pooler.connect()
        _check_secrets(pooler)

    def test_target_that_is_not_allowed(
        self, pg: PostgresCluster, make_pooler: PoolerFactory, far_end: Start
    ) -> None:
        """The agent decides what it connects to, whatever the pooler asks for."""
        section = agents()
        pooler = make_pooler(_through_agent(pg, section, target="127.0.0.1:22"))
        far = far_end(agent(pg.port, section))
        far.wait_for("connected to the pooler")
        with pytest.raises(psycopg.OperationalError, match="is not in its settings, or not for this pooler"):
            pooler.connect()
        assert "target '127.0.0.1:22' is not one that it may reach" in far.log_text()

    def test_the_pooler_restarts(
        self, pg: PostgresCluster, make_pooler: PoolerFactory, far_end: Start
    ) -> None:
        """Agents come back by themselves."""
        section = agents()
        config = _through_agent(pg, section)
        first = make_pooler(config)
        far = far_end(agent(pg.port, section))
        far.wait_for("connected to the pooler")
        assert _answers(first)
        first.stop()
        far.wait_for("cannot wait at the pooler, trying again")
        second = make_pooler(config)
        eventually(lambda: _answers(second), what="the agent is back", despite=_BROKEN)

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
    def test_failover(
        self, pg: PostgresCluster, make_pooler: PoolerFactory, far_end: Start, how: signal.Signals
    ) -> None:
        """With two agents, one may die or hang: new server connections go through the other one."""
        section = agents(open_timeout=0.5, keepalive=0.5)
        pooler = make_pooler(_through_agent(pg, section))
        far_ends = [far_end(agent(pg.port, section)) for _ in range(2)]
        for far in far_ends:
            far.wait_for("connected to the pooler")
        far_ends[0].process.send_signal(how)
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(pooler.connect()) for _ in range(4)]
            for connection in connections:
                stack.enter_context(connection.transaction())
                assert connection.execute("SELECT 1").fetchone() == (1,)
        eventually(lambda: "agent went" in pooler.log_text(), what="the pooler knows that it is gone")

    def test_the_agents_database_is_down(
        self, pg: PostgresCluster, make_pooler: PoolerFactory, far_end: Start
    ) -> None:
        """The client reads the agent's reason."""
        section = agents()
        document = agent(pg.port, section)
        document["targets"]["db"]["port"] = 1
        pooler = make_pooler(_through_agent(pg, section))
        far_end(document).wait_for("connected to the pooler")
        with pytest.raises(
            psycopg.OperationalError, match=r"cannot connect to 127.0.0.1:1: Connection refused"
        ):
            pooler.connect()


def test_settings_that_are_wrong(tmp_path: Path) -> None:
    """All problems are told at once, with exit code 2."""
    path = tmp_path / "tunnel.yaml"
    path.write_text(f"targets: {{db: {{port: x}}}}\ningress: {{tokens: {{a: {{secret: '{SECRET}'}}}}}}\n")
    done = subprocess.run(
        [sys.executable, "-m", "hyperpool", "tunnel", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    for problem in ("targets.db.port", "ingress.listen_port", "ingress.tokens.a.id"):
        assert problem in done.stderr
    assert SECRET not in done.stderr


def test_an_address_that_is_taken(pg: PostgresCluster) -> None:
    """It cannot start, with exit code 1 and one line."""
    with FarEnd(ingress(pg.port, listen_port=pg.port)) as far:
        assert far.process.wait(20) == 1
        assert "cannot start: cannot listen on 127.0.0.1" in far.log_text()


def test_a_client_that_knows_its_users_password(tunneled: tuple[Pooler, FarEnd]) -> None:
    """The login is the database's own, end to end."""
    pooler, _ = tunneled
    with pooler.connect(role=ANN) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (ANN.name,)
