"""Other poolers behind the same address, to which cancel requests for their clients are passed on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from hyperpool.errors import ConnectFailed
from hyperpool.wire import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hyperpool.config import PeerSettings, Settings


@attrs.define(eq=False)
class _Traffic:
    """Cancel requests for one peer: those that wait for their turn, that are being dialed, and that have been sent."""

    waiting: int = 0
    dialing: int = 0
    sent: int = 0
    changed: trio.Event = attrs.field(factory=trio.Event)


class Peers:
    """Passes cancel requests on.

    Args:
        settings: gives the settings as they are now.
    """

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings
        self._traffic: dict[int, _Traffic] = {}

    def counts(self) -> dict[int, tuple[int, int, int]]:
        """By ``peer_id``: cancel requests that wait for their turn, that are being dialed, and that have been sent."""
        return {
            number: (traffic.waiting, traffic.dialing, traffic.sent)
            for number, traffic in self._traffic.items()
        }

    async def forward(self, peer_id: int, pid: int, secret: bytes) -> None:
        """Pass a cancel request on, and wait until the peer has closed the connection that carried it.

        Cancelled, it leaves no connection behind.

        Args:
            peer_id: of the pooler that has drawn the key.
            pid: the process id in it.
            secret: the secret in it, for this hop.

        Raises:
            ConnectFailed: there is no such peer, it cannot be reached, or the connection broke.
        """
        peer = self._settings().peers.get(peer_id)
        if peer is None:
            raise ConnectFailed(f"there is no peer {peer_id} among the settings")
        traffic = self._traffic.setdefault(peer_id, _Traffic())
        with _counted(traffic, "waiting"):
            while traffic.dialing + traffic.sent >= self._limit(peer):
                await traffic.changed.wait()
        with _counted(traffic, "dialing"):
            stream = await _dial(peer)
        async with stream:
            with _counted(traffic, "sent"):
                try:
                    await stream.send_all(messages.cancel_request(pid, secret))
                    while await stream.receive_some():
                        pass
                except trio.BrokenResourceError as error:
                    cause = error.__cause__
                    reason = cause.strerror if isinstance(cause, OSError) else error
                    raise ConnectFailed(
                        f"the connection to peer {peer.host}:{peer.port} broke: {reason}"
                    ) from error

    def _limit(self, peer: PeerSettings) -> float:
        size = self._settings().pooler.default_pool_size if peer.pool_size is None else peer.pool_size
        return size or float("inf")


@contextmanager
def _counted(traffic: _Traffic, what: str) -> Iterator[None]:
    """Count one more while inside, and wake those who wait for their turn afterwards."""
    setattr(traffic, what, getattr(traffic, what) + 1)
    try:
        yield
    finally:
        setattr(traffic, what, getattr(traffic, what) - 1)
        traffic.changed.set()
        traffic.changed = trio.Event()


async def _dial(peer: PeerSettings) -> trio.abc.Stream:
    try:
        if peer.host.startswith("/"):
            return await trio.open_unix_socket(f"{peer.host}/.s.PGSQL.{peer.port}")
        return await trio.open_tcp_stream(peer.host, peer.port)
    except OSError as error:
        raise ConnectFailed(
            f"cannot reach peer {peer.host}:{peer.port}: {error.strerror or error}"
        ) from error
