"""Streams through agents: who is asked, and what is said when nobody can do it."""

from __future__ import annotations

import contextlib
import random
import select
import socket
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from hyperpool.config.transports import AgentStep
from hyperpool.errors import ConnectFailed
from hyperpool.transport.agents import AgentRegistry, open_agent, receive_line, send_line
from hyperpool.transport.bridge import BridgeEnd, Bridges
from hyperpool.transport.carried import WebSocketSocket
from hyperpool.transport.frames import WebSocketStream
from hyperpool.transport.plain import PlainStream
from tests.support.tunnels import dial_context, log_book

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.logbook import LogBook


@pytest.fixture
def book() -> Iterator[LogBook]:
    """The log."""
    with log_book() as book:
        yield book


@pytest.fixture
def registry() -> AgentRegistry:
    """A registry."""
    return AgentRegistry(wait_timeout=5, open_timeout=2)


async def _join(
    nursery: trio.Nursery, registry: AgentRegistry, instance: str = "one", name: str = "site"
) -> trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]:
    """An agent's connection that waits; this is the agent's end."""
    theirs, ours = trio.testing.memory_stream_pair()

    async def keep() -> None:
        await registry.keep(name, instance, "192.0.2.1:5", ours)
        await ours.aclose()

    nursery.start_soon(keep)
    assert await receive_line(theirs) == ("hyperpool-agents 1", b"")
    return theirs


async def _answer(end: trio.abc.Stream, line: str, rest: bytes = b"") -> str:
    """Wait for the pooler's line, and answer it."""
    asked, _ = await receive_line(end)
    await end.send_all(line.encode() + b"\n" + rest)
    return asked


async def test_a_stream(registry: AgentRegistry, book: LogBook) -> None:
    """One connection becomes the stream; what the target says at once is not lost; closing it ends all."""
    async with trio.open_nursery() as nursery:
        end = await _join(nursery, registry)
        asked: list[str] = []

        async def answer() -> None:
            asked.append(await _answer(end, "ok", b"early"))

        nursery.start_soon(answer)
        stream = await registry.open("site", "db")
        assert asked == ["open db"]
        assert registry.counts() == {"site": (1, 0, 1)}
        assert await stream.receive_some(2) == b"ea"
        assert await stream.receive_some() == b"rly"
        await stream.send_all(b"question")
        assert await end.receive_some() == b"question"
        await end.send_all(b"answer")
        assert await stream.receive_some() == b"answer"
        await stream.aclose()
        assert await end.receive_some() == b""
    assert registry.counts() == {"site": (0, 0, 0)}
    assert [entry["event"] for entry in book.entries] == ["agent came", "agent went"]


async def test_two_agents_take_turns(registry: AgentRegistry, book: LogBook) -> None:
    """Each has as much to do as the other."""
    async with trio.open_nursery() as nursery:
        asked: list[str] = []

        async def answer(end: trio.abc.Stream, instance: str) -> None:
            await _answer(end, "ok")
            asked.append(instance)

        for instance in ("one", "one", "two", "two"):
            nursery.start_soon(answer, await _join(nursery, registry, instance), instance)
        streams = [await registry.open("site", "db") for _ in range(4)]
        assert asked in (["one", "two"] * 2, ["two", "one"] * 2)
        for stream in streams:
            await stream.aclose()


async def test_failover(
    registry: AgentRegistry, autojump_clock: trio.testing.MockClock, book: LogBook
) -> None:
    """An agent that cannot reach the target, or does not answer, is passed over, and asked last for a while."""
    async with trio.open_nursery() as nursery:
        refusing = [await _join(nursery, registry, "refusing") for _ in range(2)]
        silent = [await _join(nursery, registry, "silent") for _ in range(2)]
        able = [await _join(nursery, registry, "able") for _ in range(2)]
        nursery.start_soon(_answer, refusing[1], "no it is down")
        for end in able:
            nursery.start_soon(_answer, end, "ok")
        first = await registry.open("site", "db")
        second = await registry.open("site", "db")
        assert [
            len(registry._groups["site"].agents[name].waiting) for name in ("refusing", "silent", "able")
        ] == [
            1,
            1,
            0,
        ]
        for stream in (first, second):
            await stream.aclose()
        for stream in (*refusing, *silent, *able):
            await stream.aclose()


async def test_none_can_do_it(registry: AgentRegistry, book: LogBook) -> None:
    """Then each one's reason is told."""
    async with trio.open_nursery() as nursery:
        for instance, reason in (("one", "connection refused"), ("two", "no such target")):
            nursery.start_soon(_answer, await _join(nursery, registry, instance), f"no {reason}")
        with pytest.raises(ConnectFailed) as caught:
            await registry.open("site", "db")
        message = str(caught.value)
        assert message.startswith("agent site cannot connect to its target db: ")
        assert "one: connection refused" in message
        assert "two: no such target" in message


