#!/usr/bin/env python3
"""Writes docs/grafana.json, a dashboard for Grafana, from the list of its panels.

python docs/generate_grafana.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import attrs

PAGE: Final = Path(__file__).with_name("grafana.json")

_WIDTH: Final = 24
_HEIGHT: Final = 8
_CHOSEN: Final = 'instance=~"$instance", database=~"$database"'
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}


@attrs.frozen
class Panel:
    """A panel.

    Attributes:
        title: what it shows.
        unit: Grafana's name of it.
        queries: what is drawn, and how each line is called.
        width: of 24.
        kind: ``timeseries`` or ``stat``.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    width: int = 8
    kind: str = "timeseries"


def _rate(name: str, by: str, chosen: str = _CHOSEN) -> str:
    return f"sum by ({by}) (rate(hyperpool_{name}{{{chosen}}}[$__rate_interval]))"


def _quantiles(name: str, by: str = "database") -> tuple[tuple[str, str], ...]:
    buckets = _rate(f"{name}_seconds_bucket", f"le, {by}")
    return tuple(
        (f"histogram_quantile({share}, {buckets})", f"p{share * 100:g} {{{{{by}}}}}") for share in (0.5, 0.99)
    )


def _sum(name: str, by: str, chosen: str = _CHOSEN) -> str:
    return f"sum by ({by}) (hyperpool_{name}{{{chosen}}})"


_HERE: Final = 'instance=~"$instance"'

