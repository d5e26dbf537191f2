"""Every kind of step, opened as settings would have it, keeps the contract of Trio's streams; so do compositions."""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from hyperpool.config import SslMode
from hyperpool.config.source import Source
from hyperpool.config.tls import ClientTls, TlsMaterial
from hyperpool.config.tls_contexts import client_context
from hyperpool.config.transports import TlsStep, transport
from hyperpool.transport.agents import OK, AgentRegistry, AgentStream, receive_line, send_line
from hyperpool.transport.frames import WebSocketStream
from hyperpool.transport.framing import Opcode, make_frame
from hyperpool.transport.kinds import KINDS, open_steps
from hyperpool.transport.plain import PlainStream
from hyperpool.transport.tls import TlsStream, accept, open_tls
from hyperpool.tunnel.upgrade import Handshake
from tests.support.certificates import issue
from tests.support.streams import check_stream
from tests.support.tunnels import dial_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from tests.support.streams import StreamMaker, StreamPair

    Server = Callable[["FarEnd", trio.abc.Stream], Awaitable[trio.abc.Stream]]

pytestmark = pytest.mark.usefixtures("nothing_left_open")


class FarEnd:
    """What the other ends have: a certificate for localhost, and a place for files.

    Args:
        directory: for files.
        nursery: runs what keeps agents' connections.
    """

    def __init__(self, directory: Path, nursery: trio.Nursery) -> None:
        files = issue(directory, "localhost")
        self.directory = directory
        self.authority = str(files.ca)
        material = TlsMaterial(cert_file=str(files.cert), key_file=str(files.key))
        self.context: ssl.SSLContext = client_context(ClientTls(mode=SslMode.REQUIRE, material=material))
        self.nursery = nursery


async def plain(_end: FarEnd, stream: trio.abc.Stream) -> trio.abc.Stream:
    """Nothing is above it."""
    await trio.lowlevel.checkpoint()
    return stream


async def tls(end: FarEnd, stream: trio.abc.Stream) -> trio.abc.Stream:
    """The server's side of TLS."""
    if isinstance(stream, PlainStream):
        return await accept(stream, end.context)
    above = trio.SSLStream(stream, end.context, server_side=True, https_compatible=True)
    await above.do_handshake()
    return above


async def websocket(_end: FarEnd, stream: trio.abc.Stream) -> trio.abc.Stream:
    """The server's side of a WebSocket."""
    handshake = Handshake(stream, 16384)
    await handshake.receive()
    handshake.check()
    return WebSocketStream(stream, client=False, received=await handshake.accept())


async def proxy(_end: FarEnd, stream: trio.abc.Stream) -> trio.abc.Stream:
    """A proxy that has made the connection."""
    asked = b""
    while b"\r\n\r\n" not in asked:
        asked += bytes(await stream.receive_some())
    await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
    return stream


_TCP = {"tcp": {"host": "127.0.0.1", "port": 0}}
_PATHS: dict[str, tuple[Sequence[dict[str, dict[str, Any]]], Sequence[Server]]] = {
    "tcp": ([_TCP], [plain]),
    "unix": ([{"unix": {"path": ""}}], [plain]),
    "proxy": ([{"proxy": {"url": "http://127.0.0.1:0"}}, {"tcp": {"host": "db", "port": 5432}}], [proxy]),
    "tls": ([_TCP, {"tls": {"server_name": "localhost"}}], [tls]),
    "websocket": ([_TCP, {"websocket": {}}], [websocket]),
    "tls over websocket over tls": (
        [
            _TCP,
            {"tls": {"server_name": "localhost"}},
            {"websocket": {}},
            {"tls": {"server_name": "localhost"}},
        ],
        [tls, websocket, tls],
    ),
}
"""The steps in settings, bottom up, and what is at their other ends."""


def _settings(end: FarEnd, path: str, address: str | tuple[str, int]) -> list[dict[str, dict[str, Any]]]:
    """The steps of a path, with what only a run knows."""
    steps = [{kind: dict(given) for kind, given in step.items()} for step in _PATHS[path][0]]
    (first,) = steps[0].values()
    if isinstance(address, str):
        first["path"] = address
    elif "url" in first:
        first["url"] = f"http://127.0.0.1:{address[1]}"
    else:
        first["port"] = address[1]
    for step in steps:
        if "tls" in step:
            step["tls"]["ca_file"] = end.authority
    return steps


