"""Moving bytes between a tunnel and a target."""

from __future__ import annotations

import trio
import trio.testing

from hyperpool.tunnel.forward import Traffic, forward


async def test_both_ways_until_one_ends() -> None:
    """Bytes arrive as they are; the end of one side is the end of both, behind its last bytes."""
    peer, tunnel = trio.testing.memory_stream_pair()
    server, target = trio.testing.memory_stream_pair()
    traffic = Traffic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(forward, tunnel, target, traffic)
        await peer.send_all(b"question")
        assert await server.receive_some() == b"question"
        await server.send_all(b"FATAL")
        await server.aclose()
    assert await peer.receive_some() == b"FATAL"
    assert (traffic.inward, traffic.outward, traffic.ended_by) == (8, 5, "target")


async def test_last_words_of_a_target_that_takes_no_more() -> None:
    """A server that has closed its end may have said why; that arrives although nothing can be sent to it."""
    peer, tunnel = trio.testing.memory_stream_pair()
    server, target = trio.testing.memory_stream_pair()
    await server.receive_stream.aclose()
    await peer.send_all(b"question")
    traffic = Traffic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(forward, tunnel, target, traffic)
        await trio.testing.wait_all_tasks_blocked()
        await server.send_all(b"FATAL")
        await server.send_stream.aclose()
    assert await peer.receive_some() == b"FATAL"
    assert traffic.inward == 0


async def test_no_last_words(autojump_clock: trio.testing.MockClock) -> None:
    """It is not waited for forever."""
    peer, tunnel = trio.testing.memory_stream_pair()
    server, target = trio.testing.memory_stream_pair()
    await server.receive_stream.aclose()
    await peer.send_all(b"question")
    with trio.fail_after(10):
        await forward(tunnel, target, Traffic())


async def test_backpressure() -> None:
    """A peer that does not read stops the target: no more than one piece is held."""
    peer, tunnel = trio.testing.lockstep_stream_pair()
    server, target = trio.testing.lockstep_stream_pair()
    sent = 0

    async def talk() -> None:
        nonlocal sent
        while True:
            await server.send_all(b"x" * 1000)
            sent += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(forward, tunnel, target, Traffic())
        nursery.start_soon(talk)
        await trio.testing.wait_all_tasks_blocked()
        assert sent <= 1
        for _ in range(5):
            assert await peer.receive_some() == b"x" * 1000
        await trio.testing.wait_all_tasks_blocked()
        assert sent <= 6
        nursery.cancel_scope.cancel()
