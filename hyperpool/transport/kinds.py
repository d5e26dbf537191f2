"""The kinds of transport steps: which function opens which, and what such a function is given.

A step's function makes a byte stream out of the one below it, or from nothing if it is the first. It has this form::

    async def open_xxx(step: XxxStep, below: trio.abc.Stream | None, context: DialContext) -> trio.abc.Stream

and keeps to these rules:

1.  It owns `below` from its first moment on: when it fails or is cancelled, it has closed it.
2.  What goes wrong is a `ConnectFailed`, with a message that names the hop, the cause and the remedy, and no secret.
3.  What takes time is inside of a hop of ``context.trace``.
4.  The stream that it returns closes `below` when it is closed.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from hyperpool.config.transports import AgentStep, ProxyStep, TcpStep, TlsStep, UnixStep, WebSocketStep
from hyperpool.errors import ConnectFailed
from hyperpool.transport.agents import open_agent
from hyperpool.transport.dial import open_tcp, open_unix
from hyperpool.transport.proxy import open_proxy
from hyperpool.transport.tls import open_tls
from hyperpool.transport.websocket import open_websocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    import trio

    from hyperpool.config.transports import Step, Steps
    from hyperpool.transport.resolve import Resolver
    from hyperpool.transport.sockets import TcpOptions


@attrs.define(eq=False)
class Hop:
    """One thing that was done on the way to a server.

    Attributes:
        kind: what was done: ``tcp``.
        target: where to, or as whom: ``db1:5432``; empty if there is nothing to say.
        began: when, in the seconds of `time.perf_counter`.
        seconds: how long it took.
        facts: what was found out or negotiated, by name.
        error: why it failed; empty if it did not, or was cancelled.
        done: it is over, and has not failed.
    """

    kind: str
    target: str = ""
    began: float = 0.0
    seconds: float = 0.0
    facts: dict[str, str] = attrs.field(factory=dict)
    error: str = ""
    done: bool = False

    @property
    def name(self) -> str:
        """What was done, and where to: ``tcp db1:5432``."""
        return f"{self.kind} {self.target}" if self.target else self.kind


class Trace:
    """What was done on the way to a server, in order.

    Attributes:
        hops: the newest one is last.
    """

    def __init__(self) -> None:
        self.hops: list[Hop] = []

    @property
    def waits(self) -> str:
        """The end of a message about a timeout: which hop it was that took so long."""
        return f", it waited for {self.hops[-1].name}" if self.hops else ""

    @contextmanager
    def hop(self, kind: str, target: str = "") -> Iterator[Hop]:
        """Take the time of what is done inside, and note how it fails."""
        hop = Hop(kind, target, time.perf_counter())
        self.hops.append(hop)
        try:
            yield hop
            hop.done = True
        except ConnectFailed as error:
            hop.error = str(error)
            raise
        finally:
            hop.seconds = time.perf_counter() - hop.began


class Agents(Protocol):
    """Where streams come from that agents in private networks make for us."""

    async def open(self, name: str, target: str) -> trio.abc.Stream:
        """A new stream through one of the agents with this name, to what they call so.

        Raises:
            ConnectFailed: none of them can make one.
        """


@attrs.frozen(kw_only=True)
class DialContext:
    """What every step is given.

    Attributes:
        options: for TCP sockets.
        resolver: knows the addresses of names.
        agents: those that have connected to us; None where there can be none.
        trace: gets what is done.
    """

    options: TcpOptions
    resolver: Resolver
    agents: Agents | None = None
    trace: Trace = attrs.field(factory=Trace)


@attrs.frozen
class Kind:
    """A kind of step.

    Attributes:
        settings: the class of its settings.
        open: its function.
    """

    settings: type[Step]
    open: Callable[[Any, Any, DialContext], Awaitable[trio.abc.Stream]]


KINDS: Final[Mapping[str, Kind]] = {
    kind.settings.KIND: kind
    for kind in (
        Kind(TcpStep, open_tcp),
        Kind(UnixStep, open_unix),
        Kind(TlsStep, open_tls),
        Kind(ProxyStep, open_proxy),
        Kind(AgentStep, open_agent),
        Kind(WebSocketStep, open_websocket),
    )
}
"""Every kind of step that can be opened, by its name in the settings."""


async def open_steps(
    steps: Steps, context: DialContext, below: trio.abc.Stream | None = None
) -> trio.abc.Stream:
    """Open steps, bottom up.

    Failed or cancelled, nothing is left open.

    Args:
        steps: at least one, unless there is something below.
        context: for each of them.
        below: what they are put on; belongs to them from now on.

    Raises:
        ConnectFailed: one of them failed.
    """
    for step in steps:
        below = await KINDS[step.KIND].open(step, below, context)
    assert below is not None  # noqa: S101 - there is a step
    return below
