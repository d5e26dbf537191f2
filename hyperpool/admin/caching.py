"""The result cache in the console: SHOW CACHE, CACHE_QUERIES and CACHE_REASONS, EXPLAIN CACHE, PURGE CACHE."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hyperpool.admin.outcomes import ConsoleError, Done
from hyperpool.admin.tables import columns
from hyperpool.cache.explain import explain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.tables import Row
    from hyperpool.cache.database import DatabaseCache

CACHE: Final = columns(
    "database entries:int8 bytes:int8 limit:int8 hits:int8 stale_hits:int8 misses:int8 stored:int8 refreshes:int8"
    " coalesced:int8 evictions:int8 bytes_sent:int8 saved_time:int8 invalidated:int8 invalidations catalog"
)
QUERIES: Final = columns(
    "database fingerprint calls:int8 hits:int8 stale_hits:int8 misses:int8 refreshes:int8 coalesced:int8"
    " bytes_sent:int8 saved_time:int8 last_refusal query"
)
REASONS: Final = columns("database reason count:int8 found_in what meaning remedy")
EXPLAINED: Final = columns("database user item value")

_MICROSECONDS: Final = 1_000_000

_TARGET: Final = re.compile(r"\(\s*([^\s,()]+)\s*(?:,\s*([^\s,()]+)\s*)?\)\s*(.*)", re.DOTALL)
"""``(database)`` or ``(database, user)`` in front of a query."""

_PURGE: Final = re.compile(r"(database|table|fingerprint)\s+(\S+)", re.IGNORECASE)

_NOTHING: Final = "set databases.NAME.cache; there is a pool once a client has logged in"


def named(around: Surroundings) -> list[tuple[str, DatabaseCache]]:
    """What is known of each database, with the names by which clients ask for it."""
    names: dict[int, set[str]] = {}
    for pool in around.pools:
        if pool.cache is not None:
            names.setdefault(id(pool.cache.database), set()).add(pool.settings.database)
    found: dict[int, tuple[str, DatabaseCache]] = {}
    for endpoint, database in around.cache.databases.items():
        # Several ways may lead to one database.
        shown = ", ".join(sorted(names.get(id(database), {str(endpoint[-1])})))
        found.setdefault(id(database), (shown, database))
    return sorted(found.values(), key=lambda item: item[0])


def cache(around: Surroundings) -> Iterator[Row]:
    """SHOW CACHE: one row for each database, whatever the names are by which it is asked for."""
    for name, database in named(around):
        stats, entries = database.stats, database.entries()
        sources = ", ".join(f"{source}={count}" for source, count in sorted(stats.invalidations.items()))
        yield (
            name,
            len(entries),
            sum(entry.size for entry in entries),
            around.cache.store.limit,
            stats.hits,
            stats.stale,
            stats.misses,
            stats.stored,
            stats.refreshes,
            stats.coalesced,
            stats.evictions,
            stats.bytes,
            int(stats.saved * _MICROSECONDS),
            sum(stats.invalidations.values()),
            sources,
            "pending" if database.pending else "known",
        )


def queries(around: Surroundings) -> Iterator[Row]:
    """SHOW CACHE_QUERIES: one row for each fingerprint, those that save most first."""
    for name, database in named(around):
        for stats in sorted(database.queries, key=lambda one: (-one.saved, -one.calls, one.fingerprint)):
            yield (
                name,
                stats.fingerprint,
                stats.calls,
                stats.hits,
                stats.stale,
                stats.misses,
                stats.refreshes,
                stats.coalesced,
                stats.bytes,
                int(stats.saved * _MICROSECONDS),
                None if stats.last is None else stats.last.value,
                stats.template,
            )


def reasons(around: Surroundings) -> Iterator[Row]:
    """SHOW CACHE_REASONS: why queries were not cached, and answers not kept, the most frequent first."""
    for name, database in named(around):
        for what, counts in (("query", database.stats.refused), ("answer", database.stats.unstored)):
            for reason, count in counts.most_common():
                yield name, reason.value, count, reason.stage.value, what, reason.sentence, reason.remedy


def explained(around: Surroundings, argument: str) -> Done:
    """EXPLAIN CACHE: what becomes of a query in each pool that has a cache, or in those that are named.

    Args:
        around: what there is.
        argument: the query, perhaps behind ``(database)`` or ``(database, user)``.

    Raises:
        ConsoleError: there is no query, or no such pool.
    """
    database, user, query = "", "", argument
    if found := _TARGET.fullmatch(argument):
        named = {pool.settings.database for pool in around.pools}
        if found[1] in named or found[3]:
            database, user, query = found[1], found[2] or "", found[3]
    if not query.strip():
        raise ConsoleError("a query is required", hint="EXPLAIN CACHE [(database [, user])] SELECT ...")
    rows: list[Row] = []
    for pool in sorted(around.pools, key=lambda one: (one.settings.database, one.settings.user)):
        settings = pool.settings
        wanted = database in {"", settings.database} and user in {"", settings.user}
        if wanted and pool.cache is not None and pool.cache.settings is not None:
            items = explain(pool.cache, pool.cache.settings, settings.user, query)
            rows.extend((settings.database, settings.user, item, value) for item, value in items)
    if not rows:
        raise ConsoleError("no pool of this database and user has a cache", hint=_NOTHING)
    return Done("EXPLAIN", EXPLAINED, tuple(rows))


def purge(around: Surroundings, argument: str) -> Done:
    """PURGE CACHE: drop everything, or what belongs to a database, a table or a fingerprint.

    Args:
        around: what there is.
        argument: empty, or ``DATABASE name``, ``TABLE [schema.]name`` or ``FINGERPRINT hex``.

    Raises:
        ConsoleError: there is no such database or table, or the argument is something else.
    """
    databases = named(around)
    if not argument.strip():
        return Done(f"PURGE {around.cache.purge()}")
    found = _PURGE.fullmatch(argument.strip())
    if found is None:
        raise ConsoleError(
            "PURGE CACHE does not know that",
            hint="PURGE CACHE, or PURGE CACHE with DATABASE name, TABLE [schema.]name or FINGERPRINT hex",
        )
    kind, name = found[1].lower(), found[2].strip('"')
    if kind == "fingerprint":
        return Done(f"PURGE {around.cache.purge_fingerprint(name)}")
    if kind == "database":
        chosen = [database for names, database in databases if name in names.split(", ")]
        if not chosen:
            raise ConsoleError(f"no database {name} has a cache", hint=_NOTHING)
        return Done(f"PURGE {around.cache.purge(iter(chosen))}")
    tables = [(one, one.catalog.find(name)) for _, one in databases if one.catalog is not None]
    if not any(oids for _, oids in tables):
        raise ConsoleError(f"no database with a cache has a table {name}")
    return Done(f"PURGE {sum(one.drop(oids, 'purge') for one, oids in tables if oids)}")
