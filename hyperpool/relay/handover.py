"""What changes hands between the front door and the relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

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


@attrs.define(eq=False)
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
    """

    sock: socket.socket
    pool: RelayPool
    tracked: ParameterSet
    pid: int
    secret: bytes
    welcome: bytes
    received: bytes
    address: str
    greet: Callable[[ParameterSet], bytes] | None = None
    user: str = ""
    counted: bool = False
