"""What changes hands between the warmer and the relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

if TYPE_CHECKING:
    import socket

    from hyperpool.errors import UpstreamError
    from hyperpool.pool.login import Way
    from hyperpool.pool.state import Pool

AnyPool: TypeAlias = "Pool[Any, Any]"


@attrs.frozen(eq=False)
class ServerReady:
    """A server connection that is logged in. Whoever holds this owns the socket.

    Attributes:
        sock: non-blocking.
        pool: the pool that asked for it.
        generation: the pool's, when it was asked for: where it connects to may have changed meanwhile.
        parameters: what the server reported.
        pid: the server's process id.
        secret: the server's cancel secret.
        expires: when its lifetime ends, monotonic seconds; 0 for never.
        way: leads to the same server once more; None if nothing does.
        address: the server's, for logs.
        local: our own end's, for logs.
    """

    sock: socket.socket
    pool: AnyPool
    generation: int
    parameters: dict[str, str]
    pid: int
    secret: bytes
    expires: float
    way: Way | None = None
    address: str = ""
    local: str = ""


@attrs.frozen(eq=False)
class ServerFailed:
    """A server connection could not be had.

    Attributes:
        pool: the pool that asked for it.
        generation: the pool's, when it was asked for.
        error: why.
    """

    pool: AnyPool
    generation: int
    error: UpstreamError
