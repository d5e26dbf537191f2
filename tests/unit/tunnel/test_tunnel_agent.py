"""The agent: how many connections it keeps, and how it tries again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from hyperpool.config.secret import Secret
from hyperpool.config.transports import WebSocketStep
from hyperpool.config.tunnel import LinkSettings, TargetSettings
from hyperpool.errors import ConnectFailed
from hyperpool.transport.agents import receive_line, send_line
from hyperpool.tunnel import agent as agent_module
from hyperpool.tunnel.agent import Agent
from hyperpool.tunnel.targets import Targets
from tests.support.tunnels import SECRET, dial_context, log_book

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.logbook import LogBook


class Poolers:
    """Stands in for all poolers: what the agent opens arrives here.

    Attributes:
        attempts: when each was made.
        failing: what the next attempts fail with; empty: they succeed.
        ends: the poolers' ends of the connections.
        steps: how the last one was made.
    """

    def __init__(self) -> None:
        self.attempts: list[float] = []
        self.failing = ""
        self.ends: list[trio.abc.Stream] = []
        self.greeting = "hyperpool-agents 1"
        self.steps: Any = ()

    async def open(self, steps: Any, context: object) -> trio.abc.Stream:
        """In place of `open_steps`."""
        await trio.lowlevel.checkpoint()
        self.attempts.append(trio.current_time())
        self.steps = steps
        if self.failing:
            raise ConnectFailed(self.failing)
        ours, theirs = trio.testing.memory_stream_pair()
        self.ends.append(theirs)
        await send_line(theirs, self.greeting)
        return ours


@pytest.fixture
def poolers(monkeypatch: pytest.MonkeyPatch) -> Poolers:
    """What the agent connects to."""
    poolers = Poolers()
    monkeypatch.setattr(agent_module, "open_steps", poolers.open)
    return poolers


@pytest.fixture
def book() -> Iterator[LogBook]:
    """The log."""
    with log_book() as book:
        yield book
    assert SECRET not in repr(book.entries)


def _agent(**settings: Any) -> Agent:
    step = WebSocketStep(path="/", token_id=Secret("a"), token_secret=Secret(SECRET))
    link = LinkSettings(name="main", transport=(step,), **{"ready": 3, "retry_max": 8.0, **settings})
    targets = Targets({"db": TargetSettings(name="db", port=1)}, dial_context())
    return Agent(link, targets, dial_context(), lambda: 1.0)


async def test_keeps_connections_ready(poolers: Poolers, book: LogBook) -> None:
    """As many as the settings say; each that is used is replaced; on close, those that wait are given up."""
    agent = _agent()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run)
            await trio.testing.wait_all_tasks_blocked()
            assert len(poolers.ends) == 3
            await send_line(poolers.ends[0], "open nothing")
            line, _ = await receive_line(poolers.ends[0])
            assert line == "no target 'nothing' is not in its settings, or not for this pooler"
            await trio.testing.wait_all_tasks_blocked()
            assert len(poolers.ends) == 4
            agent.close()
    for end in poolers.ends:
        assert await end.receive_some() == b""
    assert [entry["event"] for entry in book.entries] == ["connected to the pooler", "refused"]


async def test_tells_who_it_is(poolers: Poolers, book: LogBook) -> None:
    """Two agents of one name can be told apart."""
    names = []
    for _ in range(2):
        agent = _agent()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run)
            await trio.testing.wait_all_tasks_blocked()
            agent.close()
        ((name, value),) = poolers.steps[-1].headers
        assert name == "Hyperpool-Agent"
        names.append(value.reveal())
    assert names[0] != names[1]


async def test_retries(poolers: Poolers, book: LogBook, autojump_clock: trio.testing.MockClock) -> None:
    """While the pooler is away, one attempt at a time, each pause twice the last, up to the limit; logged once."""
    poolers.failing = "cannot connect"
    agent = _agent()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.run)
        await trio.sleep(60)
        assert poolers.attempts[:3] == [0.0] * 3
        pauses = [
            later - earlier
            for earlier, later in zip(poolers.attempts[2:], poolers.attempts[3:], strict=False)
        ]
        assert pauses[:8] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 8.0])
        assert set(map(round, pauses[7:])) == {8}
        poolers.failing = ""
        await trio.sleep(9)
        assert len(poolers.ends) == 3
        agent.close()
    events = [entry["event"] for entry in book.entries]
    assert events == ["cannot wait at the pooler, trying again", "connected to the pooler"]


async def test_pauses_differ(poolers: Poolers) -> None:
    """A thousand agents do not come back at one moment."""
    agent = _agent()
    agent._failures = 4
    agent._random = lambda: 0.0
    shortest = agent._pause()
    agent._random = lambda: 1.0
    assert agent._pause() == 2 * shortest == pytest.approx(0.8)


async def test_thrown_out_at_once(
    poolers: Poolers, book: LogBook, autojump_clock: trio.testing.MockClock
) -> None:
    """A pooler that takes connections and drops them is not stormed."""
    agent = _agent(ready=1)

    async def throw_out() -> None:
        while True:
            await trio.sleep(0.1)
            for end in poolers.ends:
                await trio.aclose_forcefully(end)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.run)
        nursery.start_soon(throw_out)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert len(poolers.attempts) < 20


async def test_back_at_once_after_a_restart(
    poolers: Poolers, book: LogBook, autojump_clock: trio.testing.MockClock
) -> None:
    """A connection that has waited for a while and ends is replaced without a pause."""
    agent = _agent(ready=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.run)
        await trio.sleep(100)
        await trio.aclose_forcefully(poolers.ends[0])
        await trio.sleep(1)
        assert poolers.attempts == [0.0, 100.0]
        agent.close()


@pytest.mark.parametrize("greeting", ["HTTP/1.1 200 OK", "hyperpool-agents 2", "x" * 2000])
async def test_not_a_pooler(
    poolers: Poolers, book: LogBook, autojump_clock: trio.testing.MockClock, greeting: str
) -> None:
    """Nothing is done for what is not a pooler that takes agents in."""
    poolers.greeting = greeting
    agent = _agent(ready=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.run)
        await trio.sleep(0.05)
        agent.close()
    for end in poolers.ends:
        assert await end.receive_some() == b""
    assert book.count("connected to the pooler") == 0


async def test_a_refusal_is_one_line(poolers: Poolers, book: LogBook) -> None:
    """However long what was asked for is: the pooler can read why it gets nothing."""
    agent = _agent(ready=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.run)
        await trio.testing.wait_all_tasks_blocked()
        (end,) = poolers.ends
        await send_line(end, "open " + "x" * 1000)
        line, rest = await receive_line(end)
        assert line.startswith("no target 'xxx")
        assert rest == b""
        assert await end.receive_some() == b""
        agent.close()
        nursery.cancel_scope.cancel()


async def test_no_greeting(poolers: Poolers, book: LogBook, autojump_clock: trio.testing.MockClock) -> None:
    """A pooler that says nothing is given up after a while."""

    async def open_silently(steps: object, context: object) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        poolers.ends.append(theirs)
        return ours

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent_module, "open_steps", open_silently)
        agent = _agent(ready=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run)
            await trio.sleep(15.05)
            agent.close()
    assert [entry["error"] for entry in book.entries] == ["no answer within 15 s"]


async def test_an_unforeseen_error(
    poolers: Poolers, book: LogBook, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours is logged, and not repeated without a pause."""

    async def fail(steps: object, context: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        poolers.attempts.append(trio.current_time())
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(agent_module, "open_steps", fail)
    agent = _agent(ready=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.run)
        await trio.sleep(10)
        agent.close()
    assert len(poolers.attempts) < 10
    assert book.count("making a connection failed") == len(poolers.attempts)
