"""Rows of the console's views as a pooler has shown them once, and overviews of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.overview.collect import Collector

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hyperpool.overview.model import Cells, Shown, Value

HOSTILE: Final = "SELECT '</td><script>alert(1)</script>' \x1b[31m\n FROM t"
"""A query's text, as an attacker would have it."""

RECORDED: Final[Mapping[str, tuple[Sequence[str], Sequence[Sequence[Value]]]]] = {
    "state": (("key", "value"), [("active", "yes"), ("paused", "no")]),
    "version": (("version",), [("PgBouncer 1.25.2 (hyperpool 0.1.0)",)]),
    "lists": (("list", "items"), [("databases", 3), ("login_clients", 3)]),
    "databases": (
        ("name", "host", "current_connections", "current_client_connections", "paused", "disabled"),
        [("app", "db", 7, 8, 0, 0), ("other", "db", 0, 1, 1, 0), ("pgbouncer", None, 0, 1, 0, 0)],
    ),
    "pools": (
        (
            *("database", "user", "cl_active", "cl_waiting", "sv_active", "sv_being_canceled", "sv_idle"),
            *("sv_used", "sv_tested", "sv_login", "maxwait", "maxwait_us", "pool_mode"),
        ),
        [
            ("other", "ann", 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, "session"),
            ("app", "ann", 6, 0, 2, 0, 3, 1, 1, 0, 0, 0, "transaction"),
            ("app", "bob", 1, 2, 0, 0, 0, 0, 0, 0, 1, 500_000, "transaction"),
            ("pgbouncer", "pgbouncer", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, "statement"),
        ],
    ),
    "stats_totals": (
        (
            *(
                "database",
                "server_assignment_count",
                "xact_count",
                "query_count",
                "bytes_received",
                "bytes_sent",
            ),
            *("xact_time", "query_time", "wait_time"),
        ),
        [("app", 100, 100, 200, 5000, 9000, 70_000, 60_000, 1000), ("pgbouncer", 9, 9, 9, 9, 9, 9, 9, 9)],
    ),
    "busy": (
        (
            *("database", "user", "client_id", "addr", "application_name", "state", "time", "server_id"),
            *("server_addr", "remote_pid"),
        ),
        [
            ("app", "bob", 12, "192.0.2.7:4711", "shop", "waiting", 1_500_000, None, None, None),
            ("app", "ann", 11, "192.0.2.8:4712", "<b>x</b>", "active", 2_000, 5, "db:5432", 4242),
        ],
    ),
    "cache": (
        (
            *("database", "entries", "bytes", "hits", "stale_hits", "misses", "refreshes", "evictions"),
            *("saved_time", "invalidated"),
        ),
        [("app", 20, 1_500_000, 80, 10, 10, 5, 2, 5_000_000, 3)],
    ),
    "cache_queries": (
        (
            "database",
            "fingerprint",
            "calls",
            "hits",
            "stale_hits",
            "misses",
            "saved_time",
            "last_refusal",
            "query",
        ),
        [("app", "0123456789abcdef", 100, 80, 10, 10, 5_000_000, None, HOSTILE)],
    ),
    "transports": (
        ("database", "user", "transport", "sv_connections", "sv_login", "last_error"),
        [("app", "ann", "tcp,tls", 7, 0, "no certificate"), ("other", "ann", "tcp", 0, 1, "refused")],
    ),
    "hops": (
        ("database", "user", "hop", "name", "time", "facts", "error"),
        [
            ("app", "ann", 1, "tcp db:5432", 700, "address=192.0.2.1", ""),
            ("app", "ann", 2, "tls db", 3_000, "", "no certificate"),
        ],
    ),
    "tunnels": (("agent", "agents", "waiting", "connections"), [("site", 2, 8, 3)]),
    "errors": (
        ("time", "level", "event", "details", "count"),
        [("2026-01-01 00:00:00 UTC", "warning", "pooler error", "user=<img src=x onerror=alert(1)>", 3)],
    ),
}
"""Columns and rows, by view."""

_GROWN: Final[Mapping[str, Sequence[Sequence[Value]]]] = {
    "stats_totals": [
        ("app", 200, 150, 300, 7000, 13_000, 110_000, 90_000, 5000),
        ("pgbouncer", 99, 99, 99, 99, 99, 99, 99, 99),
    ],
    "cache": [("app", 25, 1_600_000, 110, 10, 20, 5, 2, 5_000_000, 3)],
}
"""What has changed at the next look."""


def recorded(later: float | None = None) -> list[Shown]:
    """An overview of the recorded rows.

    Args:
        later: seconds after which there is a second look, at counters that have grown; None for one look alone.
    """
    views = dict(RECORDED)
    collector = Collector(views.get)
    shown = collector.look(10.0)
    if later is not None:
        views.update({name: (RECORDED[name][0], rows) for name, rows in _GROWN.items()})
        shown = collector.look(10.0 + later)
    return shown


def cells(shown: Sequence[Shown], key: str) -> list[Cells]:
    """The rows of a panel, by the names of its fields."""
    one = next(one for one in shown if one.panel.key == key)
    names = [field.name for field in one.panel.fields]
    return [dict(zip(names, row, strict=True)) for row in one.rows]
