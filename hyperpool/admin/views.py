"""The tables that SHOW shows, by name: pgbouncer 1.25's names, columns and types, and hyperpool's own.

A view is its columns and a function that makes its rows. More of them can be put into a `Register`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from hyperpool import COMPATIBLE, FORM, __version__
from hyperpool.admin import caching, configuration, faults, inventory, latencies, sockets, statistics
from hyperpool.admin.operations import Mode
from hyperpool.admin.tables import columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.tables import Column, Row

_HELP: Final = """
	SHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION
	SHOW PEERS|PEER_POOLS
	SHOW FDS|SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE
	SHOW DNS_HOSTS|DNS_ZONES
	SHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
	SHOW {own}
	SET key = arg
	RELOAD
	PAUSE [<db>]
	RESUME [<db>]
	DISABLE <db>
	ENABLE <db>
	RECONNECT [<db>]
	KILL [<db>]
	KILL_CLIENT <client_id>
	SUSPEND
	SHUTDOWN
	SHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS
	WAIT_CLOSE [<db>]
	EXPLAIN CACHE [(<db>[, <user>])] <query>
	PURGE CACHE [DATABASE <db> | TABLE <table> | FINGERPRINT <hex>]"""


@attrs.frozen
class View:
    """A table that SHOW shows.

    Attributes:
        shape: its columns.
        rows: makes its rows.
        privileged: for admin_users alone.
        own: pgbouncer does not have it.
    """

    shape: tuple[Column, ...]
    rows: Callable[[Surroundings], Iterable[Row]]
    privileged: bool = False
    own: bool = False


class Register:
    """All views, by name in lower case."""

    def __init__(self) -> None:
        self._views = dict(_VIEWS)

    def add(self, name: str, view: View) -> None:
        """Add a view of hyperpool's own.

        Args:
            name: in lower case.
            view: shown with SHOW and this name.
        """
        self._views[name] = view

    def find(self, name: str) -> View | None:
        """The view of that name, however it is spelled."""
        return self._views.get(name.lower())

    def help(self) -> str:
        """What SHOW HELP tells."""
        own = "|".join(name.upper() for name, view in self._views.items() if view.own)
        return _HELP.format(own=own)


def _version(around: Surroundings) -> Iterable[Row]:
    del around
    yield (f"PgBouncer {COMPATIBLE} (hyperpool {__version__}, {FORM})",)


def _state(around: Surroundings) -> Iterable[Row]:
    for mode in Mode:
        yield mode.value, "yes" if around.operations.mode is mode else "no"


def _of_figures(
    make: Callable[[statistics.Figures], Iterable[Row]],
) -> Callable[[Surroundings], Iterable[Row]]:
    return lambda around: make(statistics.figures(around))


_VIEWS: Final[dict[str, View]] = {
    "databases": View(inventory.DATABASES, inventory.databases),
    "users": View(inventory.USERS, inventory.users),
    "pools": View(inventory.POOLS, inventory.pools),
    "peers": View(inventory.PEERS, inventory.peers),
    "peer_pools": View(inventory.PEER_POOLS, inventory.peer_pools),
    "lists": View(inventory.LISTS, inventory.lists),
    "mem": View(inventory.MEM, inventory.mem),
    "dns_hosts": View(inventory.DNS_HOSTS, inventory.dns_hosts),
    "dns_zones": View(inventory.DNS_ZONES, inventory.dns_zones),
    "pins": View(inventory.PINS, inventory.pins, own=True),
    "transports": View(inventory.TRANSPORTS, inventory.transports, own=True),
    "tunnels": View(inventory.TUNNELS, inventory.tunnels, own=True),
    "cache": View(caching.CACHE, caching.cache, own=True),
    "cache_queries": View(caching.QUERIES, caching.queries, own=True),
    "cache_reasons": View(caching.REASONS, caching.reasons, own=True),
    "latencies": View(latencies.LATENCIES, latencies.latencies, own=True),
    "hops": View(inventory.HOPS, inventory.hops, own=True),
    "busy": View(sockets.BUSY, sockets.busy, own=True),
    "errors": View(faults.ERRORS, faults.errors, own=True),
    "workers": View(inventory.WORKERS, inventory.workers, own=True),
    "clients": View(sockets.SOCKETS, sockets.clients),
    "servers": View(sockets.SOCKETS, sockets.servers),
    "sockets": View(sockets.DEBUG, sockets.sockets),
    "active_sockets": View(sockets.DEBUG, sockets.active_sockets),
    "fds": View(sockets.FDS, sockets.fds, privileged=True),
    "stats": View(statistics.STATS, _of_figures(statistics.stats)),
    "stats_totals": View(statistics.STATS_TOTALS, _of_figures(statistics.stats_totals)),
    "stats_averages": View(statistics.STATS_AVERAGES, _of_figures(statistics.stats_averages)),
    "totals": View(statistics.TOTALS, _of_figures(statistics.totals)),
    "config": View(configuration.CONFIG, configuration.config),
    "state": View(columns("key value"), _state),
    "version": View(columns("version"), _version),
}
