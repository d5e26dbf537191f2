"""Opening a byte stream to a PostgreSQL server."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import trio

from hyperpool.errors import ConnectFailed
from hyperpool.transport.plain import PlainStream

if TYPE_CHECKING:
    from hyperpool.transport.sockets import TcpOptions


async def dial(host: str, port: int, options: TcpOptions) -> PlainStream:
    """Open a stream to the server that listens at `host` and `port`, as libpq reads them.

    Args:
        host: a name or address (TCP), a directory that starts with ``/`` or an abstract name that starts with ``@``
            (Unix socket).
        port: the TCP port; for a Unix socket, the number in its file name ``.s.PGSQL.PORT``.
        options: for TCP.

    Raises:
        ConnectFailed: with the reason in plain words.
    """
    return await (dial_unix(host, port) if host.startswith(("/", "@")) else dial_tcp(host, port, options))


async def dial_tcp(host: str, port: int, options: TcpOptions) -> PlainStream:
    """Open a TCP stream, trying the addresses of `host` as RFC 8305 (happy eyeballs) says.

    Raises:
        ConnectFailed: no address could be found, or none answered.
    """
    try:
        stream = await trio.open_tcp_stream(host, port)
        sock = _plain_socket(stream.socket)
        try:
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)
            options.apply(sock)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise ConnectFailed(f"cannot connect to {host}:{port}: {_reason(error)}") from error
    except UnicodeError as error:
        raise ConnectFailed(f"cannot connect to {host}:{port}: not a valid host name") from error
    return PlainStream(sock)


async def dial_unix(directory: str, port: int) -> PlainStream:
    """Open a stream to the Unix socket ``.s.PGSQL.PORT`` in `directory`, or in the abstract namespace for ``@...``.

    Raises:
        ConnectFailed: nothing listens there.
    """
    path = f"{directory}/.s.PGSQL.{port}"
    await trio.lowlevel.checkpoint()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # Connecting to a Unix socket never has to be waited for: when it cannot be done at once, it has failed.
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
    except OSError as error:
        sock.close()
        raise ConnectFailed(f"cannot connect to {path}: {_reason(error)}") from error
    return PlainStream(sock)


def redial(sock: socket.socket, host: str, port: int) -> tuple[str, int]:
    """Host and port that lead to the same server once more as a connected socket does.

    A name may lead to another server the next time: TCP's peer has an address. A Unix socket's peer has the path that
    the server knows, which need not be the way to it from here.

    Args:
        sock: the socket.
        host: what was dialed for it.
        port: what was dialed for it.

    Raises:
        OSError: it is not connected any more.
    """
    if sock.family == socket.AF_UNIX:
        return host, port
    address = sock.getpeername()
    return str(address[0]), int(address[1])


def _plain_socket(sock: trio.socket.SocketType) -> socket.socket:
    family, kind, proto = sock.family, sock.type, sock.proto
    return socket.socket(family, kind, proto, fileno=sock.detach())


def _reason(error: OSError) -> str:
    """What went wrong: of several attempts (Trio chains them in a group), the first one's reason."""
    causes = [error, error.__cause__]
    while causes:
        cause = causes.pop()
        if isinstance(cause, BaseExceptionGroup):
            causes.extend(reversed(cause.exceptions))
        elif isinstance(cause, socket.gaierror):
            return str(cause.strerror)
        elif isinstance(cause, OSError) and cause.errno is not None:
            return os.strerror(cause.errno)
    return str(error)