async def test_a_reason_is_one_plain_line(registry: AgentRegistry, book: LogBook) -> None:
    """What an agent says moves no cursor, in a log or elsewhere."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_answer, await _join(nursery, registry), "no \x1b[2Jroom\r")
        with pytest.raises(ConnectFailed, match=r"one: \?\[2Jroom\?$"):
            await registry.open("site", "db")


async def test_nobody_has_ever_come(registry: AgentRegistry, autojump_clock: trio.testing.MockClock) -> None:
    """The message says so, after the wait."""
    began = trio.current_time()
    with pytest.raises(
        ConnectFailed, match="agent site is not connected, and has not been since the pooler started"
    ):
        await registry.open("site", "db")
    assert trio.current_time() - began == 5


async def test_all_have_left(
    registry: AgentRegistry, autojump_clock: trio.testing.MockClock, book: LogBook
) -> None:
    """The message says how many there were, and since when there is none."""
    async with trio.open_nursery() as nursery:
        ends = [await _join(nursery, registry, instance) for instance in ("one", "two")]
        for end in ends:
            await end.aclose()
    await trio.sleep(7)
    with pytest.raises(ConnectFailed, match="the last one left 12 s ago, there were up to 2"):
        await registry.open("site", "db")
    assert book.count("agent went") == 2


async def test_all_are_busy(
    registry: AgentRegistry, autojump_clock: trio.testing.MockClock, book: LogBook
) -> None:
    """An agent without a connection to spare is waited for, and then told about."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_answer, await _join(nursery, registry), "ok")
        stream = await registry.open("site", "db")
        with pytest.raises(ConnectFailed, match=r"no connection ready \(1 connected, 1 connections in use\)"):
            await registry.open("site", "db")
        await stream.aclose()


async def test_one_comes_in_time(
    registry: AgentRegistry, autojump_clock: trio.testing.MockClock, book: LogBook
) -> None:
    """Who asks before the agent has come gets the stream all the same."""
    async with trio.open_nursery() as nursery:
        streams: list[trio.abc.Stream] = []

        async def ask() -> None:
            streams.append(await registry.open("site", "db"))

        nursery.start_soon(ask)
        await trio.sleep(4)
        await _answer(await _join(nursery, registry), "ok")
        await trio.testing.wait_all_tasks_blocked()
        await streams[0].aclose()


async def test_dead_connections_are_passed_over(registry: AgentRegistry, book: LogBook) -> None:
    """A connection that ended, or ends when it is asked, costs nothing but a try."""
    async with trio.open_nursery() as nursery:
        good = await _join(nursery, registry)
        dying = await _join(nursery, registry)
        dead = await _join(nursery, registry)
        await dead.aclose()
        await trio.testing.wait_all_tasks_blocked()

        async def die() -> None:
            await receive_line(dying)
            await dying.aclose()

        nursery.start_soon(die)
        nursery.start_soon(_answer, good, "ok")
        stream = await registry.open("site", "db")
        await stream.aclose()


async def test_cancelled(
    registry: AgentRegistry, autojump_clock: trio.testing.MockClock, book: LogBook
) -> None:
    """Whoever gives up leaves no connection behind that is half asked."""
    async with trio.open_nursery() as nursery:
        end = await _join(nursery, registry)
        with trio.move_on_after(1) as scope:
            await registry.open("site", "db")
        assert scope.cancelled_caught
        assert await receive_line(end) == ("open db", b"")
        assert await end.receive_some() == b""
    assert registry.counts() == {"site": (0, 0, 0)}


@pytest.mark.parametrize("said", [b"ok\n", b"x" * 2000, b"\xff\n", b"no reason\n"])
async def test_an_agent_that_speaks_unasked(registry: AgentRegistry, book: LogBook, said: bytes) -> None:
    """It has to go."""
    async with trio.open_nursery() as nursery:
        end = await _join(nursery, registry)
        await end.send_all(said)
        assert await end.receive_some() == b""
    assert registry.counts() == {"site": (0, 0, 0)}


