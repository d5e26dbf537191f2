"""How the pooler ends: at once, or when servers or clients have become idle. As pgbouncer does."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

import structlog
import trio

from hyperpool.admin.console import ShutdownMode
from hyperpool.admin.operations import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hyperpool.admin.operations import Operations
    from hyperpool.frontdoor.door import FrontDoor
    from hyperpool.frontdoor.listener import Acceptor
    from hyperpool.pool.state import Pools
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.loop import Relay
    from hyperpool.relay.server import ServerConnection

log = structlog.get_logger("pooler")

SIGNALS: Final = {
    signal.SIGINT: ShutdownMode.WAIT_FOR_SERVERS,
    signal.SIGTERM: ShutdownMode.WAIT_FOR_CLIENTS,
    signal.SIGQUIT: ShutdownMode.IMMEDIATE,
}
"""What each signal asks for; a second one ends at once."""


class Shutdown:
    """Ends the pooler.

    Args:
        relay: the data plane.
        pools: all pools.
        door: lets nobody in any more, but to the console.
        operations: nothing is resumed any more.
        acceptors: those for TCP are closed; Unix sockets stay open for the console.

    Attributes:
        over: set when the pooler shall end.
    """

    def __init__(
        self,
        relay: Relay,
        pools: Pools[ServerConnection, ClientConnection],
        door: FrontDoor,
        operations: Operations,
        acceptors: Iterable[Acceptor],
    ) -> None:
        self._relay = relay
        self._pools = pools
        self._door = door
        self._operations = operations
        self._acceptors = acceptors
        self._idle: Callable[[], bool] | None = None
        self.over = trio.Event()

    @property
    def begun(self) -> bool:
        """Whether the pooler waits for something to end."""
        return self._idle is not None

    def begin(self, mode: ShutdownMode) -> None:
        """End, at once or when nobody is left to wait for."""
        self._operations.shutting_down = True
        if mode is ShutdownMode.IMMEDIATE:
            self.over.set()
            return
        self._door.closing = True
        for acceptor in self._acceptors:
            if not acceptor.local:
                acceptor.lost("shutting down")
        if mode is ShutdownMode.WAIT_FOR_CLIENTS:
            log.info(
                "waiting for clients to leave; a second signal ends at once", clients=len(self._relay.clients)
            )
            self._idle = lambda: not self._relay.population
        else:
            log.info(
                "waiting for servers to be given back; a second signal ends at once", active=self._active()
            )
            self._operations.mode = Mode.PAUSED
            self._pools.all_paused = True
            for pool in self._pools:
                pool.paused = True
            self._idle = lambda: not self._active()
        self.look()

    def look(self) -> None:
        """End, if nobody is left to wait for; for every 100 ms."""
        if self._idle is not None and self._idle():
            self.over.set()

    def _active(self) -> int:
        return sum(pool.active + len(pool.conditioning) for pool in self._pools)
