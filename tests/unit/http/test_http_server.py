"""The HTTP server: its sockets, and what becomes of it when it fails."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypercorn.trio import serve
from starlette.responses import PlainTextResponse
from structlog.testing import capture_logs

from hyperpool.config.http import HttpSettings
from hyperpool.errors import StartupError
from hyperpool.http import server
from hyperpool.http.server import open_sockets, run
from hyperpool.http.site import Site
from hyperpool.transport.passed import HTTP, PassedSocket, PassedSockets
from tests.support.network import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """A listening socket."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def _site() -> Site:
    site = Site(HttpSettings, contextlib.nullcontext)

    async def endpoint(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("served")

    site.add("/", endpoint)
    return site


async def _get(port: int) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b"".join([data async for data in stream])


def test_where_it_listens() -> None:
    """On each address; on none if one cannot be had."""
    port = free_port()
    settings = HttpSettings(listen_addr=("127.0.0.1", "::1"), listen_port=port)
    sockets = open_sockets(settings, PassedSockets())
    assert [one.getsockname()[:2] for one in sockets] == [("127.0.0.1", port), ("::1", port)]
    with pytest.raises(StartupError, match=rf"127\.0\.0\.1:{port}: .* see http.listen_addr"):
        open_sockets(settings, PassedSockets())
    sockets[0].close()
    with pytest.raises(StartupError, match="::1"):
        open_sockets(settings, PassedSockets())
    sockets[1].close()
    for one in open_sockets(settings, PassedSockets()):
        one.close()


def test_several_processes_may_share_the_port() -> None:
    """If the settings say so."""
    settings = HttpSettings(listen_port=free_port())
    made = [open_sockets(settings, PassedSockets(), reuse_port=True) for _ in range(2)]
    for one in made:
        one[0].close()


@pytest.mark.parametrize("fixed", [True, False])
def test_sockets_that_were_passed(sock: socket.socket, fixed: bool) -> None:
    """They are taken for their address, or in the place of all."""
    port = free_port() if fixed else sock.getsockname()[1]
    passed = PassedSockets([PassedSocket(sock, HTTP, fixed=fixed)])
    assert open_sockets(HttpSettings(listen_port=port), passed) == [sock]


async def test_requests_are_served(sock: socket.socket) -> None:
    """Under no name; the socket stays open when the server ends."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, _site(), [sock])
        answer = await _get(sock.getsockname()[1])
        nursery.cancel_scope.cancel()
    assert sock.fileno() >= 0
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"served")
    assert b"hypercorn" not in answer.lower()


async def test_a_client_that_breaks_off_hurts_nobody(sock: socket.socket, nursery: trio.Nursery) -> None:
    """Nor does one that does not speak HTTP."""
    nursery.start_soon(run, _site(), [sock])
    port = sock.getsockname()[1]
    for nonsense in (b"", b"GET", b"\x16\x03\x01\x00", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10000):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(nonsense)
        await stream.aclose()
    assert (await _get(port)).endswith(b"served")


async def test_a_server_that_fails_is_started_again(
    sock: socket.socket, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pooler goes on."""
    failures = iter([ZeroDivisionError("a bug")])

    async def fails_once(*arguments: Any) -> None:
        for failure in failures:
            raise failure
        await serve(*arguments)

    monkeypatch.setattr(server, "serve", fails_once)
    monkeypatch.setattr(server, "_PAUSE", 0.0)
    with capture_logs() as logs:
        nursery.start_soon(run, _site(), [sock])
        assert (await _get(sock.getsockname()[1])).endswith(b"served")
    assert [entry["event"] for entry in logs] == ["the HTTP server failed: it is started again"]
