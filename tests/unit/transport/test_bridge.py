"""The bridge: the contract of streams holds through it, nothing is lost, and nothing grows or is left behind."""

from __future__ import annotations

import errno
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from hyperpool.transport.bridge import CAPACITY, Bridges
from hyperpool.transport.plain import PlainStream
from tests.support.streams import (
    EndStream,
    Opaque,
    OpaqueByHalves,
    check_stream,
    clogged,
    fill,
    socket_pair,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

    from hyperpool.transport.bridge import BridgeEnd
    from tests.support.streams import StreamPair


pytestmark = pytest.mark.usefixtures("nothing_left_open")


class Attention:
    """Whether the relay would linger."""

    def __init__(self) -> None:
        self.level = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Pay attention."""
        self.level += 1
        yield
        self.level -= 1


@pytest.fixture
def attention() -> Attention:
    """The relay's attention."""
    return Attention()


@pytest.fixture
async def bridges(nursery: trio.Nursery, attention: Attention) -> Bridges:
    """What the service has."""
    return Bridges(nursery, attention)


async def bridge(bridges: Bridges) -> tuple[socket.socket, PlainStream]:
    """A bridge over a stream that can be closed by halves: the relay's end, and the peer."""
    near, far = await socket_pair()
    assert isinstance(far, PlainStream)
    return bridges.endpoint(OpaqueByHalves(near)), far


async def read(end: socket.socket, size: int = 65536) -> bytes:
    """What there is to read, when everything has come to rest."""
    await wait_all_tasks_blocked()
    return end.recv(size)


# -- the contract of streams -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_halves", [False, True])
async def test_the_contract_of_streams(bridges: Bridges, by_halves: bool, autojump_clock: MockClock) -> None:
    """Trio's own checks pass through a bridge, clogged or not; no time limit runs out while something can be done."""
    kind = OpaqueByHalves if by_halves else Opaque

    async def make() -> StreamPair:
        near, far = await socket_pair(4096)
        return EndStream(bridges.endpoint(kind(near))), far

    await check_stream(make, clogged(make), half_closeable=by_halves)


# -- what the relay relies on ------------------------------------------------------------------------------------------


async def test_a_socket_is_not_bridged(bridges: Bridges) -> None:
    """The fast path: what can be detached is."""
    near, far = socket.socketpair()
    with far:
        assert bridges.endpoint(PlainStream(near)) is near
        near.close()


async def test_bytes_go_through(bridges: Bridges) -> None:
    """In both directions, and reading never blocks."""
    end, far = await bridge(bridges)
    with pytest.raises(BlockingIOError):
        end.recv(10)
    assert end.send(b"to the server") == 13
    assert await far.receive_some() == b"to the server"
    await far.send_all(b"to the client")
    assert await read(end, 7) == b"to the "
    view = memoryview(bytearray(100))
    assert end.recv_into(view) == 6
    assert bytes(view[:6]) == b"client"
    end.close()
    await far.aclose()


async def test_every_read_takes_all_that_there_is(bridges: Bridges) -> None:
    """As a kernel's socket does: the relay takes a read that does not fill its buffer for the last one."""
    near, far = memory_stream_pair()
    end = bridges.endpoint(near)
    for piece in (b"one ", b"two ", b"three"):
        await far.send_all(piece)
        await wait_all_tasks_blocked()
    assert end.recv(6) == b"one tw"
    assert end.recv(1000) == b"o three"
    end.close()


async def test_a_full_bridge(bridges: Bridges) -> None:
    """Nothing is taken beyond a bound, while the peer does not read; afterwards all arrives, in order."""
    end, far = await bridge(bridges)
    sent = bytearray()
    with suppress(BlockingIOError):
        while len(sent) < 100 * CAPACITY:
            piece = len(sent).to_bytes(4, "big") * 5000
            sent += piece[: end.send(piece)]
    assert len(sent) == CAPACITY
    received = bytearray()
    while len(received) < len(sent):
        received += await far.receive_some()
    assert received == sent
    assert end.send(b"more") == 4
    end.close()
    await far.aclose()


async def test_memory_is_bounded(bridges: Bridges, autojump_clock: MockClock) -> None:
    """However much the peer sends, while nobody reads: a bridge holds its capacity and one piece more."""
    near, far = await socket_pair(4096)
    end = cast("BridgeEnd", bridges.endpoint(Opaque(near)))
    taken = await fill(far)
    assert CAPACITY // 2 <= taken <= CAPACITY + 2 * 131072
    assert sum(map(len, end._inbox)) <= CAPACITY + 131072
    end.close()
    await far.aclose()


async def test_small_pieces_count_for_more(bridges: Bridges) -> None:
    """A million single bytes do not become a million objects."""
    near, far = memory_stream_pair()
    end = cast("BridgeEnd", bridges.endpoint(near))
    for _ in range(5000):
        await far.send_all(b"x")
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()
    assert len(end._inbox) < 5000
    end.close()


# -- ends --------------------------------------------------------------------------------------------------------------


async def test_the_end_of_the_stream(bridges: Bridges) -> None:
    """It comes behind the bytes, as an event of its own, and again and again."""
    end, far = await bridge(bridges)
    stream = EndStream(end)
    await far.send_all(b"last words")
    await far.aclose()
    await wait_all_tasks_blocked()
    assert [await stream.receive_some() for _ in range(3)] == [b"last words", b"", b""]
    await stream.aclose()


async def test_a_broken_stream(bridges: Bridges) -> None:
    """Its own reason is the error's, behind the bytes that came before."""

    class Breaking(Opaque):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            data = await super().receive_some(max_bytes)
            if not data:
                raise trio.BrokenResourceError("the tunnel was cut")
            return data

    near, far = await socket_pair()
    stream = EndStream(bridges.endpoint(Breaking(near)))
    await far.send_all(b"before")
    await far.aclose()
    await wait_all_tasks_blocked()
    assert await stream.receive_some() == b"before"
    with pytest.raises(trio.BrokenResourceError, match="the tunnel was cut"):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError, match="the tunnel was cut"):
        await stream.send_all(b"x")
    await stream.aclose()


