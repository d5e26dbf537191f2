"""Cancel requests that are passed on to other poolers, over real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from hyperpool.config import PeerSettings, PoolerSettings, Settings
from hyperpool.errors import ConnectFailed
from hyperpool.frontdoor.peers import Peers
from hyperpool.wire import messages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

KEY = (0x01020304, b"\5\6\7\x0b")
REQUEST = messages.cancel_request(*KEY)


class _Peer:
    """Takes connections, and keeps each until it is let go."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.came = trio.Event()
        self.let_go = trio.Event()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Read a request."""
        async with stream:
            self.requests.append(bytes(await stream.receive_some()))
            self.came.set()
            await self.let_go.wait()


async def _listen(
    nursery: trio.Nursery, handler: Callable[[trio.SocketStream], Awaitable[object]], path: Path
) -> None:
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(path / ".s.PGSQL.6432"))
    sock.listen()
    nursery.start_soon(trio.serve_listeners, handler, [trio.SocketListener(sock)])


def _peers(*peers: PeerSettings, **pooler: int) -> Peers:
    settings = Settings(pooler=PoolerSettings(**pooler), peers=dict(enumerate(peers, 1)))  # type: ignore[arg-type]
    return Peers(lambda: settings)


async def test_a_request_is_passed_on(tmp_path: Path, nursery: trio.Nursery) -> None:
    """As it is; and waited for, until the peer has closed the connection."""
    peer = _Peer()
    await _listen(nursery, peer.serve, tmp_path)
    peers = _peers(PeerSettings(host=str(tmp_path)))
    assert peers.counts() == {}
    async with trio.open_nursery() as inner:
        inner.start_soon(peers.forward, 1, *KEY)
        await peer.came.wait()
        assert peer.requests == [REQUEST]
        assert peers.counts() == {1: (0, 0, 1)}
        peer.let_go.set()
    assert peers.counts() == {1: (0, 0, 0)}


async def test_the_pool_size_of_a_peer(tmp_path: Path, nursery: trio.Nursery) -> None:
    """As many at a time; the others wait for their turn, and one of those may give up."""
    peer = _Peer()
    await _listen(nursery, peer.serve, tmp_path)
    peers = _peers(PeerSettings(host=str(tmp_path), pool_size=1))
    async with trio.open_nursery() as inner:
        for _ in range(2):
            inner.start_soon(peers.forward, 1, *KEY)
        await peer.came.wait()
        assert peers.counts() == {1: (1, 0, 1)}
        with trio.move_on_after(0.05):
            await peers.forward(1, *KEY)
        assert peers.counts() == {1: (1, 0, 1)}
        peer.let_go.set()
    assert peer.requests == [REQUEST] * 2
    assert peers.counts() == {1: (0, 0, 0)}


async def test_a_peer_over_tcp(nursery: trio.Nursery) -> None:
    """By its address."""
    peer = _Peer()
    peer.let_go.set()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, peer.serve, [listener])
    await _peers(PeerSettings(port=listener.socket.getsockname()[1])).forward(1, *KEY)
    assert peer.requests == [REQUEST]


async def test_a_peer_that_breaks_off(nursery: trio.Nursery) -> None:
    """The connection is lost for a reason that can be told."""

    async def reset(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, reset, [listener])
    peers = _peers(PeerSettings(port=listener.socket.getsockname()[1]))
    with pytest.raises(ConnectFailed, match=r"connection to peer 127\.0\.0\.1:\d+ broke: Connection reset"):
        await peers.forward(1, *KEY)
    assert peers.counts() == {1: (0, 0, 0)}


async def test_peers_that_cannot_be_reached(tmp_path: Path) -> None:
    """One that is not in the settings, and one where nobody listens."""
    peers = _peers(PeerSettings(host=str(tmp_path)))
    with pytest.raises(ConnectFailed, match="there is no peer 2"):
        await peers.forward(2, *KEY)
    with pytest.raises(ConnectFailed, match="cannot reach peer"):
        await peers.forward(1, *KEY)
    assert peers.counts() == {1: (0, 0, 0)}
