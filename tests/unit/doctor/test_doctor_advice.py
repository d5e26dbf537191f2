"""What the doctor warns of, and what it advises."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta

import pytest

from hyperpool.doctor import advice
from hyperpool.doctor.findings import KINDS
from hyperpool.errors import ConnectFailed, LoginFailed, ProtocolError
from hyperpool.transport.tls import NoAnswer, TlsFailed
from tests.support.examined import a_hop

NOW = datetime(2030, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("left", "warnings"),
    [
        (timedelta(days=30, hours=1), []),
        (timedelta(days=29, hours=1), ["the certificate ends in 29 days: renew it"]),
        (timedelta(days=1, hours=1), ["the certificate ends in 1 day: renew it"]),
        (timedelta(hours=1), ["the certificate ends in less than a day: renew it"]),
        (timedelta(hours=-1), ["the certificate has expired less than a day ago: renew it"]),
        (timedelta(days=-3, hours=-1), ["the certificate has expired 3 days ago: renew it"]),
    ],
)
def test_the_end_of_a_certificate(left: timedelta, warnings: list[str]) -> None:
    """Thirty days ahead."""
    facts = {"not_after": f"{NOW + left:%b %d %H:%M:%S %Y GMT}"}
    assert advice.about_hop(a_hop("tls", facts=facts), NOW, exposed=False) == warnings
    assert advice.about_hop(a_hop("tls", facts=facts, error="expired"), NOW, exposed=False) == []


def test_a_token_that_others_can_read() -> None:
    """It was sent over plain TCP; behind TLS, and on this machine, nobody reads it."""
    told = a_hop("websocket", facts={"token": "sent"})
    (warning,) = advice.about_hop(told, NOW, exposed=True)
    assert "the token goes over the network as it is" in warning
    assert advice.about_hop(told, NOW, exposed=False) == []
    assert advice.about_hop(a_hop("websocket"), NOW, exposed=True) == []


def test_a_password_that_others_can_read() -> None:
    """Only where it is sent as it is, and others are there."""
    plain, scram = (a_hop("login", facts={"method": one}) for one in ("password", "SCRAM-SHA-256"))
    (warning,) = advice.about_hop(plain, NOW, exposed=True)
    assert "the password goes over the network as it is" in warning
    assert advice.about_hop(plain, NOW, exposed=False) == []
    assert advice.about_hop(scram, NOW, exposed=True) == []


def test_every_kind_has_a_remedy_for_silence() -> None:
    """A hang can happen anywhere."""
    remedies = {advice.about_hang(kind) for kind in KINDS}
    assert len(remedies) == len(KINDS)
    assert advice.about_hang("carrier") not in remedies


def test_remedies_for_refusals() -> None:
    """For the server's reasons; what hyperpool itself says has its remedy in it."""
    assert "GRANT CONNECT" in advice.about_error("login", LoginFailed("permission denied", "42501", b"E"))
    assert "max_connections" in advice.about_error("login", LoginFailed("too many", "53300", b"E"))
    assert "pg_hba.conf" in advice.about_error("login", LoginFailed("no entry", "28000", b"E"))
    assert "CREATE ROLE" in advice.about_error(
        "login", LoginFailed("none", "28000", b"E", authenticated=True)
    )
    assert not advice.about_error("login", LoginFailed("no password: set one", "28P01"))
    assert "ALLOW_CONNECTIONS" in advice.about_error("login", LoginFailed("not accepting", "55000", b"E"))
    assert "session parameter" in advice.about_error("login", LoginFailed("invalid value", "22023", b"E"))
    assert not advice.about_error("login", LoginFailed("odd", "XX000", b"E"))


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("postgresql tls", NoAnswer("server closed the connection when TLS was asked for")),
        ("postgresql tls", ConnectFailed("connection broke while TLS was asked for")),
        ("login", ConnectFailed("server closed the connection during login")),
        ("query", ConnectFailed("connection broke during an empty query")),
    ],
)
def test_remedies_for_an_end_that_hangs_up(kind: str, error: ConnectFailed) -> None:
    """Behind a tunnel that works it is the tunnel's end that has to be looked at."""
    direct, behind = (advice.about_error(kind, error, behind=behind) for behind in (False, True))
    assert "see whether it is PostgreSQL that listens there" in direct
    assert "see whether PostgreSQL runs where it leads to" in behind
    assert advice.about_hang(kind, behind=True) != advice.about_hang(kind)
    assert advice.about_hang("websocket", behind=True) == advice.about_hang("websocket")


def test_what_says_its_remedy_itself_has_no_other() -> None:
    """TLS that fails knows better why."""
    assert not advice.about_error(
        "postgresql tls", TlsFailed("server db has no TLS: turn ssl on"), behind=True
    )


def test_remedies_for_what_is_not_postgresql() -> None:
    """It spoke, but another protocol."""
    error = LoginFailed("server broke the protocol during login: x")
    error.__cause__ = ProtocolError("x")
    assert "check host and port" in advice.about_error("login", error)
    assert "check its target" in advice.about_error("login", error, behind=True)


def test_remedies_for_sockets() -> None:
    """The system's reason stands behind the error; whatever step failed says more about itself."""
    error = ConnectFailed("cannot connect")
    error.__cause__ = OSError(socket.EAI_NONAME, "")
    assert not advice.about_error("tcp", error)
    error.__cause__ = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert "spelling" in advice.about_error("resolve", error)
    error.__cause__ = PermissionError(13, "Permission denied")
    assert "unix_socket_permissions" in advice.about_error("unix", error)
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert "listen_addresses" in advice.about_error("tcp", error)
    assert "nobody listens at the socket" in advice.about_error("unix", error)
    assert "start what the tunnel begins with" in advice.about_error("tcp", error, behind=True)
    assert not advice.about_error("websocket", error)
