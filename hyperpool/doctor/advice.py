"""What to do about what the doctor finds, as far as the errors do not say it themselves."""

from __future__ import annotations

import errno
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from hyperpool.doctor.findings import moment
from hyperpool.errors import ConnectFailed, KeysMissing, LoginFailed, ProtocolError
from hyperpool.transport.tls import NoAnswer, TlsFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.doctor.findings import HopFinding

SOON: Final = timedelta(days=30)
"""A certificate that ends within this time needs attention."""

_SQLSTATES: Final = {
    "28P01": "set `password` of the database or of the user to the one that the server knows; on the server, "
    "ALTER ROLE ... PASSWORD changes it",
    "28000": "let pg_hba.conf on the server allow this user, database, address and encryption, or check `user` and "
    "`sslmode`",
    "3D000": "check `dbname`, or make the database on the server: CREATE DATABASE",
    "42501": "let the user connect: GRANT CONNECT ON DATABASE ... TO ... on the server",
    "22023": "correct the session parameter of the database that the server does not take, such as `timezone`",
    "55000": "let the database take connections on the server: ALTER DATABASE ... ALLOW_CONNECTIONS true",
    "53300": "lower pool sizes, or raise max_connections on the server, or the role's or database's CONNECTION LIMIT",
    "57P03": "wait: the server is starting up, shutting down or recovering; its log says which",
}
"""What PostgreSQL's reasons to refuse a login ask for (PostgreSQL docs, appendix "PostgreSQL Error Codes")."""

_NO_ROLE: Final = "check `user`, or make the role on the server: CREATE ROLE ... LOGIN"
"""What 28000 asks for when no rule has refused."""

_SYSTEM: Final = {
    errno.ECONNREFUSED: "start the server, or check host and port: nothing listens there; if it is "
    "PostgreSQL, its listen_addresses may be too narrow",
    errno.ENOENT: "start the server, or check the directory and the port: PostgreSQL's unix_socket_directories says "
    "where its sockets are",
    errno.EACCES: "let this user reach the socket: see unix_socket_permissions and the directory's owner",
    errno.ETIMEDOUT: "check the address, and that no firewall drops the packets",
    errno.EHOSTUNREACH: "check the address, and the routes to it",
    errno.ENETUNREACH: "check the address, and the routes to its network",
    errno.ECONNRESET: "see the log of what listens there: it hung up",
}
"""What the system's reasons ask for."""

_HANGS: Final = {
    "resolve": "the name servers do not answer: see /etc/resolv.conf",
    "tcp": "packets are dropped: check the address, and firewalls on the way",
    "unix": "the server does not accept connections: see its log",
    "proxy": "the proxy does not answer: check that it is one, and its way to the target",
    "tls": "what listens there may not speak TLS: check host and port",
    "agent": "the agent does not answer: see its log",
    "websocket": "the gateway does not answer: check host and path, and its own way to the server",
    "postgresql tls": "what listens there may not be PostgreSQL, or is out of connections: check host and port, and "
    "its log",
    "login": "what listens there may not be PostgreSQL, or is overloaded: check host and port, and its log",
    "query": "the server is overloaded, or the way there loses what is sent: see its log",
}
"""What no answer within the time means, by kind of hop."""

_SPOKEN: Final = frozenset({"postgresql tls", "login", "query"})
"""The hops on which PostgreSQL itself is spoken to."""

_HANGS_BEHIND: Final = (
    "the tunnel is open, and its end says nothing: see where it leads to, and the log there"
)
_MUTE: Final = "see whether it is PostgreSQL that listens there, and its log: it may be out of connections"
_MUTE_BEHIND: Final = (
    "the tunnel is open, and its end hangs up: see whether PostgreSQL runs where it leads to, and the log of the "
    "tunnel's far end"
)
_REFUSED_BEHIND: Final = "start what the tunnel begins with, or check host and port: nothing listens there"
_LEFT_BEHIND: Final = (
    "start the server, or check the directory and the port: nobody listens at the socket, which may have been left "
    "behind"
)
_FOREIGN: Final = "what is there does not speak PostgreSQL's protocol: check host and port"
_FOREIGN_BEHIND: Final = "what the tunnel leads to does not speak PostgreSQL's protocol: check its target"


