"""The first bytes of a connection: negotiation, and input that no well-behaved client sends."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import rawclient as raw
from tests.support.postgres import ANN, TRUDY

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

GREASE = (3 << 16) | 9999


def _assert_alive(pooler: Pooler) -> None:
    with pooler.raw("transaction") as client:
        assert client.value("SELECT 'alive'") == "alive"


@pytest.mark.parametrize("request_", [raw.SSL_REQUEST, raw.GSSENC_REQUEST], ids=["SSL", "GSSENC"])
def test_encryption_is_declined(pooler: Pooler, request_: bytes) -> None:
    """SSLRequest and GSSENCRequest are answered by N; the login follows on the same connection."""
    with pooler.open_raw() as client:
        client.send(request_)
        assert client.receive_bytes(1) == b"N"
        assert client.login("session", ANN.name, ANN.password)[-1].kind == b"Z"


def test_both_kinds_of_encryption_are_declined(pooler: Pooler) -> None:
    """A client may ask for GSSAPI first and for TLS after that, as libpq does."""
    with pooler.open_raw() as client:
        for request in (raw.GSSENC_REQUEST, raw.SSL_REQUEST):
            client.send(request)
            assert client.receive_bytes(1) == b"N"
        assert client.login("session", ANN.name, ANN.password)[-1].kind == b"Z"


def test_sslmode_require_is_told_no(pooler: Pooler) -> None:
    """A libpq that insists on TLS gets a clear refusal instead of a hang."""
    with pytest.raises(psycopg.OperationalError, match="does not support SSL"):
        pooler.connect("session", sslmode="require")


def _negotiation(client: raw.RawClient, database: str, user: str, password: str) -> raw.Frame:
    parameters = {"user": user, "database": database, "_pq_.test_protocol_negotiation": "", "_pq_.other": "x"}
    client.send(raw.startup_packet(parameters, GREASE))
    frames = client.finish_login(user, password)
    assert frames[-1].kind == b"Z", frames[-1].fields
    return next(got for got in frames if got.kind == b"v")


@pytest.mark.hyperpool_only  # pgbouncer negotiates since 1.24
def test_negotiation_of_an_unknown_minor_version(pooler: Pooler, pg: PostgresCluster) -> None:
    """Protocol 3.9999 with unknown options is negotiated down to 3.2, in PostgreSQL's words but for the version."""
    with raw.RawClient((pg.host, pg.port)) as direct:
        expected = _negotiation(direct, "shared", TRUDY.name, "")
    with pooler.open_raw() as client:
        got = _negotiation(client, "session", ANN.name, ANN.password)
        assert got.body == b"\0\3\0\2" + expected.body[4:]
        assert client.value("SELECT 1") == "1"


@pytest.mark.hyperpool_only
def test_unsupported_major_version(pooler: Pooler) -> None:
    """Protocols 2 and 4 are refused with an ErrorResponse that names the matter."""
    for version in (2 << 16, 4 << 16):
        with pooler.open_raw() as client:
            client.send(raw.startup_packet({"user": ANN.name}, version))
            (got,) = client.receive_all()
            assert (got.kind, got.fields["S"]) == (b"E", "FATAL")
            assert "protocol" in got.fields["M"]


def test_the_user_is_required(pooler: Pooler) -> None:
    """A StartupMessage without a user is refused."""
    with pooler.open_raw() as client:
        client.send(raw.startup_packet({"database": "session"}))
        (got,) = client.receive_all()
        assert (got.kind, got.fields["S"]) == (b"E", "FATAL")


@pytest.mark.hyperpool_only  # pgbouncer knows no database of that name and says so in its own words
def test_the_database_defaults_to_the_user(pooler: Pooler) -> None:
    """A StartupMessage without a database means the database named like the user."""
    with pooler.open_raw() as client:
        client.send(raw.startup_packet({"user": ANN.name}))
        assert client.finish_login(ANN.name, ANN.password)[-1].fields["M"] == 'database "ann" does not exist'


@pytest.mark.hyperpool_only  # pgbouncer wants the first bytes in one packet
def test_startup_byte_by_byte(pooler: Pooler) -> None:
    """A login whose bytes arrive one by one succeeds."""
    with pooler.open_raw() as client:
        for byte in raw.SSL_REQUEST:
            client.send(bytes([byte]))
        assert client.receive_bytes(1) == b"N"
        for byte in raw.startup_packet({"user": ANN.name, "database": "session"}):
            client.send(bytes([byte]))
        assert client.finish_login(ANN.name, ANN.password)[-1].kind == b"Z"


def test_leave_at_once(pooler: Pooler) -> None:
    """Clients that connect and leave, or leave in the middle of the StartupMessage, do no harm."""
    packet = raw.startup_packet({"user": ANN.name, "database": "session"})
    for sent in (b"", packet[:3], packet[:20], packet):
        client = pooler.open_raw()
        client.send(sent)
        client.abort()
    _assert_alive(pooler)


