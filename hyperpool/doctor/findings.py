"""What the doctor finds, as data, and as JSON."""

from __future__ import annotations

import enum
import ssl
from datetime import UTC, datetime
from typing import Any, Final

import attrs

KINDS: Final = (
    "resolve",
    "tcp",
    "unix",
    "proxy",
    "tls",
    "agent",
    "websocket",
    "postgresql tls",
    "login",
    "query",
)
"""What hops do: how their names in a trace begin."""

_FORMAT: Final = 1
"""Of the JSON document; raised when a key changes its meaning or goes away."""


class Status(enum.Enum):
    """How something went, from good to bad."""

    OK = "ok"
    SKIPPED = "skipped"
    """It could not be tried; nothing is known to be wrong."""
    WARNING = "warning"
    """It works, and something about it will need attention."""
    FAILED = "failed"


@attrs.define(eq=False)
class HopFinding:
    """One hop.

    Attributes:
        kind: one of `KINDS`.
        target: where to; empty for a query.
        seconds: how long it took.
        facts: what was found out, by name.
        warnings: what works, and will need attention.
        error: why it failed; empty if it did not.
        remedy: what to do about it, unless `error` says that itself.
        overcome: another attempt, which came after it, did better.
    """

    kind: str
    target: str
    seconds: float
    facts: dict[str, str]
    warnings: list[str] = attrs.field(factory=list)
    error: str = ""
    remedy: str = ""
    overcome: bool = False

    @property
    def status(self) -> Status:
        """How it went; what was overcome by another attempt is only a warning."""
        if self.error and not self.overcome:
            return Status.FAILED
        return Status.WARNING if self.error or self.warnings else Status.OK


@attrs.define(eq=False)
class ServerFinding:
    """The way to one server.

    Attributes:
        name: the server's.
        via: what leads there, if it is not reached directly: kinds of steps.
        hops: in the order in which they were made, those of all attempts.
        seconds: for all of it.
        warnings: about the whole way.
    """

    name: str
    via: str = ""
    hops: list[HopFinding] = attrs.field(factory=list)
    seconds: float = 0.0
    warnings: list[str] = attrs.field(factory=list)

    @property
    def status(self) -> Status:
        """As that of its worst hop."""
        statuses = {hop.status for hop in self.hops}
        if Status.FAILED in statuses:
            return Status.FAILED
        return Status.WARNING if Status.WARNING in statuses or self.warnings else Status.OK

    @property
    def failure(self) -> HopFinding | None:
        """Where it failed."""
        return next((hop for hop in self.hops if hop.status is Status.FAILED), None)


@attrs.define(eq=False)
class DatabaseFinding:
    """A database of the settings.

    Attributes:
        name: what clients call it.
        user: as whom the doctor logs in; empty if that is not known.
        dbname: what its server calls it.
        servers: in the order of the settings.
        note: why there are none, or what is special about them.
    """

    name: str
    user: str
    dbname: str
    servers: list[ServerFinding] = attrs.field(factory=list)
    note: str = ""

    @property
    def status(self) -> Status:
        """As that of its worst server."""
        statuses = [server.status for server in self.servers]
        for bad in (Status.FAILED, Status.WARNING):
            if bad in statuses:
                return bad
        return Status.OK if statuses else Status.SKIPPED


def is_well(findings: list[DatabaseFinding]) -> bool:
    """Whether something was examined, and nothing failed."""
    statuses = {finding.status for finding in findings}
    return Status.FAILED not in statuses and statuses != {Status.SKIPPED}


def as_json(findings: list[DatabaseFinding]) -> dict[str, Any]:
    """The JSON document; docs/doctor.md describes it."""
    return {
        "format": _FORMAT,
        "ok": is_well(findings),
        "databases": [_database(finding) for finding in findings],
    }


def _database(finding: DatabaseFinding) -> dict[str, Any]:
    return {
        "name": finding.name,
        "status": finding.status.value,
        "user": finding.user or None,
        "dbname": finding.dbname,
        "note": finding.note or None,
        "servers": [_server(server) for server in finding.servers],
    }


def _server(finding: ServerFinding) -> dict[str, Any]:
    failure = finding.failure
    return {
        "name": finding.name,
        "status": finding.status.value,
        "via": finding.via or None,
        "ms": _milliseconds(finding.seconds),
        "warnings": finding.warnings,
        "failure": None
        if failure is None
        else {"hop": failure.kind, "cause": failure.error, "remedy": failure.remedy or None},
        "hops": [_hop(hop) for hop in finding.hops],
    }


def _hop(finding: HopFinding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "target": finding.target or None,
        "status": finding.status.value,
        "ms": _milliseconds(finding.seconds),
        "facts": {
            name: moment(fact).isoformat() if name in {"not_before", "not_after"} else fact
            for name, fact in finding.facts.items()
        },
        "warnings": finding.warnings,
        "error": finding.error or None,
        "remedy": finding.remedy or None,
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)


def moment(text: str) -> datetime:
    """A time in a certificate, as `ssl` writes it."""
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
