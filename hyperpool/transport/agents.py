"""The step ``agent``: a byte stream that an agent in the private network makes for us, after it has connected to us.

Each agent keeps some connections to the pooler open. Over each of them the pooler may ask, once, for a target, in
lines of ASCII; from then on the connection is the stream to that target::

    pooler: hyperpool-agents 1          this is a pooler that takes agents in
    ...                                 the connection waits; both sides send pings
    pooler: open app                    connect to the target app
    agent:  ok                          from here on: the target's bytes, both ways
         or no <reason>                 and the end
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs
import structlog
import trio

from hyperpool.errors import ConnectFailed
from hyperpool.transport.carried import WebSocketSocket
from hyperpool.transport.ending import ending_of
from hyperpool.transport.frames import WebSocketStream

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from hyperpool.config.transports import AgentStep
    from hyperpool.transport.kinds import DialContext

log = structlog.get_logger("agents")

GREETING: Final = "hyperpool-agents 1"
OPEN: Final = "open "
OK: Final = "ok"
NO: Final = "no "
MAX_LINE: Final = 1024

_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
_SHOWN_REASON: Final = 300
_DISTRUST: Final = 30.0
"""Seconds for which an agent that has failed is asked only when no other one is there."""


async def send_line(stream: trio.abc.Stream, line: str) -> None:
    """Send one line."""
    await stream.send_all(line.encode("ascii", errors="backslashreplace") + b"\n")


async def receive_line(stream: trio.abc.Stream, received: bytes = b"") -> tuple[str, bytes]:
    """Receive one line.

    Args:
        stream: where from.
        received: what has come from there already.

    Returns:
        The line, and what has come behind it.

    Raises:
        trio.BrokenResourceError: the stream ended before, or the line is too long or not ASCII.
    """
    while b"\n" not in received:
        data = await stream.receive_some()
        if not data:
            raise trio.BrokenResourceError(ending_of(stream) or "the connection was closed")
        received += data
        if len(received) > MAX_LINE and b"\n" not in received[:MAX_LINE]:
            raise trio.BrokenResourceError("a line is too long")
    line, _, rest = received.partition(b"\n")
    try:
        return line.decode("ascii"), rest
    except UnicodeDecodeError:
        raise trio.BrokenResourceError("a line is not ASCII") from None


class AgentStream(trio.abc.Stream):
    """The stream to a target, over an agent's connection.

    Args:
        connection: what it is made of; the stream below belongs to it from now on.
    """

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._stream = connection.stream
        self._early = connection.rest
        self._open = True

    @property
    def ending(self) -> str:
        """How the stream has ended, for people; empty before, or if there is nothing to say."""
        return ending_of(self._stream)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`. Cancelled midway, the only sound use of the stream is to close it."""
        with self._with_verdict():
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the connection takes more data."""
        with self._with_verdict():
            await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive at least one byte, or b"" at the end of the stream. Cancelled, it has received nothing."""
        if not self._early:
            with self._with_verdict():
                return await self._stream.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        count = len(self._early) if max_bytes is None else max_bytes
        early, self._early = self._early[:count], self._early[count:]
        return early

    def detach(self) -> socket.socket | None:
        """Hand over what the relay can drive; from now on the stream behaves as if closed.

        Returns:
            None if that cannot be done now: the stream stays as it is.
        """
        if self._early or not self._open or not isinstance(self._stream, WebSocketStream):
            return None
        try:
            end = self._stream.detach()
        except trio.ClosedResourceError:
            return None  # It was taken from under this stream: whoever uses that will be told why.
        if end is not None:
            assert isinstance(end, WebSocketSocket)  # noqa: S101 - a WebSocket's stream makes nothing else
            self._open = False
            self._connection.carry(end)
        return end

    async def aclose(self) -> None:
        """Close, and the connection with it."""
        if not self._open:
            await trio.lowlevel.checkpoint()
            return
        self._open = False
        try:
            await self._stream.aclose()
        finally:
            self._connection.done.set()

    @contextmanager
    def _with_verdict(self) -> Iterator[None]:
        """A connection that was taken from under this stream is a broken one."""
        try:
            yield
        except trio.ClosedResourceError as error:
            if self._open:
                raise trio.BrokenResourceError(self._connection.sentence) from error
            raise


