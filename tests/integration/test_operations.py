"""What the operator sees and sets: the log, the limit on open files, TCP keepalive."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from tests.support import rawclient as raw
from tests.support.network import ESTABLISHED, KEEPALIVE_TIMER, tcp_sockets
from tests.support.postgres import ANN, Role
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only  # the log has a form of its own


class TestLog:
    """The log."""

    def test_connections_and_refusals(self, make_pooler: PoolerFactory) -> None:
        """Logins, leaves and refusals are in the log with user, database and reason; no password is."""
        pooler = make_pooler()
        pooler.raw().close()
        pooler.refused("app", Role("ann", "wrong secret", ""))
        text = eventually(
            lambda: text if "password authentication failed" in (text := pooler.log_text()) else "",
            what="the refusal is in the log",
        )
        assert "app/ann" in text
        assert ANN.password not in text
        assert "wrong secret" not in text

    def test_quiet(self, make_pooler: PoolerFactory) -> None:
        """`log_connections` and `log_disconnections` off leave clients that come and go out of the log."""
        pooler = make_pooler(log_connections=False, log_disconnections=False)
        mark = pooler.log_size()
        with pooler.raw() as client:
            assert client.value("SELECT 1") == "1"
        pooler.stop()
        assert "client" not in pooler.log_text(mark)

    def test_json(self, make_pooler: PoolerFactory) -> None:
        """With `log_format: json` every line is a JSON object with time, level and event."""
        pooler = make_pooler(log_format="json", log_stats=True, stats_period=1)
        pooler.raw().close()
        eventually(lambda: "stats" in pooler.log_text(), what="statistics are in the log")
        pooler.stop()
        for line in pooler.log_text().splitlines():
            assert {"event", "level", "timestamp"} <= set(json.loads(line))

    def test_level(self, make_pooler: PoolerFactory) -> None:
        """`log_level: error` leaves all information out."""
        pooler = make_pooler(log_level="error")
        pooler.raw().close()
        pooler.stop()
        assert pooler.log_text() == ""

    def test_level_at_run_time(self, make_pooler: PoolerFactory) -> None:
        """`SET log_level` holds from the next entry on."""
        pooler = make_pooler(admin_users="ann")
        with pooler.connect("pgbouncer") as console:
            console.execute("SET log_level = 'error'")
            mark = pooler.log_size()
            pooler.raw().close()
            console.execute("SET log_level = 'info'")
            pooler.raw().close()
        text = eventually(
            lambda: text if "client logged in" in (text := pooler.log_text(mark)) else "",
            what="the log speaks again",
        )
        assert text.count("client logged in") == 1


class TestOpenFiles:
    """The limit on open files."""

    def test_the_soft_limit_is_raised(self, make_pooler: PoolerFactory) -> None:
        """A soft limit below the need is raised to the hard limit at start."""
        pooler = make_pooler(open_files=(40, 400), auth_type="trust", pool_mode="transaction")
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(pooler.raw()) for _ in range(80)]
            assert clients[-1].value("SELECT 1") == "1"

    def test_running_into_the_hard_limit(self, make_pooler: PoolerFactory) -> None:
        """At the hard limit the pooler says what to do, serves whom it has, and recovers when clients leave."""
        pooler = make_pooler(
            open_files=(60, 60),
            auth_type="trust",
            pool_mode="transaction",
            default_pool_size=2,
            max_client_conn=500,
            client_login_timeout=3,
        )
        first = pooler.raw()
        assert first.value("SELECT 1") == "1"
        with contextlib.ExitStack() as stack:
            mark = pooler.log_size()
            for _ in range(80):
                stack.enter_context(pooler.open_raw())
            eventually(
                lambda: "open files" in pooler.log_text(mark) or "LimitNOFILE" in pooler.log_text(mark),
                what="the remedy is in the log",
            )
            assert first.value("SELECT 'still served'") == "still served"

        def let_in() -> bool:
            with pooler.raw() as late:
                return late.value("SELECT 'let in'") == "let in"

        eventually(let_in, what="a client gets in again", despite=(raw.ConnectionEnded, OSError))
        assert len(pooler.log_text(mark).splitlines()) < 400
        first.close()


@pytest.mark.parametrize("keepalive", [True, False])
def test_tcp_keepalive(make_pooler: PoolerFactory, pg: PostgresCluster, keepalive: bool) -> None:
    """`tcp_keepalive` governs both sides' connections."""
    pooler = make_pooler(tcp_keepalive=keepalive, tcp_keepidle=100)
    with pooler.raw() as client:
        assert client.value("SELECT 1") == "1"
        (pid,) = pg.backends()
        ((server_port,),) = pg.sql("SELECT client_port FROM pg_stat_activity WHERE pid = %s", pid)

        def timers() -> list[int]:
            ends = tcp_sockets(pooler.port, client.port) + tcp_sockets(server_port, pg.port)
            return [end.timer for end in ends if end.state == ESTABLISHED]

        # Another timer runs as long as a packet is not acknowledged.
        expected = [KEEPALIVE_TIMER] * 2 if keepalive else [0, 0]
        eventually(lambda: timers() == expected, what="the expected timers run")
