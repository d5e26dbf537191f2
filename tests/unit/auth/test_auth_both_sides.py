"""A client of ours logs in to a server of ours, over a byte stream that is cut anywhere."""

from __future__ import annotations

import hashlib
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.auth.client_side import ServerLogin
from hyperpool.auth.saslprep import saslprep
from hyperpool.auth.scram import ScramVerifier, pbkdf2
from hyperpool.auth.server_side import ClientAuthentication
from hyperpool.config import AuthType, Secret
from hyperpool.errors import AuthenticationError
from hyperpool.wire import messages
from hyperpool.wire.frames import FrameReader
from tests.support.passwords import check_password

WELCOME = (
    messages.authentication_ok()
    + messages.parameter_status("server_version", "16.4")
    + messages.backend_key_data(1, b"abcd")
    + messages.ready_for_query()
)

# Without what `parse_secret` would take for a hash: that is another test's matter.
passwords = st.text(
    st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=20
)
users = passwords


def stored(form: str, password: str, user: str) -> Secret:
    """Store a password in one of the three forms."""
    if form == "plain":
        return Secret(password)
    if form == "md5":
        return Secret("md5" + hashlib.md5(password.encode() + user.encode()).hexdigest())
    verifier = ScramVerifier.from_salted(pbkdf2(password, b"0123456789abcdef", 3), b"0123456789abcdef", 3)
    salt, stored_key, server_key = (
        b64encode(part).decode() for part in (verifier.salt, verifier.stored_key, verifier.server_key)
    )
    return Secret(f"SCRAM-SHA-256$3:{salt}${stored_key}:{server_key}")


def converse(server: ClientAuthentication, client: ServerLogin, chunk: int) -> None:
    """Carry bytes between both, a few at a time, until the client is done."""
    to_client, to_server = FrameReader(), FrameReader()
    pending = server.start()
    if server.done:
        pending += WELCOME
    while not client.done:
        answer = b""
        for at in range(0, len(pending), chunk):
            to_client.feed(pending[at : at + chunk])
            while (frame := to_client.next_frame()) is not None:
                answer += client.receive(*frame)
        pending = b""
        for at in range(0, len(answer), chunk):
            to_server.feed(answer[at : at + chunk])
            while (frame := to_server.next_frame()) is not None:
                pending += server.receive(*frame)
                check_password(server)
        if server.done:
            pending += WELCOME


@given(
    user=users,
    right=passwords,
    given_password=passwords,
    form=st.sampled_from(["plain", "md5", "scram"]),
    auth_type=st.sampled_from(["plain", "md5", "scram-sha-256"]),
    chunk=st.integers(1, 200),
)
@settings(deadline=None)
def test_a_login_succeeds_exactly_with_the_right_password(
    user: str, right: str, given_password: str, form: str, auth_type: str, chunk: int
) -> None:
    """For every kind of exchange and secret, the right password is let in and any other is not."""
    secret = stored(form, right, user)
    hashed = form == "scram" or (auth_type == "scram-sha-256" and form == "plain")
    for password in (right, given_password):
        same = saslprep(password) == saslprep(right) if hashed else password == right
        server = ClientAuthentication(AuthType(auth_type), user, secret, b"mock key", 3)
        client = ServerLogin(user, Secret(password), {"database": "shop"})

        if same and (form, auth_type) != ("md5", "scram-sha-256"):
            converse(server, client, chunk)
            assert server.done
            assert client.parameters == {"server_version": "16.4"}
        else:
            with pytest.raises(AuthenticationError):
                converse(server, client, chunk)
            assert not server.done


def test_trust_needs_no_password() -> None:
    """With trust the client is let in without being asked."""
    server = ClientAuthentication(AuthType("trust"), "user", Secret(""), b"mock key")
    client = ServerLogin("user", None, {"database": "shop"})

    converse(server, client, 3)

    assert (server.done, client.pid, client.secret) == (True, 1, b"abcd")


def test_an_md5_digest_is_enough_on_both_sides() -> None:
    """Where both sides hold the MD5 digest alone, as in pgbouncer's auth_file, an MD5 login works."""
    secret = stored("md5", "pencil", "user")
    server = ClientAuthentication(AuthType("md5"), "user", secret, b"mock key")

    converse(server, ServerLogin("user", secret, {}), 7)

    assert server.done
