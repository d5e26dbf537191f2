"""TLS of clients: real drivers, certificates, a reload, large results; and clients that mean no good."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import pytest

from tests.support import rawclient as raw
from tests.support.certificates import CA, OTHER_CA, client_side, issue
from tests.support.poolers import config_for
from tests.support.postgres import ANN
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import PoolerFactory
    from tests.support.certificates import Files
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.tlspostgres import TlsPostgres

pytestmark = pytest.mark.hyperpool_only

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
GSSENC_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x30"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """The pooler's certificate."""
    return issue(tmp_path / "pooler", "localhost", "127.0.0.1")


def settings(pg: PostgresCluster, files: Files, mode: str = "require", **pooler: object) -> dict[str, Any]:
    """A pooler that offers TLS."""
    return config_for(
        pg,
        client_tls_sslmode=mode,
        client_tls_cert_file=str(files.cert),
        client_tls_key_file=str(files.key),
        **pooler,
    )


def context(ca: Any = CA, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """What a client of this file brings along."""
    made = client_side(ca)
    if version is not None:
        made.minimum_version = made.maximum_version = version
    return made


def dial(pooler: Pooler, first: bytes = b"") -> socket.socket:
    """A connection of exact bytes."""
    sock = socket.create_connection(("127.0.0.1", pooler.port), timeout=10)
    sock.sendall(first)
    return sock


def shake_hands(pooler: Pooler, made: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    """Ask for TLS, and do the handshake."""
    sock = dial(pooler, SSL_REQUEST)
    assert sock.recv(100) == b"S"
    try:
        return (made or context()).wrap_socket(sock, server_hostname="localhost")
    except BaseException:
        sock.close()
        raise


def read_all(sock: socket.socket) -> bytes:
    """Read up to the end, which must come; however it comes."""
    found = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := sock.recv(65536):
            found += data
    return found


# -- Drivers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["allow", "prefer", "require"])
@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_psycopg(
    pg: PostgresCluster, files: Files, make_pooler: PoolerFactory, mode: str, negotiation: str
) -> None:
    """Libpq verifies the certificate, and insists on channel binding: one client as the next."""
    pooler = make_pooler(settings(pg, files, mode))
    for _ in range(2):
        with pooler.connect(
            sslmode="verify-full",
            sslrootcert=str(files.ca),
            channel_binding="require",
            sslnegotiation=negotiation,
        ) as connection:
            assert connection.pgconn.ssl_in_use
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_psycopg_cancels(pg: PostgresCluster, files: Files, make_pooler: PoolerFactory) -> None:
    """Libpq sends its cancel request with TLS."""
    pooler = make_pooler(settings(pg, files))
    statement = "SELECT pg_sleep(30) /* to be canceled by a client with TLS */"
    with (
        pooler.connect(sslmode="require") as connection,
        pg.when_asleep(statement, connection.cancel_safe),
        pytest.raises(psycopg.errors.QueryCanceled),
    ):
        connection.execute(statement)


def test_asyncpg(pg: PostgresCluster, files: Files, make_pooler: PoolerFactory) -> None:
    """A driver that brings Python's own TLS along."""
    pooler = make_pooler(settings(pg, files))

    async def ask() -> int:
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=pooler.port,
            user=ANN.name,
            password=ANN.password,
            database="app",
            ssl=context(),
        )
        try:
            found: int = await connection.fetchval("SELECT $1::int + 1", 41)
            return found
        finally:
            await connection.close()

    assert asyncio.run(ask()) == 42


def test_without_tls(pg: PostgresCluster, files: Files, make_pooler: PoolerFactory) -> None:
    """Where TLS is offered, nobody must take it; where it is required, everybody must."""
    with make_pooler(settings(pg, files, "allow")).connect(sslmode="disable") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    required = make_pooler(settings(pg, files, "require"))
    with pytest.raises(psycopg.OperationalError, match="connections without TLS are not allowed"):
        required.connect(sslmode="disable")


def test_a_unix_socket_needs_none(
    pg: PostgresCluster, files: Files, make_pooler: PoolerFactory, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As in pgbouncer, a Unix socket has no TLS, whatever is required elsewhere."""
    directory = tmp_path_factory.mktemp("s")
    pooler = make_pooler(settings(pg, files, "require", unix_socket_dir=str(directory)))
    with pooler.connect(host=str(directory)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


# -- Certificates of clients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_certificates_of_clients(
    pg: PostgresCluster, files: Files, make_pooler: PoolerFactory, tmp_path: Path, mode: str
) -> None:
    """One of the authority is let in to the login, none or one of another authority is not."""
    pooler = make_pooler(settings(pg, files, mode, client_tls_ca_file=str(files.ca)))
    mine, other = issue(tmp_path / "mine", "client"), issue(tmp_path / "other", "client", ca=OTHER_CA)
    for found in (mine, other):
        found.key.chmod(0o600)

    with pooler.connect(sslmode="require", sslcert=str(mine.cert), sslkey=str(mine.key)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    for cert, key in (("/none", "/none"), (str(other.cert), str(other.key))):
        with pytest.raises(psycopg.OperationalError, match=r"certificate required|unknown ca"):
            pooler.connect(sslmode="require", sslcert=cert, sslkey=key)


# -- Reload ------------------------------------------------------------------------------------------------------


def serial(pooler: Pooler) -> int:
    """The number of the certificate that is shown."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    with shake_hands(pooler, made) as sock:
        return hash(sock.getpeercert(binary_form=True))


def test_a_new_certificate(
    pg: PostgresCluster, files: Files, make_pooler: PoolerFactory, tmp_path: Path
) -> None:
    """A reload takes it; connections stay. One that cannot be used changes nothing but the log."""
    config = settings(pg, files)
    pooler = make_pooler(config)
    with pooler.connect(sslmode="require") as connection:
        first = serial(pooler)
        issue(tmp_path / "pooler", "localhost", "127.0.0.1")
        assert serial(pooler) == first
        pooler.reload(config)
        eventually(lambda: serial(pooler) != first, within=10, what="the new certificate is shown")
        second = serial(pooler)

        mark = pooler.log_size()
        issue(tmp_path / "another", "localhost")
        files.key.write_bytes((tmp_path / "another" / "key.pem").read_bytes())
        pooler.reload(config)
        eventually(
            lambda: (
                "pooler.client_tls_key_file: found a key that does not belong to the certificate"
                in pooler.log_text(mark)
            ),
            within=10,
            what="the log says why",
        )
        assert serial(pooler) == second
        assert connection.execute("SELECT 1").fetchone() == (1,)
        with pooler.connect(sslmode="verify-full", sslrootcert=str(files.ca), channel_binding="require"):
            pass
    issue(tmp_path / "pooler", "localhost", "127.0.0.1")


# -- Large results, pipelines ------------------------------------------------------------------------------------


@pytest.fixture
def covered(tls_pg: TlsPostgres, files: Files, make_pooler: PoolerFactory) -> Pooler:
    """A pooler with TLS on both sides."""
    config = settings(tls_pg, files)
    config["databases"] = {
        "app": {
            "host": "localhost",
            "port": tls_pg.port,
            "sslmode": "verify-full",
            "sslrootcert": str(files.ca),
            "channel_binding": "require",
            "pool_mode": "transaction",
        }
    }
    return make_pooler(config)


def test_100_megabytes_both_ways(covered: Pooler) -> None:
    """Nothing is lost, added or changed, with TLS on both sides."""
    line = b"0123456789abcdef" * 64 + b"\n"
    sent, got = hashlib.sha256(), hashlib.sha256()
    with covered.connect(sslmode="require") as connection, connection.transaction():
        connection.execute("CREATE TEMPORARY TABLE big (line text) ON COMMIT DROP")
        with connection.cursor().copy("COPY big FROM STDIN") as copy:
            for number in range(100):
                block = line * 1023 + b"%d\n" % number
                sent.update(block)
                copy.write(block)
        with connection.cursor().copy("COPY big TO STDOUT") as copy:
            for data in copy:
                got.update(data)

    assert got.digest() == sent.digest()


def test_a_slow_reader(covered: Pooler) -> None:
    """A result that nobody reads stays where it is, and comes whole when it is asked for."""
    with covered.connect(sslmode="require") as connection:
        connection.pgconn.send_query(b"SELECT repeat('x', 1000) FROM generate_series(1, 50000)")
        with covered.connect(sslmode="require") as other:
            assert other.execute("SELECT 1").fetchone() == (1,)
        result = connection.pgconn.get_result()
        assert result is not None
        assert result.ntuples == 50_000
        while connection.pgconn.get_result() is not None:
            pass


def test_a_pipeline(covered: Pooler) -> None:
    """Many requests in one go, with answers of many sizes."""
    sizes = [number * number % 50_021 for number in range(500)]
    with covered.connect(sslmode="require") as connection, connection.pipeline():
        cursors = [connection.execute("SELECT repeat('y', %s)", [size]) for size in sizes]
        lengths = [len((cursor.fetchone() or ("",))[0]) for cursor in cursors]

    assert lengths == sizes


# -- Clients that mean no good -----------------------------------------------------------------------------------


@pytest.fixture
def guarded(pg: PostgresCluster, files: Files, make_pooler: PoolerFactory) -> Iterator[Pooler]:
    """A pooler with TLS and little patience; in the end it still serves."""
    pooler = make_pooler(settings(pg, files, "require", client_login_timeout=1))
    yield pooler
    with pooler.connect(sslmode="require") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_bytes_behind_the_request(guarded: Pooler) -> None:
    """What comes in clear behind SSLRequest is not taken for what comes with TLS."""
    with dial(guarded, SSL_REQUEST + raw.startup_packet({"user": "ann", "database": "app"})) as sock:
        answer = read_all(sock)

    assert answer.startswith(b"E")
    assert b"received unencrypted data after SSL request" in answer


def test_bytes_behind_the_answer(guarded: Pooler) -> None:
    """Nor is what comes in clear behind the pooler's yes."""
    with dial(guarded, SSL_REQUEST) as sock:
        assert sock.recv(1) == b"S"
        sock.sendall(raw.startup_packet({"user": "ann", "database": "app"}))
        assert b"R" not in read_all(sock)[:1]


def test_encryption_requests_in_any_order(guarded: Pooler) -> None:
    """GSSAPI is declined, and TLS may be asked for then; within TLS nothing may be asked for again."""
    with dial(guarded, GSSENC_REQUEST) as sock:
        assert sock.recv(100) == b"N"
        sock.sendall(SSL_REQUEST)
        assert sock.recv(100) == b"S"
    for request in (SSL_REQUEST, GSSENC_REQUEST):
        with shake_hands(guarded) as sock:
            sock.sendall(request)
            assert b"repeated request for encryption" in read_all(sock)


def test_direct_tls_without_alpn(guarded: Pooler) -> None:
    """Somebody may have been talked into speaking another protocol: nothing is begun."""
    with context().wrap_socket(dial(guarded), server_hostname="localhost") as sock:
        assert b"without ALPN protocol negotiation" in read_all(sock)


def test_an_old_version(guarded: Pooler) -> None:
    """TLS 1.2 is the oldest that is spoken by default."""
    made = context()
    made.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        made.minimum_version = made.maximum_version = ssl.TLSVersion.TLSv1
    with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|protocol version"):
        shake_hands(guarded, made)
    with shake_hands(guarded, context(version=ssl.TLSVersion.TLSv1_2)) as sock:
        assert sock.version() == "TLSv1.2"


@pytest.mark.parametrize(
    "hello",
    [
        b"\x16\x03\x01\xff\xff" + b"\x01\x00\xff\xfb" + bytes(65_531),
        b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + bytes(16_380),
        b"\x16" + bytes(100_000),
        b"\x16\x03\x01\x00\x05hello",
    ],
    ids=["long record", "long ClientHello", "zeros", "no ClientHello"],
)
def test_no_handshake(guarded: Pooler, hello: bytes) -> None:
    """Whatever it is, the connection ends at once, or when its time is over."""
    began = time.monotonic()
    with dial(guarded) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(hello)
        read_all(sock)

    assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    "begun", [b"", b"\x16", b"\x16\x03\x01\x02\x00"], ids=["silence", "a byte", "a header"]
)
@pytest.mark.parametrize("request_", [b"", SSL_REQUEST], ids=["direct", "asked for"])
def test_a_handshake_that_is_never_finished(guarded: Pooler, request_: bytes, begun: bytes) -> None:
    """client_login_timeout is its end, too."""
    with dial(guarded, request_) as sock:
        if request_:
            assert sock.recv(1) == b"S"
        sock.sendall(begun)
        answer = read_all(sock)

    assert answer == b"" or b"client_login_timeout" in answer


def test_a_handshake_byte_by_byte(guarded: Pooler) -> None:
    """However it is cut, it is one."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    made = context()
    made.set_alpn_protocols(["postgresql"])
    tls = made.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with dial(guarded) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    sock.sendall(bytes([byte]))
                incoming.write(sock.recv(65536))
        tls.write(raw.startup_packet({"user": "ann", "database": "app"}))
        for byte in outgoing.read():
            sock.sendall(bytes([byte]))
        while True:
            try:
                assert tls.read(1) == b"R"
                break
            except ssl.SSLWantReadError:
                incoming.write(sock.recv(65536))