def _maker(end: FarEnd, path: str) -> StreamMaker:
    if path == "agent":
        return _agent_maker(end)

    async def make() -> StreamPair:
        listener = socket.socket(socket.AF_UNIX if path == "unix" else socket.AF_INET)
        file = end.directory / "listener"
        file.unlink(missing_ok=True)
        listener.bind(str(file) if path == "unix" else ("127.0.0.1", 0))
        listener.listen()
        steps = transport(_settings(end, path, listener.getsockname()), Source(end.directory, {}))
        far: list[trio.abc.Stream] = []

        async def answer() -> None:
            await trio.lowlevel.wait_readable(listener)
            stream: trio.abc.Stream = PlainStream(listener.accept()[0])
            for server in _PATHS[path][1]:
                stream = await server(end, stream)
            far.append(stream)

        with listener:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer)
                near = await open_steps(steps, dial_context())
        return near, far[0]

    return make


def _agent_maker(end: FarEnd) -> StreamMaker:
    async def make() -> StreamPair:
        left, right = socket.socketpair()
        ours = WebSocketStream(PlainStream(left), client=False)
        theirs = WebSocketStream(PlainStream(right), client=True)
        registry = AgentRegistry()

        async def keep() -> None:
            try:
                await registry.keep("site", "one", "192.0.2.1:5", ours)
            finally:
                await ours.aclose()

        async def answer() -> None:
            await receive_line(theirs)
            await receive_line(theirs)
            await send_line(theirs, OK)

        end.nursery.start_soon(keep)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            stream = await registry.open("site", "db")
        return stream, theirs

    return make


async def _clogged_agent(end: FarEnd) -> StreamPair:
    """Both ends take no more; what fills the kernel's buffers are whole messages."""
    near, far = await _agent_maker(end)()
    assert isinstance(near, AgentStream)
    for stream in (near._stream, far):
        assert isinstance(stream, WebSocketStream)
        assert isinstance(stream._below, PlainStream)
        frame = make_frame(Opcode.BINARY, b"x", mask=stream._client)
        with contextlib.suppress(BlockingIOError):
            while True:
                assert stream._below._socket.send(frame) == len(frame)
    return near, far


async def _clogged_tls(end: FarEnd) -> StreamPair:
    """Both ends take no more; OpenSSL takes the record that stands half sent for the beginning of what is sent next."""
    left, right = (PlainStream(sock) for sock in socket.socketpair())
    step = TlsStep(server_name="localhost", ca_file=end.authority)
    pair: list[trio.abc.Stream] = []

    async def dial() -> None:
        pair.insert(0, await open_tls(step, left, dial_context()))

    async def answer() -> None:
        pair.append(await accept(right, end.context))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        nursery.start_soon(answer)
    for stream in pair:
        assert isinstance(stream, TlsStream)
        with contextlib.suppress(BlockingIOError):
            while True:
                stream.tls.send(b"x")
    return pair[0], pair[1]


@pytest.mark.parametrize("path", [*_PATHS, "agent"])
async def test_contract(tmp_path: Path, nursery: trio.Nursery, path: str) -> None:
    """Trio's own check."""
    await check_stream(_maker(FarEnd(tmp_path, nursery), path), None)


@pytest.mark.parametrize(("path", "clog"), [("agent", _clogged_agent), ("tls", _clogged_tls)])
async def test_contract_when_clogged(
    tmp_path: Path, nursery: trio.Nursery, path: str, clog: Callable[[FarEnd], Awaitable[StreamPair]]
) -> None:
    """The same, with ends that take no more; `tcp`, `unix` and `websocket` have theirs with their own tests."""
    end = FarEnd(tmp_path, nursery)
    await check_stream(_maker(end, path), partial(clog, end))


def test_every_kind_is_checked() -> None:
    """None is forgotten."""
    assert {*_PATHS, "agent"} >= set(KINDS)
