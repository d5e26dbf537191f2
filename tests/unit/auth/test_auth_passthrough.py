"""What clients show at their logins is enough to log in to servers."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.auth.client_side import ServerLogin
from hyperpool.auth.scram import ScramClient, ScramKeys, ScramServer, ScramVerifier, pbkdf2
from hyperpool.auth.secrets import Shown
from hyperpool.config import DatabaseSettings, PoolerSettings, Secret, Settings
from hyperpool.errors import LoginFailed
from hyperpool.pool.state import Pool
from hyperpool.wire import messages

if TYPE_CHECKING:
    from hyperpool.config import PoolSettings

SALT = b"sixteen bytes ok"
DIGEST = hashlib.md5(b"penciluser").hexdigest()
CLEARTEXT = messages.authentication_cleartext_password()
SASL = messages.authentication_sasl(["SCRAM-SHA-256"])
VERIFIER = Secret(
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


def verifier(password: str = "pencil", salt: bytes = SALT, iterations: int = 10) -> ScramVerifier:
    """What a server stores."""
    return ScramVerifier.from_salted(pbkdf2(password, salt, iterations), salt, iterations)


def converse(client: ScramClient, server: ScramServer) -> bool:
    """Go through an exchange; returns whether the server lets the client in."""
    final = server.finish(client.respond(server.challenge(client.first())))
    if final is not None:
        client.verify(final)
    return final is not None


def keys_shown(stored: ScramVerifier, password: str = "pencil") -> ScramKeys:
    """What a client shows that logs in with a password."""
    server = ScramServer(stored)
    assert converse(ScramClient(password), server)
    assert server.keys is not None
    return server.keys


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    st.binary(min_size=1),
    st.integers(1, 5),
)
def test_keys_are_as_good_as_the_password(password: str, salt: bytes, iterations: int) -> None:
    """Wherever the same verifier is stored."""
    stored = verifier(password, salt, iterations)
    keys = keys_shown(stored, password)
    assert converse(ScramClient(keys), ScramServer(stored))


@pytest.mark.parametrize(
    "other", [verifier(salt=b"another salt"), verifier(iterations=11)], ids=["salt", "iterations"]
)
def test_keys_of_another_verifier(other: ScramVerifier) -> None:
    """They are not sent, and it is said why."""
    client = ScramClient(keys_shown(verifier()))
    with pytest.raises(LoginFailed, match="salt and iterations must be the same"):
        client.respond(ScramServer(other).challenge(client.first()))


def test_who_does_not_know_the_password_shows_nothing() -> None:
    """A wrong proof has no key in it."""
    server = ScramServer(verifier())
    assert not converse(ScramClient("pen"), server)
    assert server.keys is None


def test_keys_are_not_shown_in_logs() -> None:
    """They are passwords."""
    keys = keys_shown(verifier())
    assert repr(keys.client_key) not in repr(keys) + repr(Shown(keys=keys))
    assert repr(keys.server_key) not in repr(keys)


def answer(request: bytes, password: Secret | None, shown: Shown) -> bytes:
    """What we answer to a server's request."""
    login = ServerLogin("user", password, {}, shown=shown)
    login.start()
    return login.receive(request[0], request[5:])


@pytest.mark.parametrize(
    "configured", [None, Secret(f"md5{DIGEST}"), VERIFIER], ids=["nothing", "MD5", "SCRAM"]
)
def test_a_password_that_was_shown(configured: Secret | None) -> None:
    """It is good for everything, whatever hash is stored."""
    shown = Shown(secret=Secret("pencil"))
    assert answer(CLEARTEXT, configured, shown) == messages.password_message(b"pencil")
    salted = hashlib.md5(DIGEST.encode() + b"salt").hexdigest().encode()
    md5 = messages.authentication_md5_password(b"salt")
    assert answer(md5, configured, shown) == messages.password_message(b"md5" + salted)
    assert b"SCRAM-SHA-256\0" in answer(SASL, configured, shown)


def test_a_digest_that_a_server_has_told() -> None:
    """It is good for MD5 alone."""
    shown = Shown(secret=Secret(f"md5{DIGEST}"))
    salted = hashlib.md5(DIGEST.encode() + b"salt").hexdigest().encode()
    md5 = messages.authentication_md5_password(b"salt")
    assert answer(md5, None, shown) == messages.password_message(b"md5" + salted)
    for request in (CLEARTEXT, SASL):
        with pytest.raises(LoginFailed, match="only a hash of it is known"):
            answer(request, None, shown)


def test_keys_are_good_for_scram_alone() -> None:
    """A server that wants something else is told nothing."""
    keys = keys_shown(verifier())
    for configured, secret in ((VERIFIER, None), (None, VERIFIER)):
        shown = Shown(secret=secret, keys=keys)
        assert b"SCRAM-SHA-256\0" in answer(SASL, configured, shown)
        with pytest.raises(LoginFailed, match="only a hash of it is known"):
            answer(CLEARTEXT, configured, shown)


# -- what a pool keeps -------------------------------------------------------------------------------------------------


def pool_of(database: DatabaseSettings | None = None) -> Pool[PoolSettings, object]:  # type: ignore[type-var]
    """The pool of ann."""
    settings = Settings(pooler=PoolerSettings(), databases={"app": database or DatabaseSettings()})
    found = settings.pool_for("app", "ann")
    assert found is not None
    return Pool(found, lambda: 0.5)


def test_a_pool_learns() -> None:
    """What is newest counts, and lets a server be tried at once that has refused what was known before."""
    pool = pool_of()
    first, second = Shown(keys=keys_shown(verifier())), Shown(secret=Secret("pencil"))
    for shown in (first, second, first):
        pool.backoff.failed(LoginFailed("no"), 100.0)
        assert pool.backoff.holds(100.1)
        pool.learn("ann", shown)
        assert pool.shown == shown
        assert not pool.backoff.holds(100.1)
        pool.backoff.failed(LoginFailed("no"), 100.0)
        pool.learn("ann", shown)
        assert pool.backoff.holds(100.1)


def test_a_pool_does_not_forget() -> None:
    """A login that shows less than is known changes nothing."""
    pool = pool_of()
    known = Shown(secret=VERIFIER, keys=keys_shown(verifier()))
    pool.learn("ann", known)
    for less in (Shown(), Shown(secret=VERIFIER)):
        pool.learn("ann", less)
        assert pool.shown == known
    pool.learn("ann", Shown(secret=Secret(f"md5{DIGEST}")))
    assert pool.shown.keys is None


def test_what_is_of_no_use_to_a_pool() -> None:
    """Others than the pool's user show nothing of its password, and an entry's own password goes first."""
    shown = Shown(secret=Secret("pencil"))
    pool = pool_of()
    pool.learn("bob", shown)
    own = pool_of(DatabaseSettings(user="ann", password=Secret("x")))
    own.learn("ann", shown)
    assert (pool.shown, own.shown) == (Shown(), Shown())
