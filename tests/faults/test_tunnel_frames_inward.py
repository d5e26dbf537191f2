"""Poolers that send `hyperpool tunnel` what no WebSocket may carry: the stream ends, the log says why, others go on.

Both ways round: at an ingress, which the pooler has connected to, and at an agent, which has connected to the pooler.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest

from tests.faults.test_tunnel_frames import accepted, message, payload, request
from tests.support import farend
from tests.support.farend import FarEnd
from tests.support.gateways import HOST, Token
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import PostgresCluster

pytestmark = [pytest.mark.hyperpool_only]

_BOUND: Final = 1 << 16
"""The longest message that the far end accepts."""
_SSL_REQUEST: Final = struct.pack("!II", 8, 80877103)
_LIMIT: Final = 20.0  # seconds


class _Stream:
    """A stream to PostgreSQL through a far end, of which every byte can be chosen.

    Args:
        sock: the connection, on which the WebSocket is open.
        source: reads from it.
        masked: whether our frames must be masked.
    """

    def __init__(self, sock: socket.socket, source: Any, *, masked: bool) -> None:
        self.sock = sock
        self.source = source
        self.masked = masked

    def told(self, data: bytes, first: int = 0x82) -> bytes:
        """A frame as it must be."""
        return message(data, first, masked=self.masked)

    def works(self) -> bool:
        """Whether PostgreSQL answers; to be asked once."""
        self.sock.sendall(self.told(_SSL_REQUEST))
        return payload(self.source) in {b"S", b"N"}

    def wait_ended(self) -> None:
        """Read until the other side has ended it."""
        with contextlib.suppress(ConnectionResetError):
            while self.source.read(1 << 16):
                pass

    def close(self) -> None:
        """Close it."""
        self.source.close()
        self.sock.close()


class _Ingress:
    """We connect to it."""

    name: ClassVar[str] = "ingress"

    def __init__(self, pg: PostgresCluster) -> None:
        self.far = FarEnd(farend.ingress(pg.port, max_message_size=_BOUND))
        self.far.wait_for("tunnel is up")

    def open(self) -> _Stream:
        """Have a stream."""
        sock = socket.create_connection((HOST, self.far.port), _LIMIT)
        source = sock.makefile("rb")
        sock.sendall(request(self.far.port, Token("pooler.access", farend.SECRET)))
        assert source.readline().startswith(b"HTTP/1.1 101 ")
        while source.readline() != b"\r\n":
            pass
        return _Stream(sock, source, masked=True)

    def close(self) -> None:
        """End everything."""
        self.far.stop()
        self.far.destroy()


class _Agent:
    """It connects to us."""

    name: ClassVar[str] = "agent"

    def __init__(self, pg: PostgresCluster) -> None:
        self._listener = socket.create_server((HOST, 0))
        self._listener.settimeout(_LIMIT)
        document = farend.agent(pg.port, {"listen_port": self._listener.getsockname()[1]}, ready=1)
        document["poolers"]["main"]["transport"][0]["websocket"]["max_received"] = _BOUND
        self.far = FarEnd(document)
        self._waiting: _Stream | None = None

    def _accept(self) -> _Stream:
        """Let the connection in that it makes; it waits for work."""
        sock, _ = self._listener.accept()
        sock.settimeout(_LIMIT)
        source = sock.makefile("rb")
        lines = iter(source.readline, b"\r\n")
        headers = dict(line.decode().strip().split(": ", 1) for line in lines if b": " in line)
        (key,) = (value for name, value in headers.items() if name.lower() == "sec-websocket-key")
        sock.sendall(accepted(key))
        sock.sendall(message(b"hyperpool-agents 1\n"))
        return _Stream(sock, source, masked=False)

    def open(self) -> _Stream:
        """Have a stream made of the connection that waits, and another one in its place."""
        stream, self._waiting = self._waiting, None
        stream = stream or self._accept()
        stream.sock.sendall(message(b"open db\n"))
        assert payload(stream.source) == b"ok\n"
        self._waiting = self._accept()
        return stream

    def close(self) -> None:
        """End everything."""
        self.far.stop()
        self.far.destroy()
        if self._waiting is not None:
            self._waiting.close()
        self._listener.close()


@pytest.fixture(scope="module", params=[_Ingress, _Agent], ids=["ingress", "agent"])
def site(request: pytest.FixtureRequest, _pg: PostgresCluster) -> Iterator[Any]:
    """A far end, in front of PostgreSQL."""
    made = request.param(_pg)
    with contextlib.closing(made):
        yield made


_NOT_ALLOWED: Final = "sent what a WebSocket must not carry"
_TOO_LONG: Final = f"a message of more than {_BOUND} bytes"


def _mischief(stream: _Stream, what: str) -> tuple[bytes, str]:
    """What is sent, and what the log says about it (one of several)."""
    bit = 0x80 if stream.masked else 0
    said = {
        "garbage": (b"\xff\xfe" * 40, _NOT_ALLOWED),
        "text": (stream.told(b"hello", 0x81), "a text message"),
        "the wrong mask": (message(b"hello", masked=not stream.masked), _NOT_ALLOWED),
        "a frame without an end": (struct.pack("!BBQ", 0x82, bit | 127, 1 << 40), _TOO_LONG),
        "a message without an end": (stream.told(bytes(_BOUND), 0x02) + stream.told(b"x", 0x00), _TOO_LONG),
        "a size with its highest bit set": (bytes([0x82, bit | 0x7F]) + b"\xff" * 8, _NOT_ALLOWED),
        "a ping that is too long": (stream.told(b"x" * 200, 0x89), _NOT_ALLOWED),
        "the end within a frame": (stream.told(bytes(300))[:3], "ended within a frame"),
        "another protocol": (stream.told(b"GET / HTTP/1.1\r\n\r\n"), "ended_by=target"),
    }
    return said[what]


@pytest.mark.parametrize(
    "what",
    [
        *("garbage", "text", "the wrong mask", "a frame without an end", "a message without an end"),
        *("a size with its highest bit set", "a ping that is too long", "the end within a frame"),
        "another protocol",
    ],
)
def test_mischief(site: Any, what: str) -> None:
    """The stream ends at once, and nothing stays open; another one works all the while, and so does the next."""
    with contextlib.closing(site.open()) as other:
        files = site.far.open_files()
        mark = len(site.far.log_text())
        with contextlib.closing(site.open()) as stream:
            assert stream.works()
            data, reason = _mischief(stream, what)
            stream.sock.sendall(data)
            if "end within" in what:
                stream.sock.shutdown(socket.SHUT_WR)
            stream.wait_ended()
            eventually(lambda: "stream closed" in site.far.log_text()[mark:], what="the log has the end")
        assert reason in site.far.log_text()[mark:]
        eventually(lambda: site.far.open_files() == files, what="nothing stays open")
        assert other.works()
