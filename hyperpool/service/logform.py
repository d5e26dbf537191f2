"""Log lines: for people; and as pgbouncer writes them, so that what reads its log reads ours.

::

    2026-11-28 18:09:01.402 UTC [13234] LOG C-0x1f: app/ann@127.0.0.1:43894 closing because: query_timeout (age=3s)

C is a client and S a server; the number behind it is the ``id`` of SHOW CLIENTS and SHOW SERVERS. What pgbouncer does
not say has the same form, with its values behind it.

What clients choose (names, and what errors say about them) can neither make lines of its own nor move a cursor.
"""

from __future__ import annotations

import os
import re
import time
import traceback
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

Event = MutableMapping[str, Any]

_LEVELS: Final = {
    "debug": "DEBUG",
    "info": "LOG",
    "warning": "WARNING",
    "error": "ERROR",
    "critical": "FATAL",
}


_QUOTED: Final = re.compile("""[ ="']""")


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
        lines += [(str(event["level"]), line) for line in _trace(error).splitlines()]
    return lines


def plain(event: Event) -> str:
    """Write one log entry for people, as structlog's ``ConsoleRenderer`` does without colours, in less time.

    Args:
        event: as in `render`.

    Returns:
        The line, without its end; with an exception, several.
    """
    level, text, error = event.pop("level"), event.pop("event"), event.pop("exc_info", None)
    when = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    values = "".join([f" {key}={_value(event[key])}" for key in sorted(event)])
    return f"{when} [{level:<9}] {text}{values}" + (f"\n{_trace(error).rstrip()}" if error else "")


def described(event: Event) -> str:
    """An entry without time and level; with an exception, several lines.

    Args:
        event: as in `render`; it is not changed.
    """
    values = "".join(
        f" {key}={_value(event[key])}" for key in sorted(event) if key not in {"level", "event", "exc_info"}
    )
    error = event.get("exc_info")
    return f"{event['event']}{values}" + (f"\n{_trace(error).rstrip()}" if error else "")


def tame(event: Event) -> Event:
    """Have nothing in an entry that would not be seen as it is; for those who write it otherwise.

    Args:
        event: as in `render`; it is changed.
    """
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = _printable(value)
    return event


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


def _trace(error: Any) -> str:  # noqa: ANN401 - an exception, or what sys.exc_info returns
    kind = (type(error), error, error.__traceback__) if isinstance(error, BaseException) else error
    return "".join(traceback.format_exception(*kind))


def _value(value: object) -> str:
    bare = isinstance(value, str) and value.isprintable() and _QUOTED.search(value) is None
    return str(value) if bare else repr(value)


def _printable(text: str) -> str:
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
    "console client logged in": _logged_in,
    "login refused": _refused,
    "closing client before login": _client_closed,
    "closing client": _client_closed,
    "closing console client": _client_closed,
    "pooler error": _told,
    "new connection to server": _connected,
    "closing server": _server_closed,
    "stats": _stats,
    "listening": _listening,
}
"""The entries that pgbouncer writes, too, by what they are called here."""
