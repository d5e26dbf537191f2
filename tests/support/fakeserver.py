"""A server of exact bytes, for answers that no PostgreSQL gives."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

from tests.support import rawclient as raw

if TYPE_CHECKING:
    from types import TracebackType

AUTHENTICATION_OK = raw.frame(b"R", struct.pack("!i", 0))
READY = raw.frame(b"Z", b"I")
PARAMETERS = {
    "server_version": "16.0",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "application_name": "",
}
_KEY = raw.frame(b"K", struct.pack("!ii", 4711, 4712))
LOGIN = (
    AUTHENTICATION_OK
    + b"".join(raw.frame(b"S", raw.cstring(k) + raw.cstring(v)) for k, v in PARAMETERS.items())
    + _KEY
    + READY
)
_VERSION_3_0 = struct.pack("!i", 3 << 16)
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_CANCEL_REQUEST = struct.pack("!i", 80877102)


def row(value: str) -> bytes:
    """Build the whole answer to a simple query with one text value, without ReadyForQuery."""
    column = raw.cstring("c") + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
    data = value.encode()
    return (
        raw.frame(b"T", struct.pack("!h", 1) + column)
        + raw.frame(b"D", struct.pack("!hi", 1, len(data)) + data)
        + raw.frame(b"C", b"SELECT 1\0")
    )


def login(secret: bytes, minor: int = 2) -> bytes:
    """Build `LOGIN` with another cancel secret, and with a negotiation if the protocol shall not be 3.2."""
    negotiated = raw.frame(b"v", struct.pack("!ii", 3 << 16 | minor, 0)) if minor != 2 else b""
    head, _, _ = LOGIN.partition(_KEY)
    return negotiated + head + raw.frame(b"K", struct.pack("!i", 4711) + secret) + READY


class FakeServer:
    """Accepts connections, reads the StartupMessage and answers from a script; cancel requests are noted.

    It has no TLS, and says so.

    Args:
        script: what is sent, step by step: the first step after the StartupMessage, each further one after the
            next bytes from the pooler. Behind the last step the connection is kept until the pooler closes it,
            or, if that step is empty, closed.
        hang_up: close the connection at once behind the last step.
        refusal: what a StartupMessage for any version but 3.0 is answered with before the connection is closed;
            None: every version is welcome.

    Attributes:
        port: the TCP port on 127.0.0.1.
        connections: how many connections were accepted.
        versions: the minor protocol version of each StartupMessage.
        cancels: process id and secret of each CancelRequest, as bytes.
    """

    def __init__(self, *script: bytes, hang_up: bool = False, refusal: bytes | None = None) -> None:
        self._script = script
        self._hang_up = hang_up
        self._refusal = refusal
        self.versions: list[int] = []
        self.cancels: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a thread of the fake server hangs"
        for sock in self._open:
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                self._open.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            first = sock.recv(1 << 16)
            if first == _SSL_REQUEST:
                sock.sendall(b"N")
                first = sock.recv(1 << 16)
            if first[4:8] == _CANCEL_REQUEST:
                self.cancels.append(first[8:])
            elif first:
                self.versions.append(first[7])
                if self._refusal is None or first[4:8] == _VERSION_3_0:
                    self._answer(sock)
                else:
                    sock.sendall(self._refusal)
            sock.shutdown(socket.SHUT_RDWR)

    def _answer(self, sock: socket.socket) -> None:
        for number, step in enumerate(self._script):
            if (number and not sock.recv(1 << 16)) or not step:
                return
            sock.sendall(step)
        while not self._hang_up and sock.recv(1 << 16):
            pass
