"""Far ends that send what no WebSocket may carry: the client is told, the log says why, the next one is served.

Both ways round: a gateway, which the pooler has connected to (as to an ingress), and an agent, which has connected to
the pooler.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest

from tests.support import scenes
from tests.support.gateways import HOST, TOKEN, Token
from tests.support.network import ESTABLISHED, free_port, tcp_sockets
from tests.support.paths import Path
from tests.support.proxy import FaultProxy
from tests.support.rawclient import frame
from tests.support.scenes import Scene, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.paths import PrivatePostgres
    from tests.support.targets import Config

pytestmark = [pytest.mark.hyperpool_only]

private_pg = scenes.private_pg

_BOUND: Final = 1 << 20
"""The longest message that the pooler accepts."""
_MASK: Final = b"\x1f\x2e\x3d\x4c"
_PAUSE: Final = 0.02
"""Seconds between two attempts of an agent's to connect."""


class _FarEnd:
    """The far end of WebSockets that lead to a Unix socket, with threads, and with mischief.

    Args:
        target: the Unix socket.
    """

    masks: ClassVar[bool]
    """Whether it is the WebSocket's client: that one masks what it sends."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._open: list[socket.socket] = []
        self._writing = threading.Lock()
        self._threads: list[threading.Thread] = []

    def _spawn(self, function: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _connect(self, near: socket.socket) -> socket.socket:
        far = socket.socket(socket.AF_UNIX)
        far.connect(self._target)
        self._open += [near, far]
        return far

    def _forward(self, near: socket.socket, source: Any, far: socket.socket) -> None:
        self._spawn(self._outward, far, near)
        while True:
            far.sendall(payload(source))

    def _outward(self, far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(1 << 16):
                with self._writing:
                    near.sendall(message(data, masked=self.masks))
        _shut(near, far)

    def say(self, data: bytes, *, last: bool = False) -> None:
        """Send bytes as they are on all streams, between two messages; then, if it is the last, hang up."""
        with self._writing:
            for near in self._open[::2]:
                with contextlib.suppress(OSError):
                    near.sendall(data)
                    if last:
                        near.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        _shut(*self._open)
        for thread in list(self._threads):
            thread.join(10)
            assert not thread.is_alive(), "a thread of the far end hangs"
        for sock in self._open:
            sock.close()


class _Gateway(_FarEnd):
    """A WebSocket gateway, which the pooler connects to."""

    masks = False

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._spawn(self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._spawn(self._inward, near, self._connect(near))

    def _inward(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), near.makefile("rb") as source:
            headers = dict(
                line.decode().strip().split(": ", 1)
                for line in iter(source.readline, b"\r\n")
                if b": " in line
            )
            near.sendall(accepted(headers["Sec-WebSocket-Key"]))
            self._forward(near, source, far)
        _shut(near, far)

    def close(self) -> None:
        """End everything."""
        _shut(self._listener)
        super().close()
        self._listener.close()


class _Agent(_FarEnd):
    """An agent, which connects to the pooler, and keeps some connections there that wait.

    Args:
        target: the Unix socket.
        port: of the pooler's section ``agents``.
        ready: how many connections wait.
    """

    masks = True

    def __init__(self, target: str, port: int, ready: int) -> None:
        super().__init__(target)
        self._port = port
        self._over = threading.Event()
        self._waiting: set[socket.socket] = set()
        for _ in range(ready):
            self._spawn(self._keep)

    def _keep(self) -> None:
        """Have a connection that waits; once it is used, another one takes its place."""
        while not self._over.wait(_PAUSE):
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                near = stack.enter_context(socket.create_connection((HOST, self._port)))
                source = stack.enter_context(near.makefile("rb"))
                if self._is_asked(near, source):
                    stack.pop_all()
                    self._spawn(self._keep)
                    self._serve(near, source)
                    return

    def _is_asked(self, near: socket.socket, source: Any) -> bool:
        """Wait until the pooler asks for the target; False if it never does."""
        near.sendall(request(self._port, TOKEN))
        if not source.readline().startswith(b"HTTP/1.1 101 "):
            return False
        while source.readline() != b"\r\n":
            pass
        self._waiting.add(near)
        line = b""
        try:
            while not line.startswith(b"open"):
                line = payload(source)
        except EOFError:
            return False
        finally:
            self._waiting.discard(near)
        return True

    def _serve(self, near: socket.socket, source: Any) -> None:
        with contextlib.suppress(OSError, EOFError), source:
            near.sendall(message(b"ok\n", masked=True))
            self._forward(near, source, self._connect(near))
        _shut(*self._open[self._open.index(near) :][:2])

    def say_waiting(self, data: bytes, *, last: bool = False) -> None:
        """Send bytes as they are on all connections that wait; then, if it is the last, hang up."""
        for near in list(self._waiting):
            with contextlib.suppress(OSError):
                near.sendall(data)
                if last:
                    near.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        self._over.set()
        _shut(*self._waiting)
        super().close()


def _shut(*socks: socket.socket) -> None:
    for sock in socks:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def accepted(key: str) -> bytes:
    """The answer that opens a WebSocket."""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    accept = base64.b64encode(digest).decode()
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    return "\r\n".join([*lines, f"Sec-WebSocket-Accept: {accept}", "", ""]).encode()


def request(port: int, token: Token) -> bytes:
    """The upgrade that a client asks for, with its token."""
    lines = [
        *("GET / HTTP/1.1", f"Host: {HOST}:{port}", "Upgrade: websocket", "Connection: Upgrade"),
        *(f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", "Sec-WebSocket-Version: 13"),
        *(f"CF-Access-Client-Id: {token.id}", f"CF-Access-Client-Secret: {token.secret}"),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def payload(source: Any) -> bytes:
    """What the peer's next binary message carries; a pong carries nothing, a Close frame ends the connection."""
    first, second = _exactly(source, 2)
    if first not in {0x82, 0x8A}:
        raise EOFError
    size = second & 0x7F
    if size >= 126:
        width = 2 if size == 126 else 8
        size = int.from_bytes(_exactly(source, width), "big")
    mask = _exactly(source, 4) if second & 0x80 else bytes(4)
    clear = _masked(_exactly(source, size), mask)
    return clear if first == 0x82 else b""


