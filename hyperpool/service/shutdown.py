"""How the pooler ends: at once, or when servers or clients have become idle. As pgbouncer does."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

import structlog
import trio

from hyperpool.admin.console import ShutdownMode
from hyperpool.admin.operations import Mode
from hyperpool.frontdoor.guest import Guest
from hyperpool.service.drain import Drain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hyperpool.admin.operations import Operations
    from hyperpool.config import PoolerSettings
    from hyperpool.frontdoor.acceptor import Acceptor
    from hyperpool.frontdoor.door import FrontDoor
    from hyperpool.pool.pools import Pools
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
        needed: whether the process has something else to do until it may end.
        over: set when the pooler shall end.
        mode: what it waits for; None while it does not end.
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
        self._idle: Callable[[], bool] = lambda: False
        self._drain: Drain | None = None
        self.mode: ShutdownMode | None = None
        self.needed: Callable[[], bool] = lambda: False
        self.over = trio.Event()

    @property
    def begun(self) -> bool:
        """Whether the pooler waits for something to end."""
        return self._drain is not None

    @property
    def left(self) -> str:
        """What the pooler waits for, for people."""
        active, clients = self._active(), len(self._relay.clients)
        servers = self.mode is ShutdownMode.WAIT_FOR_SERVERS
        what = counted(active, "active server") if servers else counted(clients, "client")
        seconds = float("inf") if self._drain is None else self._drain.seconds
        return f"{what} left" + ("" if seconds == float("inf") else f", for up to {seconds:.0f} s")

    def begin(self, mode: ShutdownMode, settings: PoolerSettings, *, succeeded: bool = False) -> None:
        """End, at once or when nobody is left to wait for.

        Args:
            mode: what is waited for.
            settings: how long, and how many clients are closed meanwhile.
            succeeded: another process has the listening sockets: nobody comes in here any more, the console included.
        """
        self._operations.shutting_down = True
        if mode is ShutdownMode.IMMEDIATE:
            self.over.set()
        elif mode is not self.mode:
            self.mode = mode
            self._stop_listening(settings, succeeded=succeeded)
            if mode is ShutdownMode.WAIT_FOR_CLIENTS:
                self._wait_for_clients(settings)
            else:
                self._wait_for_servers(settings)
            self.look()
        elif succeeded:
            # It has been told to end between its last words with the one that follows and this.
            self._stop_listening(settings, succeeded=True)

    def _stop_listening(self, settings: PoolerSettings, *, succeeded: bool) -> None:
        for acceptor in self._acceptors:
            if succeeded or not acceptor.local:
                if self.mode is ShutdownMode.WAIT_FOR_CLIENTS and not (succeeded or acceptor.closed):
                    # Those in the queue have connected, and would be cut off.
                    acceptor.accept_all(settings.listen_backlog)
                acceptor.lost("shutting down")

    def _wait_for_clients(self, settings: PoolerSettings) -> None:
        # Those that have come already may finish their logins.
        self._door.close(self._relay.time())
        self._drain = Drain(self._relay, settings.drain_timeout, settings.drain_rate)
        self._idle = lambda: not self._relay.population and not self._arriving()
        log.info(
            "waiting for clients to leave; a second signal ends at once", clients=len(self._relay.clients)
        )

    def _wait_for_servers(self, settings: PoolerSettings) -> None:
        self._door.close()
        self._drain = Drain(self._relay, settings.drain_timeout, 0)
        self._operations.mode = Mode.PAUSED
        self._pools.all_paused = True
        for pool in self._pools:
            pool.paused = True
        self._idle = lambda: not self._active()
        log.info("waiting for servers to be given back; a second signal ends at once", active=self._active())

    def look(self) -> None:
        """End, if nobody is left to wait for, or it has taken too long; for every 100 ms."""
        if self._drain is None:
            return
        if self._idle() and not self.needed():
            self.over.set()
        elif self._drain.over:
            log.warning("ending: drain_timeout is over", left=self.left)
            self.over.set()
        elif self.mode is ShutdownMode.WAIT_FOR_CLIENTS:
            self._drain.look()
            self._let_servers_go()

    def _let_servers_go(self) -> None:
        """Close what no client of this process can need: the process that follows opens servers of its own."""
        for pool in self._pools:
            if not (pool.clients or pool.logins):
                pool.kept = False
                for server in list(pool.idle):
                    server.close("shutting down")

    def _arriving(self) -> bool:
        """Whether somebody has connected and is not let in yet."""
        return any(isinstance(one, Guest) and self._door.lets_in(one) for one in self._relay.transients)

    def _active(self) -> int:
        return sum(pool.active + len(pool.conditioning) for pool in self._pools)


def counted(number: int, noun: str) -> str:
    """A number of things, for people."""
    return f"{number} {noun}{'s' * (number != 1)}"