async def test_the_peer_does_not_take_any_more(bridges: Bridges) -> None:
    """What it has said before can still be read; sending fails."""
    end, far = await bridge(bridges)
    await far.send_all(b"fatal: bye")
    await wait_all_tasks_blocked()
    await far.aclose()
    end.send(b"query")
    await wait_all_tasks_blocked()
    assert end.recv(100) == b"fatal: bye"
    with pytest.raises(OSError, match="Broken pipe") as caught:
        end.send(b"query")
    assert caught.value.errno == errno.ECONNRESET
    end.close()


async def test_half_close(bridges: Bridges) -> None:
    """The peer sees the end, and can still answer; without halves nothing happens before the end is closed."""
    end, far = await bridge(bridges)
    end.send(b"question")
    end.shutdown(socket.SHUT_WR)
    with pytest.raises(OSError, match="Broken pipe"):
        end.send(b"more")
    assert await far.receive_some() == b"question"
    assert await far.receive_some() == b""
    await far.send_all(b"answer")
    assert await read(end) == b"answer"
    end.close()
    await far.aclose()


async def test_closing_sends_what_was_taken(bridges: Bridges) -> None:
    """A farewell arrives, and then the end."""
    near, far = await socket_pair()
    end = bridges.endpoint(Opaque(near))
    end.send(b"farewell")
    end.close()
    end.close()
    assert end.fileno() == -1
    assert await far.receive_some() == b"farewell"
    assert await far.receive_some() == b""
    with pytest.raises(OSError, match="Bad file descriptor"):
        end.send(b"x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        end.recv(1)
    await far.aclose()


async def test_closing_while_the_peer_does_not_read(bridges: Bridges, autojump_clock: MockClock) -> None:
    """It takes five seconds at most."""

    class Stuck(Opaque):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.sleep_forever()

    near, far = await socket_pair()
    end = bridges.endpoint(Stuck(near))
    end.send(b"x")
    end.close()
    assert await far.receive_some() == b""
    assert trio.current_time() == pytest.approx(5.0)
    await far.aclose()


async def test_the_pooler_ends(attention: Attention) -> None:
    """Cancelled, a bridge says what it was told to say, and closes the stream; the relay's end is dead."""
    near, far = await socket_pair()
    async with trio.open_nursery() as nursery:
        end = Bridges(nursery, attention).endpoint(Opaque(near))
        await wait_all_tasks_blocked()
        end.send(b"terminate")
        nursery.cancel_scope.cancel()
    assert await far.receive_some() == b"terminate"
    assert await far.receive_some() == b""
    with pytest.raises(OSError, match="taken down"):
        end.recv(1)
    end.close()
    await far.aclose()


async def test_a_stream_that_fails_in_a_way_of_its_own(bridges: Bridges) -> None:
    """It costs the bridge, not the pooler, and the log tells."""

    class Wrong(Opaque):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            await super().receive_some(max_bytes)
            raise ZeroDivisionError("oops")

    near, far = await socket_pair()
    end = bridges.endpoint(Wrong(near))
    with capture_logs() as logs:
        await far.send_all(b"x")
        with pytest.raises(OSError, match="taken down"):
            await read(end)
    assert [entry["event"] for entry in logs] == ["a bridge failed"]
    assert await far.receive_some() == b""
    end.close()
    await far.aclose()


# -- attention ---------------------------------------------------------------------------------------------------------


async def test_the_relay_does_not_linger_while_bytes_go_through(
    bridges: Bridges, attention: Attention, autojump_clock: MockClock
) -> None:
    """From the first byte at once, for all bridges together, until all has been quiet for a while."""
    near, far = memory_stream_pair()
    end = bridges.endpoint(near)
    await trio.sleep(1)
    assert attention.level == 0
    for _ in range(10):
        end.send(b"x")
        assert attention.level == 1
        await trio.sleep(0.04)
    await trio.sleep(0.2)
    assert attention.level == 0
    await far.send_all(b"x")
    await trio.sleep(0.01)
    assert attention.level == 1
    await trio.sleep(0.2)
    assert attention.level == 0
    end.close()