def _masked(data: bytes, mask: bytes) -> bytes:
    """With a mask put on, or taken off."""
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def _exactly(source: Any, size: int) -> bytes:
    data = bytes(source.read(size))
    if len(data) < size:
        raise EOFError
    return data


def message(data: bytes, first: int = 0x82, *, masked: bool = False) -> bytes:
    """A frame; by default a whole binary message. A client's must be masked, a server's must not."""
    bit = 0x80 if masked else 0
    if len(data) < 126:
        head = bytes([first, bit | len(data)])
    elif len(data) < 1 << 16:
        head = struct.pack("!BBH", first, bit | 126, len(data))
    else:
        head = struct.pack("!BBQ", first, bit | 127, len(data))
    return head + (_MASK + _masked(data, _MASK) if masked else data)


class _HostileGateway(Path):
    """With the hostile gateway at the far end."""

    kind = "hostile gateway"

    def _start(self) -> None:
        self.far = _Gateway(self.pg.socket_path)
        self._stack.callback(self.far.close)
        self.proxy = self._stack.enter_context(FaultProxy(self.far.port))

    def _transport(self) -> list[dict[str, Any]]:
        token = {"token_id": TOKEN.id, "token_secret": TOKEN.secret}
        return [
            {"tcp": {"host": HOST, "port": self.proxy.port}},
            {"websocket": {"max_received": _BOUND, **token}},
        ]

    def log_text(self) -> str:
        """It keeps no log."""
        return ""


class _HostileAgent(Path):
    """With the hostile agent at the far end."""

    kind = "hostile agent"
    spare = 2

    def _start(self) -> None:
        self._port = free_port()
        self.far = _Agent(self.pg.socket_path, self._port, self.spare)
        self._stack.callback(self.far.close)

    def _transport(self) -> list[dict[str, Any]]:
        return [{"agent": {"name": "site"}}]

    def connections(self) -> int:
        """How many connections the agent has to the pooler."""
        return sum(one.state == ESTABLISHED for one in tcp_sockets(local_port=self._port))

    def config(self, **pooler: object) -> Config:
        """With the section where agents arrive."""
        config = super().config(**pooler)
        tokens = {"site": {"id": TOKEN.id, "secret": TOKEN.secret}}
        config["agents"] = {"listen_port": self._port, "max_message_size": _BOUND, "tokens": tokens}
        return config

    def log_text(self) -> str:
        """It keeps no log."""
        return ""


_HOSTILE: Final = {path.kind: path for path in (_HostileGateway, _HostileAgent)}


@pytest.fixture(scope="module", params=_HOSTILE)
def hostile(request: pytest.FixtureRequest, private_pg: PrivatePostgres) -> Iterator[Any]:
    """The way through the hostile far end."""
    with _HOSTILE[request.param](private_pg) as path:
        yield path


@pytest.fixture(scope="module")
def scene(hostile: Path) -> Iterator[Scene]:
    """A pooler with one server connection, through the hostile far end."""
    with started(hostile.config(default_pool_size=1)) as pooler:
        scene = Scene(hostile, pooler)
        scene.wait_served()
        yield scene
        scene.no_secrets()


