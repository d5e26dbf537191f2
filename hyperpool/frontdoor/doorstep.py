"""Where each client that comes is looked at: whether it may come in, as far as that is known at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from hyperpool.workers.messages import SeatKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.frontdoor.console import ConsoleDoor
    from hyperpool.frontdoor.guest import Guest
    from hyperpool.pool.pools import Pools
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.handover import RelayPool
    from hyperpool.relay.loop import Relay
    from hyperpool.relay.server import ServerConnection

ALL: Final = SeatKey("all")
"""Seats of the whole pooler (``max_client_conn``)."""


class Places(Protocol):
    """What several processes agree on, so that they do not let in more clients together than one may."""

    def free(self, seat: SeatKey) -> bool:
        """Whether one more client may come in."""

    def seek(self, seat: SeatKey, then: Callable[[bool], None]) -> None:
        """Find out whether the other processes can spare a seat.

        Args:
            seat: of which kind.
            then: called later, with whether one is free.
        """


class Doorstep:
    """What is asked about every client, however like others it is.

    Args:
        relay: the data plane; limits count its clients.
        pools: where clients get their servers from.

    Attributes:
        relay: the same.
        pools: the same.
        most: clients at a time (``max_client_conn``).
        timeout: seconds for a login (``client_login_timeout``).
        console: where clients of the admin console go; None for nowhere.
        places: what other processes leave for this one; None if there are none.
        traced: called with each client's pool and address when it is let in, and the seconds that it took; None for
            nobody.
        closed_at: who has connected later is not let in; monotonic seconds.
    """

    def __init__(self, relay: Relay, pools: Pools[ServerConnection, ClientConnection]) -> None:
        self.relay = relay
        self.pools = pools
        self.most = 0
        self.timeout = float("inf")
        self.console: ConsoleDoor | None = None
        self.places: Places | None = None
        self.traced: Callable[[RelayPool, str, float], None] | None = None
        self.closed_at = float("inf")

    def lets_in(self, guest: Guest) -> bool:
        """Whether a guest came before the door was closed."""
        return guest.since <= self.closed_at

    def has_seat(self) -> bool:
        """Whether there may be one more client, as far as this process knows."""
        if self.places is not None:
            return self.places.free(ALL)
        taken = self.relay.population
        if self.console is not None:
            taken += self.console.count()
        return taken < self.most

    def leads(self, guest: Guest, place: tuple[str, str], pool: RelayPool) -> bool:
        """Whether a client still comes to a pool to which others came, as far as can be told without looking it up.

        Args:
            guest: the client.
            place: the database and the user that it asks for.
            pool: the pool.
        """
        pools = self.pools
        return (
            guest.since <= self.closed_at
            and pools.found.get(place) is pool
            and (not pools.disabled or place[0] not in pools.disabled)
        )
