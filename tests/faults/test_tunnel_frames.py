"""A gateway that sends what no WebSocket may carry: the client is told, the log says why, the next one is served."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support import scenes
from tests.support.gateways import HOST, TOKEN
from tests.support.paths import Path
from tests.support.proxy import FaultProxy
from tests.support.rawclient import frame
from tests.support.scenes import Scene, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.paths import PrivatePostgres

pytestmark = [pytest.mark.hyperpool_only]

private_pg = scenes.private_pg

_BOUND: Final = 1 << 20
"""The longest message that the pooler accepts."""


class _Gateway:
    """A WebSocket gateway that leads to a Unix socket, with threads, and with mischief."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._writing = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def _spawn(self, function: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                self._open += [near, far]
                self._spawn(self._inward, near, far)

    def _inward(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), near.makefile("rb") as source:
            headers = dict(
                line.decode().strip().split(": ", 1)
                for line in iter(source.readline, b"\r\n")
                if b": " in line
            )
            near.sendall(_accepted(headers["Sec-WebSocket-Key"]))
            self._spawn(self._outward, far, near)
            while True:
                far.sendall(_payload(source))
        _shut(near, far)

    def _outward(self, far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(1 << 16):
                with self._writing:
                    near.sendall(message(data))
        _shut(near, far)

    def say(self, data: bytes, *, last: bool = False) -> None:
        """Send bytes as they are to all who are connected, between two messages; then, if it is the last, hang up."""
        with self._writing:
            for near in self._open[::2]:
                with contextlib.suppress(OSError):
                    near.sendall(data)
                    if last:
                        near.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        _shut(self._listener, *self._open)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a thread of the gateway hangs"
        for sock in (self._listener, *self._open):
            sock.close()


def _shut(*socks: socket.socket) -> None:
    for sock in socks:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _accepted(key: str) -> bytes:
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    accept = base64.b64encode(digest).decode()
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    return "\r\n".join([*lines, f"Sec-WebSocket-Accept: {accept}", "", ""]).encode()


def _payload(source: Any) -> bytes:
    """What the client's next binary message carries; a pong carries nothing, a Close frame ends the connection."""
    first, second = _exactly(source, 2)
    if first not in {0x82, 0x8A}:
        raise EOFError
    size = second & 0x7F
    if size >= 126:
        width = 2 if size == 126 else 8
        size = int.from_bytes(_exactly(source, width), "big")
    mask, data = _exactly(source, 4), _exactly(source, size)
    key = (mask * (size // 4 + 1))[:size]
    clear = (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
    return clear if first == 0x82 else b""


def _exactly(source: Any, size: int) -> bytes:
    data = bytes(source.read(size))
    if len(data) < size:
        raise EOFError
    return data


def message(data: bytes, first: int = 0x82) -> bytes:
    """A frame, unmasked as a server's must be; by default a whole binary message."""
    if len(data) < 126:
        return bytes([first, len(data)]) + data
    if len(data) < 1 << 16:
        return struct.pack("!BBH", first, 126, len(data)) + data
    return struct.pack("!BBQ", first, 127, len(data)) + data


class _HostilePath(Path):
    """With the hostile gateway at the far end."""

    kind = "hostile"

    def _start(self) -> None:
        self.gateway = _Gateway(self.pg.socket_path)
        self._stack.callback(self.gateway.close)
        self.proxy = self._stack.enter_context(FaultProxy(self.gateway.port))

    def _transport(self) -> list[dict[str, Any]]:
        token = {"token_id": TOKEN.id, "token_secret": TOKEN.secret}
        return [
            {"tcp": {"host": HOST, "port": self.proxy.port}},
            {"websocket": {"max_received": _BOUND, **token}},
        ]

    def log_text(self) -> str:
        """It keeps no log."""
        return ""


@pytest.fixture(scope="module")
def hostile(private_pg: PrivatePostgres) -> Iterator[_HostilePath]:
    """The way through the hostile gateway."""
    with _HostilePath(private_pg) as path:
        yield path


@pytest.fixture(scope="module")
def scene(hostile: _HostilePath) -> Iterator[Scene]:
    """A pooler with one server connection, through the hostile gateway."""
    with started(hostile.config(default_pool_size=1)) as pooler:
        scene = Scene(hostile, pooler)
        scene.wait_served()
        yield scene
        scene.no_secrets()


_NOTICE: Final = frame(b"N", b"SNOTICE\0C00000\0M" + b"x" * 60_000 + b"\0\0")

_MISCHIEF: Final = {
    "garbage": (b"\xff\xfe" * 40, "what a WebSocket must not carry"),
    "text": (message(b"hello", 0x81), "a text message"),
    "a frame that is masked": (b"\x82\x85abcdhello", "what a WebSocket must not carry"),
    "a frame without an end": (
        struct.pack("!BBQ", 0x82, 127, 1 << 40),
        "a message of more than 1048576 bytes",
    ),
    "a message without an end": (
        message(_NOTICE, 0x02) + message(_NOTICE, 0x00) * 20,
        "a message of more than 1048576 bytes",
    ),
    "a message that continues nothing": (message(b"x", 0x80), "what a WebSocket must not carry"),
    "a ping that is too long": (message(b"x" * 200, 0x89), "what a WebSocket must not carry"),
    "a size with its highest bit set": (b"\x82\x7f" + b"\xff" * 8, "1048576 bytes|must not carry"),
    "the end within a frame": (message(_NOTICE)[:3], "ended within a frame"),
    "the end": (
        message(struct.pack("!H", 1011) + b"out of order", 0x88),
        "has closed the WebSocket (1011 internal error)",
    ),
    "another protocol within": (message(b"SSH-2.0-OpenSSH_9.2\r\n"), "closing server"),
}
"""What is sent, by what it is, and what the log says about it (one of several)."""


@pytest.mark.parametrize("what", _MISCHIEF)
def test_mischief_in_a_query(scene: Scene, hostile: _HostilePath, what: str) -> None:
    """The client's query fails with the reason, nothing is left open, and the next client is served."""
    data, reason = _MISCHIEF[what]
    before = scene.wait_served()
    rest = scene.at_rest()
    mark = scene.pooler.log_size()
    with scene.asking() as asking:
        hostile.gateway.say(data, last="end within" in what)
    assert (asking.fields["S"], asking.fields["C"]) == ("FATAL", "08006")
    scene.logged("closing server", mark)
    assert any(one in scene.pooler.log_text(mark) for one in reason.split("|"))
    assert scene.wait_served() != before
    scene.wait_rest(rest)


@pytest.mark.parametrize("what", _MISCHIEF)
def test_mischief_at_rest(scene: Scene, hostile: _HostilePath, what: str) -> None:
    """Nobody has asked anything: nobody is told, and the next client is served by another server."""
    data, reason = _MISCHIEF[what]
    before = scene.wait_served()
    rest = scene.at_rest()
    mark = scene.pooler.log_size()
    hostile.gateway.say(data, last="end within" in what)
    scene.logged("closing server", mark)
    assert any(one in scene.pooler.log_text(mark) for one in reason.split("|"))
    assert scene.ask() != before
    scene.wait_rest(rest)


def test_pings_are_no_mischief(scene: Scene, hostile: _HostilePath) -> None:
    """Pings and pongs in any number and between any two messages change nothing."""
    before = scene.wait_served()
    with scene.pooler.connect() as connection:
        for number in range(50):
            hostile.gateway.say((message(b"are you there", 0x89) + message(b"", 0x8A)) * 20)
            assert connection.execute("SELECT %s::int", (number,)).fetchone() == (number,)
    assert scene.ask() == before
