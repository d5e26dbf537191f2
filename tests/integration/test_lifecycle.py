"""Start, reload and end of the process, as the operator sees them."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml

from tests.support import launch, targets
from tests.support import rawclient as raw
from tests.support.poolers import config_for
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only  # SIGTERM means something else to pgbouncer before 1.23


@pytest.fixture
def pooler(make_pooler: PoolerFactory) -> Pooler:
    """A pooler of the test's own, in transaction mode, with one server."""
    return make_pooler(pool_mode="transaction", default_pool_size=1)


def _wait_refused(pooler: Pooler) -> None:
    """Wait until new connections are refused, the first effect of every kind of end."""

    def refused() -> bool:
        try:
            pooler.open_raw().sock.close()
        except ConnectionRefusedError:
            return True
        return False

    eventually(refused, what="new connections are refused", despite=(ConnectionResetError,))


class TestDrain:
    """SIGINT waits for servers in use, SIGTERM for clients, a second signal for nobody."""

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_without_clients(self, pooler: Pooler, how: signal.Signals) -> None:
        """With nobody connected both signals end the process at once, with exit code 0."""
        elapsed = Stopwatch()
        pooler.stop(how)
        assert elapsed.seconds < 5

    def test_sigint_lets_a_transaction_finish(self, pooler: Pooler) -> None:
        """After SIGINT an open transaction goes on to its COMMIT; then the process ends."""
        with pooler.raw() as busy, pooler.raw() as idle:
            busy.ask("BEGIN; CREATE TABLE drained (n int)")
            pooler.process.send_signal(signal.SIGINT)
            _wait_refused(pooler)
            assert raw.kinds(busy.ask("INSERT INTO drained VALUES (1)")) == b"CZ"
            assert pooler.process.poll() is None
            assert raw.kinds(busy.ask("DROP TABLE drained; COMMIT")) == b"CCZ"
            assert pooler.wait_exit() == 0
            assert all(got.kind == b"E" for got in idle.receive_all())

    def test_sigint_lets_a_query_finish(self, pooler: Pooler, pg: PostgresCluster) -> None:
        """After SIGINT a running query is answered in full before the process ends."""
        with pooler.raw() as client:
            statement = "SELECT pg_sleep(1), repeat('x', 1000000) /* draining */"
            client.send(raw.query(statement))
            eventually(lambda: pg.waiting("PgSleep", statement), what="the query runs")
            pooler.process.send_signal(signal.SIGINT)
            assert raw.kinds(client.receive_until()) == b"TDCZ"
            assert pooler.wait_exit() == 0

    def test_sigterm_waits_for_clients(self, pooler: Pooler) -> None:
        """After SIGTERM connected clients go on, new ones are refused; the last one's leave ends the process."""
        with pooler.raw() as one, pooler.raw() as two:
            pooler.process.send_signal(signal.SIGTERM)
            _wait_refused(pooler)
            for client in (one, two, one):
                assert client.value("SELECT 'served'") == "served"
            one.close()
            assert two.value("SELECT 'still served'") == "still served"
            two.close()
            assert pooler.wait_exit() == 0

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (signal.SIGINT, signal.SIGINT),
            (signal.SIGTERM, signal.SIGTERM),
            (signal.SIGTERM, signal.SIGINT),
        ],
    )
    def test_a_second_signal_ends_at_once(
        self,
        pooler: Pooler,
        pg: PostgresCluster,
        first: signal.Signals,
        second: signal.Signals,
    ) -> None:
        """A second signal ends the process although a transaction is open; the server undoes it."""
        with pooler.raw() as client:
            client.ask("BEGIN")
            pooler.process.send_signal(first)
            _wait_refused(pooler)
            elapsed = Stopwatch()
            pooler.process.send_signal(second)
            pooler.wait_exit()
            assert elapsed.seconds < 5
            client.receive_all()
        eventually(lambda: not pg.backends(), what="no server connection is left")

    def test_a_waiting_client_is_not_forgotten(self, pooler: Pooler) -> None:
        """A client that waits in the queue when SIGINT comes is served or told, but never left hanging."""
        with pooler.raw() as busy, pooler.raw() as waiting:
            busy.ask("BEGIN")
            waiting.send(raw.query("SELECT 'waited'"))
            pooler.wait_read(waiting)
            pooler.process.send_signal(signal.SIGINT)
            _wait_refused(pooler)
            busy.ask("COMMIT")
            frames = waiting.receive_all()
            assert raw.kinds(frames)[:1] in {b"T", b"E", b""}
            assert pooler.wait_exit() == 0


