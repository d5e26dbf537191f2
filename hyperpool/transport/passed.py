"""Listening sockets that this process has not opened itself.

They come from systemd (socket activation), from a process that this one follows, or from a parent that has opened them
for several processes. Whoever wants to listen asks here first.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

CLIENTS: Final = "clients"
"""The role of sockets on which clients come in."""

AGENTS: Final = "agents"
"""The role of sockets on which agents come in."""

HTTP: Final = "http"
"""The role of sockets on which HTTP is spoken."""


@attrs.frozen(eq=False)
class PassedSocket:
    """A listening socket that somebody else has opened.

    Attributes:
        sock: it may be blocking.
        role: what it is for: `CLIENTS`, `AGENTS`, `HTTP`, or a name that others agree on.
        fixed: it is used whatever addresses the settings name, and its file is not ours to remove; otherwise it is used
            if the settings name its address.
    """

    sock: socket.socket
    role: str = CLIENTS
    fixed: bool = False


class PassedSockets:
    """Owns the sockets that were passed, until somebody takes them.

    Args:
        sockets: handed over.

    Attributes:
        replaced: the roles whose sockets stand in the place of what the settings say.
    """

    def __init__(self, sockets: Iterable[PassedSocket] = ()) -> None:
        self._sockets = list(sockets)
        self.replaced = frozenset(one.role for one in self._sockets if one.fixed)

    def __bool__(self) -> bool:
        return bool(self._sockets)

    def fixed(self, role: str) -> list[socket.socket]:
        """Take the sockets that stand in the place of what the settings say, for one role."""
        return [self._take(one) for one in list(self._sockets) if one.fixed and one.role == role]

    def bound(self, role: str, address: object) -> socket.socket | None:
        """Take the socket that is bound to an address.

        Args:
            role: what it is for.
            address: as `socket.socket.getsockname` has it.

        Returns:
            None if there is no such socket: the address is to be bound.
        """
        for one in self._sockets:
            if not one.fixed and one.role == role and one.sock.getsockname() == address:
                return self._take(one)
        return None

    def close(self) -> list[str]:
        """Close what nobody has taken.

        Returns:
            The addresses, for people.
        """
        left, self._sockets = self._sockets, []
        names = [socket_name(one.sock) for one in left]
        for one in left:
            one.sock.close()
        return names

    def _take(self, one: PassedSocket) -> socket.socket:
        self._sockets.remove(one)
        one.sock.setblocking(False)
        return one.sock


def socket_name(sock: socket.socket) -> str:
    """The address that a socket is bound to, for people; an abstract name begins with ``@``, as in the settings."""
    address = sock.getsockname()
    if isinstance(address, bytes):
        address = address.decode(errors="backslashreplace")
    if isinstance(address, str):
        return f"@{address[1:]}" if address.startswith("\0") else address
    host, port = address[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"
