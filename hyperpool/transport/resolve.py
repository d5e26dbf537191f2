"""Addresses of host names, looked up in a thread and remembered for a while.

The system's resolver tells no time to live. So an answer is used for ``dns_max_ttl`` seconds and a name that does not
exist is not asked for again within ``dns_nxdomain_ttl``, as in pgbouncer. A name that is in use is looked up again
ahead of time, in a task of its own, once its answer has reached half of that age: those who connect do not wait for
it. Whoever comes after the time is over waits.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Address: TypeAlias = "tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]"

_MOST: Final = 1000
"""Names that are remembered."""

_UNKNOWN: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


@attrs.define(eq=False)
class _Entry:
    """What is known about a name and port.

    Attributes:
        addresses: empty if there are none.
        error: why there are none.
        since: when that was found out, monotonic seconds.
        lookup: set when the lookup that is under way has ended; None if none is.
    """

    addresses: list[Address] = attrs.field(factory=list)
    error: OSError | UnicodeError | None = None
    since: float = float("-inf")
    lookup: trio.Event | None = None


class Resolver:
    """Looks names up, each once at a time.

    Args:
        max_ttl: seconds for which addresses are used; 0 looks up each time.
        nxdomain_ttl: seconds for which a name that does not exist is not asked for again.
        clock: monotonic seconds.
        lookup: finds the addresses of a host and port; by default, the system's resolver.
    """

    def __init__(
        self,
        max_ttl: float,
        nxdomain_ttl: float,
        clock: Callable[[], float] = time.monotonic,
        lookup: Callable[[str, int], Awaitable[list[Address]]] | None = None,
    ) -> None:
        self.max_ttl = max_ttl
        self.nxdomain_ttl = nxdomain_ttl
        self._clock = clock
        self._find = lookup or _by_system
        self._entries: dict[tuple[str, int], _Entry] = {}

    async def resolve(self, host: str, port: int) -> list[Address]:
        """The addresses of a host, in the order in which they should be tried (RFC 6724).

        Cancelled, the lookup goes on for those who ask next.

        Raises:
            OSError: there are none, or that cannot be found out now (`socket.gaierror`).
            UnicodeError: it cannot be a name.
        """
        await trio.lowlevel.checkpoint()
        entry = self._entries.setdefault((host, port), _Entry())
        self._forget_oldest()
        age = self._clock() - entry.since
        if entry.addresses and age < self.max_ttl:
            if age >= self.max_ttl / 2:
                self._start(host, port, entry)
            return entry.addresses
        if not entry.addresses and entry.error is not None and age < self._pause(entry.error):
            raise entry.error.with_traceback(None)
        self._start(host, port, entry)
        assert entry.lookup is not None  # noqa: S101 - it has just begun
        await entry.lookup.wait()
        if entry.error is not None:
            raise entry.error.with_traceback(None)
        return entry.addresses

    def known(self) -> list[tuple[str, float, list[str]]]:
        """The names that are remembered: each with the seconds for which it still is, and its addresses."""
        now = self._clock()
        found = []
        for (host, _), entry in self._entries.items():
            lasts = self.max_ttl if entry.addresses else self.nxdomain_ttl
            ttl = max(entry.since + lasts - now, 0.0)
            found.append((host, ttl, [str(address[0]) for _, address in entry.addresses]))
        return found

    def counts(self) -> tuple[int, int]:
        """How many names are remembered, and how many lookups are under way."""
        return len(self._entries), sum(entry.lookup is not None for entry in self._entries.values())

    def _pause(self, error: OSError | UnicodeError) -> float:
        return self.nxdomain_ttl if isinstance(error, OSError) and error.errno in _UNKNOWN else 0.0

    def _start(self, host: str, port: int, entry: _Entry) -> None:
        """Have the name looked up, if that is not being done already."""
        if entry.lookup is None:
            entry.lookup = trio.Event()
            trio.lowlevel.spawn_system_task(self._look_up, host, port, entry, entry.lookup)

    async def _look_up(self, host: str, port: int, entry: _Entry, done: trio.Event) -> None:
        try:
            found = await self._find(host, port)
        except (OSError, UnicodeError) as error:
            # What cannot be found out now does not make the addresses wrong that are still good.
            if not entry.addresses or self._pause(error) or self._clock() - entry.since >= self.max_ttl:
                entry.addresses, entry.error, entry.since = [], error, self._clock()
        else:
            entry.addresses, entry.error, entry.since = found, None, self._clock()
        finally:
            entry.lookup = None
            done.set()

    def _forget_oldest(self) -> None:
        while len(self._entries) > _MOST:
            del self._entries[next(iter(self._entries))]


async def _by_system(host: str, port: int) -> list[Address]:
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]  # type: ignore[misc]
