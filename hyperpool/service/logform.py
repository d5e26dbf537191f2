"""Log lines as pgbouncer writes them, so that what reads its log reads ours.

::

    2026-11-28 18:09:01.402 UTC [13234] LOG C-0x1f: app/ann@127.0.0.1:43894 closing because: query_timeout (age=3s)

C is a client and S a server; the number behind it is the ``id`` of SHOW CLIENTS and SHOW SERVERS. What pgbouncer does
not say has the same form, with its values behind it.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any, Final

Event = MutableMapping[str, Any]

_LEVELS: Final = {
    "debug": "DEBUG",
    "info": "LOG",
    "warning": "WARNING",
    "error": "ERROR",
    "critical": "FATAL",
}


def render(event: Event) -> list[tuple[str, str]]:
    """Write one log entry.

    Args:
        event: what structlog has of it: ``event``, ``level`` and values.

    Returns:
        The level and the text of each line, without time and process; most have one.
    """
    form = _FORMS.get(str(event["event"]))
    lines = form(event) if form is not None else [(str(event["level"]), _plainly(event))]
    lines = [(level, _printable(text)) for level, text in lines]
    if error := event.get("exc_info"):
        kind = (type(error), error, error.__traceback__) if isinstance(error, BaseException) else error
        text = "".join(traceback.format_exception(*kind))
        lines += [(str(event["level"]), line) for line in text.splitlines()]
    return lines


def stamp(level: str, text: str) -> str:
    """A line with its time, process and level.

    Args:
        level: as in `render`.
        text: the line.
    """
    now = time.time()
    local = time.localtime(now)
    when = f"{time.strftime('%Y-%m-%d %H:%M:%S', local)}.{int(now % 1 * 1000):03d} {local.tm_zone}"
    return f"{when} [{os.getpid()}] {_LEVELS[level]} {text}"


def _printable(text: str) -> str:
    """What clients choose cannot make lines of its own, nor move a cursor."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode()
        for one in text
    )


def _plainly(event: Event) -> str:
    values = [f"{key}={value}" for key, value in event.items() if key not in {"event", "level", "exc_info"}]
    return f"{event['event']}: {', '.join(values)}" if values else str(event["event"])


def _client(event: Event) -> str:
    database = event.get("database", "") or "(nodb)"
    user = event.get("user", "") or "(nouser)"
    return f"C-{event['id']:#x}: {database}/{user}@{event['client']}"


def _server(event: Event) -> str:
    return f"S-{event['id']:#x}: {event['pool']}@{event['server']}"


def _closing(event: Event) -> str:
    return f"closing because: {event['reason']} (age={int(event['age'])}s)"


def _attempt(event: Event) -> str:
    tls = event["tls"] or "no"
    return (
        f"{_client(event)} login attempt: db={event['database']} user={event['user']} tls={tls} "
        f"replication={_REPLICATION.get(event['replication'], 'physical')}"
    )


def _logged_in(event: Event) -> list[tuple[str, str]]:
    return [("info", _attempt(event))]


def _refused(event: Event) -> list[tuple[str, str]]:
    lines = [("info", _attempt(event))] if event["database"] else []
    return [*lines, ("info", f"{_client(event)} {_closing(event)}"), *_told(event)]


def _client_closed(event: Event) -> list[tuple[str, str]]:
    return [("info", f"{_client(event)} {_closing(event)}")]


def _told(event: Event) -> list[tuple[str, str]]:
    return [("warning", f"{_client(event)} pooler error: {event['reason']}")]


def _connected(event: Event) -> list[tuple[str, str]]:
    return [("info", f"{_server(event)} new connection to server (from {event['local']})")]


def _server_closed(event: Event) -> list[tuple[str, str]]:
    return [("info", f"{_server(event)} {_closing(event)}")]


def _stats(event: Event) -> list[tuple[str, str]]:
    counts = ("xacts", "queries", "client_parses", "server_parses", "binds")
    rates = ", ".join(f"{int(event[f'{name}_per_s'])} {name.replace('_', ' ')}/s" for name in counts)
    size = f"in {event['client_bytes_per_s']} B/s, out {event['server_bytes_per_s']} B/s"
    times = f"xact {event['xact_us']} us, query {event['query_us']} us, wait {event['wait_us']} us"
    return [("info", f"stats: {rates}, {size}, {times}")]


def _listening(event: Event) -> list[tuple[str, str]]:
    addresses = str(event["addresses"]).split(", ")
    lines = [f"listening on {'unix:' if one.startswith(('/', '@')) else ''}{one}" for one in addresses]
    up = f"process up: hyperpool {event['version']}, Python {event['python']}"
    return [("info", line) for line in (*lines, up)]


_REPLICATION: Final = {"": "no", "database": "logical"}

_FORMS: Final[dict[str, Callable[[Event], list[tuple[str, str]]]]] = {
    "client logged in": _logged_in,
    "login refused": _refused,
    "closing client before login": _client_closed,
    "closing client": _client_closed,
    "pooler error": _told,
    "new connection to server": _connected,
    "closing server": _server_closed,
    "stats": _stats,
    "listening": _listening,
}
"""The entries that pgbouncer writes, too, by what they are called here."""