class TestReload:
    """SIGHUP."""

    def test_pool_size(self, pooler: Pooler, pg: PostgresCluster) -> None:
        """SIGHUP applies a larger pool size; clients stay connected and in their transactions."""
        with pooler.raw() as one, pooler.raw() as two:
            one.ask("BEGIN")
            config = config_for(pg, pool_mode="transaction", default_pool_size=2)
            config["pooler"]["listen_port"] = pooler.port
            two.send(raw.query("SELECT 'second server'"))
            pooler.wait_read(two)
            pooler.reload(config)
            assert raw.kinds(two.receive_until()) == b"TDCZ"
            assert raw.kinds(one.ask("COMMIT")) == b"CZ"

    def test_new_database_and_password(self, pooler: Pooler, pg: PostgresCluster) -> None:
        """SIGHUP adds a database and changes a password; who is connected stays."""
        with pooler.raw() as client:
            config = config_for(pg, pool_mode="transaction", default_pool_size=1)
            config["pooler"]["listen_port"] = pooler.port
            config["databases"]["added"] = {"dbname": "other", **config["databases"]["app"]}
            config["databases"]["added"] |= {"user": "trudy"}
            config["users"]["newcomer"] = {"password": "welcome"}
            pooler.reload(config)

            def let_in() -> bool:
                with psycopg.connect(
                    host=pooler.host,
                    port=pooler.port,
                    dbname="added",
                    user="newcomer",
                    password="welcome",
                    connect_timeout=10,
                ) as connection:
                    return connection.execute("SELECT current_database()").fetchone() == ("other",)

            eventually(let_in, what="the new user reaches it", despite=(psycopg.OperationalError,))
            assert client.value("SELECT 'stayed'") == "stayed"

    def test_another_server(self, pooler: Pooler, pg: PostgresCluster) -> None:
        """SIGHUP sends clients that stay connected to the database that now stands behind the name."""
        with pooler.raw() as client:
            assert client.value("SELECT current_database()") == "app"
            config = config_for(pg, pool_mode="transaction", default_pool_size=1)
            config["pooler"]["listen_port"] = pooler.port
            config["databases"]["app"]["dbname"] = "other"
            pooler.reload(config)
            eventually(
                lambda: client.value("SELECT current_database()") == "other",
                what="queries go to the other database",
            )
            eventually(lambda: not pg.backends(), what="the old server connection is closed")

    def test_another_server_waits_for_the_transaction(self, pooler: Pooler, pg: PostgresCluster) -> None:
        """A transaction that is open when SIGHUP comes ends on the server on which it began."""
        with pooler.raw() as client:
            client.ask("BEGIN")
            config = config_for(pg, pool_mode="transaction", default_pool_size=1)
            config["pooler"]["listen_port"] = pooler.port
            config["databases"]["app"]["dbname"] = "other"
            mark = pooler.log_size()
            pooler.reload(config)
            eventually(lambda: pooler.log_size() > mark, what="the pooler has reloaded")
            assert client.value("SELECT current_database()") == "app"
            assert raw.kinds(client.ask("COMMIT")) == b"CZ"
            assert client.value("SELECT current_database()") == "other"

    def test_a_database_that_is_gone(self, pooler: Pooler, pg: PostgresCluster) -> None:
        """After SIGHUP without it a database can no longer be reached; the rest of the pooler goes on."""
        config = config_for(pg, pool_mode="transaction", default_pool_size=1)
        config["pooler"]["listen_port"] = pooler.port
        config["databases"]["other"] = config["databases"].pop("app")
        config["databases"]["other"]["dbname"] = "other"
        with pooler.raw() as client:
            client.value("SELECT 1")
            pooler.reload(config)

            def refused() -> bool:
                with pooler.open_raw() as late:
                    last = late.login("app", "ann", "ann's secret")[-1]
                    return last.kind == b"E" and last.fields["C"] == "3D000"

            eventually(refused, what="the database is no longer there")
            eventually(lambda: not pg.backends(), what="its server connection is closed")
        with pooler.raw("other") as other:
            assert other.value("SELECT 1") == "1"

    def test_a_broken_file_changes_nothing(self, pooler: Pooler, pg: PostgresCluster) -> None:
        """SIGHUP with wrong settings is logged with their path; the pooler goes on with the old ones."""
        with pooler.raw() as client:
            config = config_for(pg, pool_mode="no such mode")
            mark = pooler.log_size()
            pooler.reload(config)
            eventually(lambda: "pool_mode" in pooler.log_text(mark), what="the problem is in the log")
            assert client.value("SELECT 'goes on'") == "goes on"
        with pooler.raw() as other:
            assert other.value("SELECT 1") == "1"


