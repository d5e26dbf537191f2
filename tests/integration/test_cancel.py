"""Cancel requests: they reach the right query and never another's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import rawclient as raw
from tests.support.proxy import Fault
from tests.support.waiting import Stopwatch

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.proxy import FaultProxy

_CANCELED = "57014"


def _error_code(frames: list[raw.Frame]) -> str:
    return next((got.fields["C"] for got in frames if got.kind == b"E"), "no error")


def test_a_driver_cancels_its_query(pooler: Pooler, pg: PostgresCluster, mode: str) -> None:
    """`cancel_safe` of psycopg ends `pg_sleep` at once; the connection goes on."""
    statement = f"SELECT pg_sleep(30) /* driver cancel {mode} */"
    with pooler.connect(mode) as connection:
        elapsed = Stopwatch()
        with pg.when_asleep(statement, connection.cancel_safe), pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(statement.encode())
        assert elapsed.seconds < 15
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_wrong_secret_cancels_nothing(pooler: Pooler, pg: PostgresCluster, mode: str) -> None:
    """A CancelRequest with a wrong secret, a wrong pid or the key of nobody has no effect."""
    marker = f"not to be canceled {mode}"
    with pooler.raw(mode) as client:
        client.send(raw.query(f"SELECT pg_sleep(1.5) /* {marker} */"))
        pg.wait_active(marker)
        flipped = bytes(byte ^ 0xFF for byte in client.secret)
        pooler.cancel(client.pid, flipped)
        pooler.cancel(client.pid ^ 1, client.secret)
        pooler.cancel(0, b"\0\0\0\0")
        assert raw.kinds(client.receive_until()) == b"TDCZ"


def test_keys_are_the_clients_own(pooler: Pooler, mode: str) -> None:
    """No two clients have the same key, and no client sees the server's."""
    clients = [pooler.raw(mode) for _ in range(4)]
    assert len({(client.pid, client.secret) for client in clients}) == 4
    for client in clients:
        client.close()


def test_an_idle_client_has_nothing_to_cancel(
    make_pooler: PoolerFactory,
    pg: PostgresCluster,
) -> None:
    """A cancel of an idle client does not hit the client that now has the server."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.raw() as idle, pooler.raw() as busy:
        assert idle.value("SELECT 1") == "1"
        busy.send(raw.query("SELECT pg_sleep(1.5) /* busy */"))
        pg.wait_active("busy")
        pooler.cancel(idle.pid, idle.secret)
        assert raw.kinds(busy.receive_until()) == b"TDCZ"


def test_inside_a_transaction(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """A cancel inside a block fails the block; the client rolls back and goes on."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.raw() as client:
        client.ask("BEGIN")
        client.send(raw.query("SELECT pg_sleep(30) /* block */"))
        pg.wait_active("block")
        pooler.cancel(client.pid, client.secret)
        frames = client.receive_until()
        assert (_error_code(frames), frames[-1].body) == (_CANCELED, b"E")
        assert client.ask("ROLLBACK")[-1].body == b"I"


@pytest.mark.hyperpool_only  # pgbouncer 1.18 drops such a client without a word
def test_a_waiting_client_is_canceled(make_pooler: PoolerFactory) -> None:
    """A client that waits for a server and cancels is told so at once; its query never runs."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.raw() as holder, pooler.raw() as waiter:
        holder.ask("CREATE TABLE never (n int)")
        holder.ask("BEGIN")
        waiter.send(raw.query("INSERT INTO never VALUES (1)"))
        pooler.wait_read(waiter)
        pooler.cancel(waiter.pid, waiter.secret)
        first = waiter.receive()
        assert (first.kind, first.fields["C"]) == (b"E", _CANCELED)
        assert raw.kinds(holder.ask("COMMIT")) == b"CZ"
        assert holder.value("SELECT count(*) FROM never") == "0"
        holder.ask("DROP TABLE never")


def test_a_late_cancel_does_not_hit_the_next_client(
    proxied: tuple[Pooler, FaultProxy], pg: PostgresCluster
) -> None:
    """While a cancel is on its way, the server is not given to the next client, who must not be hit by it."""
    pooler, proxy = proxied
    with pooler.raw() as first, pooler.raw() as second:
        for _ in range(2):
            assert first.value("SELECT 1") == "1"
            first.send(raw.query("SELECT pg_sleep(0.3) /* first */"))
            pg.wait_active("first")
            second.send(raw.query("SELECT pg_sleep(0.9) /* second */"))
            pooler.wait_read(second)
            proxy.to_target = Fault(delay=0.6)  # the connection of the cancel is slower than the query
            canceler = pooler.open_raw()
            canceler.send(raw.cancel_packet(first.pid, first.secret))
            assert raw.kinds(first.receive_until()) in {b"TDCZ", b"EZ"}
            assert raw.kinds(second.receive_until()) == b"TDCZ"
            canceler.sock.close()
            proxy.to_target = Fault()


def test_cancel_while_the_pooler_is_full(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """A CancelRequest is let in although `max_client_conn` is reached, as PostgreSQL does it."""
    pooler = make_pooler(pool_mode="transaction", max_client_conn=1)
    with pooler.raw() as client:
        client.send(raw.query("SELECT pg_sleep(30) /* full */"))
        pg.wait_active("full")
        pooler.cancel(client.pid, client.secret)
        assert _error_code(client.receive_until()) == _CANCELED


def test_many_cancels_at_once(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """A burst of cancel requests for one query does no harm to it or to others."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=2)
    with pooler.raw() as victim, pooler.raw() as neighbour:
        victim.send(raw.query("SELECT pg_sleep(30) /* victim */"))
        neighbour.send(raw.query("SELECT pg_sleep(1.5) /* neighbour */"))
        pg.wait_active("victim")
        cancelers = [pooler.open_raw() for _ in range(40)]
        for canceler in cancelers:
            canceler.send(raw.cancel_packet(victim.pid, victim.secret))
        assert _error_code(victim.receive_until()) == _CANCELED
        assert raw.kinds(neighbour.receive_until()) == b"TDCZ"
        for canceler in cancelers:
            assert canceler.receive_all() == []
            canceler.sock.close()
        for _ in range(10):
            assert victim.value("SELECT 1") == "1"


def test_canceled_again_and_again(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Query, cancel and the next query alternate on one server; no cancel hits the wrong query."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.raw() as one, pooler.raw() as two:
        for turn in range(15):
            one.send(raw.query(f"SELECT pg_sleep(30) /* turn {turn} */"))
            pg.wait_active(f"turn {turn} ")
            two.send(raw.query("SELECT pg_sleep(0.01), 'untouched'"))
            pooler.cancel(one.pid, one.secret)
            assert _error_code(one.receive_until()) == _CANCELED
            assert raw.kinds(two.receive_until()) == b"TDCZ"
