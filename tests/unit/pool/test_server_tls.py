"""Logging in to servers and cancelling with TLS, over streams in memory: what is asked for, and in which order."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from hyperpool.config import SslMode
from hyperpool.config.tls import ServerTls
from hyperpool.errors import ConnectFailed, LoginFailed
from hyperpool.pool.login import Way, cancel, connect
from hyperpool.transport.sockets import TcpOptions
from hyperpool.wire import messages
from tests.support.certificates import server_side

if TYPE_CHECKING:
    from hyperpool.config import PoolSettings
    from tests.support.memorynet import MemoryNetwork, PeerEnd

OPTIONS = TcpOptions()
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
WELCOME = messages.authentication_ok() + messages.backend_key_data(4711, b"s3cr") + messages.ready_for_query()
REJECTED = messages.error_response("pg_hba.conf rejects connection", "28000")
NO_ROLE = messages.authentication_ok() + messages.error_response("role does not exist", "28000")
WRONG = messages.error_response("password authentication failed", "28P01")
SERVER = server_side("db.example")


class Server:
    """What each connection asks for, and how it is answered.

    Attributes:
        seen: the beginnings of connections: "TLS", "login" and "cancel".
        has_tls: the answer to SSLRequest is yes, and a handshake.
        answers: to the StartupMessages, one after the other.
    """

    def __init__(self, *answers: bytes, has_tls: bool = False) -> None:
        self.seen: list[str] = []
        self.has_tls = has_tls
        self.answers = list(answers)

    async def __call__(self, server: PeerEnd) -> None:
        """Serve one connection."""
        packet = await server.read_packet()
        if packet == SSL_REQUEST:
            self.seen.append("TLS")
            await server.send(b"S" if self.has_tls else b"N")
            if self.has_tls:
                with contextlib.suppress(trio.BrokenResourceError):
                    await self._behind_tls(server)
                raise EOFError
            packet = await server.read_packet()
        await server.send(self._answer(packet))
        if packet[4:6] == b"\x04\xd2":
            await server.close()
            raise EOFError

    def _answer(self, packet: bytes) -> bytes:
        is_cancel = packet[4:6] == b"\x04\xd2"
        self.seen.append("cancel" if is_cancel else "login")
        return b"" if is_cancel else self.answers.pop(0)

    async def _behind_tls(self, server: PeerEnd) -> None:
        above = trio.SSLStream(server._stream, SERVER, server_side=True, https_compatible=True)
        packet = bytes(await above.receive_some(10_000))
        answer = self._answer(packet)
        if answer:
            await above.send_all(answer)
            await above.receive_some(1)
        await above.aclose()


def with_mode(settings: PoolSettings, mode: SslMode) -> PoolSettings:
    """The pool, with a mode of TLS."""
    return attrs.evolve(settings, tls=ServerTls(mode=mode))


@pytest.mark.parametrize(
    ("mode", "has_tls", "answers", "seen"),
    [
        (SslMode.DISABLE, True, [WELCOME], ["login"]),
        (SslMode.ALLOW, True, [WELCOME], ["login"]),
        (SslMode.ALLOW, True, [REJECTED, WELCOME], ["login", "TLS", "login"]),
        (SslMode.PREFER, True, [WELCOME], ["TLS", "login"]),
        (SslMode.PREFER, False, [WELCOME], ["TLS", "login"]),
        (SslMode.PREFER, True, [REJECTED, WELCOME], ["TLS", "login", "login"]),
        (SslMode.REQUIRE, True, [WELCOME], ["TLS", "login"]),
    ],
)
async def test_what_is_tried(
    network: MemoryNetwork,
    settings: PoolSettings,
    mode: SslMode,
    has_tls: bool,
    answers: list[bytes],
    seen: list[str],
) -> None:
    """One way after the other, as the mode allows it; a cancel request takes the one that has worked."""
    network.script = server = Server(*answers, has_tls=has_tls)
    found = await connect(network.route(with_mode(settings, mode), OPTIONS))
    assert server.seen == seen
    await trio.aclose_forcefully(found.stream)

    server.seen.clear()
    await cancel(found.way, found.pid, found.secret)
    encrypted = has_tls and seen[-2:] == ["TLS", "login"]
    assert found.way.encrypted is encrypted
    assert server.seen == (["TLS", "cancel"] if encrypted else ["cancel"])


@pytest.mark.parametrize(
    ("mode", "has_tls", "answer", "seen"),
    [
        (SslMode.ALLOW, True, WRONG, ["login"]),
        (SslMode.PREFER, True, WRONG, ["TLS", "login"]),
        (SslMode.ALLOW, True, NO_ROLE, ["login"]),
        (SslMode.PREFER, True, NO_ROLE, ["TLS", "login"]),
        (SslMode.REQUIRE, True, REJECTED, ["TLS", "login"]),
        (SslMode.REQUIRE, False, REJECTED, ["TLS"]),
    ],
)
async def test_what_is_not_tried(
    network: MemoryNetwork,
    settings: PoolSettings,
    mode: SslMode,
    has_tls: bool,
    answer: bytes,
    seen: list[str],
) -> None:
    """A wrong password is not tried twice; what must have TLS never goes without."""
    network.script = server = Server(answer, has_tls=has_tls)
    with pytest.raises((LoginFailed, ConnectFailed)):
        await connect(network.route(with_mode(settings, mode), OPTIONS))

    assert server.seen == seen
    assert not network.held


@pytest.mark.parametrize("serves_old", [False, True])
async def test_a_server_that_hangs_up(
    network: MemoryNetwork, settings: PoolSettings, serves_old: bool
) -> None:
    """It is tried with TLS, then once without, in the protocol that the oldest know."""
    seen: list[bytes] = []

    async def script(server: PeerEnd) -> None:
        packet = await server.read_packet()
        seen.append(packet[4:8])
        if serves_old and packet[4:8] == b"\0\3\0\0":
            await server.send(WELCOME)
            return
        await server.close()
        raise EOFError

    network.script = script
    route = network.route(with_mode(settings, SslMode.PREFER), OPTIONS)
    if serves_old:
        login = await connect(route)
        # Nothing was found out about newer protocols.
        assert (login.minor, login.baffled) == (0, False)
    else:
        with pytest.raises(ConnectFailed, match="closed the connection during login"):
            await connect(route)
        assert not network.held
    assert seen == [b"\x04\xd2\x16\x2f", b"\0\3\0\0"]


async def test_a_cancel_request_does_not_go_without(network: MemoryNetwork, settings: PoolSettings) -> None:
    """Its secret is not told to somebody who says that there is no TLS any more."""
    network.script = server = Server(has_tls=False)
    route = network.route(with_mode(settings, SslMode.PREFER), OPTIONS)
    with pytest.raises(ConnectFailed, match="has no TLS"):
        await cancel(Way(route, route.targets[0], encrypted=True), 4711, b"s3cr")

    assert server.seen == ["TLS"]
    assert not network.held
