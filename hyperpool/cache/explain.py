"""Why a query is cached or not, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hyperpool.cache.catalog import search_path
from hyperpool.cache.decision import decide
from hyperpool.sql.reader import QueryReader
from hyperpool.sql.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.cache.lane import Lane
    from hyperpool.cache.verdict import Verdict
    from hyperpool.config.cache import CacheSettings

Item = tuple[str, str]


def explain(lane: Lane[Any, Any, Any], settings: CacheSettings, user: str, query: str) -> Iterator[Item]:
    """Say what becomes of a query from a client that has set nothing.

    Args:
        lane: of the pool that would answer it.
        settings: of that pool's database and user.
        user: as whom that logs in to the server.
        query: the SQL, in a text of its own.

    Yields:
        Names and values. No counter is changed, and nothing is asked of a server.
    """
    read = QueryReader(0).read(query.encode())
    reading = read.reading
    path = None if lane.path is None else search_path(lane.path, user)
    catalog, verdict, how_old = lane.database.catalog, None, None
    reason = reading.reason
    if reason is None and (catalog is None or lane.database.pending or path is None):
        reason = Reason.CATALOG_PENDING
    elif reason is None and catalog is not None and path is not None:
        verdict = catalog.judge(read, path)
        reason, how_old, waived = decide(settings, reading, verdict)
        if waived:
            yield "waived", f"{verdict.reason.value if verdict.reason else ''}: {verdict.detail}"
    yield "cacheable", "yes" if reason is None else "no"
    if reason is not None:
        yield "reason", reason.value
        yield "meaning", reason.sentence
        if verdict is not None and verdict.detail:
            yield "detail", verdict.detail
        yield "remedy", reason.remedy
    if reading.fingerprint:
        yield "fingerprint", reading.fingerprint
    if verdict is not None:
        yield from _of_verdict(verdict)
    if reason is None and how_old is not None:
        yield "max_age", f"{how_old.fresh:g} s"
        yield "stale_while_revalidate", f"{how_old.stale:g} s"
        yield from _key(user, path or (), read.canonical, verdict)


def _of_verdict(verdict: Verdict) -> Iterator[Item]:
    if verdict.table_names:
        yield "tables", ", ".join(verdict.table_names)
    if verdict.settings:
        yield "settings of policies", ", ".join(sorted(verdict.settings))
    if verdict.clock:
        yield "parameters", "one in text format that has 'now', 'today' or the like in it is not cached"


def _key(user: str, path: tuple[str, ...], canonical: bytes, verdict: Verdict | None) -> Iterator[Item]:
    yield "key: database", "this one, as it is since the last reload, reconnect or failover to another server"
    yield "key: user", user
    yield "key: search_path", ", ".join(path)
    yield (
        "key: settings",
        "role, search_path and all others that the session has, but for timeouts and application_name",
    )
    if verdict is not None and verdict.settings:
        yield "key: settings of policies", ", ".join(sorted(verdict.settings))
    yield "key: protocol", "simple or extended, what is described, formats of parameters and results"
    yield "key: text", canonical.decode()
