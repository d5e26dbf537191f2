"""A small PostgreSQL client on a plain socket, for what pgbench cannot do: COPY, thousands of idle clients.

It speaks protocol 3.0 (PostgreSQL docs, "Frontend/Backend Protocol") with trust authentication and simple
queries only, and costs next to nothing itself, so that the pooler is what is measured.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING, Self

from attrs import define, field, frozen

from benchmarks.processes import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_TIMEOUT = 30.0
_COPY_BUFFER = 1 << 20
_READY = b"Z\0\0\0\5I"
_TERMINATE = b"X\0\0\0\4"


@frozen
class Endpoint:
    """Where a target listens and as whom to log in; `password` is "" where trust reigns."""

    port: int
    user: str = "bench"
    password: str = ""
    database: str = "bench"
    host: str = "127.0.0.1"


@define(eq=False)
class Client:
    """One connection, logged in. A context manager that says goodbye.

    Attributes:
        endpoint: where and as whom to log in; a server that asks for a password refuses.
        patience: seconds to wait for anything.

    Raises:
        BenchError: the server refuses the login or asks for a password.
        OSError: no connection.
    """

    endpoint: Endpoint
    patience: float = _TIMEOUT
    _socket: socket.socket = field(init=False)
    _buffer: bytes = field(default=b"", init=False)

    def __attrs_post_init__(self) -> None:
        self._socket = self._connect()
        try:
            parameters = f"user\0{self.endpoint.user}\0database\0{self.endpoint.database}\0\0".encode()
            self._socket.sendall(struct.pack("!ii", 8 + len(parameters), 3 << 16) + parameters)
            self._until_ready()
        except BaseException:
            self._socket.close()
            raise

    def _connect(self) -> socket.socket:
        sock = socket.create_connection((self.endpoint.host, self.endpoint.port), timeout=self.patience)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Send Terminate and close the socket."""
        try:
            self._socket.sendall(_TERMINATE)
        except OSError:
            pass  # the other side was faster; the connection ends either way
        finally:
            self._socket.close()

    def execute(self, sql: str) -> None:
        """Run a simple query and drop its rows.

        Raises:
            BenchError: the server answers with an error.
        """
        self._send_query(sql)
        self._until_ready()

    def value(self, sql: str) -> str:
        """Run a simple query that gives one row of one column, as text.

        Raises:
            BenchError: the server answers with an error, or without a row.
        """
        self._send_query(sql)
        found = self._until_ready()
        if not found:
            raise BenchError(f"no row from: {sql}")
        return found[6:].decode()

    def row(self, sql: str) -> list[str]:
        """Run a simple query that gives one row, as texts; a NULL is an empty one.

        Raises:
            BenchError: the server answers with an error, or without a row.
        """
        self._send_query(sql)
        found = self._until_ready()
        if not found:
            raise BenchError(f"no row from: {sql}")
        values, at = [], 2
        while at < len(found):
            length = max(int.from_bytes(found[at : at + 4], "big", signed=True), 0)
            values.append(found[at + 4 : at + 4 + length].decode())
            at += 4 + length
        return values

    def ask(self, sql: str) -> None:
        """Send a simple query; the answer is for `answered`."""
        self._send_query(sql)

    def answered(self, timeout: float) -> None:
        """Wait for the answer to a query that has been sent, and drop its rows.

        Args:
            timeout: seconds.

        Raises:
            BenchError: the server answers with an error.
        """
        self._socket.settimeout(timeout)
        self._until_ready()

    def drain(self, sql: str, tag: bytes) -> tuple[int, float]:
        """Run a query whose answer is large, and throw the answer away.

        Args:
            sql: a query whose rows hold no zero bytes.
            tag: how its CommandComplete begins.

        Returns:
            The bytes that arrived, and the seconds from the query to its end.

        Raises:
            BenchError: it did not go through to its end.
        """
        started = time.monotonic()
        total, tail = 0, b""
        for count, tail in self.pieces(sql):  # noqa: B007 - the last one is looked at
            total += count
        seconds = time.monotonic() - started
        if tag not in tail:
            raise BenchError(f"the query failed after {total:,} bytes: {tail!r}")
        return total, seconds

    def pieces(self, sql: str) -> Iterator[tuple[int, bytes]]:
        """Run a query whose answer is large, and tell of each piece how long it is, and its end.

        Args:
            sql: a query whose rows hold no zero bytes.

        Raises:
            BenchError: the connection was closed.
        """
        buffer = bytearray(_COPY_BUFFER)
        view = memoryview(buffer)
        tail = b""
        self._send_query(sql)
        # As rows have no zero bytes, these six bytes at the end can only be ReadyForQuery.
        while not tail.endswith(_READY):
            count = self._socket.recv_into(buffer)
            if count == 0:
                raise BenchError(f"port {self.endpoint.port}: the connection was closed")
            tail = (tail + bytes(view[max(0, count - 64) : count]))[-64:]
            yield count, tail

    def copy_in(self, sql: str, piece: bytes, count: int) -> tuple[int, float]:
        """Run a COPY ... FROM STDIN.

        Args:
            sql: the statement.
            piece: some whole rows, sent as one CopyData message.
            count: how often it is sent.

        Returns:
            The bytes that were sent, and the seconds from the statement to its end.

        Raises:
            BenchError: it did not go through to its end.
        """
        message = b"d" + struct.pack("!i", 4 + len(piece)) + piece
        started = time.monotonic()
        self._send_query(sql)
        kind, _ = self._message()
        if kind != b"G":
            raise BenchError(f"COPY was answered with {kind!r}")
        for _ in range(count):
            self._socket.sendall(message)
        self._socket.sendall(b"c\0\0\0\4")
        self._until_ready()
        return len(message) * count, time.monotonic() - started

    def _send_query(self, sql: str) -> None:
        body = sql.encode() + b"\0"
        self._socket.sendall(b"Q" + struct.pack("!i", 4 + len(body)) + body)

    def _until_ready(self) -> bytes:
        """Read messages up to ReadyForQuery; returns the last DataRow's body, if there was one."""
        problem, row = "", b""
        while True:
            kind, body = self._message()
            if kind == b"D":
                row = body
            elif kind == b"E":
                fields = {part[:1]: part[1:] for part in body.split(b"\0") if part}
                problem = fields.get(b"M", b"unknown error").decode(errors="replace")
                if fields.get(b"S") != b"ERROR":
                    break
            elif kind == b"R" and body != b"\0\0\0\0":
                problem = "the server asks for a password"
                break
            elif kind == b"Z":
                break
        if problem:
            raise BenchError(f"port {self.endpoint.port}: {problem}")
        return row

    def _message(self) -> tuple[bytes, bytes]:
        while len(self._buffer) < 5 or len(self._buffer) < 1 + int.from_bytes(self._buffer[1:5], "big"):
            data = self._socket.recv(65536)
            if not data:
                raise BenchError(f"port {self.endpoint.port}: the connection was closed")
            self._buffer += data
        end = 1 + int.from_bytes(self._buffer[1:5], "big")
        kind, body = self._buffer[:1], self._buffer[5:end]
        self._buffer = self._buffer[end:]
        return kind, body
