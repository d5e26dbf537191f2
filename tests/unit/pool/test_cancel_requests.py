"""Cancel requests are sent by tasks that may end anywhere: who waits is let go on, and nothing stays open."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest
import structlog.testing
import trio

from hyperpool.config import PeerSettings, PoolerSettings, Settings
from hyperpool.frontdoor.orders import CancelOrder, PeerOrder
from hyperpool.frontdoor.peers import Peers
from hyperpool.pool.login import Way
from hyperpool.service.cancels import Canceller
from hyperpool.transport.sockets import TcpOptions
from hyperpool.wire import cancelkeys
from tests.support.checkpoints import cancel_everywhere

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hyperpool.config import PoolSettings
    from tests.support.memorynet import MemoryNetwork, PeerEnd

pytestmark = pytest.mark.usefixtures("nothing_left_open")


@attrs.define(eq=False)
class _Pool:
    name: str = "ann@app"


@attrs.define(eq=False)
class _Server:
    """A server connection whose query shall be cancelled; it is through with the pooler's own after a look or two."""

    pool: _Pool = attrs.field(factory=_Pool)
    sock: object = None
    pid: int = 4711
    secret: bytes = b"s3cr"
    closed: bool = False
    looks: int = 2
    retired: int = 0
    ended: int = 0

    @property
    def occupied(self) -> bool:
        self.looks -= 1
        return self.looks >= 0

    def retire(self, _reason: str) -> None:
        self.retired += 1

    def end_cancel(self) -> None:
        self.ended += 1


@attrs.define(eq=False)
class _Guest:
    """Who has brought a request."""

    lost_for: list[str] = attrs.field(factory=list)

    def lost(self, reason: str) -> None:
        self.lost_for.append(reason)


class _Relay:
    """Is paid attention to while a request is on its way."""

    def __init__(self) -> None:
        self.held = 0

    @contextlib.contextmanager
    def attention(self) -> Iterator[None]:
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1


def _canceller(relay: _Relay, way: Way | None, peers: Peers) -> Canceller:
    return Canceller(cast("Any", relay), lambda _sock: way, peers, lambda: 5.0)


async def test_to_a_server(network: MemoryNetwork, settings: PoolSettings) -> None:
    """It is told apart whether the server has taken the request: if not, its connection is used no longer."""

    async def script(server: PeerEnd) -> None:
        await server.read_packet()
        await server.close()
        raise EOFError

    network.script = script
    route = network.route(settings, TcpOptions())
    relay = _Relay()
    canceller = _canceller(relay, Way(route, route.targets[0]), Peers(Settings))

    async def send() -> None:
        server, guest = _Server(), _Guest()
        send_orders, orders = trio.open_memory_channel[CancelOrder | PeerOrder](1)
        send_orders.send_nowait(CancelOrder(cast("Any", server), cast("Any", guest)))
        send_orders.close()
        try:
            await canceller.run(orders)
        finally:
            taken = not orders.statistics().current_buffer_used
            assert (server.ended, len(guest.lost_for)) == (taken, taken)
            assert not network.held
            assert not relay.held
        assert not server.retired

    assert await cancel_everywhere(send) >= 8


@pytest.mark.parametrize("limit", [0, 1])
async def test_to_a_peer(tmp_path: Path, limit: int) -> None:
    """The connection that carried the request is closed, and the next one has its turn."""
    settings = Settings(pooler=PoolerSettings(), peers={1: PeerSettings(host=str(tmp_path), pool_size=limit)})
    peers = Peers(lambda: settings)
    relay = _Relay()
    canceller = _canceller(relay, None, peers)
    pid, secret = cancelkeys.mark(0x01020304, b"secret--", 1)

    async with trio.open_nursery() as nursery:
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.bind(str(tmp_path / ".s.PGSQL.6432"))
        sock.listen()

        async def take(stream: trio.SocketStream) -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.receive_some()
            await stream.aclose()

        nursery.start_soon(trio.serve_listeners, take, [trio.SocketListener(sock)])

        async def send() -> None:
            guests = [_Guest(), _Guest()]
            send_orders, orders = trio.open_memory_channel[CancelOrder | PeerOrder](2)
            for guest in guests:
                send_orders.send_nowait(PeerOrder(cast("Any", guest), 1, pid, secret))
            send_orders.close()
            try:
                await canceller.run(orders)
            finally:
                left = orders.statistics().current_buffer_used
                assert sum(len(guest.lost_for) for guest in guests) == 2 - left
                assert peers.counts().get(1, (0, 0, 0)) == (0, 0, 0)
                assert not relay.held

        with structlog.testing.capture_logs() as log:
            assert await cancel_everywhere(send) >= 8
        assert log == []
        nursery.cancel_scope.cancel()
