"""Fetching new answers in the background, while the old ones are still served.

It is done in the relay, by a client without a socket: it stands in its pool's queue like any other, has the settings of
a client that has asked for the same, and so gets a server connection that is adjusted to them, watched for timeouts,
and given back as usual. A task beside the relay would need all that a second time.

It has low priority: it is not begun while clients wait for a server, nor with more than a part of the pool.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from hyperpool.cache.flights import Flight
from hyperpool.relay.client import ClientConnection
from hyperpool.relay.filling import Fill
from hyperpool.relay.handover import ClientReady
from hyperpool.relay.requests import Request

if TYPE_CHECKING:
    from hyperpool.cache.lane import Plan
    from hyperpool.cache.store import Entry
    from hyperpool.relay.handover import RelayLane, RelayPool
    from hyperpool.relay.loop import Relay
    from hyperpool.relay.parameters import ParameterSet

_PART: Final = 4
"""One in so many of a pool's server connections may be at work for the cache."""

_MOST: Final = 8
"""Server connections of an unlimited pool that may be."""
_NOWHERE: Final = socket.socket()
_NOWHERE.close()
"""The socket of a client that nobody hears."""


class Refresher(ClientConnection):
    """A client without a socket, who asks once.

    Args:
        relay: the relay.
        pool: where its server comes from.
        tracked: the session parameters that the answer depends on.
    """

    __slots__ = ()

    def __init__(self, relay: Relay, pool: RelayPool, tracked: ParameterSet) -> None:
        super().__init__(
            relay,
            ClientReady(
                sock=_NOWHERE,
                pool=pool,
                tracked=tracked,
                pid=0,
                secret=b"",
                welcome=b"",
                received=b"",
                address="the result cache",
            ),
        )

    def transmit(self, data: bytes | memoryview, flags: int = 0) -> None:
        """Nobody hears it: the answer is taken where it passes."""

    def readable(self, mask: int) -> None:
        """It has said all that it will say."""

    def close(self, reason: str, farewell: bytes | None = None) -> None:  # noqa: ARG002 - nobody is told
        """It will get no answer, or needs none any more."""
        if self.closed:
            return
        self.end()
        self.stop_waiting()
        server, self.server = self.server, None
        if server is not None:
            server.client = None
            server.abandoned(mid_message=False)

    def begin(self, request: bytes) -> bool:
        """Ask, if there is a server for it, or one may be opened. Returns whether it has."""
        pool = self.pool
        server = self._idle_server()
        if server is not None:
            if self._link(server):
                self._forward(server, request, memoryview(request), 0, len(request))
            else:
                self.parked = request
            return True
        if pool.connections >= pool.size:
            return False
        self._wait(request)
        return not self.closed


def refresh(client: ClientConnection, lane: RelayLane, plan: Plan, request: Request, entry: Entry) -> None:
    """Fetch a new answer for an entry that is stale, unless that is being done or there is no server to spare.

    Args:
        client: who has just been given the stale one.
        lane: its pool's part of the cache.
        plan: for its query.
        request: what it has asked.
        entry: the entry.
    """
    pool, relay = client.pool, client.relay
    most = max(1, int(min(pool.size / _PART, _MOST)))
    if entry.refreshing or lane.refreshes >= most or pool.waiting or plan.key in lane.flights:
        return
    refresher = Refresher(relay, pool, client.tracked)
    flight: Flight[ClientConnection, Request] = Flight(plan.key, lane.database.mark())
    alone = Request(request.kind, request.text, request.size)
    alone.statement, alone.types, alone.values = request.statement, request.types, request.values
    alone.limit = request.limit
    alone.name = None if request.statement is None else b""
    entry.refreshing = True
    lane.refreshes += 1
    lane.flights[plan.key] = flight
    refresher.fill = Fill(lane, plan, alone, flight, renews=entry)
    if not refresher.begin(request.alone()):
        refresher.close("no server can be spared")
