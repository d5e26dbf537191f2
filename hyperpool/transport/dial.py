"""The steps ``tcp`` and ``unix``: byte streams that the kernel makes."""

from __future__ import annotations

import os
import socket
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Final

import trio

from hyperpool.errors import ConnectFailed
from hyperpool.transport.plain import PlainStream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hyperpool.config.transports import TcpStep, UnixStep
    from hyperpool.transport.kinds import DialContext
    from hyperpool.transport.resolve import Address

_HEAD_START: Final = 0.25
"""Seconds that an address has until the next one is tried, too (RFC 8305, section 8: Connection Attempt Delay)."""


async def open_tcp(step: TcpStep, below: trio.abc.Stream | None, context: DialContext) -> PlainStream:
    """Open a TCP stream, trying the addresses of the host as RFC 8305 (happy eyeballs) says.

    Raises:
        ConnectFailed: no address could be found, or none answered.
    """
    assert below is None  # noqa: S101 - the settings see to it
    where = f"[{step.host}]:{step.port}" if ":" in step.host else f"{step.host}:{step.port}"
    with context.trace.hop("resolve", step.host) as hop:
        try:
            addresses = await context.resolver.resolve(step.host, step.port)
        except OSError as error:
            raise ConnectFailed(f"cannot connect to {where}: {_reason(error)}") from error
        except UnicodeError as error:
            raise ConnectFailed(f"cannot connect to {where}: not a valid host name") from error
        hop.facts["addresses"] = ", ".join(str(address[0]) for _, address in addresses)
    with context.trace.hop("tcp", where) as hop:
        try:
            sock = await _connect_any(_interleaved(addresses))
            try:
                hop.facts["address"] = str(sock.getpeername()[0])
                context.options.apply(sock)
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            raise ConnectFailed(f"cannot connect to {where}: {_reason(error)}") from error
    return PlainStream(sock)


async def open_unix(step: UnixStep, below: trio.abc.Stream | None, context: DialContext) -> PlainStream:
    """Open a stream to a Unix socket: a file, or a name in the abstract namespace for ``@...``.

    Raises:
        ConnectFailed: nothing listens there.
    """
    assert below is None  # noqa: S101 - the settings see to it
    await trio.lowlevel.checkpoint()
    path = step.path
    with context.trace.hop("unix", path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            # Connecting to a Unix socket never has to be waited for: when it cannot be done at once, it has failed.
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
        except OSError as error:
            sock.close()
            raise ConnectFailed(f"cannot connect to {path}: {_reason(error)}") from error
    return PlainStream(sock)


async def _connect_any(addresses: list[Address]) -> socket.socket:
    """Connect to the first address that answers; each one is tried a little later than the one before.

    Raises:
        OSError: none did; why the first one did not.
    """
    if len(addresses) == 1:
        return await _connect(addresses[0])
    failures: dict[int, OSError] = {}
    connected: list[socket.socket] = []

    async def attempt(number: int, ended: trio.Event) -> None:
        try:
            connected.append(await _connect(addresses[number]))
            nursery.cancel_scope.cancel()
        except OSError as error:
            failures[number] = error
        finally:
            ended.set()

    try:
        async with trio.open_nursery() as nursery:
            for number in range(len(addresses)):
                ended = trio.Event()
                nursery.start_soon(attempt, number, ended)
                with trio.move_on_after(_HEAD_START):
                    await ended.wait()
        if not connected:
            raise failures[0]
        return connected.pop(0)
    finally:
        for sock in connected:
            sock.close()


async def _connect(address: Address) -> socket.socket:
    """Connect to one address. Cancelled or failed, the socket is closed."""
    family, sockaddr = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await trio.lowlevel.checkpoint()
        try:
            sock.connect(sockaddr)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error)) from None
    except BaseException:
        trio.lowlevel.notify_closing(sock)
        sock.close()
        raise
    return sock


def _interleaved(addresses: Iterable[Address]) -> list[Address]:
    """The addresses with families taking turns, the first one's first (RFC 8305, section 4)."""
    families: dict[socket.AddressFamily, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return [one for one in chain.from_iterable(zip_longest(*families.values())) if one is not None]


def _reason(error: OSError) -> str:
    """What went wrong, in the system's words."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return str(error.strerror or error)
    return os.strerror(error.errno)
