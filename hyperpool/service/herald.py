"""Tells those outside how the pooler is: whoever waits until it is ready, and the service manager."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import structlog

from hyperpool.service.shutdown import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hyperpool.pool.pools import Pools
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.handover import RelayPool
    from hyperpool.relay.loop import Relay
    from hyperpool.relay.server import ServerConnection
    from hyperpool.service.shutdown import Shutdown
    from hyperpool.service.systemd import Notifier

log = structlog.get_logger("pooler")

_PATIENCE: Final = 30.0
"""Seconds after which the pooler is ready, whatever its pools are: servers may have no limit on a login's time."""


class Herald:
    """Follows a pooler from its start to its end.

    It is ready when its listeners are open and every pool with ``min_pool_size`` is as it should be, or the reason why
    it is not is known.

    Args:
        notifier: the way to the service manager.
        relay: the data plane.
        pools: all pools.
        warm: those that are filled at the start.
        ready: called once, when the pooler is ready.
    """

    def __init__(
        self,
        notifier: Notifier,
        relay: Relay,
        pools: Pools[ServerConnection, ClientConnection],
        warm: Iterable[RelayPool],
        ready: Callable[[], None],
    ) -> None:
        self._notifier = notifier
        self._relay = relay
        self._pools = pools
        self._cold = set(warm)
        self._ready = ready
        self._deadline = relay.time() + _PATIENCE
        self.is_ready = False

    def look(self, shutdown: Shutdown) -> None:
        """Look whether the pooler has become ready, and tell how it is; for every 100 ms.

        Args:
            shutdown: how it ends.
        """
        if shutdown.begun:
            self._notifier.status(f"Draining: {shutdown.left}")
            return
        if not self.is_ready:
            self._cold = {pool for pool in self._cold if not self._is_settled(pool)}
            late = self._relay.time() >= self._deadline
            if self._cold and not late:
                names = ", ".join(sorted(pool.name for pool in self._cold))
                self._notifier.status(f"Filling pools: {names}")
                return
            self._announce(shutdown)

    def tell(self, shutdown: Shutdown) -> None:
        """Tell how much there is; about once a second.

        Args:
            shutdown: how it ends.
        """
        if self.is_ready and not shutdown.begun:
            servers = sum(len(pool.servers) for pool in self._pools)
            clients = len(self._relay.clients)
            self._notifier.status(f"Serving: {counted(clients, 'client')}, {counted(servers, 'server')}")

    @contextmanager
    def reload(self) -> Iterator[None]:
        """While inside, the settings are read again."""
        if self.is_ready:
            self._notifier.reloading()
        try:
            yield
        finally:
            if self.is_ready:
                self._notifier.ready()

    def _announce(self, shutdown: Shutdown) -> None:
        self.is_ready = True
        # Whoever looks at the unit as soon as it has started must not read what was before.
        self.tell(shutdown)
        failed = {pool.name: str(pool.backoff.error) for pool in self._pools if pool.backoff.error}
        for name, error in sorted(failed.items()):
            log.warning("ready without the servers of a pool", pool=name, error=error)
        for pool in self._cold:
            log.warning("ready without the servers of a pool", pool=pool.name, error="still connecting")
        self._ready()

    def _is_settled(self, pool: RelayPool) -> bool:
        """Whether a pool has what it should have, or it is known why not."""
        if pool.backoff.error is not None or pool.paused:
            return True
        return not (pool.dialing or pool.void or pool.conditioning or pool.missing(self._relay.time()))
