"""Options of TCP sockets, the same for clients and servers, and names for addresses."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from hyperpool.config import PoolerSettings

_DEFER_ACCEPT = 45
"""Seconds, as in pgbouncer."""

_TCP_INFO_SIZE: Final = 60
_UNACKED: Final = slice(24, 28)
_LAST_ACK: Final = slice(56, 60)
"""Where ``tcpi_unacked`` and ``tcpi_last_ack_recv`` stand in Linux's ``struct tcp_info`` (linux/tcp.h)."""


@attrs.frozen
class TcpOptions:
    """pgbouncer's ``tcp_*`` settings; 0 leaves the kernel's default.

    Attributes:
        keepalive: send keepalive probes.
        keepcnt: probes without an answer before the connection counts as broken.
        keepidle: seconds of silence before the first probe.
        keepintvl: seconds between probes.
        user_timeout: milliseconds that sent data may stay unacknowledged.
        buffer: bytes of the kernel's buffers for sending and for receiving.
        defer_accept: seconds for which a listener keeps a connection back that has sent nothing.
    """

    keepalive: bool = True
    keepcnt: int = 0
    keepidle: int = 0
    keepintvl: int = 0
    user_timeout: int = 0
    buffer: int = 0
    defer_accept: int = 0

    @classmethod
    def of(cls, settings: PoolerSettings) -> TcpOptions:
        """The options that the settings ask for."""
        return cls(
            keepalive=settings.tcp_keepalive,
            keepcnt=settings.tcp_keepcnt,
            keepidle=int(settings.tcp_keepidle),
            keepintvl=int(settings.tcp_keepintvl),
            user_timeout=int(settings.tcp_user_timeout),
            buffer=settings.tcp_socket_buffer,
            defer_accept=_DEFER_ACCEPT if settings.tcp_defer_accept else 0,
        )

    def apply(self, sock: socket.socket) -> None:
        """Set the options, and ``TCP_NODELAY``; a listener's accepted sockets inherit them on Linux.

        Raises:
            OSError: the kernel refuses a value.
        """
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, self.keepalive)
        for name, value in (
            (socket.TCP_KEEPCNT, self.keepcnt),
            (socket.TCP_KEEPIDLE, self.keepidle),
            (socket.TCP_KEEPINTVL, self.keepintvl),
            (socket.TCP_USER_TIMEOUT, self.user_timeout),
        ):
            if value:
                sock.setsockopt(socket.IPPROTO_TCP, name, value)
        if self.buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.buffer)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)

    def apply_to_listener(self, sock: socket.socket) -> None:
        """Set the options for the connections that a listener will accept.

        Raises:
            OSError: the kernel refuses a value.
        """
        self.apply(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, self.defer_accept)


def unacknowledged_for(sock: socket.socket) -> float:
    """Seconds for which nothing has been acknowledged of what is on its way to the other end.

    A peer that does not read, but is there, acknowledges: what its kernel has no room for is not on its way.

    Returns:
        0 when nothing is on its way, or that cannot be known.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    except OSError:
        return 0.0
    if len(info) < _TCP_INFO_SIZE or not any(info[_UNACKED]):
        return 0.0
    return int.from_bytes(info[_LAST_ACK], sys.byteorder) / 1000


def address_name(family: int, address: object) -> str:
    """A peer's address for people: ``host:port``, ``[host]:port`` or ``unix``."""
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
    return "unix"
