"""Logging in to servers that know nothing newer than protocol 3.0, with and without negotiation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from hyperpool.errors import ConnectFailed, LoginFailed
from hyperpool.pool.login import connect
from hyperpool.transport.sockets import TcpOptions
from hyperpool.wire import messages
from tests.support.checkpoints import cancel_everywhere
from tests.support.memorynet import sends

if TYPE_CHECKING:
    from trio.testing import MockClock

    from hyperpool.config import PoolSettings
    from tests.support.memorynet import MemoryNetwork, PeerEnd, Script

OPTIONS = TcpOptions(keepidle=5)
WELCOME = messages.authentication_ok() + messages.backend_key_data(4711, b"s3cr") + messages.ready_for_query()
UNSUPPORTED = messages.error_response(
    "unsupported frontend protocol 3.2: server supports 1.0 to 3.0", "0A000"
)
BAD_HEADER = messages.frame(ord("E"), b"SFATAL\0C08P01\0Mbad packet header: '0000001f00030002'\0\0")
"""What pgbouncer 1.18 answers."""


def old_server(refusal: bytes, packets: list[bytes], answer: bytes = WELCOME) -> Script:
    """A server that refuses any version but 3.0 with these bytes, or without a word."""

    async def script(server: PeerEnd) -> None:
        packet = await server.read_packet()
        packets.append(packet[4:8])
        await server.send(answer if packet[4:8] == b"\0\3\0\0" else refusal)
        if packet[4:8] != b"\0\3\0\0":
            await server.close()
            raise EOFError

    return script


@pytest.mark.parametrize(
    "refusal", [UNSUPPORTED, BAD_HEADER, b""], ids=["PostgreSQL", "pgbouncer", "no word"]
)
async def test_an_old_server_is_asked_again(
    network: MemoryNetwork, settings: PoolSettings, refusal: bytes
) -> None:
    """For 3.0, on a second connection; the first is closed."""
    packets: list[bytes] = []
    network.script = old_server(refusal, packets)
    login = await connect(network.route(settings, OPTIONS))
    assert packets == [b"\0\3\0\2", b"\0\3\0\0"]
    assert (login.minor, login.baffled, login.pid, login.secret) == (0, True, 4711, b"s3cr")
    assert network.held == [login.stream]


async def test_an_old_server_that_is_known(network: MemoryNetwork, settings: PoolSettings) -> None:
    """It is not bothered with anything newer."""
    packets: list[bytes] = []
    network.script = old_server(UNSUPPORTED, packets)
    assert (await connect(network.route(settings, OPTIONS), lambda _: 0)).minor == 0
    assert packets == [b"\0\3\0\0"]


async def test_a_refusal_that_had_another_reason(network: MemoryNetwork, settings: PoolSettings) -> None:
    """The answer to 3.0 is the one that counts: a pooler may have one SQLSTATE for everything."""
    packets: list[bytes] = []
    refusal = messages.error_response("no such database: shop", "08P01")
    network.script = old_server(BAD_HEADER, packets, refusal)
    with pytest.raises(LoginFailed, match="no such database: shop") as caught:
        await connect(network.route(settings, OPTIONS))
    assert caught.value.response == refusal
    assert len(packets) == 2


async def test_a_refusal_that_comes_too_late_for_another_try(
    network: MemoryNetwork, settings: PoolSettings
) -> None:
    """Whoever has asked for a password has understood the version; a second wrong one may lock the account."""
    network.script = sends(messages.authentication_cleartext_password() + UNSUPPORTED)
    with pytest.raises(LoginFailed, match="unsupported frontend protocol"):
        await connect(network.route(settings, OPTIONS))
    assert len(network.dialed) == 1


async def test_both_tries_share_one_time_limit(
    network: MemoryNetwork, settings: PoolSettings, autojump_clock: MockClock
) -> None:
    """``server_connect_timeout`` is for all of it."""

    async def slow(server: PeerEnd) -> None:
        await server.read_packet()
        await trio.sleep(10)
        await server.send(UNSUPPORTED)

    network.script = slow
    with pytest.raises(ConnectFailed, match="within 15 s"):
        await connect(network.route(settings, OPTIONS))
    assert trio.current_time() == pytest.approx(15)
    assert len(network.dialed) == 2
    assert not network.held


async def test_an_old_server_and_cancellation_anywhere(
    network: MemoryNetwork, settings: PoolSettings
) -> None:
    """Neither connection is left behind."""
    network.script = old_server(UNSUPPORTED, [])

    async def log_in() -> None:
        assert not network.held
        login = await connect(network.route(settings, OPTIONS))
        await trio.aclose_forcefully(login.stream)

    assert await cancel_everywhere(log_in) >= 6
    assert not network.held


async def test_a_server_that_settles_for_less(network: MemoryNetwork, settings: PoolSettings) -> None:
    """As PostgreSQL before 18 does; it is asked for 3.2 again the next time, and has lost nothing by it."""
    network.script = sends(messages.negotiate_protocol_version(0, []) + WELCOME)
    login = await connect(network.route(settings, OPTIONS))
    assert (login.minor, login.secret, len(network.dialed)) == (2, b"s3cr", 1)
