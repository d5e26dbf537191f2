"""Limits that several pools share: on the server connections of one database, or of one user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from hyperpool.pool.state import Pool, ServerLike

S = TypeVar("S", bound="ServerLike")
C = TypeVar("C")


class Quota(Generic[S, C]):
    """What pools with a database or a user in common may have together. Sans-IO, as they are.

    Attributes:
        limit: server connections at most; 0 is no limit.
        pools: those that share it.
    """

    def __init__(self) -> None:
        self.limit = 0
        self.pools: set[Pool[S, C]] = set()

    @property
    def room(self) -> float:
        """How many more server connections there may be; negative after the limit was lowered."""
        if not self.limit:
            return float("inf")
        return self.limit - sum(pool.connections for pool in self.pools)

    @property
    def contested(self) -> bool:
        """Whether somebody waits for a server connection of any of the pools."""
        return any(pool.waiting or pool.logins for pool in self.pools)

    def idlest(self) -> S | None:
        """The server connection that has been idle for longest; None if none is idle."""
        idle = (server for pool in self.pools for server in pool.idle)
        return min(idle, key=lambda server: server.idle_since, default=None)