_KEYS_AWAITED: Final = (
    "the way ends here, as only a SCRAM secret of this user is known: the pooler goes on with what a client shows that "
    "logs in with SCRAM, if the server stores the very same secret; to go on, give the password, or name with --user "
    "somebody whose password is known"
)
_LOGIN_AWAITED: Final = (
    "the way ends here, as no password of this user is known: the pooler goes on with what a client's login brings; to "
    "go on, name with --user somebody whose password is known"
)
ANOTHER_USER: Final = "name with --user somebody whose password is known: the pooler asks for it"
"""The remedy where the doctor is a client, and has no password."""


def about_awaited(error: LoginFailed) -> str:
    """The warning for a login that waits for what a client's own login brings."""
    return _KEYS_AWAITED if isinstance(error, KeysMissing) else _LOGIN_AWAITED


def about_hang(kind: str, *, behind: bool = False) -> str:
    """The remedy for a hop that took too long; `behind` tells whether a tunnel leads to the server."""
    if behind and kind in _SPOKEN:
        return _HANGS_BEHIND
    return _HANGS.get(kind, "raise --timeout if the way is known to be slow")


def about_error(kind: str, error: BaseException, *, behind: bool = False) -> str:
    """The remedy for a hop that failed; empty if none is known, or the error says it itself.

    Args:
        kind: of the hop.
        error: why it failed.
        behind: a tunnel leads to the server.
    """
    if isinstance(error, LoginFailed):
        if not error.response:
            broken = isinstance(error.__cause__, ProtocolError)
            return (_FOREIGN_BEHIND if behind else _FOREIGN) if broken else ""
        return (
            _NO_ROLE
            if error.sqlstate == "28000" and error.authenticated
            else _SQLSTATES.get(error.sqlstate, "")
        )
    if kind in _SPOKEN:
        told = isinstance(error, TlsFailed) and not isinstance(error, NoAnswer)
        mute = isinstance(error, ConnectFailed) and not told
        return (_MUTE_BEHIND if behind else _MUTE) if mute else ""
    if kind not in {"resolve", "tcp", "unix"}:
        return ""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return "check the spelling of the host, and the name servers in /etc/resolv.conf"
        if isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED and behind:
            return _REFUSED_BEHIND
        if isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED and kind == "unix":
            return _LEFT_BEHIND
        if isinstance(cause, OSError) and cause.errno in _SYSTEM:
            return _SYSTEM[cause.errno]
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def about_hop(hop: HopFinding, now: datetime, *, exposed: bool) -> list[str]:
    """What needs attention about a hop.

    Args:
        hop: it.
        now: the time.
        exposed: others can read what is sent.
    """
    warnings = []
    end = hop.facts.get("not_after")
    if end and not hop.error:
        left = moment(end) - now
        if left < timedelta():
            warnings.append(f"the certificate has expired {days(-left)} ago: renew it")
        elif left < SOON:
            warnings.append(f"the certificate ends in {days(left)}: renew it")
    if hop.facts.get("method") == "password" and exposed:
        warnings.append(
            "the password goes over the network as it is: use scram-sha-256 in pg_hba.conf, or TLS"
        )
    if "token" in hop.facts and exposed:
        warnings.append("the token goes over the network as it is: use wss://, or a tls step")
    return warnings


def days(time: timedelta) -> str:
    """A length of time, in whole days."""
    if time.days < 1:
        return "less than a day"
    return "1 day" if time.days == 1 else f"{time.days} days"


def now() -> datetime:
    """The time."""
    return datetime.now(UTC)
