"""Tables of several processes that are one pooler, made into one: which columns say who, and which are summed up."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from hyperpool.admin import caching, inventory, latencies, sockets, statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.tables import Column, Row

    Tables: TypeAlias = "Sequence[Iterable[Sequence[Any]]]"
    """One table of each process."""

_SHOW: Final = "show"


@attrs.frozen
class Plan:
    """How a view is put together.

    Attributes:
        parts: what each process is asked for: verbs and arguments.
        merge: makes the rows of what is there, and for each part of the tables of all processes.
    """

    parts: tuple[tuple[str, str], ...]
    merge: Callable[[Surroundings, Sequence[Tables]], Iterable[Row]]


def merged(
    shape: Sequence[Column], tables: Tables, *, keys: str, sums: str = "", most: str = ""
) -> list[Row]:
    """One row for each key.

    Args:
        shape: the columns.
        tables: of each process.
        keys: the columns that tell rows apart.
        sums: those that are summed up.
        most: those of which the largest value is taken, the first of them deciding. All others are the first row's.
    """
    names = [column.name for column in shape]
    at_keys, at_sums, at_most = ([names.index(name) for name in some.split()] for some in (keys, sums, most))
    rows: dict[tuple[Any, ...], list[Any]] = {}
    for table in tables:
        for new in table:
            key = tuple(new[at] for at in at_keys)
            row = rows.get(key)
            if row is None:
                rows[key] = list(new)
                continue
            for at in at_sums:
                row[at] += new[at]
            if [new[at] for at in at_most] > [row[at] for at in at_most]:
                for at in at_most:
                    row[at] = new[at]
    return [tuple(row) for row in rows.values()]


def concatenated(tables: Tables) -> list[Row]:
    """The rows of all processes, one after the other."""
    return [tuple(row) for table in tables for row in table]


def _by(shape: Sequence[Column], keys: str, sums: str = "", most: str = "") -> Callable[[Tables], list[Row]]:
    return lambda tables: merged(shape, tables, keys=keys, sums=sums, most=most)


def _numbered(shape: Sequence[Column], but: str) -> str:
    """The names of all columns but some."""
    return " ".join(column.name for column in shape if column.name not in but.split())


_databases: Final = _by(
    inventory.DATABASES, "name", "current_connections current_client_connections", "paused disabled"
)
_users: Final = _by(inventory.USERS, "name", "current_connections current_client_connections")
_pools: Final = _by(
    inventory.POOLS,
    "database user",
    _numbered(inventory.POOLS, "database user maxwait maxwait_us pool_mode load_balance_hosts"),
    "maxwait maxwait_us",
)
_peer_pools: Final = _by(inventory.PEER_POOLS, "peer_id", _numbered(inventory.PEER_POOLS, "peer_id"))
_mem: Final = _by(inventory.MEM, "name", "used free memtotal")
_dns_hosts: Final = _by(inventory.DNS_HOSTS, "hostname", "", "ttl addrs")
_transports: Final = _by(
    inventory.TRANSPORTS, "database user transport", "sv_connections sv_login", "last_error"
)


def _lists(around: Surroundings, parts: Sequence[Tables]) -> Iterable[Row]:
    """SHOW LISTS: what has a name is counted once, wherever it is."""
    own, databases, users, pools, peer_pools, dns_hosts = parts
    counts = dict[str, int]()
    for name, items in concatenated(own):
        counts[str(name)] = counts.get(str(name), 0) + int(items or 0)
    counts["databases"] = len(_databases(databases))
    counts["users"] = len(_users(users))
    counts["pools"] = len(_pools(pools))
    counts["peer_pools"] = len(_peer_pools(peer_pools))
    counts["dns_names"] = len(_dns_hosts(dns_hosts))
    settings = around.settings()
    counts["peers"] = len(settings.peers)
    counts["free_clients"] = max(settings.pooler.max_client_conn - counts["used_clients"], 0)
    return list(counts.items())


def _busy(tables: Tables) -> list[Row]:
    at = [column.name for column in sockets.BUSY].index("time")
    return sorted(concatenated(tables), key=lambda row: -int(row[at] or 0))[: sockets.BUSIEST]


def _errors(tables: Tables) -> list[Row]:
    """The newest ones come first; what was logged before there were workers, each of them knows."""
    rows = dict.fromkeys(concatenated(tables))
    return sorted(rows, key=lambda row: str(row[0]), reverse=True)


# -- the result cache ----------------------------------------------------------------------------------------------


def _one_name(tables: Tables) -> list[list[list[Any]]]:
    """Each process knows the names by which it is asked for a database: put them together in the first column."""
    groups: list[set[str]] = []
    for table in tables:
        for row in table:
            names = set(row[0].split(", "))
            for group in [group for group in groups if group & names]:
                groups.remove(group)
                names |= group
            groups.append(names)
    shown = {name: ", ".join(sorted(group)) for group in groups for name in group}
    return [[[shown[row[0].split(", ")[0]], *row[1:]] for row in table] for table in tables]


def _cache(tables: Tables) -> list[Row]:
    named = _one_name(tables)
    counts: dict[str, Counter[str]] = {}
    for table in named:
        for row in table:
            for item in filter(None, row[-2].split(", ")):
                source, _, count = item.partition("=")
                counts.setdefault(row[0], Counter())[source] += int(count)
    numbers = _numbered(caching.CACHE, "database invalidations catalog")
    rows = merged(caching.CACHE, named, keys="database", sums=numbers, most="catalog")
    return [
        (
            *row[:-2],
            ", ".join(f"{source}={count}" for source, count in sorted(counts.get(str(row[0]), {}).items())),
            row[-1],
        )
        for row in sorted(rows, key=lambda row: str(row[0]))
    ]


def _cache_queries(tables: Tables) -> list[Row]:
    shape = caching.QUERIES
    numbers = _numbered(shape, "database fingerprint last_refusal query")
    named = [
        [[cell or "" if at == _LAST else cell for at, cell in enumerate(row)] for row in table]
        for table in _one_name(tables)
    ]
    rows = merged(shape, named, keys="database fingerprint", sums=numbers, most="last_refusal")
    saved = [column.name for column in shape].index("saved_time")
    rows = [tuple(cell or None if at == _LAST else cell for at, cell in enumerate(row)) for row in rows]
    return sorted(rows, key=lambda row: (str(row[0]), -int(row[saved] or 0)))


_LAST: Final = [column.name for column in caching.QUERIES].index("last_refusal")


def _cache_reasons(tables: Tables) -> list[Row]:
    rows = merged(caching.REASONS, _one_name(tables), keys="database reason what", sums="count")
    return sorted(rows, key=lambda row: (str(row[0]), str(row[4]) == "answer", -int(row[2] or 0)))


# -- all of them ---------------------------------------------------------------------------------------------------


def _alone(name: str, merge: Callable[[Tables], Iterable[Row]]) -> Plan:
    return Plan(((_SHOW, name),), lambda _, parts: merge(parts[0]))


def _figures(make: Callable[[statistics.Figures], Iterable[Row]]) -> Plan:
    return Plan((("figures", ""),), lambda _, parts: make(statistics.figures_of(statistics.joined(parts[0]))))


PLANS: Final[dict[str, Plan]] = {
    "databases": _alone("databases", _databases),
    "users": _alone("users", _users),
    "pools": _alone("pools", _pools),
    "peer_pools": _alone("peer_pools", _peer_pools),
    "mem": _alone("mem", _mem),
    "dns_hosts": _alone("dns_hosts", _dns_hosts),
    "transports": _alone("transports", _transports),
    "lists": Plan(
        tuple((_SHOW, name) for name in ("lists", "databases", "users", "pools", "peer_pools", "dns_hosts")),
        _lists,
    ),
    "cache": _alone("cache", _cache),
    "cache_queries": _alone("cache_queries", _cache_queries),
    "cache_reasons": _alone("cache_reasons", _cache_reasons),
    **{
        name: _alone(name, concatenated)
        for name in ("workers", "pins", "hops", "clients", "servers", "sockets", "active_sockets", "fds")
    },
    "busy": _alone("busy", _busy),
    "errors": _alone("errors", _errors),
    "latencies": Plan((("timings", ""),), lambda _, parts: latencies.joined(parts[0])),
    "stats": _figures(statistics.stats),
    "stats_totals": _figures(statistics.stats_totals),
    "stats_averages": _figures(statistics.stats_averages),
    "totals": _figures(statistics.totals),
}
"""The views that are not the same in all processes."""
