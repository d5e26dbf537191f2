"""Defects that the pooler once had: each test fails with its defect."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
import scramp

from tests.support import rawclient as raw
from tests.support import targets
from tests.support.fakeserver import AUTHENTICATION_OK, LOGIN, PARAMETERS, READY, FakeServer, row
from tests.support.poolers import config_for
from tests.support.postgres import ANN, BOB
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.proxy import FaultProxy
    from tests.support.rawclient import RawClient
    from tests.support.targets import Config

pytestmark = pytest.mark.hyperpool_only

_LONG = "x" * 100_000
_MALFORMED = struct.pack("!ii", 8, 0)


def _fake_config(pg: PostgresCluster, server: FakeServer, **pooler: object) -> Config:
    # A stand-in for PostgreSQL knows no catalog.
    config = config_for(pg, pool_mode="transaction", session_state="keep", **pooler)
    config["databases"]["app"].update(host="127.0.0.1", port=server.port)
    return config


def _turned(pooler: Pooler) -> None:
    """Wait until the pooler has handled all that had come before."""
    with pooler.open_raw() as client:
        client.send(raw.SSL_REQUEST)
        assert client.receive_bytes(1) == b"N"


def test_a_long_query_that_waits_for_a_second_server(make_pooler: PoolerFactory) -> None:
    """It is longer than what is read before a server is there; no other traffic helps it on."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=3)
    with pooler.raw() as busy, pooler.raw() as client:
        busy.ask("BEGIN")
        assert client.value(f"SELECT length('{'x' * 12_000}')") == "12000"


def test_a_query_sent_while_the_first_server_is_dialed(
    make_pooler: PoolerFactory, make_proxy: Callable[[int], FaultProxy], pg: PostgresCluster
) -> None:
    """The client does not wait for the end of its login, which waits for the pool's first server."""
    proxy = make_proxy(pg.port)
    proxy.stall(proxy.to_target)
    config = config_for(pg, pool_mode="transaction", auth_type="trust")
    config["databases"]["app"].update(host="127.0.0.1", port=proxy.port)
    pooler = make_pooler(config)
    with pooler.open_raw() as client:
        client.send(raw.startup_packet({"user": ANN.name, "database": "app"}))
        pooler.wait_read(client)
        client.send(raw.query("SELECT 'early'"))
        _turned(pooler)
        proxy.resume(proxy.to_target)
        assert raw.kinds(client.receive_until())[-1:] == b"Z"
        assert raw.kinds(client.receive_until()) == b"TDCZ"


