"""Bounds: on clients, on time before login, and on memory when one side is slow."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.support import rawclient as raw
from tests.support import targets
from tests.support.network import ESTABLISHED, tcp_sockets
from tests.support.postgres import ANN
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.proxy import FaultProxy

_MIB = 1 << 20


def test_max_client_conn(make_pooler: PoolerFactory) -> None:
    """The client beyond `max_client_conn` is refused with 08P01; when one leaves, the next one gets in."""
    pooler = make_pooler(pool_mode="transaction", max_client_conn=2)
    first, second = pooler.raw(), pooler.raw()
    with pooler.open_raw() as third:
        last = third.login("app", ANN.name, ANN.password)[-1]
        assert last.kind == b"E"
        assert last.fields["M"].startswith("no more connections allowed (max_client_conn)")
    assert first.value("SELECT 1") == second.value("SELECT 1") == "1"
    first.close()

    def let_in() -> bool:
        with pooler.open_raw() as fourth:
            return fourth.login("app", ANN.name, ANN.password)[-1].kind == b"Z"

    assert eventually(let_in, what="a client gets in again")
    second.close()


def test_max_client_conn_sqlstate(make_pooler: PoolerFactory) -> None:
    """The refusal has the SQLSTATE that it has always had in pgbouncer."""
    pooler = make_pooler(max_client_conn=1)
    with pooler.raw():
        assert pooler.refused().fields["C"] == "08P01"


def test_max_client_conn_counts_who_has_not_logged_in(make_pooler: PoolerFactory) -> None:
    """Connections before login count too, so that they cannot exhaust the pooler's file descriptors."""
    pooler = make_pooler(max_client_conn=5, client_login_timeout=1)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(pooler.open_raw()) for _ in range(12)]
        eventually(
            lambda: sum(1 for s in tcp_sockets(pooler.port) if s.state == ESTABLISHED) <= 6,
            what="the connections beyond the limit are closed",
        )
        for client in silent:
            with contextlib.suppress(raw.ConnectionEnded):
                assert all(got.kind == b"E" for got in client.receive_all())
    with pooler.raw() as client:
        assert client.value("SELECT 1") == "1"


def test_client_login_timeout(make_pooler: PoolerFactory) -> None:
    """Who does not complete the login within `client_login_timeout` is disconnected, however far it came."""
    pooler = make_pooler(client_login_timeout=1)
    startup = raw.startup_packet({"user": ANN.name, "database": "app"})
    progress = [b"", raw.SSL_REQUEST, startup]
    if targets.TARGET == "hyperpool":
        progress.append(startup[:10])  # pgbouncer wants the first bytes in one packet
    elapsed = Stopwatch()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(pooler.open_raw()) for _ in progress]
        for client, sent in zip(clients, progress, strict=True):
            client.send(sent)
        assert clients[1].receive_bytes(1) == b"N"
        for client in clients:
            frames = client.receive_all()
            assert 0.5 < elapsed.seconds < 10
            assert all("client_login_timeout" in got.fields["M"] for got in frames if got.kind == b"E")


def test_a_client_that_does_not_read(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """A client that asks for 300 MB and does not read holds back the server, not the pooler's memory."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=2)
    with pooler.raw() as client, pooler.raw() as neighbour:
        neighbour.value("SELECT 1")
        client.value("SELECT 1")
        before = pooler.reset_peak_memory()
        statement = "SELECT repeat('x', 100000) FROM generate_series(1, 3000)"
        client.send(raw.query(statement))
        eventually(
            lambda: pg.waiting("ClientWrite", statement),
            what="PostgreSQL waits for its client",
        )
        assert neighbour.value("SELECT 'not held up'") == "not held up"
        total = 0
        while (got := client.receive()).kind != b"Z":
            total += len(got.body)
        assert total > 300_000_000
        assert pooler.memory("VmHWM") - before < 20 * _MIB


def test_a_server_that_does_not_read(proxied: tuple[Pooler, FaultProxy], pg: PostgresCluster) -> None:
    """A client that sends 200 MB to a server that does not read is held back; then all of it arrives."""
    pooler, proxy = proxied
    block = raw.copy_data(b"x" * 99_999 + b"\n")
    with pooler.raw() as client:
        client.ask("CREATE UNLOGGED TABLE held_back (t text)")
        client.send(raw.query("COPY held_back FROM STDIN"))
        client.receive_until(b"G")
        before = pooler.reset_peak_memory()
        proxy.stall(proxy.to_target)
        client.sock.settimeout(0.5)
        sent = _send_until_blocked(client, block)
        assert sent < 40 * _MIB
        proxy.resume(proxy.to_target)
        client.sock.settimeout(15)
        client.send(block[sent % len(block) :] if sent % len(block) else b"")
        whole = -(-sent // len(block))
        for _ in range(2000 - whole):
            client.send(block)
        client.send(raw.COPY_DONE)
        assert client.receive_until()[0].body == b"COPY 2000\0"
        assert pooler.memory("VmHWM") - before < 20 * _MIB
        client.ask("DROP TABLE held_back")


def _send_until_blocked(client: raw.RawClient, block: bytes) -> int:
    """Send a block again and again until no byte is taken for the socket's timeout; return the bytes sent."""
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            sent += client.sock.send(block[sent % len(block) :])
    return sent


def test_many_idle_clients(make_pooler: PoolerFactory) -> None:
    """300 idle clients cost little memory, and each is still served afterwards."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=2, max_client_conn=400, auth_type="trust")
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(pooler.raw())
        before = pooler.memory()
        clients = [stack.enter_context(pooler.raw()) for _ in range(300)]
        assert pooler.memory() - before < 300 * 16 * 1024
        for number, client in enumerate(clients):
            assert client.value(f"SELECT {number}") == str(number)


def test_clients_that_crash_leave_nothing(make_pooler: PoolerFactory) -> None:
    """300 clients that abort at different stages leave no file descriptor and no memory behind."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=2, auth_type="trust")
    startup = raw.startup_packet({"user": ANN.name, "database": "app"})
    with pooler.raw() as warm:
        warm.value("SELECT 1")
        before = pooler.open_files()
        for number in range(300):
            if number % 3 == 0:
                client = pooler.raw()
                client.send(raw.query("SELECT 1"))
            else:
                client = pooler.open_raw()
                client.send(startup[: number % len(startup)])
            client.abort()
        eventually(lambda: pooler.open_files() <= before + 1, what="all descriptors are closed")
        assert warm.value("SELECT 'alive'") == "alive"
