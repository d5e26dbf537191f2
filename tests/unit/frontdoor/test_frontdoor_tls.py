"""TLS in a client's login as a conversation of bytes: what is answered, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hyperpool.auth.server_side import ClientAuthentication
from hyperpool.config import AuthType, Secret, SslMode
from hyperpool.config.tls import ClientTls
from hyperpool.errors import ProtocolError
from hyperpool.frontdoor.login import Login
from hyperpool.frontdoor.tls import make_offer
from hyperpool.wire import messages
from tests.support.certificates import Files, issue

if TYPE_CHECKING:
    from pathlib import Path

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
GSSENC_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x30"
STARTUP = messages.startup_message({"user": "ann", "database": "app"})


def login(*, tls: bool = True) -> Login:
    """A login of somebody who is trusted."""
    return Login(
        lambda message: ClientAuthentication(AuthType.TRUST, message.user, Secret(""), b"mock key"), tls=tls
    )


@pytest.mark.parametrize("step", [1, 3, 8])
def test_tls_is_taken_up(step: int) -> None:
    """However the request is cut: one byte is answered, and behind the handshake comes the login."""
    talk = login()
    answers = [talk.receive(SSL_REQUEST[at : at + step]) for at in range(0, 8, step)]

    assert b"".join(answers) == b"S"
    assert talk.starts_tls
    talk.encrypted()
    assert talk.receive(STARTUP) == b""
    assert talk.done


def test_no_tls_to_be_had() -> None:
    """The client decides whether to go on."""
    talk = login(tls=False)

    assert talk.receive(SSL_REQUEST) == b"N"
    assert not talk.starts_tls
    talk.receive(STARTUP)
    assert talk.done


def test_gssapi_first() -> None:
    """It is declined, and TLS is not."""
    talk = login()

    assert talk.receive(GSSENC_REQUEST) == b"N"
    assert talk.receive(SSL_REQUEST) == b"S"


@pytest.mark.parametrize("smuggled", [b"\x00", STARTUP, b"\x16\x03\x01"])
def test_bytes_behind_the_request(smuggled: bytes) -> None:
    """They came in clear, and are not taken for what comes with TLS; in one piece with the request, or not."""
    with pytest.raises(ProtocolError, match="received unencrypted data after SSL request"):
        login().receive(SSL_REQUEST + smuggled)


@pytest.mark.parametrize("request_", [SSL_REQUEST, GSSENC_REQUEST])
def test_requests_within_tls(request_: bytes) -> None:
    """There is nothing left to be asked for."""
    talk = login()
    talk.receive(SSL_REQUEST)
    talk.encrypted()

    with pytest.raises(ProtocolError, match="repeated request for encryption"):
        talk.receive(request_)


def test_direct_tls() -> None:
    """Nothing was asked for, and nothing may be."""
    talk = login()
    talk.encrypted()

    with pytest.raises(ProtocolError, match="repeated request for encryption"):
        talk.receive(SSL_REQUEST)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """The pooler's certificate."""
    return issue(tmp_path, "localhost")


@pytest.mark.parametrize("mode", list(SslMode))
def test_the_offer(files: Files, mode: SslMode) -> None:
    """What clients are offered, and whether they must take it."""
    offer = make_offer(ClientTls(mode=mode, material=files.material))

    if mode is SslMode.DISABLE:
        assert offer is None
    else:
        assert offer is not None
        assert offer.required == (mode not in {SslMode.ALLOW, SslMode.PREFER})
        assert len(offer.endpoint) == 32
