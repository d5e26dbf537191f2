"""What changes hands between the front door and the relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hyperpool.cache.lane import Lane
    from hyperpool.pool.state import Pool
    from hyperpool.pool.statements import Statement
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.parameters import ParameterSet
    from hyperpool.relay.requests import Request
    from hyperpool.relay.server import ServerConnection

RelayPool: TypeAlias = "Pool[ServerConnection, ClientConnection]"
RelayLane: TypeAlias = "Lane[ClientConnection, Request, Statement]"


class ClientReady:
    """A client that is authenticated. Whoever holds this owns the socket.

    Attributes:
        sock: non-blocking.
        pool: where its servers come from.
        tracked: the session parameters that it asked for.
        pid: the process id of its cancel key, from `Relay.reserve_key`.
        secret: the secret of its cancel key.
        welcome: what is still to be sent to it: AuthenticationOk up to ReadyForQuery, unless `greet` makes that.
        received: bytes that it has already sent behind its login.
        address: where it comes from, for logs.
        user: as whom it has logged in, which its server need not know.
        greet: if it asked for parameters that no server has taken yet: makes the rest of what is to be sent to it, from
            what a server made of them.
        counted: it is in the census already, as a client of its pool's database.
        unread: the socket may hold bytes that no event will tell of.
        hung_up: the client has shut down its side, and no event will tell of it again.
    """

    __slots__ = (
        "address",
        "counted",
        "greet",
        "hung_up",
        "pid",
        "pool",
        "received",
        "secret",
        "sock",
        "tracked",
        "unread",
        "user",
        "welcome",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - it is what it is made of
        self,
        sock: socket.socket,
        pool: RelayPool,
        tracked: ParameterSet,
        pid: int,
        secret: bytes,
        welcome: bytes,
        received: bytes,
        address: str,
        greet: Callable[[ParameterSet], bytes] | None = None,
        user: str = "",
        counted: bool = False,
    ) -> None:
        self.sock = sock
        self.pool = pool
        self.tracked = tracked
        self.pid = pid
        self.secret = secret
        self.welcome = welcome
        self.received = received
        self.address = address
        self.greet = greet
        self.user = user
        self.counted = counted
        self.unread = False
        self.hung_up = False
