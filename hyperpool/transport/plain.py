"""A byte stream over a non-blocking socket, that can be detached for the relay."""

from __future__ import annotations

import socket
from typing import Final

import trio

from hyperpool.transport.sockets import unacknowledged_for

_RECEIVE_SIZE: Final = 16384


class PlainStream(trio.abc.HalfCloseableStream):
    """A connected TCP or Unix socket as a Trio stream.

    It differs from `trio.SocketStream` in what the relay needs: it leaves the socket's options as they are (no
    ``TCP_NOTSENT_LOWAT``, which would cost a wakeup per 16 KiB of a large result), and `detach` hands the socket over.

    Args:
        sock: a connected stream socket; it becomes non-blocking, and belongs to the stream from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._open = True
        self._sending = False
        self._sent_eof = False

    @property
    def peer_address(self) -> str:
        """The peer's address, without its port; empty for a Unix socket.

        Raises:
            trio.BrokenResourceError: it is not connected any more.
        """
        try:
            address = self._socket.getpeername()
        except OSError as error:
            raise self._broken(error) from error
        return str(address[0]) if isinstance(address, tuple) else ""

    @property
    def unacknowledged_for(self) -> float:
        """Seconds for which nothing has been acknowledged of what is on its way; 0 when nothing is."""
        return unacknowledged_for(self._socket)

    def detach(self) -> socket.socket:
        """Hand the socket over to the caller; from now on the stream behaves as if closed.

        Raises:
            trio.ClosedResourceError: it is not open any more.
        """
        self._check_open()
        self._open = False
        return self._socket

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`.

        Cancelled midway, an unknown part of it has been sent; the only sound use of the stream is then to close it.
        """
        self._check_sendable()
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            rest = memoryview(data)
            while rest:
                self._check_open()
                try:
                    rest = rest[self._socket.send(rest) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._socket)
                except OSError as error:
                    raise self._broken(error) from error
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes more data."""
        self._check_sendable()
        self._sending = True
        try:
            await trio.lowlevel.wait_writable(self._socket)
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at least one byte, or b"" at the end of the stream. Cancelled, it has received nothing."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        self._check_open()
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while True:
            self._check_open()
            try:
                data = self._socket.recv(_RECEIVE_SIZE if max_bytes is None else max_bytes)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                waited = True
            except OSError as error:
                raise self._broken(error) from error
            else:
                if not waited:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                return data

    async def send_eof(self) -> None:
        """Tell the peer that nothing more will be sent."""
        if not self._sent_eof:
            self._check_sendable()
            self._sent_eof = True
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                raise self._broken(error) from error
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close at once."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close at once, from synchronous code."""
        if self._open:
            self._open = False
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def _check_open(self) -> None:
        if not self._open:
            raise trio.ClosedResourceError("this stream was already closed")

    def _check_sendable(self) -> None:
        self._check_open()
        if self._sent_eof:
            raise trio.ClosedResourceError("this stream was already closed for sending")
        if self._sending:
            raise trio.BusyResourceError("another task is sending data on this stream")

    @staticmethod
    def _broken(error: OSError) -> trio.BrokenResourceError:
        return trio.BrokenResourceError(error.strerror or str(error))
