"""Gates, agents and those who knock at them, in the test's own Trio run."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import structlog
import trio

from hyperpool.auth.tokens import Token, TokenTable, secret_digest
from hyperpool.transport.frames import WebSocketStream
from hyperpool.transport.kinds import DialContext
from hyperpool.transport.resolve import Resolver
from hyperpool.transport.sockets import TcpOptions
from hyperpool.tunnel.gate import Gate, GateOptions, listen
from tests.support.logbook import LogBook
from tests.support.network import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from hyperpool.tunnel.gate import Guest

SECRET = "correct horse battery staple 0123"
OTHER_SECRET = "incorrect horse battery staple 45"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def token(name: str = "alice", token_id: str = "", secret: str = SECRET) -> Token:
    """A token; its id is its name with `.access` behind it, unless one is given."""
    return Token(name, token_id or f"{name}.access", secret_digest(secret.encode()))


def table(*tokens: Token) -> TokenTable:
    """Tokens that are accepted; by default Alice's."""
    return TokenTable(tokens or (token(),))


def request(path: str = "/", headers: dict[str, str] | None = None, **change: str) -> bytes:
    """The request for a WebSocket, with Alice's token; `change` replaces headers, an empty value removes one."""
    all_headers = {
        "Host": "gate.example.com",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
        "CF-Access-Client-Id": "alice.access",
        "CF-Access-Client-Secret": SECRET,
        **(headers or {}),
    }
    all_headers |= {name.replace("_", "-"): value for name, value in change.items()}
    lines = [f"{name}: {value}" for name, value in all_headers.items() if value]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


async def head_of(stream: trio.abc.Stream) -> tuple[int, bytes, bytes]:
    """An answer: its status (0 when there is none), its head, and what came behind it."""
    received = b""
    with contextlib.suppress(trio.BrokenResourceError):
        while b"\r\n\r\n" not in received:
            data = await stream.receive_some()
            if not data:
                return 0, received, b""
            received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), head, rest


async def ask(port: int, data: bytes) -> tuple[int, bytes]:
    """Send bytes to a gate that refuses them.

    Returns:
        The status, and all that was received.
    """
    with trio.fail_after(10):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(data)
            status, head, rest = await head_of(stream)
            with contextlib.suppress(trio.BrokenResourceError):
                while more := await stream.receive_some():
                    rest += more
    return status, head + b"\r\n\r\n" + rest if status else head


async def enter(port: int, data: bytes | None = None) -> WebSocketStream:
    """Come in through a gate."""
    with trio.fail_after(10):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(data or request())
        status, head, rest = await head_of(stream)
    assert status == 101, head
    return WebSocketStream(stream, client=True, received=rest)


@contextlib.contextmanager
def log_book() -> Iterator[LogBook]:
    """All log entries of the test."""
    book = LogBook()
    config = structlog.get_config()
    structlog.configure(processors=[book])
    try:
        yield book
    finally:
        structlog.configure(**config)


async def echo(guest: Guest) -> None:
    """Let a guest in, and send back what it sends."""
    stream = await guest.accept()
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.aclose()


@contextlib.asynccontextmanager
async def open_gate(
    handle: Callable[[Guest], Awaitable[None]] = echo, **options: Any
) -> AsyncIterator[tuple[int, Gate]]:
    """A gate on a port of its own; in the end, all of its tasks must end as soon as all guests have left."""
    gate = Gate("gate", GateOptions(**{"tokens": table(), **options}), handle)
    port = free_port()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gate.run, await listen(["127.0.0.1"], port, "port"))
        yield port, gate
        gate.close()
        nursery.cancel_scope.deadline = trio.current_time() + 10
    assert not nursery.cancel_scope.cancelled_caught, "tasks are left"
    assert gate.inside == 0


def dial_context() -> DialContext:
    """For connecting to loopback."""
    return DialContext(options=TcpOptions(), resolver=Resolver(15, 15))