_NOTICE: Final = frame(b"N", b"SNOTICE\0C00000\0M" + b"x" * 60_000 + b"\0\0")


def _mischief(*, masked: bool) -> dict[str, tuple[bytes, str]]:
    """What is sent by a client (or a server), by what it is, and what the log says about it (one of several)."""

    def told(data: bytes, first: int = 0x82) -> bytes:
        return message(data, first, masked=masked)

    bit = 0x80 if masked else 0
    return {
        "garbage": (b"\xff\xfe" * 40, "what a WebSocket must not carry"),
        "text": (told(b"hello", 0x81), "a text message"),
        "a frame that is masked, or not, as it must not be": (
            message(b"hello", masked=not masked),
            "what a WebSocket must not carry",
        ),
        "a frame without an end": (
            struct.pack("!BBQ", 0x82, bit | 127, 1 << 40),
            "a message of more than 1048576 bytes",
        ),
        "a message without an end": (
            told(_NOTICE, 0x02) + told(_NOTICE, 0x00) * 20,
            "a message of more than 1048576 bytes",
        ),
        "a message that continues nothing": (told(b"x", 0x80), "what a WebSocket must not carry"),
        "a ping that is too long": (told(b"x" * 200, 0x89), "what a WebSocket must not carry"),
        "a size with its highest bit set": (
            bytes([0x82, bit | 0x7F]) + b"\xff" * 8,
            "1048576 bytes|must not carry",
        ),
        "the end within a frame": (told(_NOTICE)[:3], "ended within a frame"),
        "the end": (
            told(struct.pack("!H", 1011) + b"out of order", 0x88),
            "has closed the WebSocket (1011 internal error)",
        ),
        "another protocol within": (told(b"SSH-2.0-OpenSSH_9.2\r\n"), "closing server"),
    }


_MISCHIEF: Final = {masked: _mischief(masked=masked) for masked in (False, True)}


@pytest.mark.parametrize("what", _MISCHIEF[False])
def test_mischief_in_a_query(scene: Scene, hostile: Any, what: str) -> None:
    """The client's query fails with the reason, nothing is left open, and the next client is served."""
    data, reason = _MISCHIEF[hostile.far.masks][what]
    before = scene.wait_served()
    rest = scene.at_rest()
    mark = scene.pooler.log_size()
    with scene.asking() as asking:
        hostile.far.say(data, last="end within" in what)
    assert (asking.fields["S"], asking.fields["C"]) == ("FATAL", "08006")
    scene.logged("closing server", mark)
    assert any(one in scene.pooler.log_text(mark) for one in reason.split("|"))
    assert scene.wait_served() != before
    scene.wait_rest(rest)


@pytest.mark.parametrize("what", _MISCHIEF[False])
def test_mischief_at_rest(scene: Scene, hostile: Any, what: str) -> None:
    """Nobody has asked anything: nobody is told, and the next client is served by another server."""
    data, reason = _MISCHIEF[hostile.far.masks][what]
    before = scene.wait_served()
    rest = scene.at_rest()
    mark = scene.pooler.log_size()
    hostile.far.say(data, last="end within" in what)
    scene.logged("closing server", mark)
    assert any(one in scene.pooler.log_text(mark) for one in reason.split("|"))
    assert scene.ask() != before
    scene.wait_rest(rest)


@pytest.mark.parametrize("what", _MISCHIEF[True])
@pytest.mark.parametrize("hostile", [_HostileAgent.kind], indirect=True)
def test_mischief_of_an_agent_that_waits(scene: Scene, hostile: Any, what: str) -> None:
    """What nobody has asked for yet is no use any more; streams go on, and the agent may come again."""
    data, reason = _MISCHIEF[True][what]
    before = scene.wait_served()
    rest = scene.at_rest()
    mark = scene.pooler.log_size()
    hostile.far.say_waiting(data, last="end within" in what)
    scene.logged("agent went", mark)
    reasons = [*reason.split("|"), "a line is too long", "it spoke without being asked"]
    assert any(one in scene.pooler.log_text(mark) for one in reasons)
    assert scene.ask() == before
    scene.wait_rest(rest)


def test_pings_are_no_mischief(scene: Scene, hostile: Any) -> None:
    """Pings and pongs in any number and between any two messages change nothing."""
    masked = hostile.far.masks
    pings = message(b"are you there", 0x89, masked=masked) + message(b"", 0x8A, masked=masked)
    before = scene.wait_served()
    with scene.pooler.connect() as connection:
        for number in range(50):
            hostile.far.say(pings * 20)
            assert connection.execute("SELECT %s::int", (number,)).fetchone() == (number,)
    assert scene.ask() == before
