"""Protocol 3.2: clients that speak it or more, and servers that speak it, settle for less or refuse it."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import rawclient as raw
from tests.support.fakeserver import LOGIN, READY, FakeServer, login, row
from tests.support.network import free_port
from tests.support.poolers import config_for
from tests.support.postgres import ANN
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.targets import Config

pytestmark = pytest.mark.hyperpool_only  # pgbouncer 1.18 knows protocol 3.0 alone

LIBPQ_18 = pytest.mark.skipif(
    psycopg.pq.version() < 180000, reason="libpq speaks protocol 3.2 since version 18"
)


def _log_in(
    pooler: Pooler, minor: int, database: str, **options: str
) -> tuple[raw.RawClient, list[raw.Frame]]:
    client = pooler.open_raw()
    client.send(raw.startup_packet({"user": ANN.name, "database": database, **options}, 3 << 16 | minor))
    return client, client.finish_login(ANN.name, ANN.password)


# -- clients -----------------------------------------------------------------------------------------------------------

# minor version, protocol option -> the version that is negotiated (None: without a word), bytes of the secret
ASKED = {
    "3.0": (0, "", None, 4),
    "3.0 with an option": (0, "_pq_.other", 0, 4),
    "3.1, which there is not": (1, "", 0, 4),
    "3.2": (2, "", None, 32),
    "3.2 with an option": (2, "_pq_.other", 2, 32),
    "3.3": (3, "", 2, 32),
    "grease of libpq 19": (9999, "_pq_.test_protocol_negotiation", 2, 32),
}


@pytest.mark.parametrize("asked", ASKED)
def test_what_a_client_is_given(pooler: Pooler, pg: PostgresCluster, mode: str, asked: str) -> None:
    """The newest version that both know, unknown options by name, and a secret of a length that it understands."""
    minor, option, negotiated, length = ASKED[asked]
    client, frames = _log_in(pooler, minor, mode, **({option: "1"} if option else {}))
    with client:
        expected = []
        if negotiated is not None:
            names = option.encode() + b"\0" if option else b""
            expected = [struct.pack("!ii", 3 << 16 | negotiated, bool(option)) + names]
        assert [got.body for got in frames if got.kind == b"v"] == expected
        if expected:
            assert frames[0].kind == b"v"
        assert len(client.secret) == length
        client.send(raw.query(f"SELECT pg_sleep(30) /* given {minor} */"))
        pg.wait_active(f"given {minor} ")
        pooler.cancel(client.pid, client.secret[:4] + b"\0" * (length - 4) if length > 4 else b"\0" * 4)
        pooler.cancel(client.pid, client.secret + b"\0")
        pooler.cancel(client.pid, client.secret)
        assert next(got.fields["C"] for got in client.receive_until() if got.kind == b"E") == "57014"
        assert client.value("SELECT 'goes on'") == "goes on"


def test_wrong_secrets_cancel_nothing(pooler: Pooler, pg: PostgresCluster, mode: str) -> None:
    """All 32 bytes of a long secret count, and no more than them."""
    client, _ = _log_in(pooler, 2, mode)
    with client:
        client.send(raw.query("SELECT pg_sleep(0.5) /* long secret */"))
        pg.wait_active("long secret")
        secret = client.secret
        for wrong in (secret[:4], secret[:-1], secret + secret[:1], secret[:-1] + bytes([secret[-1] ^ 1])):
            pooler.cancel(client.pid, wrong)
        assert raw.kinds(client.receive_until()) == b"TDCZ"


@LIBPQ_18
def test_libpq_that_insists_on_the_latest_protocol(pooler: Pooler, pg: PostgresCluster, mode: str) -> None:
    """It gets 3.2, whatever the server speaks, and its cancel requests arrive."""
    with pooler.connect(mode, min_protocol_version="3.2", max_protocol_version="latest") as connection:
        assert connection.pgconn.full_protocol_version == 30002
        assert connection.execute("SELECT 1").fetchone() == (1,)
        statement = f"SELECT pg_sleep(30) /* libpq {mode} */"
        with (
            pg.when_asleep(statement, connection.cancel_safe),
            pytest.raises(psycopg.errors.QueryCanceled),
        ):
            connection.execute(statement.encode())


# -- servers -----------------------------------------------------------------------------------------------------------


def _in_front_of(pg: PostgresCluster, fake: FakeServer) -> Config:
    # So that nothing is asked but what a client asks.
    config = config_for(pg, pool_mode="session", server_reset_query="")
    config["databases"]["app"] = {"host": "127.0.0.1", "port": fake.port}
    return config


ANSWER = row("1") + READY


@pytest.mark.parametrize("length", [4, 32, 256])
def test_a_server_with_a_cancel_secret_of_any_length(
    make_pooler: PoolerFactory, pg: PostgresCluster, length: int
) -> None:
    """The server is asked for 3.2, and gets its secret back when its query is canceled; the client has another one."""
    secret = bytes(range(256))[-length:]
    with FakeServer(login(secret), ANSWER) as fake:
        pooler = make_pooler(_in_front_of(pg, fake))
        with pooler.raw() as client:
            assert fake.versions == [2]
            assert len(client.secret) == 4
            client.send(raw.query("SELECT 1"), raw.query("SELECT 'this one is not answered'"))
            assert raw.kinds(client.receive_until()) == b"TDCZ"
            pooler.cancel(client.pid, client.secret)
            assert fake.cancels == [struct.pack("!i", 4711) + secret]


def test_a_server_that_settles_for_3_0(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """One connection is enough, and a client may speak 3.2 all the same."""
    with FakeServer(login(b"s3cr", minor=0), ANSWER) as fake:
        pooler = make_pooler(_in_front_of(pg, fake))
        client, _ = _log_in(pooler, 2, "app")
        with client:
            assert (fake.versions, len(client.secret)) == ([2], 32)
            assert client.value("SELECT 1") == "1"


REFUSALS = {
    "PostgreSQL before 10.2": raw.frame(
        b"E", b"SFATAL\0C0A000\0Munsupported frontend protocol 3.2: server supports 1.0 to 3.0\0\0"
    ),
    "pgbouncer before 1.23": raw.frame(b"E", b"SFATAL\0C08P01\0Mbad packet header: '0000001f00030002'\0\0"),
    "not a word": b"",
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_server_that_knows_nothing_newer(
    make_pooler: PoolerFactory, pg: PostgresCluster, refusal: str
) -> None:
    """It is asked again for 3.0, and from then on for nothing else, by all pools; no client notices."""
    with FakeServer(LOGIN, ANSWER, refusal=REFUSALS[refusal]) as fake:
        config = _in_front_of(pg, fake)
        config["databases"]["other"] = config["databases"]["app"]
        pooler = make_pooler(config)
        with pooler.raw() as client:
            assert client.value("SELECT 1") == "1"
        assert fake.versions == [2, 0]
        with pooler.raw("other") as client:
            assert client.value("SELECT 1") == "1"
        assert fake.versions == [2, 0, 0]
        assert pooler.log_text().count("server speaks protocol 3.0 alone") == 1


def test_a_refusal_of_another_kind_is_not_repeated(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """The client reads it, and the server is left in peace."""
    full = raw.frame(b"E", b"SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0\0")
    with FakeServer(full, hang_up=True) as fake:
        pooler = make_pooler(_in_front_of(pg, fake))
        assert pooler.refused().fields["M"] == "sorry, too many clients already"
        assert fake.versions[0] == 2
        assert 0 not in fake.versions


# -- another pooler behind ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _pgbouncer(pg: PostgresCluster, directory: Path) -> Iterator[int]:
    """Run pgbouncer in front of PostgreSQL; yields its port."""
    program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
    if program is None:
        pytest.skip("no pgbouncer on this machine")
    port = free_port()
    for path in [directory, *list(directory.parents)[:2]]:
        path.chmod(0o755)
    users = directory / "users.txt"
    users.write_text(f'"{ANN.name}" "{ANN.password}"\n')
    settings = directory / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\napp = host={pg.host} port={pg.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n"
        "pool_mode = session\n"
    )
    account = ["-u", "postgres"] if os.geteuid() == 0 else []
    process = subprocess.Popen([program, "-q", *account, str(settings)], cwd=directory)

    def listens() -> bool:
        with raw.RawClient(("127.0.0.1", port)):
            return True

    try:
        eventually(listens, what="pgbouncer listens", despite=(OSError,))
        yield port
    finally:
        process.kill()
        process.wait(10)


def test_pgbouncer_as_the_server(make_pooler: PoolerFactory, pg: PostgresCluster, tmp_path: Path) -> None:
    """Whether it refuses 3.2 (before 1.23) or settles for 3.0: queries and cancel requests go through."""
    with _pgbouncer(pg, tmp_path) as port:
        config = config_for(pg, pool_mode="transaction")
        config["databases"]["app"] = {"host": "127.0.0.1", "port": port, "dbname": "app"}
        pooler = make_pooler(config)
        client, _ = _log_in(pooler, 2, "app")
        with client:
            assert client.value("SELECT 1") == "1"
            client.send(raw.query("SELECT pg_sleep(30) /* behind pgbouncer */"))
            pg.wait_active("behind pgbouncer")
            pooler.cancel(client.pid, client.secret)
            assert next(got.fields["C"] for got in client.receive_until() if got.kind == b"E") == "57014"
        pooler.stop()
