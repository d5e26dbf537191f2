"""Logging in to a server, and cancelling what it does, against scripted servers on streams in memory."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, cast

import attrs
import pytest
import trio

from hyperpool.auth.scram import ScramServer, ScramVerifier, pbkdf2
from hyperpool.config.transports import TcpStep
from hyperpool.errors import ConnectFailed, LoginFailed
from hyperpool.pool.login import Way, cancel, connect
from hyperpool.transport.sockets import TcpOptions
from hyperpool.wire import messages
from tests.support.checkpoints import cancel_everywhere
from tests.support.memorynet import sends

if TYPE_CHECKING:
    from trio.testing import MockClock

    from hyperpool.config import PoolSettings
    from tests.support.memorynet import ClientEnd, MemoryNetwork, PeerEnd, Script

OPTIONS = TcpOptions(keepidle=5)
OK = messages.authentication_ok()
KEY = messages.backend_key_data(4711, b"s3cr")
READY = messages.ready_for_query()
STATUSES = messages.parameter_status("TimeZone", "UTC") + messages.parameter_status("client_encoding", "UTF8")
WELCOME = OK + STATUSES + KEY + READY
REFUSAL = messages.error_response(
    'password authentication failed for user "ann"', "28P01", detail="in so many words", hint="try harder"
)


def way_to(network: MemoryNetwork, settings: PoolSettings) -> Way:
    """The way to the pool's only server."""
    route = network.route(settings, OPTIONS)
    return Way(route, route.targets[0])


def hangs_up_after(sent: bytes) -> Script:
    """A server that answers the StartupMessage so, and closes."""

    async def script(server: PeerEnd) -> None:
        await server.read_packet()
        await server.send(sent)
        await server.close()
        raise EOFError

    return script


# -- logins that succeed -----------------------------------------------------------------------------------------------


async def test_trust(network: MemoryNetwork, settings: PoolSettings) -> None:
    """The server asks for nothing: what it reports is kept, and the stream belongs to the caller."""
    packets = []

    async def script(server: PeerEnd) -> None:
        packets.append(await server.read_packet())
        await server.send(WELCOME)

    network.script = script
    login = await connect(network.route(settings, OPTIONS))
    assert network.dialed == [("db.example", 5433, OPTIONS)]
    assert network.held == [login.stream]
    assert login.parameters == {"TimeZone": "UTC", "client_encoding": "UTF8"}
    assert (login.pid, login.secret) == (4711, b"s3cr")
    assert packets == [
        messages.startup_message({"TimeZone": "UTC", "database": "shop", "user": "ann"}, (3, 2))
    ]
    assert login.minor == 2


async def test_a_replication_connection(network: MemoryNetwork, settings: PoolSettings) -> None:
    """The startup parameter is passed on with the others."""
    packets = []

    async def script(server: PeerEnd) -> None:
        packets.append(await server.read_packet())
        await server.send(WELCOME)

    network.script = script
    await connect(
        network.route(
            attrs.evolve(settings, replication="database", parameters={"options": "-c a=b"}), OPTIONS
        )
    )
    assert packets[0][8:] == (b"options\0-c a=b\0database\0shop\0replication\0database\0user\0ann\0\0")


async def test_a_long_cancel_secret(network: MemoryNetwork, settings: PoolSettings) -> None:
    """A server that speaks protocol 3.2 may give up to 256 bytes."""
    network.script = sends(OK + messages.backend_key_data(4711, b"s" * 256) + READY)
    login = await connect(network.route(settings, OPTIONS))
    assert (login.pid, login.secret) == (4711, b"s" * 256)


async def test_any_chunks(network: MemoryNetwork, settings: PoolSettings) -> None:
    """Messages may come byte by byte, with notices and repeated parameters among them."""
    notice = messages.notice_response("hello", "00000")
    stale = messages.parameter_status("TimeZone", "Antarctica/Troll")
    network.script = sends(
        *map(bytes, zip(notice + OK + stale + STATUSES + notice + KEY + READY, strict=True))
    )
    login = await connect(network.route(settings, OPTIONS))
    assert login.parameters["TimeZone"] == "UTC"


