"""What changes hands between the front door and the admin console."""

from __future__ import annotations

import os
import socket
from struct import Struct
from typing import TYPE_CHECKING, Final, Protocol

import attrs

if TYPE_CHECKING:
    from hyperpool.wire.startup import StartupMessage

CONSOLE: Final = frozenset({"pgbouncer", "hyperpool"})
"""The virtual databases."""

OWNER: Final = "pgbouncer"
"""The user that needs no password when it comes through a Unix socket from the pooler's own operating system user."""

_CREDENTIALS: Final = Struct("3i")
"""``struct ucred``: process id, user id and group id of a Unix socket's peer (unix(7), SO_PEERCRED)."""


@attrs.frozen(eq=False)
class ConsoleReady:
    """A client that is authenticated and wants the console. Whoever holds this owns the socket.

    Attributes:
        sock: non-blocking.
        user: as whom it has logged in.
        owner: it needs no entry in admin_users.
        application_name: what it calls itself.
        pid: the process id of its cancel key.
        secret: the secret of its cancel key.
        welcome: what it is still to be sent in front of the parameters: AuthenticationOk and so on.
        received: bytes that it has already sent behind its login.
        address: where it comes from, for logs.
    """

    sock: socket.socket
    user: str
    owner: bool
    application_name: str
    pid: int
    secret: bytes
    welcome: bytes
    received: bytes
    address: str


class ConsoleDoor(Protocol):
    """Where clients of the console go."""

    def check(self, user: str, *, owner: bool) -> object:
        """Whether a user may use the console.

        Raises:
            ClientRefused: it may not.
        """

    def adopt(self, ready: ConsoleReady, *, unread: bool, hung_up: bool) -> None:
        """Take over a client that may.

        Args:
            ready: the client.
            unread: the socket may hold bytes that no event will tell of.
            hung_up: the client has shut down its side, and no event will tell of it again.
        """

    def count(self) -> int:
        """How many clients there are; they count for max_client_conn, as in pgbouncer, but are let in beyond it."""

    def cancel(self, pid: int, secret: bytes) -> None:
        """Cancel what a client of the console waits for, if there is one with this key."""


def is_owner(sock: socket.socket, message: StartupMessage) -> bool:
    """Whether a client is the pooler's own operating system user, and asks for the console as `OWNER`."""
    if message.database not in CONSOLE or message.user != OWNER or sock.family != socket.AF_UNIX:
        return False
    return peer_credentials(sock)[1] == os.geteuid()


def peer_credentials(sock: socket.socket) -> tuple[int, int]:
    """Process id and user id of a Unix socket's peer; 0 and -1 if they are not known."""
    try:
        pid, uid, _ = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
    except OSError:
        return 0, -1
    return pid, uid
