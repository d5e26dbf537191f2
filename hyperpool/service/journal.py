"""The journal of systemd, in its own protocol: an entry keeps its values as fields, which journalctl can ask for.

Source of the form: systemd.io/JOURNAL_NATIVE_PROTOCOL.
"""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING, Final

from hyperpool.service.logform import described

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperpool.service.logform import Event

SOCKET: Final = "/run/systemd/journal/socket"

_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_LENGTH: Final = Struct("<Q").pack
_LONGEST: Final = 32768
"""Bytes of a value; all of an entry must fit into a datagram."""
_UNFIT: Final = re.compile(r"[^A-Z0-9_]")


class Journal:
    """Sends entries to the journal, as one of structlog's processors: it passes everything on.

    An entry is dropped rather than waited for.

    Args:
        path: the journal's socket.
    """

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._sock.setblocking(False)

    def __call__(self, logger: object, level: str, event: Event) -> Event:
        """Send an entry."""
        del logger
        fields = {
            "MESSAGE": described(event),
            "PRIORITY": str(_PRIORITIES[level]),
            "SYSLOG_IDENTIFIER": "hyperpool",
            **{
                f"HYPERPOOL_{_UNFIT.sub('_', key.upper())}": str(value)
                for key, value in event.items()
                if key not in {"level", "exc_info"}
            },
        }
        with suppress(OSError):
            # Not connected, so that a journal that is started anew gets what comes then.
            self._sock.sendto(b"".join(_field(name, value) for name, value in fields.items()), self._path)
        return event

    def close(self) -> None:
        """Let go of the socket."""
        self._sock.close()


def _field(name: str, value: str) -> bytes:
    data = value.encode(errors="backslashreplace")[:_LONGEST]
    if b"\n" in data:
        return name.encode() + b"\n" + _LENGTH(len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def leads_to_journal(fileno: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written to a file descriptor gets into the journal line by line (``$JOURNAL_STREAM``).

    Args:
        fileno: of standard error.
        environ: the environment variables.
    """
    try:
        found = os.fstat(fileno)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"