async def test_nonsense_for_an_answer(registry: AgentRegistry, book: LogBook) -> None:
    """It counts as a refusal."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_answer, await _join(nursery, registry), "perhaps")
        with pytest.raises(ConnectFailed, match="an answer that makes no sense"):
            await registry.open("site", "db")


async def test_the_step() -> None:
    """Without the section `agents` there is nobody to ask; with it, the hop has its name."""
    context = dial_context()
    with pytest.raises(ConnectFailed, match="no section agents"):
        await open_agent(AgentStep(name="site"), None, context)
    assert context.trace.hops[0].name == "agent site"


@pytest.mark.parametrize("verdict", ["its token is revoked", ""])
async def test_sent_away(registry: AgentRegistry, book: LogBook, verdict: str) -> None:
    """When a connection is closed under its stream, as for a revoked token, the stream is broken; not closed."""
    theirs, ours = trio.testing.memory_stream_pair()
    with trio.CancelScope() as revoked:
        async with trio.open_nursery() as nursery:

            async def keep() -> None:
                try:
                    await registry.keep("site", "one", "192.0.2.1:5", ours, lambda: verdict)
                finally:
                    await ours.aclose()

            async def use() -> None:
                stream = await registry.open("site", "db")
                with trio.CancelScope(shield=True):
                    revoked.cancel()
                    with pytest.raises(
                        trio.BrokenResourceError, match=f"agent site: {verdict or 'its connection was ended'}"
                    ):
                        await stream.receive_some()
                    with pytest.raises(trio.BrokenResourceError):
                        await stream.send_all(b"x")
                    await stream.aclose()
                    with pytest.raises(trio.ClosedResourceError):
                        await stream.receive_some()

            nursery.start_soon(keep)
            assert await receive_line(theirs) == ("hyperpool-agents 1", b"")
            nursery.start_soon(use)
            await _answer(theirs, "ok")
            await trio.sleep_forever()
    assert registry.counts() == {"site": (0, 0, 0)}
    assert book.entries[-1]["event"] == "agent went"
    assert book.entries[-1]["reason"] == (verdict or "its last stream was closed")


# -- In the relay ------------------------------------------------------------------------------------------------------


@attrs.define
class _Carried:
    """A stream through an agent, over a WebSocket.

    Attributes:
        agent: the agent's end.
        stream: the pooler's.
        bridges: make what the relay drives of it.
        revoke: what a gate does.
    """

    agent: WebSocketStream
    stream: trio.abc.Stream
    bridges: Bridges
    revoke: trio.CancelScope


@contextlib.asynccontextmanager
async def _carried(registry: AgentRegistry) -> AsyncIterator[_Carried]:
    left, right = socket.socketpair()
    ours = WebSocketStream(PlainStream(left), client=False, name="agent site (192.0.2.1:5)")
    theirs = WebSocketStream(PlainStream(right), client=True, name="the pooler")
    scope = trio.CancelScope()

    async def keep() -> None:
        with scope:
            try:
                await registry.keep("site", "one", "192.0.2.1:5", ours, lambda: "its token is revoked")
            finally:
                await ours.aclose()

    async with trio.open_nursery() as nursery, theirs:
        nursery.start_soon(keep)
        assert await receive_line(theirs) == ("hyperpool-agents 1", b"")
        nursery.start_soon(_answer, theirs, "ok")
        stream = await registry.open("site", "db")
        yield _Carried(theirs, stream, Bridges(nursery, contextlib.nullcontext), scope)


def _read(end: socket.socket, size: int = 65536) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: end.recv_into(buffer)])


async def test_the_relay_drives_it(registry: AgentRegistry, book: LogBook) -> None:
    """No bridge is needed; the agent counts as there until the relay has closed its end."""
    wanted = random.Random(4).randbytes(300_000)
    async with _carried(registry) as site, trio.open_nursery() as nursery:
        end = site.bridges.endpoint(site.stream)
        assert isinstance(end, WebSocketSocket)
        await site.stream.aclose()  # it is not this stream's any more
        nursery.start_soon(site.agent.send_all, wanted)
        got = b""
        while len(got) < len(wanted):
            try:
                got += _read(end, 30_000)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(end.fileno())
        assert got == wanted
        assert end.send(b"question") == 8
        assert await site.agent.receive_some() == b"question"
        assert registry.counts() == {"site": (1, 0, 1)}
        end.close()
        assert await site.agent.receive_some() == b""
        await trio.testing.wait_all_tasks_blocked()
        assert registry.counts() == {"site": (0, 0, 0)}


async def test_sent_away_from_the_relay(registry: AgentRegistry, book: LogBook) -> None:
    """The relay is told, and why, though nothing has come; so is the agent."""
    async with _carried(registry) as site:
        end = site.bridges.endpoint(site.stream)
        with select.epoll() as poll:
            poll.register(end.fileno(), select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
            assert not poll.poll(0)
            site.revoke.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert poll.poll(0)
        for _ in range(2):
            with pytest.raises(OSError, match="agent site: its token is revoked"):
                _read(end)
        with pytest.raises(OSError, match="agent site: its token is revoked"):
            end.send(b"x")
        assert await site.agent.receive_some() == b""
        assert site.agent.closed_by_peer == (1001, "")
        end.close()
        assert registry.counts() == {"site": (0, 0, 0)}


async def test_sent_away_before_the_relay_has_it(registry: AgentRegistry, book: LogBook) -> None:
    """Between its login and the relay: what the relay gets is broken, for this reason."""
    async with _carried(registry) as site:
        site.revoke.cancel()
        await trio.testing.wait_all_tasks_blocked()
        end: object = site.bridges.endpoint(site.stream)
        assert isinstance(end, BridgeEnd)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError, match="agent site: its token is revoked"):
            end.recv(10)
        end.close()


async def test_lines() -> None:
    """What is not ASCII is escaped, and a line may come in pieces."""
    one, two = trio.testing.memory_stream_pair()
    await send_line(one, "nö")
    await one.send_all(b"mo")
    line, rest = await receive_line(two)
    assert line == "n\\xf6"
    await one.send_all(b"re\n")
    assert await receive_line(two, rest) == ("more", b"")
