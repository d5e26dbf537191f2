"""The HTTP server: hypercorn, in the pooler's own Trio run."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from hyperpool.errors import StartupError
from hyperpool.http.guests import Guest, Guests
from hyperpool.transport.passed import HTTP, PassedSockets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyperpool.config.http import HttpSettings
    from hyperpool.http.site import Site

log = structlog.get_logger("http")

_PAUSE: Final = 1.0
"""Seconds after which the server is started again that has failed."""
_BACKLOG: Final = 64
_HEAD_WITHIN: Final = 20
"""Seconds in which the head of a request has to come, the first one or the next one."""
_BODY_WITHIN: Final = 30
"""Seconds in which some of a body has to come."""


def open_sockets(
    settings: HttpSettings, passed: PassedSockets, *, reuse_port: bool = False
) -> list[socket.socket]:
    """Open the listening sockets.

    Args:
        settings: the section.
        passed: sockets that are open already; those that are of use here are taken.
        reuse_port: other processes listen on the same port.

    Returns:
        The caller owns them.

    Raises:
        StartupError: an address cannot be had; nothing is left open then, but what has not been taken.
    """
    sockets = passed.fixed(HTTP)
    if sockets:
        return sockets
    try:
        for host in settings.listen_addr:
            sockets += _listen(host, settings.listen_port, passed, reuse_port=reuse_port)
    except OSError as error:
        _close(sockets)
        reason = error.strerror or str(error)
        raise StartupError(
            f"cannot listen on {host}:{settings.listen_port}: {reason}; see http.listen_addr and http.listen_port"
        ) from error
    return sockets


def _listen(host: str, port: int, passed: PassedSockets, *, reuse_port: bool) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    name = None if host == "*" else host
    try:
        for family, kind, *_, address in socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            sock = passed.bound(HTTP, address)
            if sock is None:
                sock = socket.socket(family, kind)
                sockets.append(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
                sock.listen(_BACKLOG)
            else:
                sockets.append(sock)
    except OSError:
        _close(sockets)
        raise
    return sockets


def _close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


async def run(site: Site, sockets: Sequence[socket.socket]) -> None:
    """Serve a site until cancelled. What goes wrong here is logged, and ends nothing but what it has to do with.

    Args:
        site: with all of its routes.
        sockets: listening ones; they stay open.
    """
    config = Config()
    config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = _HEAD_WITHIN
    config.read_timeout = _BODY_WITHIN
    config.h11_max_incomplete_size = 16384
    config.h2_max_concurrent_streams = 4
    app = ASGIWrapper(site.app())  # type: ignore[arg-type]  # starlette and hypercorn differ in names alone

    async def serve(guest: Guest) -> None:
        try:
            await TCPServer(app, config, WorkerContext(None), ConnectionState({}), guest)  # type: ignore[arg-type]
        except Exception as error:
            log.error("an HTTP connection failed", exc_info=error)

    guests = Guests(serve)
    while True:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(guests.end_with)
                await trio.serve_listeners(guests.welcome, [_listener(sock) for sock in sockets])
        except Exception as error:
            # It must not take the pooler with it.
            log.error("the HTTP server failed: it is started again", exc_info=error)
        await trio.sleep(_PAUSE)


def _listener(sock: socket.socket) -> trio.SocketListener:
    """Accepts connections, until it is closed, which closes nothing else."""
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock.dup()))
