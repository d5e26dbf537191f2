"""The way of one pool to its servers: which host has its turn, and what to do when one does not answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import attrs
import trio

from hyperpool.config.entries import DatabaseSettings
from hyperpool.config.transports import AgentStep, ProxyStep, TcpStep, TlsStep, UnixStep, WebSocketStep
from hyperpool.errors import ConnectFailed, UpstreamError
from hyperpool.transport.kinds import KINDS, Trace, open_steps
from hyperpool.transport.plain import PlainStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hyperpool.auth.secrets import Shown
    from hyperpool.config import PoolSettings
    from hyperpool.config.transports import Steps
    from hyperpool.transport.kinds import DialContext

T = TypeVar("T")
Attempt: TypeAlias = "Callable[[Target], Awaitable[T]]"

_CANNOT_CONNECT_NOW = "57P03"
_UNSAID: Final = attrs.fields(DatabaseSettings).host.default
"""The host of a database when the settings do not say one."""


@attrs.frozen
class Target:
    """One server, and the way to it.

    Attributes:
        host: as in the settings: what the server's own TLS certificate must be for.
        port: as in the settings.
        steps: how a byte stream to it is made.
    """

    host: str
    port: int
    steps: Steps

    @property
    def known(self) -> bool:
        """Whether the settings say what the server's own address is, and not only the way to it."""
        return self.host != _UNSAID or self.steps == _direct(self.host, self.port)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for views with columns for them; the port is 0 where no more than a name is known."""
        if self.known:
            return self.host, self.port
        *_, last = (step for step in self.steps if not isinstance(step, TlsStep))
        return (last.host, last.port) if isinstance(last, TcpStep | ProxyStep) else (self.name, 0)

    @property
    def name(self) -> str:
        """What messages call it."""
        if not self.known:
            return _far_end(self.steps)
        if self.host.startswith(("/", "@")):
            return f"{self.host}/.s.PGSQL.{self.port}"
        return _authority(self.host, self.port)


@attrs.frozen
class Opened:
    """A byte stream to a server.

    Attributes:
        stream: whoever holds this owns it.
        target: leads to the same server again: where a name stood that may mean several, there is an address now.
    """

    stream: trio.abc.Stream
    target: Target


class Route:
    """The way of one pool to its servers.

    Args:
        settings: of the pool.
        context: for the steps.
        clock: monotonic seconds.

    Attributes:
        settings: as given.
        context: as given.
        targets: the servers, in the order of the settings.
        shown: what clients have brought to light, for logins; None for nothing.
        trace: what was done to open the newest connection.
    """

    def __init__(
        self, settings: PoolSettings, context: DialContext, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.context = context
        self.shown: Shown | None = None
        self.trace = Trace()
        self._clock = clock
        self.targets = tuple(
            Target(host, port, settings.transport or _direct(host, port)) for host, port in settings.servers
        )
        self._next = 0
        self._failed: dict[Target, float] = {}

    async def open(self, trace: Trace | None = None) -> Opened:
        """Open a byte stream to the server whose turn it is, or to the next one that can be reached.

        Failed or cancelled, nothing is left open.

        Args:
            trace: gets what is done.

        Raises:
            ConnectFailed: none can be reached.
        """
        return await self.first(lambda target: self.reach(target, trace))

    async def first(self, attempt: Attempt[T], failures: list[str] | None = None) -> T:
        """Try one server after the other until one does what is wanted.

        With ``load_balance_hosts`` round-robin the turns go round; with disable one host is kept until it fails. A
        host that has failed is tried last for the time of ``server_login_retry``. A host is given up after
        ``host_connect_timeout``, unless it is the last one.

        Args:
            attempt: what is tried; the host counts as failed when it raises `ConnectFailed`, or when the server says
                that it cannot take anybody now.
            failures: gets the reason of each host that has failed.

        Raises:
            UpstreamError: of the attempt, if there is only one host or it was not a failure of the host; else
                `ConnectFailed` with the reasons of all hosts.
        """
        targets = self._in_turn()
        failures = [] if failures is None else failures
        for target in targets:
            last = target is targets[-1]
            limit = float("inf") if last else self.settings.host_connect_timeout or float("inf")
            try:
                with trio.move_on_after(limit):
                    result = await attempt(target)
                    self._works(target)
                    return result
                failures.append(f"{target.name}: no answer within {limit:g} s (host_connect_timeout)")
            except UpstreamError as error:
                if len(targets) == 1 or not _is_fault_of_host(error):
                    raise
                failures.append(str(error) if target.name in str(error) else f"{target.name}: {error}")
            self._failed[target] = self._clock() + self.settings.server_login_retry
        raise ConnectFailed(f"none of {len(targets)} hosts can be reached: {'; '.join(failures)}")

    async def reach(self, target: Target, trace: Trace | None = None) -> Opened:
        """Open a byte stream to one server.

        Raises:
            ConnectFailed: it cannot be reached.
        """
        context = attrs.evolve(self.context, trace=trace or Trace())
        base, *above = target.steps
        stream = await KINDS[base.KIND].open(base, None, context)
        if isinstance(base, TcpStep) and isinstance(stream, PlainStream):
            try:
                base = attrs.evolve(base, host=stream.peer_address)
            except trio.BrokenResourceError as error:
                stream.close()
                raise ConnectFailed(f"cannot connect to {target.name}: {error}") from error
        stream = await open_steps(tuple(above), context, stream)
        return Opened(stream, attrs.evolve(target, steps=(base, *above)))

    async def reopen(self, target: Target) -> trio.abc.Stream:
        """Open one more byte stream to a server that has been reached before, in the same way.

        Args:
            target: of an `Opened`; also of a route that the pool had before.

        Raises:
            ConnectFailed: it cannot be reached any more.
        """
        return await open_steps(target.steps, attrs.evolve(self.context, trace=Trace()))

    def _in_turn(self) -> list[Target]:
        start, count = self._next % len(self.targets), len(self.targets)
        if self.settings.load_balance_hosts == "round-robin":
            self._next = start + 1
        now = self._clock()
        targets = [self.targets[(start + number) % count] for number in range(count)]
        return sorted(targets, key=lambda target: self._failed.get(target, 0.0) > now)

    def _works(self, target: Target) -> None:
        self._failed.pop(target, None)
        if self.settings.load_balance_hosts == "disable":
            self._next = self.targets.index(target)


def _direct(host: str, port: int) -> Steps:
    """The way to a server that can be reached without a tunnel, as libpq reads host and port."""
    if host.startswith(("/", "@")):
        return (UnixStep(path=f"{host}/.s.PGSQL.{port}"),)
    return (TcpStep(host=host, port=port),)


def _far_end(steps: Steps) -> str:
    """What can be said of the server at the end of a way: where the bytes leave it, as far as steps name that."""
    for step in reversed(steps):
        match step:
            case TcpStep() | ProxyStep():
                return _authority(step.host, step.port)
            case UnixStep():
                return step.path
            case WebSocketStep():
                return f"PostgreSQL behind {step.host}{step.path.partition('?')[0].rstrip('/')}"
            case AgentStep():
                return f"PostgreSQL behind agent {step.name}{f' ({step.target})' if step.target else ''}"
    return "PostgreSQL behind the transport"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_fault_of_host(error: UpstreamError) -> bool:
    """Whether another host may do better: libpq goes on in the same two cases."""
    return isinstance(error, ConnectFailed) or error.sqlstate == _CANNOT_CONNECT_NOW
