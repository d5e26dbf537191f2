"""The HTTP server: its sockets, and what becomes of it when it fails."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
import trio
from hypercorn.trio.tcp_server import TCPServer
from starlette.responses import PlainTextResponse
from structlog.testing import capture_logs

from hyperpool.config.http import HttpSettings
from hyperpool.errors import StartupError
from hyperpool.http import guests, server
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


async def _ask(stream: trio.SocketStream) -> None:
    """A question on a connection that stays, and its answer."""
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b"served"):
        data = await stream.receive_some()
        assert data, answer
        answer += data


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
    listen = server._listener

    def fails_once(sock: socket.socket) -> trio.SocketListener:
        for failure in failures:
            raise failure
        return listen(sock)

    monkeypatch.setattr(server, "_listener", fails_once)
    monkeypatch.setattr(server, "_PAUSE", 0.0)
    with capture_logs() as logs:
        nursery.start_soon(run, _site(), [sock])
        assert (await _get(sock.getsockname()[1])).endswith(b"served")
    assert [entry["event"] for entry in logs] == ["the HTTP server failed: it is started again"]


async def test_a_connection_that_fails_ends_alone(
    sock: socket.socket, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever else is there stays."""
    nursery.start_soon(run, _site(), [sock])
    port = sock.getsockname()[1]
    async with await trio.open_tcp_stream("127.0.0.1", port) as other:
        await _ask(other)

        async def fail(*_: object) -> None:
            raise ZeroDivisionError("a bug")

        with capture_logs() as logs, monkeypatch.context() as patch:
            patch.setattr(TCPServer, "run", fail)
            assert await _get(port) == b""
        assert [entry["event"] for entry in logs] == ["an HTTP connection failed"]
        await _ask(other)


def _large() -> Site:
    site = Site(HttpSettings, contextlib.nullcontext)

    async def endpoint(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("x" * 50_000_000)

    site.add("/", endpoint)
    return site


async def _asked_and_not_read(port: int) -> trio.SocketStream:
    """A peer that asks for much, and reads only the beginning of it."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await stream.receive_some(16)).startswith(b"HTTP/1.1 200")
    return stream


async def test_the_end_does_not_wait_for_who_does_not_read(
    sock: socket.socket, nursery: trio.Nursery
) -> None:
    """Although what is being sent is shielded."""
    scope, ended = trio.CancelScope(), trio.Event()

    async def serve() -> None:
        with scope:
            await run(_large(), [sock])
        ended.set()

    nursery.start_soon(serve)
    stream = await _asked_and_not_read(sock.getsockname()[1])
    try:
        scope.cancel()
        with trio.fail_after(5):
            await ended.wait()
    finally:
        await trio.aclose_forcefully(stream)


async def test_who_does_not_read_is_left(
    sock: socket.socket, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while."""
    left, end = trio.Event(), guests.Guest.end

    def ends(guest: guests.Guest) -> None:
        end(guest)
        left.set()

    monkeypatch.setattr(guests, "READS_WITHIN", 0.05)
    monkeypatch.setattr(guests.Guest, "end", ends)
    nursery.start_soon(run, _large(), [sock])
    async with await _asked_and_not_read(sock.getsockname()[1]) as stream:
        with trio.fail_after(5):
            await left.wait()
            # What was on its way comes, and then the end.
            got = 0
            with contextlib.suppress(trio.BrokenResourceError):
                while data := await stream.receive_some():
                    got += len(data)
        assert got < 50_000_000


async def test_a_head_that_does_not_come(
    sock: socket.socket, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slowly it comes, there is a time for all of it."""
    monkeypatch.setattr(server, "_HEAD_WITHIN", 0.2)
    nursery.start_soon(run, _site(), [sock])
    async with await trio.open_tcp_stream("127.0.0.1", sock.getsockname()[1]) as stream:
        with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
            async with trio.open_nursery() as inner:

                async def drip() -> None:
                    with contextlib.suppress(trio.BrokenResourceError):
                        for byte in b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000:
                            await stream.send_all(bytes([byte]))
                            await trio.sleep(0.02)

                inner.start_soon(drip)
                assert await stream.receive_some() == b""
                inner.cancel_scope.cancel()


async def test_there_is_a_bound_to_the_number_of_connections(
    sock: socket.socket, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has been served least lately makes room, so that who comes with a question is answered."""
    monkeypatch.setattr(guests, "MOST", 3)
    nursery.start_soon(run, _site(), [sock])
    port = sock.getsockname()[1]
    silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
    asked = await trio.open_tcp_stream("127.0.0.1", port)
    for _ in range(5):
        await _ask(asked)
        assert (await _get(port)).endswith(b"served")
    with trio.fail_after(5):
        assert await silent[0].receive_some() == b""
    for stream in (*silent, asked):
        await stream.aclose()
