"""The place of a pooler among processes: it may follow one, and another one may follow it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import structlog
import trio

from hyperpool.admin.console import ShutdownMode
from hyperpool.errors import StartupError
from hyperpool.frontdoor.orders import CancelOrder
from hyperpool.service.control import Control, control_path
from hyperpool.service.succession import Succession
from hyperpool.transport.passed import AGENTS, CLIENTS, HTTP

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AsyncExitStack

    from hyperpool.config import PoolerSettings, Settings
    from hyperpool.frontdoor.door import FrontDoor
    from hyperpool.frontdoor.listener import Listener
    from hyperpool.relay.loop import Relay
    from hyperpool.service.handover import Predecessor
    from hyperpool.service.shutdown import Shutdown
    from hyperpool.service.systemd import Descriptor, Notifier
    from hyperpool.tunnel.reception import Reception

log = structlog.get_logger("pooler")

EMBEDDED: Final = "embedded databases cannot change hands: stop the one process, then start the other"
"""Why a pooler cannot make way."""


def keeps_answers(settings: Settings) -> bool:
    """Whether a database has a cache."""
    return any(database.cache is not None for database in settings.databases.values())


class Incumbent(Protocol):
    """A pooler, as its place needs it: one process, or the supervisor of several."""

    @property
    def listeners(self) -> Sequence[Listener]:
        """Where clients come in."""

    @property
    def agents(self) -> Sequence[Descriptor]:
        """Where agents come in."""

    @property
    def http(self) -> Sequence[Descriptor]:
        """Where requests over HTTP come in."""

    @property
    def replaced(self) -> frozenset[str]:
        """The roles whose sockets stand in the place of what the settings say."""

    @property
    def ending(self) -> bool:
        """Whether it has begun to end."""

    def obstacle(self) -> str:
        """Why no other process can follow, for people; empty if one can."""

    def hold_cache(self, held: bool, /) -> None:
        """Have nothing answered from the result cache for now, or let it again."""

    def cancel(self, pid: int, secret: bytes, done: Callable[[], None]) -> None:
        """Cancel what a client does, as `succession.Replaceable.cancel`."""

    def pass_on(self, cancel: Callable[[int, bytes, Callable[[], None]], None]) -> None:
        """From now on, cancel requests for nobody here are given to this."""

    def wait_for(self, needed: Callable[[], bool]) -> None:
        """Do not end as long as this process is needed for something else."""

    def leave(self) -> None:
        """Accept nobody any more, the console included, and end when all clients have left."""

    def give_up(self) -> None:
        """End at once."""


@attrs.frozen(kw_only=True, eq=False)
class Parts:
    """A pooler of one process, as `Incumbent`.

    Attributes:
        settings: gives them as they are now.
        relay: the data plane.
        door: lets clients in.
        shutdown: ends the pooler.
        listeners: where clients come in.
        reception: lets agents in; None for nobody.
        agents: where they come in.
        http: where requests over HTTP come in.
        replaced: the roles whose sockets stand in the place of what the settings say.
        embedded: there are embedded databases.
        hold_cache: has nothing answered from the result cache for now, or lets it again.
        order: takes a cancel request for a server; must not block.
    """

    settings: Callable[[], PoolerSettings]
    relay: Relay
    door: FrontDoor
    shutdown: Shutdown
    listeners: list[Listener]
    reception: Reception | None
    agents: list[Descriptor]
    http: list[socket.socket]
    replaced: frozenset[str]
    embedded: bool
    hold_cache: Callable[[bool], None]
    order: Callable[[CancelOrder], None]

    @property
    def ending(self) -> bool:
        """Whether it has begun to end."""
        return self.shutdown.begun or self.shutdown.over.is_set()

    def obstacle(self) -> str:
        """Why no other process can follow."""
        if self.embedded:
            return EMBEDDED
        if self.reception is not None:
            return "agents would stay with this process: stop it, then start the other, and they connect to that one"
        return ""

    def cancel(self, pid: int, secret: bytes, done: Callable[[], None]) -> None:
        """Cancel what a client does that has stayed here, or with the process before."""
        server = self.relay.cancel_target(pid, secret)
        elsewhere = self.door.elsewhere
        if server is not None:
            self.order(CancelOrder(server, then=done))
        elif elsewhere is not None and pid not in self.relay.clients:
            elsewhere(pid, secret, done)
        else:
            done()

    def pass_on(self, cancel: Callable[[int, bytes, Callable[[], None]], None]) -> None:
        """Give cancel requests for nobody here to this."""
        self.door.elsewhere = cancel

    def wait_for(self, needed: Callable[[], bool]) -> None:
        """Do not end as long as this process is needed."""
        self.shutdown.needed = needed

    def leave(self) -> None:
        """End when all clients have left."""
        self.shutdown.begin(ShutdownMode.WAIT_FOR_CLIENTS, self.settings(), succeeded=True)

    def give_up(self) -> None:
        """End at once."""
        self.shutdown.over.set()


class Place:
    """Steps into a place, and makes way.

    Args:
        notifier: the way to the service manager.
        predecessor: the process that this one follows; None for none.
        command: how to start one that follows; empty for a process that others look after: it takes no commands.
        beside: the number of a process that is told to end without a word in between; 0 for none.
        caches: answers are kept, so that the log says when.

    Attributes:
        follows: a process before this one may serve clients still: nothing is to be answered from the result cache.
        failure: why this process could not step into its place; it has to end then.
    """

    def __init__(
        self,
        notifier: Notifier,
        predecessor: Predecessor | None,
        command: tuple[str, ...],
        beside: int = 0,
        *,
        caches: bool,
    ) -> None:
        self._notifier = notifier
        self._predecessor = predecessor
        self._command = command
        self._beside = beside
        self._caches = caches
        self._succession = Succession(self, command, notifier.manager.environment)
        self._control: Control | None = None
        self._parts: Incumbent
        self._here = trio.CancelScope()
        self._successor = False
        self.follows = predecessor is not None or bool(beside)
        self.failure: StartupError | None = None
        notifier.held = predecessor is not None

    def open(
        self, settings: PoolerSettings, shut_down: Callable[[ShutdownMode], None], stack: AsyncExitStack
    ) -> None:
        """Open the control socket, or leave it to the process before for now.

        Args:
            settings: say where it is.
            shut_down: what `hyperpool drain` calls.
            stack: closes it.

        Raises:
            StartupError: it cannot be where the settings want it.
        """
        if self._predecessor is not None:
            stack.callback(self._predecessor.close)
        path = control_path(settings, os.environ)
        if not path or not self._command:
            return
        control = Control(path, self._succession, shut_down)
        stack.callback(control.close)
        if self._predecessor is None:
            try:
                control.open()
            except StartupError as error:
                if settings.control_socket:
                    raise
                log.warning("no commands are taken", reason=str(error))
                return
        self._control = control

    def settle(self, parts: Incumbent) -> None:
        """Take what this is about: the pooler is up. The service manager is asked to keep the sockets."""
        self._parts = parts
        if self.follows:
            parts.hold_cache(True)
        manager = self._notifier.manager
        self._notifier.store([(role, sock) for role, fixed, sock in self.listening() if not fixed])
        if manager.stores:
            # The files are needed as long as the sockets are: beyond the end of this process.
            for listener in parts.listeners:
                listener.shared = True
        if manager.address:
            # The service ends with the last of its processes.
            self._wait_for_predecessor()

    async def hold(self, task: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run a task for as long as this process is the one that serves."""
        with self._here:
            await task(*arguments)

    async def take(self, nursery: trio.Nursery) -> None:
        """The pooler is ready: be the one that serves, in the place of the process before if there is one.

        Args:
            nursery: for what goes on as long as the pooler serves.
        """
        if self._predecessor is not None:
            if self._parts.ending:
                # It has been told to end meanwhile, and the process before goes on.
                return
            try:
                await self._step_in(self._predecessor)
            except StartupError as error:
                self.failure = error
                self._parts.give_up()
                return
        nursery.start_soon(self._until_alone)
        self._notifier.held = False
        self._notifier.ready()
        if self._control is not None:
            nursery.start_soon(self._control.run)

    async def _until_alone(self) -> None:
        """Have nothing answered from memory as long as clients of the process before may write."""
        if not self.follows:
            return
        if self._caches:
            log.info("the result cache is held until the process before has ended")
        if self._predecessor is not None:
            await self._predecessor.run()
        else:
            await _end_of(self._beside)
        self.follows = False
        if not (self._parts.ending or self._successor):
            if self._caches:
                log.info("the process before has ended: answers are cached from now on")
            else:
                log.info("the process before has ended")
            self._parts.hold_cache(False)

    async def _step_in(self, predecessor: Predecessor) -> None:
        await predecessor.step_in()
        for listener in self._parts.listeners:
            listener.shared = bool(self._notifier.manager.stores)
        self._parts.pass_on(predecessor.cancel)
        if self._control is not None:
            try:
                self._control.open(in_place=True)
            except StartupError as error:
                # The process before accepts nobody any more: without commands is better than without a pooler.
                log.error("no commands are taken", reason=str(error))

    # -- as `service.succession.Replaceable` -------------------------------------------------------------------------

    def obstacle(self) -> str:
        """Why no other process can follow; empty if one can."""
        return self._parts.obstacle() or ("the process is ending already" if self._parts.ending else "")

    def expect(self, *, somebody: bool) -> None:
        """Somebody who is to follow may serve clients from now on, beside this process; or will not after all."""
        self._successor = somebody
        self._parts.hold_cache(somebody or self.follows or self._parts.ending)

    def listening(self) -> list[tuple[str, bool, Descriptor]]:
        """The listening sockets: the role of each, and whether it is in the place of what the settings say."""
        parts = self._parts
        return [
            *((CLIENTS, CLIENTS in parts.replaced, listener.sock) for listener in parts.listeners),
            *((AGENTS, AGENTS in parts.replaced, sock) for sock in parts.agents),
            *((HTTP, HTTP in parts.replaced, sock) for sock in parts.http),
        ]

    async def announce(self, pid: int) -> str:
        """Tell the service manager which process serves from now on; it takes none from elsewhere."""
        if self._notifier.manager.address and _control_group(pid) != _control_group(os.getpid()):
            return "the running process is a service: `hyperpool restart` replaces it"
        await self._notifier.replaced(pid)
        return ""

    def leave(self) -> None:
        """Leave the sockets to another process, and end when all clients have left."""
        parts = self._parts
        for listener in parts.listeners:
            listener.shared = True
        self.expect(somebody=True)
        self._here.cancel()
        # Cancel requests for clients of the process before come this way.
        self._wait_for_predecessor()
        parts.leave()

    def _wait_for_predecessor(self) -> None:
        if self._predecessor is not None:
            predecessor = self._predecessor
            self._parts.wait_for(lambda: not predecessor.gone)

    def cancel(self, pid: int, secret: bytes, done: Callable[[], None]) -> None:
        """Cancel what a client does that has stayed here, or with the process before."""
        self._parts.cancel(pid, secret, done)


async def _end_of(pid: int) -> None:
    """Wait until a process has ended that may not be one of this one's."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _control_group(pid: int) -> str:
    """What systemd tells the processes of its services apart by; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/cgroup").read_text("utf-8")
    except OSError:
        return ""
