"""What each pool mode promises: how long a client keeps its server, and what the next client may see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import rawclient as raw
from tests.support.poolers import config_for
from tests.support.postgres import BOB
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster


@pytest.fixture(scope="module")
def _one_server(make_module_pooler: PoolerFactory) -> Pooler:
    return make_module_pooler(pool_mode="transaction", default_pool_size=1)


@pytest.fixture
def one_server(_one_server: Pooler, watch: Callable[[Pooler], Pooler]) -> Pooler:
    """A pooler in transaction mode whose only pool has one server."""
    return watch(_one_server)


class TestSessionMode:
    """A client keeps its server until it leaves; then the server is reset for the next client."""

    def test_the_session_is_the_clients_own(self, pooler: Pooler) -> None:
        """SET, temporary tables and PREPARE last as long as the client stays."""
        with pooler.connect("session") as connection:
            connection.execute("SET work_mem = '7MB'")
            connection.execute("CREATE TEMP TABLE mine AS SELECT 42 AS n")
            connection.execute("PREPARE p AS SELECT n FROM mine")
            for _ in range(10):
                assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)
                assert connection.execute("EXECUTE p").fetchone() == (42,)

    def test_nothing_is_left_for_the_next_client(self, make_pooler: PoolerFactory) -> None:
        """After `server_reset_query` the next client on the same server finds a new session."""
        pooler = make_pooler(pool_mode="session", default_pool_size=1)
        with pooler.connect() as first:
            server = first.execute("SELECT pg_backend_pid()").fetchone()
            first.execute("SET work_mem = '7MB'")
            first.execute("CREATE TEMP TABLE left_over (n int)")
            first.execute("PREPARE p AS SELECT 1")
            first.execute("SELECT pg_advisory_lock(4711)")
            first.execute("LISTEN left_over")
        with pooler.connect() as second:
            assert second.execute("SELECT pg_backend_pid()").fetchone() == server
            assert second.execute("SHOW work_mem").fetchone() != ("7MB",)
            assert second.execute("SELECT to_regclass('left_over')").fetchone() == (None,)
            assert second.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
            assert second.execute("SELECT count(*) FROM pg_listening_channels()").fetchone() == (0,)
            locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
            assert second.execute(locks).fetchone() == (0,)

    def test_an_open_transaction_of_a_client_that_left_is_undone(
        self,
        make_pooler: PoolerFactory,
        pg: PostgresCluster,
    ) -> None:
        """A client that leaves inside a transaction block never leaves the transaction to the next one."""
        pooler = make_pooler(pool_mode="session", default_pool_size=1)
        with pooler.raw() as client:
            client.ask("BEGIN; CREATE TABLE undone (n int)")
            client.close()
        with pooler.raw() as next_client:
            frames = next_client.ask("SELECT to_regclass('undone')")
            assert frames[-1].body == b"I"
            assert frames[1].columns == [None]

    def test_a_session_of_its_own_per_client(self, pooler: Pooler) -> None:
        """Two clients at once have two servers."""
        with pooler.connect("session") as one, pooler.connect("session") as two:
            pids = {c.execute("SELECT pg_backend_pid()").fetchone() for c in (one, two)}
            assert len(pids) == 2

    def test_listen_and_notify(self, pooler: Pooler) -> None:
        """A listening client receives notifications, while idle and with its own queries, in order."""
        with pooler.connect("session") as listener, pooler.connect("session") as sender:
            listener.execute("LISTEN news")
            sender.execute("NOTIFY news, 'one'")
            (note,) = listener.notifies(timeout=10, stop_after=1)
            assert (note.channel, note.payload) == ("news", "one")
            payload = "x" * 7999
            for n in range(20):
                sender.execute("SELECT pg_notify('news', %s)", [f"{n} {payload}"[:7999]])
            notes = listener.notifies(timeout=10, stop_after=20)
            assert [note.payload.split()[0] for note in notes] == [str(n) for n in range(20)]


class TestTransactionMode:
    """A client keeps its server for one transaction."""

    def test_two_clients_share_one_server(self, one_server: Pooler) -> None:
        """Between transactions the server serves others; both clients stay connected."""
        with one_server.connect() as one, one_server.connect() as two:
            pids = set()
            for _ in range(10):
                pids |= {c.execute("SELECT pg_backend_pid()").fetchone() for c in (one, two)}
            assert len(pids) == 1

    def test_a_transaction_keeps_its_server(self, one_server: Pooler) -> None:
        """While one client is inside a block, another waits for the server, and goes on after the COMMIT."""
        with one_server.raw() as one, one_server.raw() as two:
            one.ask("BEGIN")
            two.send(raw.query("SELECT 'served'"))
            for n in range(20):
                assert one.value(f"SELECT {n}") == str(n)
            two.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                two.receive()
            two.sock.settimeout(15)
            one.ask("COMMIT")
            assert raw.kinds(two.receive_until()) == b"TDCZ"

    def test_a_failed_block_keeps_its_server(self, one_server: Pooler) -> None:
        """A block in failed state is still a block: nobody else gets the server before its ROLLBACK."""
        with one_server.raw() as one, one_server.raw() as two:
            one.ask("BEGIN")
            one.ask("SELECT 1 / 0")
            two.send(raw.query("SELECT 'served'"))
            two.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                two.receive()
            two.sock.settimeout(15)
            one.ask("ROLLBACK")
            assert raw.kinds(two.receive_until()) == b"TDCZ"

    def test_no_reset_between_transactions(self, make_pooler: PoolerFactory) -> None:
        """With session_state keep, no reset query runs: session state stays, as with pgbouncer."""
        pooler = make_pooler(pool_mode="transaction", default_pool_size=1, session_state="keep")
        with pooler.connect() as one, pooler.connect() as two:
            one.execute("SET work_mem = '7MB'")
            assert two.execute("SHOW work_mem").fetchone() == ("7MB",)
            two.execute("RESET work_mem")

    def test_reset_query_always(self, make_pooler: PoolerFactory) -> None:
        """With `server_reset_query_always` the reset query runs after each transaction too."""
        pooler = make_pooler(pool_mode="transaction", default_pool_size=1, server_reset_query_always=True)
        with pooler.connect() as one, pooler.connect() as two:
            one.execute("SET work_mem = '7MB'")
            assert two.execute("SHOW work_mem").fetchone() != ("7MB",)

    def test_an_extended_query_without_sync_keeps_its_server(self, one_server: Pooler) -> None:
        """Until the Sync the server has an implicit transaction open, even if all answers have come by Flush."""
        with one_server.raw() as one, one_server.raw() as two:
            one.ask("CREATE TABLE unsynced (n int)")
            one.send(raw.extended("INSERT INTO unsynced VALUES (1)"), raw.FLUSH)
            one.receive_until(b"C")
            two.send(raw.query("SELECT count(*) FROM unsynced"))
            two.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                two.receive()
            two.sock.settimeout(15)
            one.send(raw.SYNC)
            assert raw.kinds(one.receive_until()) == b"Z"
            assert two.receive_until()[1].columns == [b"1"]
            one.ask("DROP TABLE unsynced")

    def test_unanswered_pipeline_keeps_its_server(self, one_server: Pooler) -> None:
        """A client with requests in flight keeps its server over the ReadyForQuery in between."""
        with one_server.raw() as one, one_server.raw() as two:
            one.send(raw.query("SELECT pg_sleep(0.1)"), raw.query("BEGIN"), raw.query("SELECT 'mine'"))
            two.send(raw.query("SELECT 'other'"))
            for expected in (b"TDCZ", b"CZ", b"TDCZ"):
                assert raw.kinds(one.receive_until()) == expected
            one.ask("COMMIT")
            assert raw.kinds(two.receive_until()) == b"TDCZ"


class TestStatementMode:
    """A client keeps its server for one statement; transaction blocks are refused."""

    REFUSAL = "transaction blocks not allowed in statement pooling mode"

    def test_begin_is_refused(self, pooler: Pooler) -> None:
        """BEGIN ends the connection with pgbouncer's words."""
        with pooler.connect("statement") as connection, pytest.raises(psycopg.Error, match=self.REFUSAL):
            connection.execute("BEGIN")

    def test_begin_in_the_extended_protocol_is_refused(self, pooler: Pooler) -> None:
        """So does BEGIN in the extended protocol."""
        with pooler.raw("statement") as client:
            client.send(raw.extended("BEGIN"), raw.SYNC)
            errors = [got for got in client.receive_all() if got.kind == b"E"]
            assert [error.fields["M"] for error in errors] == [self.REFUSAL]

    def test_a_refused_transaction_leaves_no_trace(self, pooler: Pooler, pg: PostgresCluster) -> None:
        """The server that saw the BEGIN is never given to another client with a transaction open."""
        with pooler.raw("statement") as client:
            client.send(raw.query("BEGIN"), raw.query("CREATE TABLE refused (n int)"))
            client.receive_all()
        for _ in range(6):
            with pooler.raw("statement") as other:
                frames = other.ask("SELECT to_regclass('refused')")
                assert (frames[1].columns, frames[-1].body) == ([None], b"I")

    def test_several_statements_in_one_message_are_one(self, pooler: Pooler) -> None:
        """A Query with several statements runs on one server as one implicit transaction."""
        with pooler.connect("statement") as connection:
            cursor = connection.execute("SELECT txid_current(); SELECT txid_current()")
            first = cursor.fetchone()
            assert cursor.nextset()
            assert cursor.fetchone() == first

    def test_clients_share_servers(self, make_pooler: PoolerFactory) -> None:
        """Many clients are served by the one server of their pool."""
        pooler = make_pooler(pool_mode="statement", default_pool_size=1)
        connections = [pooler.connect() for _ in range(5)]
        pids = {connection.execute("SELECT pg_backend_pid()").fetchone() for connection in connections}
        for connection in connections:
            connection.close()
        assert len(pids) == 1


def test_modes_of_databases_and_users(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """A database's `pool_mode` overrides the pooler's, and a user's overrides the database's."""
    config = config_for(pg, pool_mode="session", default_pool_size=1)
    config["databases"]["app"]["pool_mode"] = "transaction"
    config["users"]["bob"]["pool_mode"] = "statement"
    pooler = make_pooler(config)
    with pooler.connect() as one, pooler.connect() as two:
        pids = {c.execute("SELECT pg_backend_pid()").fetchone() for c in (one, two)}
        assert len(pids) == 1
    with (
        pooler.connect(role=BOB) as connection,
        pytest.raises(psycopg.Error, match=TestStatementMode.REFUSAL),
    ):
        connection.execute("BEGIN")


def test_a_clean_server_goes_back_after_a_quiet_leave(pooler: Pooler, pg: PostgresCluster) -> None:
    """Clients that come and go in transaction mode reuse the same few servers."""
    for _ in range(10):
        with pooler.connect("transaction") as connection:
            connection.execute("SELECT 1")
    assert eventually(lambda: len(pg.backends("shared")) <= 15, what="no server connection piles up")