async def test_no_cancel_key(network: MemoryNetwork, settings: PoolSettings) -> None:
    """A server need not give a key."""
    network.script = sends(OK + READY)
    login = await connect(network.route(settings, OPTIONS))
    assert (login.parameters, login.pid, login.secret) == ({}, 0, b"")


async def test_cleartext_password(network: MemoryNetwork, settings: PoolSettings) -> None:
    """The password goes out as the server asks for it."""
    received: list[tuple[bytes, bytes]] = []

    async def script(server: PeerEnd) -> None:
        await server.read_packet()
        await server.send(messages.authentication_cleartext_password())
        received.append(await server.read_message())
        await server.send(WELCOME)

    network.script = script
    await connect(network.route(settings, OPTIONS))
    assert received == [(b"p", b"pencil\0")]


async def test_md5_password(network: MemoryNetwork, settings: PoolSettings) -> None:
    """md5(md5(password + user) + salt), protocol chapter "Message Flow"."""
    received: list[tuple[bytes, bytes]] = []

    async def script(server: PeerEnd) -> None:
        await server.read_packet()
        await server.send(messages.authentication_md5_password(b"salt"))
        received.append(await server.read_message())
        await server.send(WELCOME)

    network.script = script
    await connect(network.route(settings, OPTIONS))
    inner = hashlib.md5(b"pencilann").hexdigest().encode()
    assert received == [(b"p", b"md5" + hashlib.md5(inner + b"salt").hexdigest().encode() + b"\0")]


def scram_script(password: str, *, forged: bool = False) -> Script:
    """A server that asks for SCRAM-SHA-256."""
    salt = b"0123456789abcdef"
    verifier = ScramVerifier.from_salted(pbkdf2(password, salt, 10), salt, 10)

    async def script(server: PeerEnd) -> None:
        await server.read_packet()
        await server.send(messages.authentication_sasl(["SCRAM-SHA-256"]))
        kind, body = await server.read_message()
        name, _, rest = body.partition(b"\0")
        assert (kind, name) == (b"p", b"SCRAM-SHA-256")
        assert struct.unpack_from("!I", rest)[0] == len(rest) - 4
        exchange = ScramServer(verifier)
        await server.send(messages.authentication_sasl_continue(exchange.challenge(rest[4:])))
        kind, body = await server.read_message()
        final = exchange.finish(body)
        if final is None:
            await server.send(REFUSAL)
        else:
            last = b"v=" + b"A" * 43 + b"=" if forged else final
            await server.send(messages.authentication_sasl_final(last), WELCOME)

    return script


async def test_scram(network: MemoryNetwork, settings: PoolSettings) -> None:
    """The whole exchange."""
    network.script = scram_script("pencil")
    login = await connect(network.route(settings, OPTIONS))
    assert login.pid == 4711


# -- logins that fail --------------------------------------------------------------------------------------------------


async def refused(network: MemoryNetwork, settings: PoolSettings) -> LoginFailed:
    """Log in, expecting a refusal that leaves nothing behind."""
    with pytest.raises(LoginFailed) as caught:
        await connect(network.route(settings, OPTIONS))
    assert not network.held
    return caught.value


async def test_wrong_password(network: MemoryNetwork, settings: PoolSettings) -> None:
    """The server refuses the proof."""
    network.script = scram_script("other")
    error = await refused(network, settings)
    assert (str(error), error.sqlstate) == ('password authentication failed for user "ann"', "28P01")


async def test_server_that_does_not_know_the_password(network: MemoryNetwork, settings: PoolSettings) -> None:
    """A server that cannot prove that it knows the password is not believed; no word of it reaches a client."""
    network.script = scram_script("pencil", forged=True)
    error = await refused(network, settings)
    assert (error.sqlstate, error.response) == ("08004", b"")


