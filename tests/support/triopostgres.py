"""A PostgreSQL server of few words, as tasks in the test's own Trio run."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio

from hyperpool.wire import messages
from tests.support.memorynet import PeerEnd

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

LOGIN = (
    messages.authentication_ok()
    + messages.parameter_status("server_version", "16.4")
    + messages.parameter_status("TimeZone", "UTC")
)
SSL_CODE = b"\x04\xd2\x16\x2f"
CANCEL_CODE = b"\x04\xd2\x16\x2e"


class TrioPostgres:
    """Trusts everybody, and answers every Query with an empty result.

    It knows BEGIN and COMMIT, and has no TLS. A query that begins with "hold" is answered when `release` is called.

    Attributes:
        host: where it listens.
        port: the TCP port, or the number in the Unix socket's name.
        sessions: the users who have logged in, in order.
        queries: what has been asked, in order, without the pooler's empty checks.
        cancels: the process ids of the cancel requests that have come.
        connections: how many are open.
    """

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        address = listener.socket.getsockname()
        self.host, port = address if isinstance(address, tuple) else address.split("/.s.PGSQL.")
        self.port = int(port)
        self.sessions: list[str] = []
        self.queries: list[str] = []
        self.cancels: list[int] = []
        self.connections = 0
        self._released = trio.Event()
        self._arrived = trio.Event()

    @classmethod
    async def start(cls, nursery: trio.Nursery, directory: Path | None = None) -> Self:
        """Listen on 127.0.0.1 or on a Unix socket in a directory, in a nursery that ends with the test."""
        if directory is None:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        else:
            sock = trio.socket.socket(trio.socket.AF_UNIX)
            await sock.bind(str(directory / ".s.PGSQL.5432"))
            sock.listen()
            listener = trio.SocketListener(sock)
        server = cls(listener)
        nursery.start_soon(server._run)
        return server

    def release(self) -> None:
        """Let all queries that are held be answered."""
        self._released.set()
        self._released = trio.Event()

    async def wait_for_query(self, text: str) -> None:
        """Wait until a query has come."""
        with trio.fail_after(10):
            while text not in self.queries:
                self._arrived = trio.Event()
                await self._arrived.wait()

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            await trio.serve_listeners(self._talk, [self._listener], handler_nursery=nursery)

    async def _talk(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        async with stream:
            with contextlib.suppress(EOFError, trio.BrokenResourceError):
                await self._session(PeerEnd(stream))
        self.connections -= 1

    async def _session(self, peer: PeerEnd) -> None:
        packet = await peer.read_packet()
        if packet[4:8] == SSL_CODE:
            await peer.send(b"N")
            packet = await peer.read_packet()
        if packet[4:8] == CANCEL_CODE:
            self.cancels.append(int.from_bytes(packet[8:12], "big"))
            return
        words = packet[8:].split(b"\0")
        self.sessions.append(words[words.index(b"user") + 1].decode())
        pid = len(self.sessions)
        await peer.send(LOGIN + messages.backend_key_data(pid, b"s3cr") + messages.ready_for_query())
        status = b"I"
        while True:
            kind, body = await peer.read_message()
            if kind == b"X":
                return
            text = body[:-1].decode()
            if text:
                self.queries.append(text)
                self._arrived.set()
            if text.startswith("hold"):
                await self._released.wait()
            status = {"BEGIN": b"T", "COMMIT": b"I"}.get(text, status)
            await peer.send(
                messages.frame(ord("C"), text.encode() + b"\0") + messages.ready_for_query(status)
            )


class TrioClient(PeerEnd):
    """A client of a pooler.

    Attributes:
        pid: of its cancel key.
        secret: of its cancel key.
    """

    pid: int
    secret: bytes

    @classmethod
    async def connect(cls, port: int, database: str = "app", user: str = "ann") -> Self:
        """Connect to 127.0.0.1 and log in.

        Raises:
            AssertionError: the login is refused.
        """
        client = cls(await trio.open_tcp_stream("127.0.0.1", port))
        await client.send(messages.startup_message({"user": user, "database": database}))
        for kind, body in await client.answer():
            if kind == b"K":
                client.pid, client.secret = messages.backend_key_fields(body)
        return client

    async def answer(self) -> list[tuple[bytes, bytes]]:
        """Read up to ReadyForQuery.

        Raises:
            AssertionError: an ErrorResponse came.
        """
        found = []
        with trio.fail_after(10):
            while True:
                kind, body = await self.read_message()
                assert kind != b"E", messages.error_fields(body)
                found.append((kind, body))
                if kind == b"Z":
                    return found

    async def ask(self, text: str) -> str:
        """Run a query; returns its command tag."""
        await self.send(messages.query(text))
        return (await self.answer())[0][1][:-1].decode()

    async def farewell(self) -> str:
        """Read up to the end; returns the SQLSTATE of the error before it, if there was one."""
        with trio.fail_after(10):
            data = await self.wait_closed()
        await self.close()
        return messages.error_fields(data[5:])["C"] if data else ""

    async def cancel(self, port: int) -> None:
        """Ask for what this client does to be cancelled, and wait until the request has been taken."""
        other = PeerEnd(await trio.open_tcp_stream("127.0.0.1", port))
        await other.send(messages.cancel_request(self.pid, self.secret))
        with trio.fail_after(10):
            assert await other.wait_closed() == b""
        await other.close()