class _Connection:
    """A connection that an agent has made to us.

    Attributes:
        agent: which one.
        stream: the connection.
        answered: set once the agent has answered, or is gone.
        line: its answer; empty if it is gone.
        rest: what came behind it.
        done: set once nobody needs the connection any more.
        verdict: tells why it has to go, if it has.
    """

    def __init__(self, agent: _Agent, stream: trio.abc.Stream, verdict: Callable[[], str]) -> None:
        self.agent = agent
        self.stream = stream
        self.verdict = verdict
        self.answered = trio.Event()
        self.line = ""
        self.rest = b""
        self.done = trio.Event()
        self.asked = False
        self._carried: WebSocketSocket | None = None

    @property
    def sentence(self) -> str:
        """Why the connection was taken from its user, for people."""
        return f"agent {self.agent.name}: {self.verdict() or 'its connection was ended by the pooler'}"

    def carry(self, end: WebSocketSocket) -> None:
        """The connection is driven by somebody else now, until that one closes it."""
        self._carried = end
        end.closed = self.done.set

    def leave(self) -> None:
        """It has to go, or is gone: whoever uses it will find out."""
        self.answered.set()
        if self._carried is not None:
            self._carried.break_off(self.sentence)

    async def ask(self, target: str, timeout: float) -> str | None:
        """Ask for a target.

        Returns:
            The answer; empty if the connection ended instead, None if nothing came in time.
        """
        self.asked = True
        try:
            with trio.move_on_after(timeout) as limit:
                await send_line(self.stream, OPEN + target)
                await self.answered.wait()
        except _BROKEN:
            return ""
        return None if limit.cancelled_caught else self.line


class _Agent:
    """One process that is an agent, by all of its connections."""

    def __init__(self, name: str, instance: str) -> None:
        self.name = name
        self.instance = instance
        self.waiting: list[_Connection] = []
        self.connections = 0
        self.trusted_from = float("-inf")


@attrs.define
class _Group:
    """All agents with one name, the one that was asked longest ago first.

    Attributes:
        agents: by instance.
        most: how many there were at a time.
        left_at: when the last one left.
        news: set, and replaced, when a connection waits.
    """

    agents: OrderedDict[str, _Agent] = attrs.field(factory=OrderedDict)
    most: int = 0
    left_at: float = 0.0
    news: trio.Event = attrs.field(factory=trio.Event)


