"""Streams that an HTTP proxy makes: what is asked, what a refusal tells, and what the stream is."""

from __future__ import annotations

import base64
import socket
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from hyperpool import __version__
from hyperpool.config.secret import Secret
from hyperpool.config.transports import ProxyStep
from hyperpool.errors import ConnectFailed
from hyperpool.transport.kinds import DialContext
from hyperpool.transport.plain import PlainStream
from hyperpool.transport.proxy import open_proxy
from hyperpool.transport.resolve import Resolver
from hyperpool.transport.sockets import TcpOptions
from tests.support.certificates import issue, server_side
from tests.support.checkpoints import cancel_everywhere

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock

pytestmark = pytest.mark.usefixtures("nothing_left_open")

PASSWORD = "pw-9d27"
MADE = b"HTTP/1.1 200 Connection established\r\n\r\n"


@attrs.define
class Proxy:
    """A proxy that answers everybody alike, and then echoes.

    Attributes:
        port: where it listens, at localhost.
        asked: all requests.
    """

    port: int
    asked: list[bytes]


@asynccontextmanager
async def proxy(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """Run a proxy."""
    asked: list[bytes] = []

    async def talk(raw: trio.SocketStream) -> None:
        stream: trio.abc.Stream = raw
        if context is not None:
            stream = trio.SSLStream(raw, context, server_side=True, https_compatible=True)
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                data = await stream.receive_some()
                if not data:
                    return
                request += data
            asked.append(request)
            await stream.send_all(answer)
            while data := await stream.receive_some():
                await stream.send_all(data)

    async def serve(raw: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await talk(raw)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(partial(trio.serve_listeners, serve, [listener], handler_nursery=nursery))
        yield Proxy(listener.socket.getsockname()[1], asked)
        nursery.cancel_scope.cancel()
    await listener.aclose()


def make_context() -> DialContext:
    """What a step is given."""
    return DialContext(options=TcpOptions(), resolver=Resolver(0, 0))


async def refusal(answer: bytes, **settings: object) -> str:
    """The message of the failure."""
    async with proxy(answer) as peer:
        step = ProxyStep(
            url=f"http://127.0.0.1:{peer.port}",
            host="db1",
            port=5432,
            **settings,  # type: ignore[arg-type]
        )
        with pytest.raises(ConnectFailed) as caught:
            await open_proxy(step, None, make_context())
    assert PASSWORD not in f"{caught.value!s} {caught.value!r}"
    assert str(caught.value).startswith(f"the HTTP proxy 127.0.0.1:{peer.port} ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("host", "authority"), [("db1", "db1:5432"), ("::1", "[::1]:5432"), ("dä", "xn--d-0fa:5432")]
)
async def test_the_request_and_the_stream(host: str, authority: str) -> None:
    """The socket itself is what comes out: nothing stands between it and the relay."""
    async with proxy(MADE) as peer:
        step = ProxyStep(url=f"http://127.0.0.1:{peer.port}", host=host, port=5432)
        context = make_context()
        async with await open_proxy(step, None, context) as stream:
            assert isinstance(stream, PlainStream)
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
    assert peer.asked == [
        f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: hyperpool/{__version__}\r\n\r\n".encode()
    ]
    assert [hop.name.split()[0] for hop in context.trace.hops] == ["resolve", "tcp", "proxy"]
    assert context.trace.hops[-1].facts == {"status": "200 OK"}


@pytest.mark.parametrize(
    "answer", [MADE, b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 204 x\r\n\r\n"]
)
async def test_credentials(answer: bytes) -> None:
    """Basic authentication; every answer of class 2xx makes the connection, and has no body."""
    async with proxy(answer) as peer:
        step = ProxyStep(
            url=f"http://127.0.0.1:{peer.port}", host="db1", port=1, user="üser", password=Secret(PASSWORD)
        )
        async with await open_proxy(step, None, make_context()) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
    credentials = base64.b64encode(f"üser:{PASSWORD}".encode())
    assert b"\r\nProxy-Authorization: Basic " + credentials + b"\r\n" in peer.asked[0]


async def test_a_proxy_with_tls(tmp_path: Path) -> None:
    """Its certificate is verified: with the authority of the settings, and for its name."""
    ca_file = str(issue(tmp_path, "localhost").ca)
    async with proxy(MADE, server_side("localhost")) as peer:
        step = ProxyStep(url=f"https://localhost:{peer.port}", host="db1", port=5432, ca_file=ca_file)
        async with await open_proxy(step, None, make_context()) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
    async with proxy(MADE, server_side("elsewhere")) as peer:
        step = attrs.evolve(step, url=f"https://localhost:{peer.port}")
        with pytest.raises(
            ConnectFailed, match=r"the HTTP proxy localhost:\d+ cannot be reached: .*certificate"
        ):
            await open_proxy(step, None, make_context())
    assert not peer.asked


async def test_cancelled_anywhere(tmp_path: Path) -> None:
    """On the way to the proxy, in the handshake or while it is asked: nothing is left open."""
    ca_file = str(issue(tmp_path, "localhost").ca)
    async with proxy(MADE, server_side("localhost")) as peer:
        step = ProxyStep(url=f"https://localhost:{peer.port}", host="db1", port=5432, ca_file=ca_file)

        async def open_and_close() -> None:
            await trio.aclose_forcefully(await open_proxy(step, None, make_context()))

        assert await cancel_everywhere(open_and_close) >= 6


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("407 Proxy Authentication Required", "wants credentials: add user and password"),
        ("403 Forbidden", "does not allow connections to db1:5432 (403 Forbidden): let it"),
        (
            "502 Bad Gateway",
            "cannot reach db1:5432 (502 Bad Gateway): check host and port, and its way there",
        ),
        ("503 Service Unavailable", "cannot reach db1:5432"),
        ("504 Gateway Timeout", "cannot reach db1:5432"),
        ("405 Method Not Allowed", "(405 Method Not Allowed): check that it is a proxy which takes CONNECT"),
        ("302 Found", "check that it is a proxy which takes CONNECT"),
    ],
)
async def test_refusals(status: str, says: str) -> None:
    """Each names the proxy, what it answered, and what to do."""
    assert says in await refusal(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())


async def test_refused_credentials() -> None:
    """They are not shown, even when they come back."""
    answer = f"HTTP/1.1 407 {PASSWORD}\r\nX: {PASSWORD}\r\nContent-Length: 0\r\n\r\n".encode()
    said = await refusal(answer, user="u", password=Secret(PASSWORD))
    assert "wants other credentials: check user and password (407 Proxy Authentication Required)" in said


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (MADE + b"early", "bytes came before anything was asked"),
        (b"SSH-2.0-x\r\n\r\n", "something other than HTTP/1.1"),
        (b"\0" * 100 + b"\r\n\r\n", "something other than HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "something other than HTTP/1.1"),
        (b"HTTP/1.1 99 x\r\n\r\n", "something other than HTTP/1.1"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, "more than 65536 bytes of headers"),
        (b"HTTP/1.1 200 " + b"a" * 2**17, "more than 65536 bytes of headers"),
        (b"\x15\x03\x01\0\x02\x02\x46", "speaks TLS: use https:// instead of http:// in its url"),
        (b"\0\0\x12\x04\0\0\0\0\0" + bytes(18), "speaks HTTP/2 only"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "something other than HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2**17, "more than 65536 bytes of headers"),
    ],
)
async def test_no_proxy(answer: bytes, says: str) -> None:
    """Something else is there."""
    assert says in await refusal(answer)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            b"",
            "ended the connection without an answer: check host and port, and whether TLS is wanted there (https://",
        ),
        (b"HTTP/1.1 200 Connection est", "ended the connection in the middle of its answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "ended the connection in the middle of its answer"),
    ],
)
async def test_a_proxy_that_hangs_up(answer: bytes, says: str) -> None:
    """Without an answer, or within one."""

    async def hang_up(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(partial(trio.serve_listeners, hang_up, [listener], handler_nursery=nursery))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        with pytest.raises(ConnectFailed) as caught:
            await open_proxy(ProxyStep(url=url, host="db1", port=5432), None, make_context())
        nursery.cancel_scope.cancel()
    await listener.aclose()
    assert says in str(caught.value)


async def test_an_answer_that_comes_byte_by_byte() -> None:
    """Slowly is not wrong; what comes behind it once it was asked for is the stream's."""

    async def talk(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            for byte in b"HTTP/1.1 100 Continue\r\n\r\n" + MADE:
                await stream.send_all(bytes([byte]))
            await stream.send_all(await stream.receive_some())

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(partial(trio.serve_listeners, talk, [listener], handler_nursery=nursery))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with await open_proxy(
            ProxyStep(url=url, host="db1", port=5432), None, make_context()
        ) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        nursery.cancel_scope.cancel()
    await listener.aclose()


async def test_a_proxy_that_says_nothing(autojump_clock: MockClock) -> None:
    """It is given up after ten seconds, and nothing is left open."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(
            ConnectFailed, match=r"the HTTP proxy .* did not answer within 10 s: check host and port"
        ):
            await open_proxy(ProxyStep(url=url, host="db1", port=5432), None, make_context())


async def test_a_proxy_at_an_ipv6_address() -> None:
    """Messages write it with brackets."""
    step = ProxyStep(url="http://[::1]:1", host="fd00::1", port=5432)
    with pytest.raises(
        ConnectFailed, match=r"^the HTTP proxy \[::1\]:1 cannot be reached: cannot connect to \[::1\]:1"
    ):
        await open_proxy(step, None, make_context())


async def test_nobody_there() -> None:
    """The reason is the one of TCP."""
    async with proxy(b"") as peer:
        pass
    step = ProxyStep(url=f"http://127.0.0.1:{peer.port}", host="db1", port=5432)
    with pytest.raises(ConnectFailed, match=r"HTTP proxy .* cannot be reached: .*Connection refused"):
        await open_proxy(step, None, make_context())
