"""The stream over a plain socket: Trio's own contract for streams, and what the relay needs beyond it."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import check_half_closeable_stream, check_two_way_stream, wait_all_tasks_blocked

from hyperpool.transport.plain import PlainStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Pair = tuple[PlainStream, PlainStream]
    Maker = Callable[[], Awaitable[Pair]]


pytestmark = pytest.mark.usefixtures("nothing_left_open")


async def unix_pair() -> Pair:
    """Make two ends of one connection."""
    left, right = socket.socketpair()
    return PlainStream(left), PlainStream(right)


async def tcp_pair() -> Pair:
    """Make two ends of one TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    return PlainStream(left), PlainStream(right)


async def clogged_pair() -> Pair:
    """Make two ends that both take no more bytes before some are received."""
    pair = await unix_pair()
    for stream in pair:
        with contextlib.suppress(BlockingIOError):
            while True:
                stream._socket.send(bytes(4096))
    return pair


@pytest.fixture(params=[unix_pair, tcp_pair], ids=["unix", "tcp"])
def make(request: pytest.FixtureRequest) -> Maker:
    """A way to make a connected pair."""
    maker: Maker = request.param
    return maker


async def test_two_way_contract(make: Maker) -> None:
    """It fulfils Trio's contract of two-way streams."""
    await check_two_way_stream(make, None)


async def test_half_closeable_contract_when_clogged() -> None:
    """It fulfils Trio's contract of half-closeable streams, when the peer does not read, too."""
    await check_half_closeable_stream(unix_pair, clogged_pair)


async def test_half_closeable_contract(make: Maker) -> None:
    """It fulfils Trio's contract of half-closeable streams."""
    await check_half_closeable_stream(make, None)


async def test_sends_more_than_the_kernel_takes_at_once(make: Maker) -> None:
    """A message larger than all buffers arrives whole and in order."""
    message = bytes(range(256)) * 8192
    received = bytearray()

    async def receive(stream: PlainStream) -> None:
        while data := await stream.receive_some():
            received.extend(data)

    left, right = await make()
    async with left, right, trio.open_nursery() as nursery:
        nursery.start_soon(receive, right)
        await left.send_all(message)
        await left.send_eof()
    assert bytes(received) == message


async def test_receive_some_gives_no_more_than_asked_for(make: Maker) -> None:
    """The rest stays in the kernel."""
    left, right = await make()
    async with left, right:
        await left.send_all(b"abc")
        assert await right.receive_some(2) == b"ab"
        assert await right.receive_some() == b"c"


async def test_options_of_the_socket_stay_as_they_are() -> None:
    """No ``TCP_NOTSENT_LOWAT``: it would cost a wakeup per 16 KiB of a large result."""
    left, right = await tcp_pair()
    async with left, right:
        untouched = socket.socket(socket.AF_INET)
        with left.detach() as sock, untouched:
            option = socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT
            assert sock.getsockopt(*option) == untouched.getsockopt(*option)
            assert not sock.getblocking()


async def test_detach_hands_the_socket_over(make: Maker) -> None:
    """The socket lives on, and the stream is as good as closed."""
    left, right = await make()
    async with left, right:
        with left.detach() as sock:
            await left.aclose()
            sock.send(b"still here")
            assert await right.receive_some() == b"still here"
            for use in (left.receive_some, left.send_eof, left.wait_send_all_might_not_block):
                with pytest.raises(trio.ClosedResourceError):
                    await use()
            with pytest.raises(trio.ClosedResourceError):
                await left.send_all(b"x")


async def test_detach_of_a_closed_stream_is_refused(make: Maker) -> None:
    """There is nothing to hand over any more."""
    left, right = await make()
    async with right:
        left.close()
        with pytest.raises(trio.ClosedResourceError, match="already closed"):
            left.detach()


async def test_two_senders_are_told_apart_from_one() -> None:
    """A second sender would mix its bytes into those of the first: it is refused."""
    left, right = await clogged_pair()
    async with left, right, trio.open_nursery() as nursery:
        nursery.start_soon(left.send_all, b"x" * 65536)
        await wait_all_tasks_blocked()
        for use in (left.wait_send_all_might_not_block, left.send_eof):
            with pytest.raises(trio.BusyResourceError, match="another task is sending"):
                await use()
        with pytest.raises(trio.BusyResourceError, match="another task is sending"):
            await left.send_all(b"y")
        nursery.cancel_scope.cancel()


async def test_closing_wakes_up_who_waits() -> None:
    """Closed from outside, a blocked sender and a blocked receiver get `ClosedResourceError`."""
    left, right = await clogged_pair()
    other, silent = await unix_pair()

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await left.send_all(b"x" * 65536)

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await other.receive_some()

    async with right, silent, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        left.close()
        other.close()


async def test_a_cancelled_receive_has_received_nothing(make: Maker) -> None:
    """What arrives afterwards is all there."""
    left, right = await make()
    async with left, right:
        with trio.CancelScope() as scope:
            scope.cancel()
            await right.receive_some()
        assert scope.cancelled_caught
        await left.send_all(b"whole")
        assert await right.receive_some() == b"whole"


async def test_send_eof_twice_is_fine(make: Maker) -> None:
    """The second time there is nothing left to say."""
    left, right = await make()
    async with left, right:
        await left.send_eof()
        await left.send_eof()
        assert await right.receive_some() == b""


async def test_a_reset_connection_is_broken() -> None:
    """A peer that closes with bytes unread resets the connection."""
    left, right = await tcp_pair()
    async with left:
        await left.send_all(b"never read")
        right.close()
        with pytest.raises(trio.BrokenResourceError, match="Connection reset by peer"):
            await left.receive_some()


async def test_send_eof_on_a_broken_connection_says_so() -> None:
    """The kernel's reason is kept."""
    left, right = await tcp_pair()
    async with left:
        await left.send_all(b"never read")
        right.close()
        with pytest.raises(trio.BrokenResourceError):
            await left.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="not connected"):
            await left.send_eof()
