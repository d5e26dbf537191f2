"""What operators do to pools: pgbouncer's commands PAUSE, RESUME, DISABLE, ENABLE, RECONNECT, KILL, SUSPEND and so on.

Signals do the same as commands. Everything takes effect at once; what takes time is asked about (`Callable[[], bool]`).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import structlog

from hyperpool.admin.outcomes import ConsoleError
from hyperpool.frontdoor.console import CONSOLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hyperpool.config import Settings
    from hyperpool.pool.pools import Pools
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.handover import RelayPool
    from hyperpool.relay.loop import Relay
    from hyperpool.relay.server import ServerConnection

log = structlog.get_logger("console")

_KILLED: Final = "admin forced disconnect"
_DIGITS: Final = 20


class Mode(enum.Enum):
    """What the pooler as a whole does."""

    ACTIVE = "active"
    PAUSED = "paused"
    SUSPENDED = "suspended"


class Operations:
    """Pauses, resumes, and ends connections.

    Args:
        relay: the data plane.
        pools: all pools.
        settings: gives the settings as they are now.

    Attributes:
        mode: what the pooler as a whole does.
        shutting_down: nothing is resumed any more.
    """

    def __init__(
        self,
        relay: Relay,
        pools: Pools[ServerConnection, ClientConnection],
        settings: Callable[[], Settings],
    ) -> None:
        self._relay = relay
        self._pools = pools
        self._settings = settings
        self._suspended_at = 0.0
        self.mode = Mode.ACTIVE
        self.shutting_down = False

    # -- pausing -----------------------------------------------------------------------------------------------------

    def pause(self, database: str = "") -> Callable[[], bool]:
        """Hand out no more servers, and close those that are free or become so (PAUSE).

        Args:
            database: whose pools; empty for all.

        Returns:
            Whether all of them are closed.

        Raises:
            ConsoleError: the pooler is paused already, or there is no such database.
        """
        self._must_be_active()
        if database:
            self._must_be_known(database, "pause")
            self._pools.paused.add(database)
        else:
            self.mode = Mode.PAUSED
            self._pools.all_paused = True
        log.info("PAUSE", database=database or "*")
        for pool in self._of(database):
            pool.paused = True
            for server in list(pool.servers):
                server.retire("pause mode")
        return lambda: not any(pool.connections for pool in self._of(database))

    def resume(self, database: str = "") -> None:
        """Go on after `pause`, `kill` or `suspend` (RESUME).

        Args:
            database: whose pools; empty for what was done to all.

        Raises:
            ConsoleError: nothing is paused, or the pooler is shutting down.
        """
        if database:
            if database not in CONSOLE and self._settings().find_database(database) is None:
                raise ConsoleError(f"no such database: {database}")
            if database not in self._pools.paused:
                raise ConsoleError(f"database {database} is not paused")
            self._pools.paused.discard(database)
        else:
            if self.shutting_down:
                raise ConsoleError("pooler is shutting down")
            if self.mode is Mode.ACTIVE:
                raise ConsoleError("pooler is not paused/suspended")
            if self.mode is Mode.SUSPENDED:
                self._relay.unsuspend()
            self.mode = Mode.ACTIVE
            self._pools.all_paused = False
        log.info("RESUME", database=database or "*")
        for pool in self._of(database):
            pool.paused = self._pools.is_paused(pool.settings.database)
            if not pool.paused:
                self._relay.client_waits(pool)

    def resume_if_stopped(self) -> None:
        """Go on, if the pooler as a whole is paused or suspended and is not shutting down."""
        if self.mode is not Mode.ACTIVE and not self.shutting_down:
            self.resume()

    def suspend(self) -> Callable[[], bool]:
        """Read nothing more from clients and servers (SUSPEND).

        Returns:
            Whether everything that they were to be sent has been sent. Those that have not taken it within
            ``suspend_timeout`` are closed.

        Raises:
            ConsoleError: the pooler is paused already, or databases are.
        """
        self._must_be_active()
        if self._pools.paused:
            raise ConsoleError("cannot suspend with paused databases")
        log.info("SUSPEND")
        self.mode = Mode.SUSPENDED
        self._pools.all_paused = True
        self._suspended_at = self._relay.time()
        for pool in self._pools:
            pool.paused = True
        self._relay.suspend(self._relay.established())
        return self._flushed

    def _flushed(self) -> bool:
        if self._relay.flushed():
            return True
        timeout = self._settings().pooler.suspend_timeout
        if timeout and self._relay.time() - self._suspended_at >= timeout:
            for connection in list(self._relay.established()):
                if connection.outbox:
                    connection.lost("suspend_timeout")
            return True
        return False

    # -- databases -----------------------------------------------------------------------------------------------------

    def disable(self, database: str) -> None:
        """Let no more clients in (DISABLE).

        Raises:
            ConsoleError: there is no such database.
        """
        self._must_be_known(database, "disable")
        log.info("DISABLE", database=database)
        self._pools.disabled.add(database)

    def enable(self, database: str) -> None:
        """Let clients in again (ENABLE).

        Raises:
            ConsoleError: there is no such database.
        """
        self._must_be_known(database, "enable")
        log.info("ENABLE", database=database)
        self._pools.disabled.discard(database)

    def reconnect(self, database: str = "") -> None:
        """Replace server connections as they become free (RECONNECT).

        Args:
            database: whose; empty for all.

        Raises:
            ConsoleError: there is no such database.
        """
        if database:
            self._must_be_known(database, "reconnect")
        log.info("RECONNECT", database=database or "*")
        for pool in self._of(database):
            pool.renew()
            for server in list(pool.servers):
                server.retire("RECONNECT command issued", outdated=True)
            self._relay.want(pool)

    def recycled(self, database: str = "") -> Callable[[], bool]:
        """Whether all server connections that were to be replaced are gone (WAIT_CLOSE).

        Args:
            database: whose; empty for all.

        Raises:
            ConsoleError: there is no such database.
        """
        if database:
            self._must_be_known(database, "wait in")
        return lambda: not any(server.retiring for pool in self._of(database) for server in pool.servers)

    def kill(self, database: str = "") -> None:
        """Close all clients and servers at once, and pause their databases (KILL).

        Args:
            database: whose; empty for all that have any.

        Raises:
            ConsoleError: the pooler is paused, or there is no such database.
        """
        self._must_be_active()
        if database:
            self._must_be_known(database, "kill")
            names = {database}
        else:
            names = {pool.settings.database for pool in self._pools}
        log.info("KILL", database=database or "*")
        self._pools.paused |= names
        for pool in self._of(database):
            self._relay.kill(pool, _KILLED)

    def kill_client(self, number: str) -> None:
        """Close one client (KILL_CLIENT).

        Args:
            number: its id, as SHOW CLIENTS has it.

        Raises:
            ConsoleError: there is no such client.
        """
        if not (number.isascii() and number.isdigit() and len(number) < _DIGITS):
            raise ConsoleError("invalid client pointer supplied")
        for client in self._relay.clients.values():
            if client.number == int(number):
                client.refuse(_KILLED, "57P01")
                return
        raise ConsoleError("client not found")

    def _of(self, database: str) -> Iterator[RelayPool]:
        return (pool for pool in list(self._pools) if not database or pool.settings.database == database)

    def _must_be_active(self) -> None:
        if self.mode is not Mode.ACTIVE:
            raise ConsoleError("already suspended/paused")

    def _must_be_known(self, database: str, verb: str) -> None:
        if database in CONSOLE:
            raise ConsoleError(f"cannot {verb} admin db: {database}")
        if self._settings().find_database(database) is None:
            raise ConsoleError(f"no such database: {database}")
