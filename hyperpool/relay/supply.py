"""The server connections that pools should have: who asks for them, and who waits until there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from hyperpool.relay.events import EventLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.errors import UpstreamError
    from hyperpool.relay.handover import RelayPool

log = structlog.get_logger("relay")


class Supply(EventLoop):
    """Has server connections opened, and tells clients and logins that wait what has become of them.

    Args:
        clock: monotonic seconds.
        numbers: the first number of a connection, and the step to the next one.

    Attributes:
        settled: called with a pool that has a server connection less; must not block.
        learned: called with a pool that knows what its newest server has told; must not block.
        demand: called with a pool that should open server connections; must not block.
    """

    def __init__(self, clock: Callable[[], float], numbers: tuple[int, int] = (1, 1)) -> None:
        super().__init__(clock, numbers)
        self.demand: Callable[[RelayPool], None] = _ignore
        self.settled: Callable[[RelayPool], None] = _ignore
        self.learned: Callable[[RelayPool], None] = _ignore
        self._arrivals: dict[RelayPool, dict[Callable[[UpstreamError | None], None], None]] = {}

    def want(self, pool: RelayPool) -> None:
        """Ask for server connections, if the pool should have more."""
        while (server := pool.victim(self.now)) is not None:
            server.close("evicted")
        if pool.missing(self.now):
            self.demand(pool)

    def client_waits(self, pool: RelayPool) -> None:
        """A client has begun to wait: get a server for it, or tell it at once that there is none to be had."""
        self.want(pool)
        error = pool.hopeless(self.now)
        if error is not None:
            self._fail_waiting(pool, error)

    def server_works(self, pool: RelayPool, parameters: dict[str, str]) -> None:
        """A new server connection is ready for clients."""
        pool.backoff.succeeded(self.now)
        pool.starting.clear()
        if pool.parameters != parameters:
            # What was made of the ones that are known is good for as long as they are the same object.
            pool.parameters = parameters
        self.learned(pool)
        self.arrived(pool, None)

    def arrived(self, pool: RelayPool, error: UpstreamError | None) -> None:
        """The pool's `parameters` are known, or cannot be had now: logins that have waited for them go on."""
        for then in self._arrivals.pop(pool, ()):
            pool.logins -= 1
            then(error)

    def await_parameters(self, pool: RelayPool, then: Callable[[UpstreamError | None], None]) -> None:
        """Call back when the pool's `parameters` are known, or when it is known that they cannot be had now.

        Opens a first server connection if there is none.
        """
        self._arrivals.setdefault(pool, {})[then] = None
        pool.logins += 1
        self.want(pool)
        error = pool.hopeless(self.now)
        if error is not None:
            self.arrived(pool, error)

    def await_no_longer(self, pool: RelayPool, then: Callable[[UpstreamError | None], None]) -> None:
        """Do not call back: the login that has waited is over."""
        waiting = self._arrivals.get(pool)
        if waiting is None or then not in waiting:
            return
        del waiting[then]
        pool.logins -= 1
        if not waiting:
            del self._arrivals[pool]

    def _failed(self, pool: RelayPool, error: UpstreamError) -> None:
        pool.backoff.failed(error, self.now)
        log.warning("cannot connect to the server", pool=pool.name, error=str(error))
        if pool.hopeless(self.now):
            self._fail_waiting(pool, error)
            self.arrived(pool, error)

    def _fail_waiting(self, pool: RelayPool, error: UpstreamError) -> None:
        reason = f"no server connection: {error}"
        for client in list(pool.waiting):
            if error.response:
                client.close(reason, error.response)
            else:
                client.refuse(reason, error.sqlstate)


def _ignore(pool: RelayPool) -> None:
    """What a relay has that nobody warms, and that is alone."""