@pytest.mark.parametrize("before", [b"", OK, OK + STATUSES, messages.notice_response("x", "00000")])
async def test_error_response_is_kept_whole(
    network: MemoryNetwork, settings: PoolSettings, before: bytes
) -> None:
    """A client gets the server's own words, whenever the refusal comes."""
    network.script = sends(before + REFUSAL)
    error = await refused(network, settings)
    assert error.response == REFUSAL
    assert (str(error), error.sqlstate) == ('password authentication failed for user "ann"', "28P01")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"N",
        b"\0" * 9,
        b"\xff" * 9,
        b"R\0\0\0\3",
        struct.pack("!cI", b"R", (1 << 20) + 1),
        struct.pack("!cI", b"E", 0xFFFFFFFF),
        messages.frame(ord("R"), b"\0\0"),
        messages.frame(ord("R"), struct.pack("!I", 99)),
        messages.authentication_sasl_continue(b"r=x"),
        messages.frame(ord("E"), b"Mno terminator"),
        READY,
        KEY,
        OK + OK,
        OK + messages.ready_for_query(b"T"),
        OK + messages.frame(ord("S"), b"name without value\0"),
        OK + messages.frame(ord("K"), b"abc"),
        OK + messages.frame(ord("D"), b"\0\0"),
    ],
)
async def test_garbage(network: MemoryNetwork, settings: PoolSettings, answer: bytes) -> None:
    """What is not a login is refused as soon as that is clear, without waiting for more."""
    # A type byte alone is clear of nothing: what follows it makes it wrong.
    network.script = sends(answer if len(answer) > 1 else answer * 5)
    error = await refused(network, settings)
    assert "protocol" in str(error)
    assert (error.sqlstate, error.response) == ("08004", b"")


@pytest.mark.parametrize(
    "behind", [b"\0", READY, messages.parameter_status("TimeZone", "UTC"), REFUSAL], ids=len
)
async def test_bytes_behind_ready_for_query(
    network: MemoryNetwork, settings: PoolSettings, behind: bytes
) -> None:
    """They would be taken for the answer to the first query: such a server is not used."""
    network.script = sends(WELCOME + behind)
    assert "more than it was asked" in str(await refused(network, settings))


async def test_the_server_hangs_up(network: MemoryNetwork, settings: PoolSettings) -> None:
    """Wherever it does that, it is a broken connection."""
    for length in range(len(WELCOME)):
        network.script = hangs_up_after(WELCOME[:length])
        with pytest.raises(ConnectFailed, match="closed the connection during login"):
            await connect(network.route(settings, OPTIONS))
    # One that has not said a whole word is asked again in protocol 3.0.
    assert len(network.ends) == len(WELCOME) + len(OK)
    assert not network.held


