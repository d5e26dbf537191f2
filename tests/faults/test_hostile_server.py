"""Servers that break the protocol: at login, and later when one client's answer could end up with another."""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING

import pytest

from tests.support import rawclient as raw
from tests.support.fakeserver import AUTHENTICATION_OK, LOGIN, READY, FakeServer, row
from tests.support.poolers import config_for
from tests.support.postgres import ANN
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only  # pgbouncer lets clients wait for the next attempt to log in


def _error(*fields: bytes) -> bytes:
    return raw.frame(b"E", b"".join(field + b"\0" for field in fields) + b"\0")


_SASL = raw.frame(b"R", struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0")


def _sasl_continue(message: bytes) -> bytes:
    return raw.frame(b"R", struct.pack("!i", 11) + message)


LOGINS = {
    "closes at once": (b"",),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",),
    "frame of 4 GB": (b"R" + struct.pack("!I", 2**32 - 1),),
    "frame of 2 GB": (b"S" + struct.pack("!I", 2**31 - 1) + b"x" * 100_000,),
    "frame shorter than its length": (b"R" + struct.pack("!I", 3),),
    "AuthenticationOk too short": (raw.frame(b"R", b"\0\0"),),
    "unknown kind of authentication": (raw.frame(b"R", struct.pack("!i", 77)),),
    "Kerberos": (raw.frame(b"R", struct.pack("!i", 7)),),
    "unknown SASL mechanism": (raw.frame(b"R", struct.pack("!i", 10) + b"PLAIN\0\0"),),
    "SCRAM: somebody else's nonce": (_SASL, _sasl_continue(b"r=abc,s=QSXCR+Q6sek8bf92,i=4096")),
    "SCRAM: no fields": (_SASL, _sasl_continue(b"")),
    "SCRAM: final before continue": (_SASL, raw.frame(b"R", struct.pack("!i", 12) + b"v=AAAA")),
    "AuthenticationOk in place of SCRAM's proof": (_SASL, AUTHENTICATION_OK + READY),
    "query result in place of a login": (row("surprise") + READY,),
    "error without SQLSTATE": (_error(b"SFATAL", b"Mgo away"),),
    "error without any field": (_error(),),
    "error without terminator": (raw.frame(b"E", b"SFATAL\0Mgo away"),),
    "ParameterStatus without terminator": (AUTHENTICATION_OK + raw.frame(b"S", b"TimeZone"),),
    "BackendKeyData too short": (AUTHENTICATION_OK + raw.frame(b"K", b"\0"),),
    "ReadyForQuery before AuthenticationOk": (READY,),
    "ReadyForQuery inside a transaction": (LOGIN[: -len(READY)] + raw.frame(b"Z", b"T"),),
    "silence after AuthenticationOk": (AUTHENTICATION_OK,),
}


ANSWERS = {
    "a second answer behind the first": row("mine") + READY + row("poison") + READY,
    "a second ReadyForQuery": row("mine") + READY + READY,
    "half a frame behind the answer": row("mine") + READY + row("poison")[:9],
    "an error behind the answer": row("mine") + READY + _error(b"SERROR", b"CXX000", b"Mpoison"),
}


def test_a_server_that_hangs_up_after_each_login(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """A server that ends each connection as soon as it is open is not dialed again and again without a pause."""
    with FakeServer(LOGIN, hang_up=True) as fake:
        config = config_for(pg, pool_mode="transaction", min_pool_size=2)
        config["databases"]["app"] = {"host": "127.0.0.1", "port": fake.port, "user": ANN.name}
        make_pooler(config)
        eventually(lambda: fake.connections, what="the pooler tries to fill its pool")
        pg.sql("SELECT pg_sleep(1)")
        assert fake.connections < 50


BROKEN = {
    "frame shorter than its length": b"D" + struct.pack("!I", 2),
    "frame of 4 GB": b"D" + struct.pack("!I", 2**32 - 1),
    "a frontend's frame": raw.frame(b"Q", b"SELECT 1\0"),
    "unknown type": raw.frame(b"\x01"),
    "zeros": b"\0" * 50,
    "ReadyForQuery without status": raw.frame(b"Z"),
}
PASSED_ON = {"a frontend's frame", "unknown type"}


SCRIPTS = (
    LOGINS
    | {name: (LOGIN, answer) for name, answer in ANSWERS.items()}
    | {f"broken: {name}": (LOGIN, answer, b"") for name, answer in BROKEN.items()}
    | {"unsolicited": (LOGIN + row("poison") + READY,)}
)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, FakeServer]]:
    """A fake server for each script."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(FakeServer(*script)) for name, script in SCRIPTS.items()}


@pytest.fixture(scope="module")
def _pooler(
    make_module_pooler: PoolerFactory,
    _pg: PostgresCluster,
    servers: dict[str, FakeServer],
) -> Pooler:
    timeouts = {"server_connect_timeout": 2, "server_login_retry": 1}
    # The stand-ins for PostgreSQL answer what clients ask, and know no catalog.
    config = config_for(_pg, pool_mode="transaction", default_pool_size=1, session_state="keep", **timeouts)
    for name, server in servers.items():
        config["databases"][name] = {"host": "127.0.0.1", "port": server.port}
    return make_module_pooler(config)


@pytest.fixture
def pooler(_pooler: Pooler, watch: Callable[[Pooler], Pooler]) -> Pooler:
    """A pooler with a database per fake server, named by its script, and `app` on the real one."""
    return watch(_pooler)


@pytest.mark.parametrize("name", LOGINS)
def test_a_broken_login(pooler: Pooler, name: str) -> None:
    """A server that breaks the login costs its clients an error in time, and nobody else anything."""
    elapsed = Stopwatch()
    with pooler.open_raw() as client:
        frames = client.login(name, ANN.name, ANN.password)
        if frames[-1].kind == b"Z":
            client.send(raw.query("SELECT 1"))
            frames = client.receive_all()
    assert frames[-1].kind == b"E"
    assert elapsed.seconds < 10
    assert b"D" not in raw.kinds(frames)
    with pooler.raw("app") as neighbour:
        assert neighbour.value("SELECT 'undisturbed'") == "undisturbed"


@pytest.mark.parametrize("name", ANSWERS)
def test_nothing_is_left_for_the_next_client(
    pooler: Pooler,
    servers: dict[str, FakeServer],
    name: str,
) -> None:
    """What a server sends beyond its answer never reaches another client; the connection is given up."""
    with pooler.raw(name) as client:
        client.send(raw.query("SELECT 'mine'"))
        assert raw.kinds(client.receive_until())[:3] == b"TDC"
    with pooler.raw(name) as other:
        frames = other.ask("SELECT 'mine'")
        assert raw.kinds(frames) == b"TDCZ"
        assert frames[1].columns == [b"mine"]
    assert servers[name].connections == 2


def test_unsolicited_bytes_of_an_idle_server(pooler: Pooler) -> None:
    """Rows that a server sends while nobody asked are nobody's."""
    with pooler.open_raw() as client:
        frames = client.login("unsolicited", ANN.name, ANN.password)
        if frames[-1].kind == b"Z":
            client.send(raw.query("SELECT 1"))
            frames = client.receive_all()
    assert b"D" not in raw.kinds(frames)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer(pooler: Pooler, servers: dict[str, FakeServer], name: str) -> None:
    """An answer that is no protocol ends that client and that server; the next client gets a new server."""
    database = f"broken: {name}"
    with pooler.raw(database) as client:
        # A message of unknown meaning is passed on; the fake server hangs up after the Sync.
        client.send(raw.query("SELECT 1"))
        if name in PASSED_ON:
            assert client.receive().kind == BROKEN[name][:1]
            client.send(raw.SYNC)
        client.sock.settimeout(5)
        client.receive_all()
    with pooler.raw(database) as other:
        other.send(raw.query("SELECT 1"))
        eventually(lambda: servers[database].connections == 2, what="the next client gets a new server")
    with pooler.raw("app") as neighbour:
        assert neighbour.value("SELECT 'undisturbed'") == "undisturbed"
