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
LOGIN = (
    AUTHENTICATION_OK
    + b"".join(raw.frame(b"S", raw.cstring(k) + raw.cstring(v)) for k, v in PARAMETERS.items())
    + raw.frame(b"K", struct.pack("!ii", 4711, 4712))
    + READY
)


def row(value: str) -> bytes:
    """Build the whole answer to a simple query with one text value, without ReadyForQuery."""
    column = raw.cstring("c") + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
    data = value.encode()
    return (
        raw.frame(b"T", struct.pack("!h", 1) + column)
        + raw.frame(b"D", struct.pack("!hi", 1, len(data)) + data)
        + raw.frame(b"C", b"SELECT 1\0")
    )


class FakeServer:
    """Accepts connections, reads the StartupMessage and answers from a script.

    Args:
        script: what is sent, step by step: the first step after the StartupMessage, each further one after the
            next bytes from the pooler. Behind the last step the connection is kept until the pooler closes it,
            or, if that step is empty, closed.
        hang_up: close the connection at once behind the last step.

    Attributes:
        port: the TCP port on 127.0.0.1.
        connections: how many connections were accepted.
    """

    def __init__(self, *script: bytes, hang_up: bool = False) -> None:
        self._script = script
        self._hang_up = hang_up
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
            for step in self._script:
                if not sock.recv(1 << 16) or not step:
                    break
                sock.sendall(step)
            else:
                while not self._hang_up and sock.recv(1 << 16):
                    pass
            sock.shutdown(socket.SHUT_RDWR)