async def test_the_connection_breaks(
    network: MemoryNetwork, settings: PoolSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream's reason is told."""

    async def broken(self: object, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError("Broken pipe")

    monkeypatch.setattr("tests.support.memorynet.ClientEnd.send_all", broken)
    with pytest.raises(ConnectFailed, match="connection broke during login: Broken pipe"):
        await connect(network.route(settings, OPTIONS))
    assert not network.held


async def test_startup_parameters_that_no_server_takes(
    network: MemoryNetwork, settings: PoolSettings
) -> None:
    """More than fits into a StartupMessage: it is not the server that is to blame."""
    with pytest.raises(LoginFailed, match="startup parameters take") as caught:
        await connect(
            network.route(attrs.evolve(settings, parameters={"application_name": "x" * 10_000}), OPTIONS)
        )
    assert "broke the protocol" not in str(caught.value)
    assert not network.held


# -- time ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["deaf", "silent", "endless"])
def stuck(request: pytest.FixtureRequest) -> Script:
    """Servers that never finish a login, each in its way."""

    async def deaf(server: PeerEnd) -> None:
        await trio.sleep_forever()

    async def endless(server: PeerEnd) -> None:
        await server.send(OK)
        while True:
            await server.send(messages.notice_response("please hold the line", "00000"))
            await trio.sleep(1)

    return {"deaf": deaf, "silent": sends(OK[:5]), "endless": endless}[request.param]


async def test_server_connect_timeout(
    network: MemoryNetwork, settings: PoolSettings, stuck: Script, autojump_clock: MockClock
) -> None:
    """It is a limit for the whole login."""
    network.script = stuck
    began = trio.current_time()
    with pytest.raises(ConnectFailed) as caught:
        await connect(network.route(attrs.evolve(settings, server_connect_timeout=15.0), OPTIONS))
    assert trio.current_time() - began == pytest.approx(15.0)
    assert str(caught.value) == (
        "server db.example:5433 did not log us in within 15 s (server_connect_timeout), it waited for login ann"
    )
    assert not network.held


async def test_a_server_without_an_address_of_its_own(
    network: MemoryNetwork, settings: PoolSettings, stuck: Script, autojump_clock: MockClock
) -> None:
    """Where the settings only have the way, messages do not claim more."""
    way = (TcpStep(host="db.example", port=5433),)
    behind = attrs.evolve(settings, host="127.0.0.1", port=5432, transport=way, server_connect_timeout=15.0)
    network.script = stuck
    with pytest.raises(ConnectFailed, match=r"^db\.example:5433 did not log us in within 15 s"):
        await connect(network.route(behind, OPTIONS))


async def test_server_connect_timeout_while_dialing(
    network: MemoryNetwork,
    settings: PoolSettings,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Connecting is part of it."""

    async def stuck(*arguments: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(network, "open", stuck)
    network.install(monkeypatch)
    with pytest.raises(ConnectFailed, match=r"within 0\.5 s"):
        await connect(network.route(attrs.evolve(settings, server_connect_timeout=0.5), OPTIONS))
    assert trio.current_time() == pytest.approx(0.5)


async def test_server_connect_timeout_of_zero(
    network: MemoryNetwork, settings: PoolSettings, autojump_clock: MockClock
) -> None:
    """It means no limit."""

    async def slow(server: PeerEnd) -> None:
        await trio.sleep(80_000)
        await server.send(WELCOME)

    network.script = slow
    login = await connect(network.route(attrs.evolve(settings, server_connect_timeout=0.0), OPTIONS))
    assert login.pid == 4711


# -- cancellation ------------------------------------------------------------------------------------------------------


async def test_cancelled_anywhere_it_leaves_no_connection(
    network: MemoryNetwork, settings: PoolSettings
) -> None:
    """Either there is a login, or nothing."""
    network.script = scram_script("pencil")
    logins = 0

    async def log_in() -> None:
        nonlocal logins
        assert not network.held
        login = await connect(network.route(settings, OPTIONS))
        logins += 1
        cast("ClientEnd", login.stream).close()

    assert await cancel_everywhere(log_in) >= 8
    assert logins == 1
    assert not network.held


# -- cancel requests ---------------------------------------------------------------------------------------------------


async def test_cancel_request(network: MemoryNetwork, settings: PoolSettings) -> None:
    """It is sent, and over when the server closes."""
    packets = []

    async def script(server: PeerEnd) -> None:
        packets.append(await server.read_packet())
        await server.close()
        raise EOFError

    network.script = script
    await cancel(way_to(network, settings), 4711, b"s3cr")
    assert packets == [struct.pack("!IIII", 16, 80877102, 4711, int.from_bytes(b"s3cr", "big"))]
    assert network.dialed == [("db.example", 5433, OPTIONS)]
    assert not network.held
    await cancel(way_to(network, settings), 4711, b"s" * 256)
    assert packets[1] == struct.pack("!III", 268, 80877102, 4711) + b"s" * 256


async def test_cancel_request_waits_for_the_server(
    network: MemoryNetwork, settings: PoolSettings, autojump_clock: MockClock
) -> None:
    """Only when the server has closed the connection is the signal on its way; what it says until then is dropped."""

    async def script(server: PeerEnd) -> None:
        await server.read_packet()
        await server.send(b"nobody asked")
        await trio.sleep(3)
        await server.close()
        raise EOFError

    network.script = script
    await cancel(way_to(network, settings), 4711, b"s3cr")
    assert trio.current_time() == pytest.approx(3)


async def test_cancel_request_that_breaks_off(
    network: MemoryNetwork, settings: PoolSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream's reason is told, and nothing is left."""

    async def broken(self: object) -> bytes:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError("Connection reset by peer")

    monkeypatch.setattr("tests.support.memorynet.ClientEnd.receive_some", broken)
    with pytest.raises(ConnectFailed, match="cancel request broke off: Connection reset by peer"):
        await cancel(way_to(network, settings), 4711, b"s3cr")
    assert not network.held


async def test_cancel_request_cancelled_anywhere(network: MemoryNetwork, settings: PoolSettings) -> None:
    """It leaves no connection."""

    async def script(server: PeerEnd) -> None:
        await server.read_packet()
        await server.close()
        raise EOFError

    network.script = script
    assert await cancel_everywhere(lambda: cancel(way_to(network, settings), 4711, b"s3cr")) >= 3
    assert not network.held