PANELS: Final = (
    Panel(
        "Versions", "none", ((f"hyperpool_info{{{_HERE}}}", "{{version}} on Python {{python}}"),), 6, "stat"
    ),
    Panel(
        "Clients of the limit",
        "percentunit",
        ((f"hyperpool_connections{{{_HERE}}} / hyperpool_max_connections{{{_HERE}}}", "{{instance}}"),),
        6,
        "stat",
    ),
    Panel("Pools", "none", ((f"hyperpool_pools{{{_HERE}}}", "{{instance}}"),), 6, "stat"),
    Panel("Paused pools", "none", ((_sum("pool_paused", "instance"), "{{instance}}"),), 6, "stat"),
    Panel("Queries", "qps", ((_rate("query_seconds_count", "database"), "{{database}}"),)),
    Panel("Time of queries", "s", _quantiles("query")),
    Panel("Time of transactions", "s", _quantiles("transaction")),
    Panel("Clients", "none", ((_sum("clients", "state"), "{{state}}"),)),
    Panel("Time of waits for a server", "s", _quantiles("wait")),
    Panel(
        "Longest wait now",
        "s",
        ((f"max by (database, user) (hyperpool_oldest_wait_seconds{{{_CHOSEN}}})", "{{database}}/{{user}}"),),
    ),
    Panel("Servers", "none", ((_sum("servers", "state"), "{{state}}"),)),
    Panel(
        "Pools that are full",
        "percentunit",
        (
            (
                f"{_sum('servers', 'database, user')} / ({_sum('pool_size', 'database, user')} > 0)",
                "{{database}}/{{user}}",
            ),
        ),
    ),
    Panel(
        "Servers given to clients", "ops", ((_rate("server_assignments_total", "database"), "{{database}}"),)
    ),
    Panel(
        "Bytes",
        "Bps",
        (
            (_rate("received_bytes_total", "database"), "from clients of {{database}}"),
            (_rate("sent_bytes_total", "database"), "to clients of {{database}}"),
        ),
    ),
    Panel(
        "Prepared statements",
        "ops",
        (
            (_rate("client_prepares_total", "database"), "by clients of {{database}}"),
            (_rate("server_prepares_total", "database"), "on servers of {{database}}"),
            (_rate("binds_total", "database"), "used in {{database}}"),
        ),
    ),
    Panel(
        "Clients that keep their server",
        "none",
        (
            (_sum("pinned_servers", "database"), "{{database}} now"),
            (_rate("pins_total", "reason"), "{{reason}} per second"),
        ),
    ),
    Panel("Time of logins", "s", _quantiles("login")),
    Panel("Time of hops to servers", "s", _quantiles("server_connect", "hop")),
    Panel(
        "Failures of hops to servers",
        "ops",
        ((_rate("server_connect_failures_total", "database, hop"), "{{hop}} to {{database}}"),),
    ),
    Panel(
        "Agents",
        "none",
        (
            (f"sum by (agent) (hyperpool_agents{{{_HERE}}})", "{{agent}}"),
            (
                f"sum by (agent, state) (hyperpool_agent_connections{{{_HERE}}})",
                "{{agent}}: connections, {{state}}",
            ),
        ),
    ),
    Panel("Cache: results", "qps", ((_rate("cache_requests_total", "result"), "{{result}}"),)),
    Panel(
        "Cache: why not", "qps", ((_rate("cache_refusals_total", "what, reason"), "{{what}}: {{reason}}"),)
    ),
    Panel(
        "Cache: answers come and go",
        "ops",
        (
            (_rate("cache_stored_total", "database"), "kept of {{database}}"),
            (_rate("cache_refreshes_total", "database"), "refreshed of {{database}}"),
            (_rate("cache_evictions_total", "database"), "made room of {{database}}"),
            (_rate("cache_invalidations_total", "source"), "dropped: {{source}}"),
        ),
    ),
    Panel(
        "Cache: memory",
        "bytes",
        (
            (f"hyperpool_cache_bytes{{{_HERE}}}", "{{instance}} used"),
            (f"hyperpool_cache_limit_bytes{{{_HERE}}}", "{{instance}} limit"),
        ),
    ),
    Panel("Cache: answers", "none", ((f"hyperpool_cache_entries{{{_HERE}}}", "{{instance}}"),)),
    Panel(
        "Cache: servers' time saved",
        "percentunit",
        ((_rate("cache_saved_seconds_total", "database"), "{{database}}: servers busy"),),
    ),
    Panel(
        "Cache: bytes from memory", "Bps", ((_rate("cache_sent_bytes_total", "database"), "{{database}}"),)
    ),
    Panel(
        "Log entries",
        "ops",
        ((f"sum by (level) (rate(hyperpool_log_entries_total{{{_HERE}}}[$__rate_interval]))", "{{level}}"),),
    ),
    Panel(
        "CPU of the process",
        "percentunit",
        ((f"rate(process_cpu_seconds_total{{{_HERE}}}[$__rate_interval])", "{{instance}}"),),
    ),
    Panel("Memory of the process", "bytes", ((f"process_resident_memory_bytes{{{_HERE}}}", "{{instance}}"),)),
    Panel(
        "File descriptors of the limit",
        "percentunit",
        ((f"process_open_fds{{{_HERE}}} / process_max_fds{{{_HERE}}}", "{{instance}}"),),
    ),
)


def render() -> str:
    """The file's text."""
    document = {
        "title": "hyperpool",
        "uid": "hyperpool",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                _variable("instance", "label_values(hyperpool_info, instance)"),
                _variable("database", "label_values(hyperpool_clients, database)"),
            ]
        },
        "panels": _placed(),
    }
    return json.dumps(document, indent=1) + "\n"


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": _SOURCE,
        "query": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _placed() -> list[dict[str, Any]]:
    panels = []
    x = y = height = 0
    for number, panel in enumerate(PANELS, 1):
        if x + panel.width > _WIDTH:
            x, y = 0, y + height
        height = _HEIGHT if panel.kind == "timeseries" else _HEIGHT // 2
        panels.append({
            "id": number,
            "title": panel.title,
            "type": panel.kind,
            "datasource": _SOURCE,
            "gridPos": {"x": x, "y": y, "w": panel.width, "h": height},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "options": {"textMode": "name"} if panel.title == "Versions" else {},
            "targets": [
                {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend}
                for place, (expression, legend) in enumerate(panel.queries)
            ],
        })  # fmt: skip
        x += panel.width
    return panels


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