class AgentRegistry:
    """The agents that have connected to us.

    Args:
        wait_timeout: seconds that `open` waits for a connection.
        open_timeout: seconds that an agent may take to connect to a target.
    """

    def __init__(self, wait_timeout: float = 5.0, open_timeout: float = 5.0) -> None:
        self.wait_timeout = wait_timeout
        self.open_timeout = open_timeout
        self._groups: dict[str, _Group] = {}

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """By name: agents, connections that wait, and all connections."""
        return {
            name: (
                len(group.agents),
                sum(len(agent.waiting) for agent in group.agents.values()),
                sum(agent.connections for agent in group.agents.values()),
            )
            for name, group in self._groups.items()
        }

    async def keep(
        self,
        name: str,
        instance: str,
        peer: str,
        stream: trio.abc.Stream,
        verdict: Callable[[], str] = str,
    ) -> None:
        """Keep an agent's connection until it is used up or gone; then it is for the caller to close it.

        Args:
            name: of the agent.
            instance: tells agents of the same name apart.
            peer: its address, for people.
            stream: the connection.
            verdict: tells why the connection has to go, if it has.
        """
        group = self._groups.setdefault(name, _Group())
        agent = group.agents.get(instance)
        if agent is None:
            agent = group.agents[instance] = _Agent(name, instance)
            group.most = max(group.most, len(group.agents))
            log.info("agent came", agent=name, instance=instance, peer=peer, agents=len(group.agents))
        agent.connections += 1
        connection = _Connection(agent, stream, verdict)
        reason = ""
        try:
            await send_line(stream, GREETING)
            agent.waiting.append(connection)
            group.news.set()
            connection.line, connection.rest = await receive_line(stream)
            if not connection.asked:
                reason = "it spoke without being asked"
                return
            connection.answered.set()
            await connection.done.wait()
        except _BROKEN as error:
            reason = str(error)
        finally:
            if not connection.asked and connection in agent.waiting:
                agent.waiting.remove(connection)
            connection.leave()
            agent.connections -= 1
            if not agent.connections:
                self._gone(group, agent, verdict() or reason)

    def _gone(self, group: _Group, agent: _Agent, reason: str) -> None:
        del group.agents[agent.instance]
        group.left_at = trio.current_time()
        log.warning(
            "agent went",
            agent=agent.name,
            instance=agent.instance,
            agents=len(group.agents),
            reason=reason or "its last stream was closed",
        )

    async def open(self, name: str, target: str) -> trio.abc.Stream:
        """Open a stream to a target through one of the agents with a name.

        They take turns. When one of them cannot do it, the next one is asked.

        Args:
            name: of the agents.
            target: what they call it.

        Raises:
            ConnectFailed: none of them can do it, or none is there.
        """
        group = self._groups.setdefault(name, _Group())
        refusals: dict[str, str] = {}
        deadline = trio.current_time() + self.wait_timeout
        while True:
            connection = self._take(group, refusals)
            if connection is None:
                if refusals and not set(group.agents) - set(refusals):
                    told = "; ".join(f"{instance}: {reason}" for instance, reason in refusals.items())
                    which = f"its target {target}" if target else "its target"
                    raise ConnectFailed(f"agent {name} cannot connect to {which}: {told}")
                if trio.current_time() >= deadline:
                    raise ConnectFailed(self._absence(name, group, refusals))
                if group.news.is_set():
                    group.news = trio.Event()
                with trio.move_on_at(deadline):
                    await group.news.wait()
                continue
            stream = await self._use(connection, target, refusals)
            if stream is not None:
                return stream

    async def _use(
        self, connection: _Connection, target: str, refusals: dict[str, str]
    ) -> AgentStream | None:
        """Make a stream of a connection; None, with a reason in `refusals`, if that is not possible."""
        answer: str | None = None
        try:
            answer = await connection.ask(target, self.open_timeout)
            if answer == OK:
                return AgentStream(connection)
        finally:
            if answer != OK:
                connection.done.set()
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(connection.stream)
        if answer == "":
            return None  # It has gone: that says nothing about the agent's other connections.
        if answer is None:
            reason = f"no answer within {self.open_timeout:g} s (agents.open_timeout)"
        elif answer.startswith(NO):
            told = answer.removeprefix(NO)[:_SHOWN_REASON]
            reason = "".join(one if one.isprintable() else "?" for one in told)
        else:
            reason = "it gave an answer that makes no sense"
        refusals[connection.agent.instance] = reason
        connection.agent.trusted_from = trio.current_time() + _DISTRUST
        return None

    @staticmethod
    def _take(group: _Group, refusals: dict[str, str]) -> _Connection | None:
        """A connection of the agent that was asked longest ago, of those that have not refused."""
        able = [one for one in group.agents.values() if one.waiting and one.instance not in refusals]
        if not able:
            return None
        now = trio.current_time()
        agent = next((one for one in able if one.trusted_from <= now), able[0])
        group.agents.move_to_end(agent.instance)
        return agent.waiting.pop()

    def _absence(self, name: str, group: _Group, refusals: dict[str, str]) -> str:
        """Why there was no connection to take."""
        here = len(group.agents)
        if here:
            used = sum(agent.connections for agent in group.agents.values())
            also = f"; {'; '.join(refusals.values())}" if refusals else ""
            return (
                f"agent {name} has no connection ready ({here} connected, {used} connections in use), waited "
                f"{self.wait_timeout:g} s: raise ready in its settings{also}"
            )
        if not group.most:
            return (
                f"agent {name} is not connected, and has not been since the pooler started: start `hyperpool tunnel` "
                "with the section poolers there, and look at its log"
            )
        gone = trio.current_time() - group.left_at
        return (
            f"agent {name} is not connected: the last one left {gone:.0f} s ago, there were up to {group.most}: look "
            "whether `hyperpool tunnel` runs there, and at its log"
        )


async def open_agent(step: AgentStep, below: trio.abc.Stream | None, context: DialContext) -> trio.abc.Stream:
    """Open a stream through an agent.

    Raises:
        ConnectFailed: no agent can do it.
    """
    assert below is None  # noqa: S101 - the settings see to it
    with context.trace.hop("agent", step.name) as hop:
        if context.agents is None:
            raise ConnectFailed(
                f"agent {step.name} cannot be asked: the settings have no section agents, where agents connect to"
            )
        hop.facts["target"] = step.target
        return await context.agents.open(step.name, step.target)
