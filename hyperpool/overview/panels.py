"""The panels of the overview: what each needs of the console, and what it makes of that.

A test compares `Panel.uses` with the console's views: who renames a column there, learns which panel has used it.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final

from hyperpool.overview.model import Field, Kind, Panel, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hyperpool.overview.model import Cells, Meter, Seen, Value

_CONSOLE: Final = "pgbouncer"
"""The console shows itself among databases and pools."""

_COUNTERS: Final = (
    *("server_assignment_count", "xact_count", "query_count", "bytes_received", "bytes_sent"),
    *("xact_time", "query_time", "wait_time"),
)
_COUNTED: Final = ("database", *_COUNTERS)
_LOAD: Final = (
    Field("queries", "queries/s", Kind.RATE),
    Field("xacts", "xacts/s", Kind.RATE),
    Field("query_time", "query time", Kind.TIME),
    Field("xact_time", "xact time", Kind.TIME),
    Field("wait_time", "server wait", Kind.TIME),
    Field("received", "in", Kind.BYTE_RATE),
    Field("sent", "out", Kind.BYTE_RATE),
)
_UNKNOWN: Final[Cells] = {field.name: None for field in _LOAD}
_NOTHING: Final = (0.0,) * len(_COUNTERS)
_HITS: Final = ("hits", "stale_hits")


def _total(rows: Iterable[Mapping[str, Value]], *names: str) -> float:
    return sum(number(row[name]) for row in rows for name in names)


def _of_databases(rows: Iterable[Mapping[str, Value]], name: str = "database") -> list[Mapping[str, Value]]:
    return [row for row in rows if row[name] != _CONSOLE]


def _load(meter: Meter, key: str, totals: tuple[float, ...]) -> Cells:
    """What the counters of some databases say about now; waits are those of clients that got a server.

    Args:
        meter: compares.
        key: tells the databases from others.
        totals: of `_COUNTERS`.
    """
    grown, elapsed = meter.grown(key, totals), meter.elapsed
    if grown is None or elapsed is None:
        return _UNKNOWN
    assignments, xacts, queries, received, sent, xact_time, query_time, wait_time = grown
    return {
        "queries": queries / elapsed,
        "xacts": xacts / elapsed,
        "query_time": query_time / queries if queries else None,
        "xact_time": xact_time / xacts if xacts else None,
        "wait_time": wait_time / assignments if assignments else None,
        "received": received / elapsed,
        "sent": sent / elapsed,
    }


def _hit_rate(
    meter: Meter, key: str, rows: Sequence[Mapping[str, Value]]
) -> tuple[float | None, float | None]:
    """The share of answers that came from memory, and how many of those there are in a second."""
    grown = meter.grown(f"{key} cache", (_total(rows, *_HITS), _total(rows, "misses")))
    if grown is None or meter.elapsed is None:
        return None, None
    return grown[0] / sum(grown) if any(grown) else None, grown[0] / meter.elapsed


def _max_wait(row: Mapping[str, Value]) -> float:
    return number(row["maxwait"]) * 1e6 + number(row["maxwait_us"])


def _summary(seen: Seen, meter: Meter) -> list[Cells]:
    pools, counted = _of_databases(seen["pools"]), _of_databases(seen["stats_totals"])
    lists = {row["list"]: row["items"] for row in seen["lists"]}
    states = [row["key"] for row in seen["state"] if row["value"] == "yes"]
    stopped = [row["name"] for row in seen["databases"] if row["paused"]]
    return [
        {
            "state": " ".join(str(one) for one in states),
            "paused": ", ".join(str(one) for one in stopped),
            "clients": _total(pools, "cl_active", "cl_waiting"),
            "logging_in": lists.get("login_clients"),
            "waiting": _total(pools, "cl_waiting"),
            "max_wait": max(map(_max_wait, pools), default=0),
            "sv_active": _total(pools, "sv_active"),
            "sv_free": _total(pools, "sv_idle", "sv_used", "sv_tested"),
            "sv_login": _total(pools, "sv_login"),
            **_load(meter, "", tuple(_total(counted, name) for name in _COUNTERS)),
            "hit_rate": _hit_rate(meter, "", seen.get("cache", ()))[0],
            "saved_time": _total(seen.get("cache", ()), "saved_time"),
            "version": str(seen["version"][0]["version"]) if seen["version"] else "",
        }
    ]


def _databases(seen: Seen, meter: Meter) -> list[Cells]:
    counted = {row["database"]: tuple(map(number, list(row.values())[1:])) for row in seen["stats_totals"]}
    rows: list[Cells] = []
    for row in _of_databases(seen["databases"], "name"):
        name = str(row["name"])
        marks = [mark for mark in ("paused", "disabled") if row[mark]]
        rows.append(
            {
                "name": name,
                "state": " ".join(marks),
                "clients": row["current_client_connections"],
                "servers": row["current_connections"],
                **_load(meter, f"database {name}", counted.get(name, _NOTHING)),
            }
        )
    return sorted(rows, key=lambda row: (-number(row["queries"]), -number(row["clients"]), str(row["name"])))


def _pools(seen: Seen, _: Meter) -> list[Cells]:
    rows: list[Cells] = [
        {
            **{name: row[name] for name in _POOL},
            "max_wait": _max_wait(row),
            "sv_other": _total([row], "sv_tested", "sv_being_canceled"),
        }
        for row in _of_databases(seen["pools"])
    ]
    return sorted(rows, key=_by_pressure)


def _by_pressure(row: Cells) -> tuple[object, ...]:
    busy = (-number(row[name]) for name in ("cl_waiting", "sv_active", "cl_active"))
    return (*busy, str(row["database"]), str(row["user"]))


_POOL: Final = (
    *(
        "database",
        "user",
        "pool_mode",
        "cl_active",
        "cl_waiting",
        "sv_active",
        "sv_idle",
        "sv_used",
        "sv_login",
    ),
)


def _busy(seen: Seen, _: Meter) -> list[Cells]:
    return [dict(row) for row in seen["busy"]]


def _caches(seen: Seen, meter: Meter) -> list[Cells]:
    rows: list[Cells] = []
    for row in seen["cache"]:
        hit_rate, answered = _hit_rate(meter, f"database {row['database']}", [row])
        rest = {name: value for name, value in row.items() if name not in _HITS}
        rows.append({**rest, "hit_rate": hit_rate, "answered": answered})
    return rows


def _queries(seen: Seen, _: Meter) -> list[Cells]:
    return [
        {**{name: value for name, value in row.items() if name not in _HITS}, "hits": _total([row], *_HITS)}
        for row in seen["cache_queries"]
    ]


def _ways(seen: Seen, _: Meter) -> list[Cells]:
    """Hop by hop; a pool whose way has not been gone yet has one row without a hop."""
    hops: dict[tuple[Value, Value], list[Mapping[str, Value]]] = {}
    for hop in seen["hops"]:
        hops.setdefault((hop["database"], hop["user"]), []).append(hop)
    rows: list[Cells] = []
    for way in seen["transports"]:
        own: Cells = dict(way)
        none: Cells = {"hop": None, "name": "", "time": None, "facts": "", "error": own.pop("last_error")}
        gone = hops.get((way["database"], way["user"]), [none])
        for number_, hop in enumerate(gone):
            shown: Cells = own if not number_ else dict.fromkeys(own, "")
            rows.append({**shown, **{name: hop[name] for name in none}})
        rows[-1]["error"] = rows[-1]["error"] or none["error"]
    return rows


def _tunnels(seen: Seen, _: Meter) -> list[Cells]:
    return sorted((dict(row) for row in seen["tunnels"]), key=itemgetter("agent"))


def _errors(seen: Seen, _: Meter) -> list[Cells]:
    return [dict(row) for row in seen["errors"]]


PANELS: Final = (
    Panel(
        "summary",
        "Now",
        {
            "state": ("key", "value"),
            "version": ("version",),
            "lists": ("list", "items"),
            "databases": ("name", "paused"),
            "pools": (
                *("database", "cl_active", "cl_waiting", "maxwait", "maxwait_us"),
                *("sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login"),
            ),
            "stats_totals": _COUNTED,
            "cache": (*_HITS, "misses", "saved_time"),
        },
        (
            Field("state", "state", Kind.TEXT),
            Field("paused", "paused", Kind.TEXT, alarm=True),
            Field("clients", "clients"),
            Field("logging_in", "logging in"),
            Field("waiting", "waiting", alarm=True),
            Field("max_wait", "longest wait", Kind.TIME, alarm=True),
            Field("sv_active", "servers at work"),
            Field("sv_free", "servers free"),
            Field("sv_login", "servers being opened"),
            *_LOAD,
            Field("hit_rate", "cache hits", Kind.SHARE),
            Field("saved_time", "server time saved", Kind.TIME),
            Field("version", "version", Kind.TEXT),
        ),
        _summary,
        optional=frozenset({"cache"}),
    ),
    Panel(
        "databases",
        "Databases",
        {
            "databases": (
                *("name", "current_connections", "current_client_connections", "paused", "disabled"),
            ),
            "stats_totals": _COUNTED,
        },
        (
            Field("name", "database", Kind.TEXT),
            Field("state", "state", Kind.TEXT, alarm=True),
            Field("clients", "clients"),
            Field("servers", "servers"),
            *_LOAD,
        ),
        _databases,
        "No database yet.",
    ),
    Panel(
        "pools",
        "Pools",
        {"pools": (*_POOL, "maxwait", "maxwait_us", "sv_tested", "sv_being_canceled")},
        (
            Field("database", "database", Kind.TEXT),
            Field("user", "user", Kind.TEXT),
            Field("pool_mode", "mode", Kind.TEXT),
            Field("cl_active", "clients"),
            Field("cl_waiting", "waiting", alarm=True),
            Field("max_wait", "longest wait", Kind.TIME, alarm=True),
            Field("sv_active", "at work"),
            Field("sv_idle", "idle"),
            Field("sv_used", "idle for long"),
            Field("sv_other", "being cleaned"),
            Field("sv_login", "being opened"),
        ),
        _pools,
        "No pool yet: there is one once a client has logged in.",
    ),
    Panel(
        "busy",
        "Busy clients and their servers",
        {
            "busy": (
                *("database", "user", "client_id", "addr", "application_name", "state", "time"),
                *("server_id", "server_addr", "remote_pid"),
            )
        },
        (
            Field("client_id", "client", Kind.TEXT),
            Field("database", "database", Kind.TEXT),
            Field("user", "user", Kind.TEXT),
            Field("addr", "from", Kind.TEXT),
            Field("application_name", "application", Kind.TEXT),
            Field("state", "state", Kind.TEXT),
            Field("time", "for", Kind.TIME),
            Field("server_id", "server", Kind.TEXT),
            Field("server_addr", "at", Kind.TEXT),
            Field("remote_pid", "its pid", Kind.TEXT),
        ),
        _busy,
        "Nobody waits, and nobody has a server.",
        limit=50,
    ),
    Panel(
        "cache",
        "Result cache",
        {
            "cache": (
                *("database", "entries", "bytes", *_HITS, "misses", "refreshes", "evictions"),
                *("invalidated", "saved_time"),
            )
        },
        (
            Field("database", "database", Kind.TEXT),
            Field("hit_rate", "hits", Kind.SHARE),
            Field("answered", "answers/s", Kind.RATE),
            Field("saved_time", "server time saved", Kind.TIME),
            Field("entries", "entries"),
            Field("bytes", "memory", Kind.BYTES),
            Field("misses", "misses"),
            Field("refreshes", "refreshes"),
            Field("evictions", "evictions"),
            Field("invalidated", "dropped by writes"),
        ),
        _caches,
        "No database has a cache: set databases.NAME.cache.",
    ),
    Panel(
        "queries",
        "Top queries",
        {
            "cache_queries": (
                *(
                    "database",
                    "fingerprint",
                    "calls",
                    *_HITS,
                    "misses",
                    "saved_time",
                    "last_refusal",
                    "query",
                ),
            )
        },
        (
            Field("saved_time", "saved", Kind.TIME),
            Field("calls", "calls"),
            Field("hits", "from memory"),
            Field("misses", "misses"),
            Field("last_refusal", "not cached for", Kind.TEXT),
            Field("database", "database", Kind.TEXT),
            Field("fingerprint", "fingerprint", Kind.TEXT),
            Field("query", "query", Kind.CODE),
        ),
        _queries,
        "No query has gone through a cache yet.",
        limit=20,
    ),
    Panel(
        "ways",
        "Ways to servers, hop by hop",
        {
            "transports": ("database", "user", "transport", "sv_connections", "sv_login", "last_error"),
            "hops": ("database", "user", "hop", "name", "time", "facts", "error"),
        },
        (
            Field("database", "database", Kind.TEXT),
            Field("user", "user", Kind.TEXT),
            Field("transport", "way", Kind.TEXT),
            Field("sv_connections", "servers"),
            Field("sv_login", "being opened"),
            Field("hop", "hop"),
            Field("name", "what", Kind.TEXT),
            Field("time", "took", Kind.TIME),
            Field("facts", "found", Kind.CODE),
            Field("error", "error", Kind.CODE, alarm=True),
        ),
        _ways,
        "No pool yet.",
    ),
    Panel(
        "tunnels",
        "Tunnels: agents that have connected",
        {"tunnels": ("agent", "agents", "waiting", "connections")},
        (
            Field("agent", "agent", Kind.TEXT),
            Field("agents", "processes"),
            Field("waiting", "connections to spare"),
            Field("connections", "connections in use"),
        ),
        _tunnels,
        "No agent has connected.",
    ),
    Panel(
        "errors",
        "Recent errors",
        {"errors": ("time", "level", "event", "details", "count")},
        (
            Field("time", "at", Kind.TEXT),
            Field("level", "level", Kind.TEXT),
            Field("count", "times"),
            Field("event", "what", Kind.CODE),
            Field("details", "details", Kind.CODE),
        ),
        _errors,
        "None.",
        limit=50,
    ),
)
"""All of them, in the order in which they are shown."""
