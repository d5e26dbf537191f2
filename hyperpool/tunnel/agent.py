"""The agent: connects from the private network out to a pooler, and waits there for work.

Each connection serves one stream: the pooler asks over it for a target, once, and it is that target's stream from then
on. (One connection per stream, and no multiplexing: streams cannot hold each other up, flow control is TCP's, and a
stream that is needed costs one round trip, because connections wait.)
"""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING, Final

import attrs
import structlog
import trio

from hyperpool.config.secret import Secret
from hyperpool.config.transports import WebSocketStep
from hyperpool.errors import ConnectFailed
from hyperpool.transport.agents import GREETING, MAX_LINE, NO, OK, OPEN, receive_line, send_line
from hyperpool.transport.kinds import Trace, open_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.config.transports import Steps
    from hyperpool.config.tunnel import LinkSettings
    from hyperpool.transport.kinds import DialContext
    from hyperpool.tunnel.targets import Allowed, Targets

log = structlog.get_logger("agent")

INSTANCE_HEADER: Final = "Hyperpool-Agent"

_CONNECT_TIMEOUT: Final = 15.0
_FIRST_PAUSE: Final = 0.1
_PROVEN: Final = 5.0
"""Seconds that a connection must have waited for its end not to count as a failure."""
_FAREWELL: Final = 2.0
_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class Agent:
    """Keeps connections to one pooler.

    Args:
        settings: which pooler.
        targets: where its streams may lead to.
        context: for connecting.
        random: yields numbers from 0 to 1, for pauses.
        allowed: what its streams may lead to, also those that outlive its settings; by default, what these say.
    """

    def __init__(
        self,
        settings: LinkSettings,
        targets: Targets,
        context: DialContext,
        random: Callable[[], float],
        allowed: Allowed | None = None,
    ) -> None:
        self.settings = settings
        self._allowed = allowed or (lambda: settings.targets)
        self._steps = _with_instance(
            settings.transport, f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        )
        self._targets = targets
        self._context = context
        self._random = random
        self._running = trio.CancelScope()
        self._scopes: set[trio.CancelScope] = set()
        self._ready = 0
        self._failures = 0
        self._failed_at = float("-inf")
        self._shunned = False
        self._complaint = ""
        self._connected = False
        self._changed = trio.Event()

    def close(self) -> None:
        """Give the connections up that wait, and make no more; streams go on."""
        self._running.cancel()
        for scope in self._scopes:
            scope.cancel()

    async def run(self) -> None:
        """Keep connections there until `close` was called and all streams have ended."""
        async with trio.open_nursery() as nursery:
            with self._running:
                while True:
                    if self._shunned:
                        await trio.sleep(self._pause())
                    # While nothing works, one attempt at a time is enough.
                    wanted = 1 if self._shunned else self.settings.ready
                    while self._ready < wanted:
                        self._ready += 1
                        nursery.start_soon(self._connection)
                    self._changed = trio.Event()
                    await self._changed.wait()

    def _pause(self) -> float:
        """Seconds to wait after so many failures in a row: doubled each time, and different for every agent."""
        longest = min(self.settings.retry_max, _FIRST_PAUSE * 2.0 ** min(self._failures - 1, 32))
        return longest * (0.5 + self._random() / 2)

    async def _connection(self) -> None:
        """Make one connection, wait for work, and do it."""
        stream: trio.abc.Stream | None = None
        wanted: str | None = None
        began = trio.current_time()
        try:
            with trio.CancelScope() as scope:
                self._scopes.add(scope)
                try:
                    stream, received = await self._connect()
                    self._works()
                    began = trio.current_time()
                    wanted = await _wait_for_work(stream, received)
                    self._failures = 0
                except ConnectFailed as error:
                    self._failed(str(error), began)
                except _BROKEN as error:
                    if trio.current_time() - began >= _PROVEN:
                        self._failures = 0
                    else:
                        self._failed(f"the connection ended: {error}", began)
                except Exception as error:
                    log.error("making a connection failed", pooler=self.settings.name, exc_info=error)
                    self._failed("internal error", began)
                finally:
                    self._scopes.discard(scope)
                    self._ready -= 1
                    self._changed.set()
            if stream is not None and wanted is not None:
                await self._serve(stream, wanted)
        except _BROKEN:
            pass  # The pooler has gone.
        except Exception as error:
            log.error("serving a stream failed", pooler=self.settings.name, exc_info=error)
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)

    async def _connect(self) -> tuple[trio.abc.Stream, bytes]:
        """Connect to the pooler.

        Returns:
            The connection, and what has come over it behind the greeting.

        Raises:
            ConnectFailed: it is not there, or does not let us in.
        """
        try:
            with trio.fail_after(_CONNECT_TIMEOUT):
                return await self._dial()
        except trio.TooSlowError:
            raise ConnectFailed(f"no answer within {_CONNECT_TIMEOUT:g} s") from None

    async def _dial(self) -> tuple[trio.abc.Stream, bytes]:
        stream = await open_steps(self._steps, attrs.evolve(self._context, trace=Trace()))
        try:
            line, received = await receive_line(stream)
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error, _BROKEN):
                raise ConnectFailed(
                    f"the connection ended before the pooler said anything: {error}"
                ) from error
            raise
        if line != GREETING:
            await trio.aclose_forcefully(stream)
            raise ConnectFailed("what answers there is not the section agents of a hyperpool")
        return stream, received

    async def _serve(self, stream: trio.abc.Stream, wanted: str) -> None:
        """Connect to a target, and be the stream to it."""
        name = self.settings.name
        target = self._targets.find(wanted, self.settings.targets)
        if target is None:
            log.warning("refused", reason=f"target {wanted!r} is not one that it may reach", pooler=name)
            await _decline(stream, f"target {wanted!r} is not in its settings, or not for this pooler")
            return
        try:
            server = await self._targets.connect(target)
        except ConnectFailed as error:
            log.warning("target cannot be reached", target=target.name, pooler=name, error=str(error))
            await _decline(stream, str(error))
            return

        async def accept() -> trio.abc.Stream:
            await send_line(stream, OK)
            return stream

        await self._targets.serve(accept, server, target, self._allowed, pooler=name)

    def _works(self) -> None:
        self._shunned = False
        self._complaint = ""
        if not self._connected:
            self._connected = True
            log.info("connected to the pooler", pooler=self.settings.name)
        self._changed.set()

    def _failed(self, complaint: str, began: float) -> None:
        """Note a failure; of attempts that were under way together, one counts."""
        if began <= self._failed_at:
            return
        self._shunned = True
        self._failures += 1
        self._failed_at = trio.current_time()
        self._connected = False
        if complaint != self._complaint:
            self._complaint = complaint
            log.warning("cannot wait at the pooler, trying again", pooler=self.settings.name, error=complaint)


async def _wait_for_work(stream: trio.abc.Stream, received: bytes) -> str:
    """Wait until the pooler asks for a target.

    Raises:
        trio.BrokenResourceError: it has gone, or says something else.
    """
    line, rest = await receive_line(stream, received)
    if not line.startswith(OPEN) or rest:
        raise trio.BrokenResourceError("the pooler said something that an agent does not understand")
    return line.removeprefix(OPEN)


async def _decline(stream: trio.abc.Stream, reason: str) -> None:
    said = NO + reason.replace("\n", " ").encode("ascii", "backslashreplace").decode()
    with trio.move_on_after(_FAREWELL):
        await send_line(stream, said[: MAX_LINE - 1])
        await stream.aclose()


def _with_instance(steps: Steps, instance: str) -> Steps:
    """Steps that tell the pooler which process it is that connects."""
    *below, top = steps
    assert isinstance(top, WebSocketStep)  # noqa: S101 - checked with the settings
    return (*below, attrs.evolve(top, headers=(*top.headers, (INSTANCE_HEADER, Secret(instance)))))
