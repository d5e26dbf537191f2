"""The small client over a WebSocket: what a gateway can do for a client that costs next to nothing."""

from __future__ import annotations

import base64
import os
import struct
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import define

from benchmarks.client import Client
from benchmarks.processes import BenchError

if TYPE_CHECKING:
    import socket
    from typing import Self

_MESSAGE: Final = 16 * 1024
"""Bytes of a message that is sent: as many as hyperpool's."""
_READ: Final = 1 << 20
_BINARY: Final = 0x82
_MASKED: Final = 0x80
_NO_MASK: Final = b"\0\0\0\0"
"""A mask that changes nothing: masking is not what is measured."""


@define(eq=False)
class WebSocketClient(Client):
    """One connection, logged in, through a gateway that speaks WebSocket (RFC 6455) at the endpoint's port."""

    def _connect(self) -> socket.socket:
        return cast("socket.socket", _Carried.open(super()._connect(), self.endpoint.host))


class _Carried:
    """As much of a socket as the client uses, in the binary messages of a WebSocket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(_READ)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._left = 0  # of the message that is being received

    @classmethod
    def open(cls, sock: socket.socket, host: str) -> Self:
        """Ask for the WebSocket."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["GET / HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        sock.sendall("\r\n".join(lines).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            byte = sock.recv(1)
            if not byte:
                break
            answer += byte
        if b" 101 " not in answer.partition(b"\r\n")[0]:
            sock.close()
            raise BenchError(f"the gateway refused: {answer[:100]!r}")
        return cls(sock)

    def sendall(self, data: bytes) -> None:
        """Send messages."""
        frames = bytearray()
        view = memoryview(data)
        for start in range(0, len(data), _MESSAGE):
            piece = view[start : start + _MESSAGE]
            size = len(piece)
            head = (_BINARY, _MASKED | size) if size < 126 else (_BINARY, _MASKED | 126, size)
            frames += struct.pack("!BB" if size < 126 else "!BBH", *head) + _NO_MASK
            frames += piece
        self._socket.sendall(frames)

    def recv(self, size: int) -> bytes:
        """Receive some bytes; b"" at the end."""
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(buffer)])

    def recv_into(self, buffer: bytearray) -> int:
        """Receive some bytes; 0 at the end."""
        if not self._left:
            self._left = self._next_size()
        if not self._left or not self._fill(1):
            return 0
        count = min(self._left, self._end - self._start, len(buffer))
        buffer[:count] = self._view[self._start : self._start + count]
        self._start += count
        self._left -= count
        return count

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _next_size(self) -> int:
        """Read the head of the next binary message that is not empty; 0 at the end."""
        while self._fill(2):
            first, size = self._buffer[self._start], self._buffer[self._start + 1]
            width = {126: 2, 127: 8}.get(size, 0)
            if first != _BINARY or not self._fill(2 + width):
                return 0
            start = self._start + 2
            if width:
                size = int.from_bytes(self._buffer[start : start + width], "big")
            self._start = start + width
            if size:
                return size
        return 0

    def _fill(self, needed: int) -> bool:
        """See to it that so many bytes are there; False at the end."""
        while self._end - self._start < needed:
            if self._start == self._end:
                self._start = self._end = 0
            elif self._start + needed > _READ:
                rest = bytes(self._view[self._start : self._end])
                self._buffer[: len(rest)] = rest
                self._start, self._end = 0, len(rest)
            count = self._socket.recv_into(cast("Any", self._view[self._end :]))
            if not count:
                return False
            self._end += count
        return True