_VERSION_3 = struct.pack("!i", 3 << 16)

HOSTILE_STARTUPS = {
    "length 0": struct.pack("!I", 0) + b"x" * 20,
    "length 4": struct.pack("!I", 4),
    "length 7": struct.pack("!I", 7) + b"\0\3\0",
    "length beyond PostgreSQL's limit": struct.pack("!I", 10_001) + _VERSION_3 + b"user\0" + b"x" * 9_990,
    "length 2^31 - 1": struct.pack("!I", 2**31 - 1) + _VERSION_3,
    "length 2^32 - 1": struct.pack("!I", 2**32 - 1) + _VERSION_3,
    "no terminator": struct.pack("!I", 12) + _VERSION_3 + b"user",
    "a name without value": struct.pack("!I", 14) + _VERSION_3 + b"user\0\0",
    "bytes behind the terminator": struct.pack("!I", 24) + _VERSION_3 + b"user\0ann\0\0garbage",
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS ClientHello": bytes.fromhex("160301007b010000770303") + b"\x5a" * 116,
    "zeros": b"\0" * 64,
    "ones": b"\xff" * 64,
    "cancel request too short": struct.pack("!II", 8, 80877102),
    "cancel request too long": struct.pack("!IIi", 600, 80877102, 1) + b"k" * 588,
    "SSLRequest with extra bytes": struct.pack("!II", 16, 80877103) + b"extra bytes"[:8],
}


@pytest.mark.hyperpool_only  # pgbouncer waits for more in some cases and is laxer in others
@pytest.mark.parametrize("name", HOSTILE_STARTUPS)
def test_hostile_startup(pooler: Pooler, name: str) -> None:
    """Malformed first bytes end in a protocol violation or a close, at once, and the pooler lives on."""
    with pooler.open_raw() as client:
        try:
            client.send(HOSTILE_STARTUPS[name])
            frames = client.receive_all()
        except raw.ConnectionEnded:
            frames = []
        for got in frames:
            assert (got.kind, got.fields["C"]) == (b"E", "08P01")
    _assert_alive(pooler)


HOSTILE_FRAMES = {
    "length 0": b"Q" + struct.pack("!I", 0),
    "length 3": b"Q" + struct.pack("!I", 3),
    "length 2^31": b"Q" + struct.pack("!I", 2**31),
    "length 2^32 - 1": b"Q" + struct.pack("!I", 2**32 - 1) + b"SELECT 1",
    "unknown type": raw.frame(b"\x7f", b"?"),
    "a server's frame": raw.frame(b"Z", b"I"),
    "a second StartupMessage": raw.startup_packet({"user": "ann"}),
    "password after login": raw.frame(b"p", b"again\0"),
    "HTTP": b"POST / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", HOSTILE_FRAMES)
def test_hostile_frame_after_login(pooler: Pooler, mode: str, name: str) -> None:
    """A frame that the protocol does not allow ends that client alone; its neighbour is not disturbed."""
    with pooler.raw(mode) as neighbour:
        with pooler.raw(mode) as client:
            client.send(HOSTILE_FRAMES[name])
            try:
                frames = client.receive_all()
            except TimeoutError:
                pytest.fail("the connection stayed open")
            # "HTTP" reads as a Parse of 1.3 GB that only the server refuses, which breaks its connection.
            assert all(got.fields["C"][:2] == "08" for got in frames if got.kind == b"E")
            assert all(got.kind in b"ENZ" for got in frames)
        assert neighbour.value("SELECT 'undisturbed'") == "undisturbed"


@pytest.mark.parametrize("name", HOSTILE_FRAMES)
def test_hostile_frame_inside_a_transaction(pooler: Pooler, block_mode: str, name: str) -> None:
    """Sent inside a transaction, such a frame also undoes the transaction; no server stays dirty."""
    table = f"hostile_{block_mode}"
    with pooler.raw(block_mode) as client:
        client.ask(f"BEGIN; CREATE TABLE {table} (n int)")
        client.send(HOSTILE_FRAMES[name])
        client.receive_all()
    with pooler.raw(block_mode) as other:
        assert raw.kinds(other.ask(f"CREATE TABLE {table} (n int); DROP TABLE {table}")) == b"CCZ"


def test_max_packet_size(make_pooler: PoolerFactory) -> None:
    """A frame up to `max_packet_size` is served, a longer one ends its client alone, by its header alone."""
    pooler = make_pooler(pool_mode="transaction", max_packet_size=1_000_000)
    with pooler.raw() as client, pooler.raw() as neighbour:
        assert len(client.value(f"SELECT '{'x' * 900_000}'")) == 900_000
        client.send(b"Q", struct.pack("!I", 1_000_001), b"SELECT ")
        assert [got.kind for got in client.receive_all()] == [b"E"]
        assert neighbour.value("SELECT 'undisturbed'") == "undisturbed"
