"""Sending cancel requests: to servers, and to other poolers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from hyperpool.errors import HyperpoolError
from hyperpool.frontdoor.orders import CancelOrder
from hyperpool.pool.login import cancel
from hyperpool.wire import cancelkeys

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hyperpool.frontdoor.orders import PeerOrder
    from hyperpool.frontdoor.peers import Peers
    from hyperpool.pool.login import Way
    from hyperpool.relay.loop import Relay

log = structlog.get_logger("pooler")

_POLL: Final = 0.002
"""Seconds between two looks whether a server is through with the pooler's own query, which a cancel must not hit."""


class Canceller:
    """Sends each cancel request in a task of its own.

    Args:
        relay: the data plane.
        way_of: the way to the server behind a socket; None if it is not known.
        peers: other poolers.
        timeout: gives the seconds that a request may take; 0 for no limit.
    """

    def __init__(
        self,
        relay: Relay,
        way_of: Callable[[socket.socket], Way | None],
        peers: Peers,
        timeout: Callable[[], float],
    ) -> None:
        self._relay = relay
        self._way_of = way_of
        self._peers = peers
        self._timeout = timeout

    async def run(self, orders: trio.MemoryReceiveChannel[CancelOrder | PeerOrder]) -> None:
        """Send what is ordered, until cancelled; servers and guests are let go on in any case."""
        async with trio.open_nursery() as nursery:
            async for order in orders:
                if isinstance(order, CancelOrder):
                    nursery.start_soon(self._send, order)
                else:
                    nursery.start_soon(self._forward, order)

    async def _send(self, order: CancelOrder) -> None:
        server = order.server
        delivered = False
        try:
            with trio.move_on_after(self._timeout() or float("inf")), self._relay.attention():
                while server.occupied and not server.closed:  # noqa: ASYNC110 - the relay owns no Trio events
                    await trio.sleep(_POLL)
                way = self._way_of(server.sock)
                if way is not None and not server.closed:
                    await cancel(way, server.pid, server.secret)
                    delivered = True
        except (HyperpoolError, OSError) as error:
            log.warning("cannot cancel", pool=server.pool.name, pid=server.pid, error=str(error))
        except Exception as error:
            log.error(
                "sending a cancel request failed", pool=server.pool.name, pid=server.pid, exc_info=error
            )
        finally:
            order.done(delivered=delivered)

    async def _forward(self, order: PeerOrder) -> None:
        secret = cancelkeys.spend(order.secret)
        try:
            if secret is None:
                log.warning("a cancel request has gone from peer to peer too often", peer=order.peer_id)
                return
            with trio.move_on_after(self._timeout() or float("inf")) as late, self._relay.attention():
                await self._peers.forward(order.peer_id, order.pid, secret)
            if late.cancelled_caught:
                log.warning(
                    "cannot pass a cancel request on", peer=order.peer_id, error="cancel_wait_timeout"
                )
        except (HyperpoolError, OSError) as error:
            log.warning("cannot pass a cancel request on", peer=order.peer_id, error=str(error))
        except Exception as error:
            log.error("passing a cancel request on failed", peer=order.peer_id, exc_info=error)
        finally:
            order.guest.lost("cancel request done")