def test_a_cancel_for_a_server_without_a_cancel_key(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """A server need not send BackendKeyData: nothing can be canceled there, and the pooler lives on."""
    statuses = b"".join(
        raw.frame(b"S", raw.cstring(name) + raw.cstring(value)) for name, value in PARAMETERS.items()
    )
    with FakeServer(AUTHENTICATION_OK + statuses + READY, raw.frame(b"N", b"\0")) as server:
        pooler = make_pooler(_fake_config(pg, server))
        with pooler.raw() as client:
            client.send(raw.query("SELECT pg_sleep(100)"))
            assert client.receive().kind == b"N"
            with pooler.open_raw() as canceller:
                canceller.send(raw.cancel_packet(client.pid, client.secret))
                assert canceller.receive_all() == []
            assert "cancel" in pooler.log_text()
            pooler.raw().close()
        pooler.stop()


def test_a_cancel_without_a_descriptor_left(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """The limit on open files is reached when a cancel request has to be sent: it fails, and nothing else does."""
    config = config_for(pg, pool_mode="transaction")
    config["databases"]["app"]["host"] = str(pg.socket_dir)
    pooler = make_pooler(config, open_files=(48, 48))
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(pooler.raw())
        client.send(raw.query("SELECT pg_sleep(1)"))
        canceller = stack.enter_context(pooler.open_raw())
        _turned(pooler)
        for _ in range(60):
            stack.enter_context(pooler.open_raw())
        eventually(lambda: pooler.open_files() >= 48, what="no descriptor is left")
        canceller.send(raw.cancel_packet(client.pid, client.secret))
        assert canceller.receive_all() == []
        assert raw.kinds(client.receive_until()) == b"TDCZ"
        eventually(lambda: "cannot cancel" in pooler.log_text(), what="the failure is logged")


def _accepts(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port)):
        return True


@pytest.fixture
def piped(pg: PostgresCluster, tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes], int]]:
    """A pooler whose standard error is a small pipe: its port, its process, and the end to read its log from."""
    config = config_for(pg, pool_mode="transaction")
    config["databases"]["app"]["dbname"] = "app"
    port = int(config["pooler"]["listen_port"])
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with subprocess.Popen(
        targets.command(targets.write_config(tmp_path, config)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=writing,
        env=targets.environment(),
    ) as process:
        os.close(writing)
        try:
            eventually(lambda: _accepts(port), within=20, what="the pooler listens", despite=(OSError,))
            yield port, process, reading
            process.terminate()
            assert process.wait(15) == 0
        finally:
            process.kill()
            with contextlib.suppress(OSError):
                os.close(reading)


def _malformed_connections(port: int, count: int) -> None:
    """Each makes the pooler log a line."""
    for _ in range(count):
        with raw.RawClient(("127.0.0.1", port)) as client:
            client.send(_MALFORMED)
            assert raw.kinds(client.receive_all()) in (b"", b"E")


def _client(port: int) -> RawClient:
    client = raw.RawClient(("127.0.0.1", port))
    assert client.login("app", ANN.name, ANN.password)[-1].kind == b"Z"
    return client


def test_a_log_that_nobody_reads(piped: tuple[int, subprocess.Popen[bytes], int]) -> None:
    """The pipe is full; clients are answered, and new ones are let in."""
    port, _, reading = piped
    with _client(port) as client:
        assert client.value("SELECT 1") == "1"
        _malformed_connections(port, 200)
        assert client.value("SELECT 2") == "2"
        os.read(reading, 1 << 20)
        with _client(port) as another:
            assert another.value("SELECT 3") == "3"
        eventually(lambda: b"log lines were dropped" in os.read(reading, 1 << 20), what="the loss is told")


def test_a_log_whose_reader_is_gone(piped: tuple[int, subprocess.Popen[bytes], int]) -> None:
    """Each write fails: neither the clients nor the pooler's end suffer from it."""
    port, process, reading = piped
    with _client(port) as client:
        os.close(reading)
        _malformed_connections(port, 3)
        assert client.value("SELECT 1") == "1"
        with _client(port) as another:
            assert another.value("SELECT 2") == "2"
        assert process.poll() is None


def _log_in_and_half_close(pooler: Pooler) -> None:
    """Send a long query with the end of the login, shut down, and take what comes."""
    with pooler.open_raw() as client:
        client.send(raw.startup_packet({"user": ANN.name, "database": "app"}))
        client.receive()
        scram = scramp.ScramClient(["SCRAM-SHA-256"], ANN.name, ANN.password)
        first = scram.get_client_first().encode()
        client.send(raw.frame(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first))
        scram.set_server_first(client.receive().body[4:].decode())
        final = raw.frame(b"p", scram.get_client_final().encode())
        # Held back by the kernel until the end of the stream goes with it: the pooler sees both at once.
        client.sock.send(final + raw.query(f"SELECT '{'x' * 9000}'"), socket.MSG_MORE)
        client.sock.shutdown(socket.SHUT_WR)
        client.receive_all()


def test_a_half_close_during_login(make_pooler: PoolerFactory) -> None:
    """The end of the stream comes with the login's last message: the client gives its place back."""
    pooler = make_pooler(pool_mode="transaction", max_client_conn=2)
    with pooler.raw() as other:
        other.ask("SELECT 1")
        _turned(pooler)
        before = pooler.open_files()
        for _ in range(5):
            _log_in_and_half_close(pooler)
        eventually(lambda: pooler.open_files() <= before, what="no descriptor is left behind")
        pooler.raw().close()


def test_a_parameter_status_longer_than_the_buffer(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """It passes; what it says is not known, so the server is not given to another client."""
    status = raw.frame(b"S", raw.cstring("search_path") + raw.cstring(_LONG))
    with FakeServer(LOGIN, status + row("1") + READY) as server:
        pooler = make_pooler(_fake_config(pg, server, relay_buffer="64KiB"))
        with pooler.raw() as client:
            frames = client.ask("SELECT 1")
            assert raw.kinds(frames) == b"STDCZ"
            assert len(frames[0].body) == len(status) - 5
            assert raw.kinds(client.ask("SELECT 1")) == b"STDCZ"
        assert server.connections == 2
        pooler.stop()


def test_a_fatal_error_longer_than_the_buffer(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """The client gets all of it, then the end; the pooler lives on."""
    fields = b"".join(
        code + raw.cstring(value)
        for code, value in ((b"S", "FATAL"), (b"V", "FATAL"), (b"C", "57P01"), (b"M", _LONG))
    )
    with FakeServer(LOGIN, raw.frame(b"E", fields + b"\0"), hang_up=True) as server:
        pooler = make_pooler(_fake_config(pg, server, relay_buffer="64KiB"))
        for _ in range(2):
            with pooler.raw() as client:
                client.send(raw.query("SELECT 1"))
                frames = client.receive_all()
                assert frames[0].fields["M"] == _LONG
        assert server.connections == 2
        pooler.stop()


def test_a_reload_from_session_to_transaction_mode(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """What a session has left on its server is not seen by the transactions of others."""
    config = config_for(pg, pool_mode="session", default_pool_size=1)
    pooler = make_pooler(config)
    with pooler.raw() as client:
        client.ask("CREATE TEMP TABLE secret (x text); SET statement_timeout = 54321")
        pid = client.value("SELECT pg_backend_pid()")
        config["pooler"]["pool_mode"] = "transaction"
        pooler.reload(config)
        eventually(lambda: "reloaded" in pooler.log_text(), what="the settings are taken over")
        client.ask("SELECT 1")
        with pooler.raw() as other:
            assert other.value("SELECT to_regclass('pg_temp.secret') IS NULL") == "t"
            assert other.value("SHOW statement_timeout") == "0"
            assert other.value("SELECT pg_backend_pid()") != pid


def test_pools_without_clients_are_let_go(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """`min_pool_size` holds while there are clients; then idle servers are closed as any other."""
    pooler = make_pooler(pool_mode="transaction", min_pool_size=2, server_idle_timeout=1)
    for role in (ANN, BOB):
        with pooler.raw("app", role) as client:
            client.ask("SELECT 1")
            eventually(lambda: len(pg.backends()) >= 2, what="the pool is filled")
    eventually(lambda: not pg.backends(), what="the servers of pools without clients are closed")


def test_half_a_message_at_the_end_of_a_session(make_pooler: PoolerFactory) -> None:
    """The server waits for the rest of a CopyData: it is of no use to another session."""
    pooler = make_pooler(pool_mode="session", default_pool_size=1)
    with pooler.raw() as client:
        pid = client.value("SELECT pg_backend_pid()")
        client.send(b"d" + struct.pack("!i", 5000) + b"zz")
        pooler.wait_read(client)
    with pooler.raw() as other:
        assert other.value("SELECT pg_backend_pid()") != pid


def test_a_failed_copy_with_a_sync_and_a_query_behind_it(
    make_pooler: PoolerFactory, pg: PostgresCluster
) -> None:
    """The Sync is answered too, which must not make the query's answer another client's."""
    pg.sql(
        "DROP TABLE IF EXISTS copied; CREATE TABLE copied (a int); GRANT ALL ON copied TO ann", dbname="app"
    )
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.raw() as client, pooler.raw() as other:
        client.send(raw.query("COPY copied FROM STDIN"))
        assert client.receive().kind == b"G"
        other.send(raw.query("SELECT 'other'"))
        pooler.wait_read(other)
        client.send(raw.copy_data(b"notanumber\n"), raw.SYNC, raw.query("SELECT pg_sleep(0.2), 'mine'"))
        assert raw.kinds(client.receive_until()) == b"EZ"
        assert raw.kinds(client.receive_until()) == b"Z"
        assert raw.kinds(client.receive_until()) == b"TDCZ"
        client.close()
        frames = other.receive_until()
        assert [got.columns for got in frames if got.kind == b"D"] == [[b"other"]]
