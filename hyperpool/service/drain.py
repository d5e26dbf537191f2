"""Closing clients gently while the pooler ends: between transactions, a few at a time, and all of them in the end."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

from hyperpool.relay.tables import IDLE

if TYPE_CHECKING:
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.loop import Relay

_REST: Final = 1.0
"""Seconds that a client must have been idle before it is closed for `drain_rate`: a busy one is about to ask more."""

_LAST_PART: Final = 0.1
_LAST_PART_MOST: Final = 5.0
"""Seconds that the last part of the time takes at most."""

_FAREWELL: Final = "terminating connection because the pooler is shutting down"


class Drain:
    """Has clients leave.

    A client is closed when nothing is under way between it and a server, and its socket holds nothing that it has sent:
    no transaction is cut, and no query is lost, unless it is on its way through the network at that very moment; such a
    query has not been executed.

    Args:
        relay: whose clients.
        timeout: seconds from now on; 0 for no limit.
        rate: clients per second.
    """

    def __init__(self, relay: Relay, timeout: float, rate: int) -> None:
        self._relay = relay
        self._rate = rate
        self._allowed = 0.0
        self._looked = relay.time()
        self._deadline = self._looked + (timeout or float("inf"))
        self._last_part = self._deadline - min(timeout * _LAST_PART, _LAST_PART_MOST)

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return self._relay.time() >= self._deadline

    @property
    def seconds(self) -> float:
        """How much time is left; infinite without a limit."""
        return max(self._deadline - self._relay.time(), 0.0)

    def look(self) -> None:
        """Close the clients whose turn it is; for every 100 ms."""
        now = self._relay.time()
        # What was not used is lost: clients that fall idle together are not closed together.
        self._allowed = min(self._allowed + self._rate * (now - self._looked), max(self._rate, 1.0))
        self._looked = now
        if now >= self._last_part:
            self._close(list(self._relay.clients.values()))
        elif self._allowed >= 1.0:
            rested = [one for one in self._relay.clients.values() if now - one.active >= _REST]
            # Those that keep a server, for a session or its state, lose more.
            rested.sort(key=lambda client: (client.server is not None, client.active))
            self._allowed -= self._close(rested, int(self._allowed))

    def _close(self, clients: list[ClientConnection], most: int = 1 << 30) -> int:
        """Close those that are idle, at most so many, and return how many."""
        closed = 0
        for client in clients:
            if closed >= most:
                break
            if is_idle(client):
                client.refuse(_FAREWELL, "57P01", "connect again")
                closed += 1
        return closed


def is_idle(client: ClientConnection) -> bool:
    """Whether a client has no transaction, and has asked for nothing that it has not been answered."""
    if client.greet is not None or client.parked is not None or client.rest or client.skip or client.outbox:
        return False
    server = client.server
    if server is not None and not (
        server.status == IDLE and server.ledger.clean and not server.ledger.unsynced
    ):
        return False
    if client.unread or client.queued:
        return False
    poll = select.poll()
    poll.register(client.fd, select.POLLIN)
    return not poll.poll(0)
