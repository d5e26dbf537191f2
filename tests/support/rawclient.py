"""A PostgreSQL client of exact bytes, for sequences that no well-behaved driver sends.

It knows the frame layout (PostgreSQL docs, chapter "Frontend/Backend Protocol") and nothing of hyperpool.
"""

from __future__ import annotations

import hashlib
import socket
import struct
from typing import TYPE_CHECKING, Final, Self

import attrs
import scramp

if TYPE_CHECKING:
    from types import TracebackType

PROTOCOL_3_0: Final = 3 << 16
SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
GSSENC_REQUEST: Final = struct.pack("!ii", 8, 80877104)
_TIMEOUT: Final = 15.0  # seconds; every wait of the raw client ends by then


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Build one typed frame."""
    return kind + struct.pack("!i", len(payload) + 4) + payload


def startup_packet(parameters: dict[str, str], version: int = PROTOCOL_3_0) -> bytes:
    """Build a StartupMessage."""
    body = b"".join(cstring(key) + cstring(value) for key, value in parameters.items()) + b"\0"
    return struct.pack("!ii", len(body) + 8, version) + body


def cancel_packet(pid: int, secret: bytes) -> bytes:
    """Build a CancelRequest."""
    return struct.pack("!iii", 12 + len(secret), 80877102, pid) + secret


def cstring(text: str) -> bytes:
    """Encode a zero-terminated string."""
    return text.encode(errors="surrogateescape") + b"\0"


def query(sql: str) -> bytes:
    """Build a Query."""
    return frame(b"Q", cstring(sql))


def parse(sql: str, name: str = "") -> bytes:
    """Build a Parse that leaves all parameter types to the server."""
    return frame(b"P", cstring(name) + cstring(sql) + struct.pack("!h", 0))


def bind(*values: bytes, portal: str = "", name: str = "") -> bytes:
    """Build a Bind with parameters and results in text format."""
    body = cstring(portal) + cstring(name) + struct.pack("!hh", 0, len(values))
    body += b"".join(struct.pack("!i", len(value)) + value for value in values)
    return frame(b"B", body + struct.pack("!h", 0))


def describe_portal(portal: str = "") -> bytes:
    """Build a Describe of a portal."""
    return frame(b"D", b"P" + cstring(portal))


def execute(portal: str = "", rows: int = 0) -> bytes:
    """Build an Execute; 0 rows means all."""
    return frame(b"E", cstring(portal) + struct.pack("!i", rows))


SYNC: Final = frame(b"S")
FLUSH: Final = frame(b"H")
TERMINATE: Final = frame(b"X")
COPY_DONE: Final = frame(b"c")


def extended(sql: str, *values: bytes) -> bytes:
    """Build Parse, Bind and Execute of one statement, without a Sync."""
    return parse(sql) + bind(*values) + execute()


def copy_data(data: bytes) -> bytes:
    """Build a CopyData."""
    return frame(b"d", data)


@attrs.frozen
class Frame:
    """One frame from the server.

    Attributes:
        kind: its type byte.
        body: all that follows the length.
    """

    kind: bytes
    body: bytes

    @property
    def fields(self) -> dict[str, str]:
        """The fields of an ErrorResponse or NoticeResponse by their one-letter codes."""
        parts = self.body.split(b"\0")
        return {part[:1].decode(): part[1:].decode(errors="replace") for part in parts if part}

    @property
    def columns(self) -> list[bytes | None]:
        """The values of a DataRow."""
        (count,) = struct.unpack_from("!h", self.body)
        values: list[bytes | None] = []
        at = 2
        for _ in range(count):
            (size,) = struct.unpack_from("!i", self.body, at)
            at += 4
            values.append(None if size < 0 else self.body[at : at + size])
            at += max(size, 0)
        return values


class ConnectionEnded(Exception):
    """The other side closed or reset the connection."""


class RawClient:
    """One connection that sends and receives exact bytes.

    Args:
        address: a (host, port) pair, or the path of a Unix socket.
    """

    def __init__(self, address: tuple[str, int] | str) -> None:
        if isinstance(address, str):
            self.sock = _connect_unix(address)
        else:
            self.sock = socket.create_connection(address, timeout=_TIMEOUT)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self.parameters: dict[str, str] = {}
        self.pid = 0
        self.secret = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.sock.close()

    @property
    def port(self) -> int:
        """The local TCP port."""
        return int(self.sock.getsockname()[1])

    def send(self, *data: bytes) -> None:
        """Send bytes as they are, in one write."""
        try:
            self.sock.sendall(b"".join(data))
        except (ConnectionResetError, BrokenPipeError) as error:
            raise ConnectionEnded from error

    def abort(self) -> None:
        """Reset the connection (RST), as the crash of a client's machine or process may do."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def receive_bytes(self, size: int) -> bytes:
        """Receive exactly so many bytes.

        Raises:
            ConnectionEnded: the connection ended before.
            TimeoutError: nothing came for the client's time limit.
        """
        while len(self._buffer) < size:
            try:
                chunk = self.sock.recv(1 << 20)
            except ConnectionResetError as error:
                raise ConnectionEnded from error
            if not chunk:
                raise ConnectionEnded
            self._buffer += chunk
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def receive(self) -> Frame:
        """Receive one frame; raises as `receive_bytes` does."""
        head = self.receive_bytes(5)
        (length,) = struct.unpack_from("!I", head, 1)
        return Frame(head[:1], self.receive_bytes(length - 4))

    def receive_until(self, kind: bytes = b"Z") -> list[Frame]:
        """Receive frames up to and with the first of a kind, ReadyForQuery by default."""
        frames = [self.receive()]
        while frames[-1].kind != kind:
            frames.append(self.receive())
        return frames

    def receive_all(self) -> list[Frame]:
        """Receive frames until the connection ends."""
        frames = []
        while True:
            try:
                frames.append(self.receive())
            except ConnectionEnded:
                return frames

    def login(self, database: str, user: str, password: str = "", **parameters: str) -> list[Frame]:
        """Log in and return all frames up to and with ReadyForQuery or ErrorResponse."""
        self.send(startup_packet({"user": user, "database": database, **parameters}))
        return self.finish_login(user, password)

    def finish_login(self, user: str, password: str) -> list[Frame]:
        """Answer the authentication requests that follow a StartupMessage; returns as `login` does."""
        scram: scramp.ScramClient | None = None
        frames = []
        while True:
            got = self.receive()
            frames.append(got)
            if got.kind == b"R":
                scram = self._answer(got.body, user, password, scram)
            elif got.kind == b"S":
                name, value = got.body.split(b"\0")[:2]
                self.parameters[name.decode()] = value.decode()
            elif got.kind == b"K":
                (self.pid,) = struct.unpack_from("!i", got.body)
                self.secret = got.body[4:]
            elif got.kind in {b"Z", b"E"}:
                return frames

    def _answer(
        self,
        body: bytes,
        user: str,
        password: str,
        scram: scramp.ScramClient | None,
    ) -> scramp.ScramClient | None:
        (code,) = struct.unpack_from("!i", body)
        if code == 3:  # AuthenticationCleartextPassword
            self.send(frame(b"p", cstring(password)))
        elif code == 5:  # AuthenticationMD5Password
            inner = hashlib.md5((password + user).encode()).hexdigest().encode()
            self.send(frame(b"p", b"md5" + hashlib.md5(inner + body[4:8]).hexdigest().encode() + b"\0"))
        elif code == 10:  # AuthenticationSASL
            scram = scramp.ScramClient(["SCRAM-SHA-256"], user, password)
            first = scram.get_client_first().encode()
            self.send(frame(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first))
        elif code == 11 and scram is not None:  # AuthenticationSASLContinue
            scram.set_server_first(body[4:].decode())
            self.send(frame(b"p", scram.get_client_final().encode()))
        elif code == 12 and scram is not None:  # AuthenticationSASLFinal
            scram.set_server_final(body[4:].decode())
        return scram

    def ask(self, sql: str) -> list[Frame]:
        """Run one simple query and return all frames of its answer."""
        self.send(query(sql))
        return self.receive_until()

    def value(self, sql: str) -> str:
        """Run one simple query and return the first column of its first row."""
        frames = self.ask(sql)
        for got in frames:
            if got.kind == b"E":
                raise AssertionError(f"{sql}: {got.fields}")
            if got.kind == b"D":
                return (got.columns[0] or b"").decode()
        raise AssertionError(f"{sql}: no row in {frames}")

    def close(self) -> None:
        """Say goodbye and close."""
        self.send(TERMINATE)
        self.sock.close()


def _connect_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(_TIMEOUT)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def kinds(frames: list[Frame]) -> bytes:
    """Return the type bytes of frames, in order."""
    return b"".join(got.kind for got in frames)