def _write(path: Path, config: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(config))
    return str(path)


class TestStart:
    """Starts that fail, and the command line."""

    def test_port_taken(self, pooler: Pooler, tmp_path: Path) -> None:
        """A port that is taken ends the start with a non-zero code and one clear line."""
        done = launch.run("serve", _write(tmp_path / "second.yaml", pooler.config), cwd=tmp_path)
        assert done.returncode not in {0, 2}
        said = (done.stdout + done.stderr).strip().splitlines()
        assert "Traceback" not in done.stdout + done.stderr
        assert str(pooler.port) in said[-1]
        assert "in use" in said[-1]

    def test_wrong_settings(self, pg: PostgresCluster, tmp_path: Path) -> None:
        """Wrong settings end the start with code 2; all problems are told at once, each with its path."""
        config = config_for(pg, pool_mode="sometimes", default_pool_size="many", no_such_setting=1)
        config["databases"]["app"]["port"] = "harbour"
        path = _write(tmp_path / "wrong.yaml", config)
        for command in ("serve", "check"):
            done = launch.run(command, path, cwd=tmp_path)
            said = done.stdout + done.stderr
            assert done.returncode == 2
            assert "Traceback" not in said
            for name in ("pool_mode", "default_pool_size", "no_such_setting", "databases.app.port"):
                assert name in said

    def test_check(self, pg: PostgresCluster, tmp_path: Path) -> None:
        """`check` accepts good settings with code 0 and opens no port."""
        config = config_for(pg)
        assert launch.run("check", _write(tmp_path / "good.yaml", config), cwd=tmp_path).returncode == 0

    def test_no_such_file(self, tmp_path: Path) -> None:
        """A file that does not exist is named, without a traceback."""
        done = launch.run("serve", str(tmp_path / "absent.yaml"), cwd=tmp_path)
        assert done.returncode == 2
        assert "absent.yaml" in done.stderr + done.stdout
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("argument", ["--version", "--help"])
    def test_version_and_help(self, tmp_path: Path, argument: str) -> None:
        """`--version` and `--help` print and end with code 0."""
        done = subprocess.run(
            targets.hyperpool_command(argument),
            capture_output=True,
            text=True,
            timeout=30,
            cwd=tmp_path,
            env=targets.environment(),
            check=False,
        )
        assert done.returncode == 0
        assert "hyperpool" in done.stdout

    def test_the_server_may_be_down_at_start(
        self,
        make_pooler: PoolerFactory,
        pg: PostgresCluster,
    ) -> None:
        """The pooler starts and listens although no server can be reached."""
        config = config_for(pg, min_pool_size=1)
        config["databases"]["app"] |= {"port": 1, "user": "trudy"}
        pooler = make_pooler(config)
        assert pooler.process.poll() is None
