"""Both sides of SCRAM-SHA-256: against the RFC's example, each other, and another implementation."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import pbkdf2_hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramClient as OtherClient
from scramp import ScramMechanism as OtherMechanism

from hyperpool.auth.scram import (
    MAX_CLEARTEXT_LENGTH,
    MAX_ITERATIONS,
    ScramClient,
    ScramServer,
    ScramVerifier,
    pbkdf2,
    salted_password,
)
from hyperpool.errors import LoginFailed, ProtocolError

# RFC 7677, section 3: user "user", password "pencil".
CLIENT_NONCE = b"rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = b"[m\x99h\x9d\x125\x8e\xec\xa0K\x14\x126\xfa\x81"
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=30)


def make_verifier(password: str, salt: bytes = SALT, iterations: int = 1) -> ScramVerifier:
    """Make what a server stores for a password."""
    return ScramVerifier.from_salted(pbkdf2(password, salt, iterations), salt, iterations)


def begun_server(password: str = "pencil", iterations: int = 4096) -> ScramServer:
    """Make a server that has answered the RFC's client-first-message."""
    server = ScramServer(make_verifier(password, iterations=iterations), SERVER_NONCE)
    server.challenge(CLIENT_FIRST)
    return server


def test_client_of_the_rfc() -> None:
    """The client's messages are those of RFC 7677, and it accepts the server's signature."""
    client = ScramClient("pencil", CLIENT_NONCE, b"user")

    assert client.first() == CLIENT_FIRST
    assert client.respond(SERVER_FIRST) == CLIENT_FINAL
    client.verify(SERVER_FINAL)


def test_server_of_the_rfc() -> None:
    """The server's messages are those of RFC 7677."""
    server = ScramServer(make_verifier("pencil", iterations=4096), SERVER_NONCE)

    assert server.challenge(CLIENT_FIRST) == SERVER_FIRST
    assert server.finish(CLIENT_FINAL) == SERVER_FINAL


@given(texts, texts, st.binary(min_size=1, max_size=40), st.integers(1, 20))
@settings(deadline=None)
def test_both_sides_agree(right: str, given_password: str, salt: bytes, iterations: int) -> None:
    """The exchange succeeds for the right password, and only for it."""
    server = ScramServer(make_verifier(right, salt, iterations))
    client = ScramClient(given_password)
    server_final = server.finish(client.respond(server.challenge(client.first())))

    same = pbkdf2(right, salt, iterations) == pbkdf2(given_password, salt, iterations)
    assert (server_final is not None) == same
    if server_final is not None:
        client.verify(server_final)


@pytest.mark.parametrize("password", ["pencil", "Gr\u00fc\u00dfe", "\u2168", "a" * 500])
def test_our_client_logs_in_to_another_server(password: str) -> None:
    """The scramp package accepts our client."""
    mechanism = OtherMechanism("SCRAM-SHA-256")
    stored = mechanism.make_auth_info(password, iteration_count=4096, salt=SALT)
    server = mechanism.make_server(lambda _user: stored)
    # scramp refuses the empty user name that PostgreSQL's clients send.
    client = ScramClient(password, user=b"user")

    server.set_client_first(client.first().decode())
    server.set_client_final(client.respond(server.get_server_first().encode()).decode())

    client.verify(server.get_server_final().encode())


@pytest.mark.parametrize("password", ["pencil", "Gr\u00fc\u00dfe", "\u2168", "a" * 500])
def test_another_client_logs_in_to_our_server(password: str) -> None:
    """The scramp package logs in to our server and accepts its signature."""
    client = OtherClient(["SCRAM-SHA-256"], "user", password)
    server = ScramServer(make_verifier(password, iterations=4096))

    client.set_server_first(server.challenge(client.get_client_first().encode()).decode())
    server_final = server.finish(client.get_client_final().encode())

    assert server_final is not None
    client.set_server_final(server_final.decode())


def test_verifier_is_the_one_that_another_implementation_makes() -> None:
    """StoredKey and ServerKey agree with scramp's."""
    salt, stored_key, server_key, iterations = OtherMechanism().make_auth_info("pencil", 4096, SALT)

    assert make_verifier("pencil", iterations=4096) == ScramVerifier(iterations, salt, stored_key, server_key)


def test_nonces_are_fresh_and_printable() -> None:
    """Each exchange has its own nonces, made of characters that the RFC allows."""
    verifier = make_verifier("pencil")
    clients = [ScramClient("pencil").first() for _ in range(50)]
    servers = [ScramServer(verifier).challenge(CLIENT_FIRST) for _ in range(50)]

    assert len({*clients, *servers}) == 100
    assert all(re.fullmatch(rb"n,,n=,r=[!-+\--~]{24}", message) for message in clients)
    assert all(re.match(rb"r=%b[!-+\--~]{24},s=" % CLIENT_NONCE, message) for message in servers)


# -- What the server refuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password", ["wrong", "", "pencil ", "Pencil"], ids=["other", "empty", "longer", "capital"]
)
def test_wrong_password(password: str) -> None:
    """A proof made from another password is well-formed, and not accepted."""
    client = ScramClient(password, CLIENT_NONCE, b"user")

    assert begun_server().finish(client.respond(SERVER_FIRST)) is None


def test_a_proof_does_not_fit_another_exchange() -> None:
    """The same nonce with another server nonce is another exchange: a recorded proof is worthless."""
    server = ScramServer(make_verifier("pencil", iterations=4096), b"another")
    server.challenge(CLIENT_FIRST)

    with pytest.raises(ProtocolError, match="nonce does not match"):
        server.finish(CLIENT_FINAL)


@pytest.mark.parametrize(
    "message",
    [
        b"y,,n=user,r=abc",
        b"n,,n=,r=abc",
        b"n,,n=another,r=abc",
        b"n,,n=user,r=abc,x=extension",
        b"n,,n=\xff,r=abc",
    ],
    ids=["y flag", "no user", "other user", "extension", "not UTF-8"],
)
def test_client_first_that_is_answered(message: bytes) -> None:
    """The flags n and y are accepted, the user name is ignored, and so are optional extensions."""
    server = ScramServer(make_verifier("pencil"), b"xyz")

    assert server.challenge(message) == b"r=abcxyz,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "GS2 header"),
        (b"n", "GS2 header"),
        (b"n,", "GS2 header"),
        (b"n,,", "attribute expected"),
        (b"p=tls-server-end-point,,n=,r=abc", "includes channel binding data"),
        (b"x,,n=,r=abc", "unexpected channel-binding flag"),
        (b",,n=,r=abc", "unexpected channel-binding flag"),
        (b"nn,,n=,r=abc", "unexpected channel-binding flag"),
        (b"n,a=admin,n=,r=abc", "authorization identity"),
        (b"n,x,n=,r=abc", "authorization identity"),
        (b"n,,m=must,n=,r=abc", "expected attribute 'n'"),
        (b"n,,r=abc", "expected attribute 'n'"),
        (b"n,,n=", "expected attribute 'r'"),
        (b"n,,n=,n=,r=abc", "expected attribute 'r'"),
        (b"n,,n=,r", "attribute expected"),
        (b"n,,n=,r:abc", "attribute expected"),
        (b"n,,n=,1=abc", "attribute expected"),
        (b"n,,n=,r=abc,", "attribute expected"),
        (b"n,,n=,r=", "non-printable"),
        (b"n,,n=,r=a b", "non-printable"),
        (b"n,,n=,r=a\x00b", "non-printable"),
        (b"n,,n=,r=\xc3\xa4", "non-printable"),
        (b"n,,n=,r=abc\n", "non-printable"),
    ],
)
def test_client_first_that_is_refused(message: bytes, reason: str) -> None:
    """What is malformed, or asks for what we do not offer, is refused with the reason."""
    with pytest.raises(ProtocolError, match=reason):
        ScramServer(make_verifier("pencil")).challenge(message)


PROOF = b64encode(bytes(32))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "proof is missing"),
        (b"c=biws,r=NONCE", "proof is missing"),
        (b"c=biws,r=NONCE,p=" + PROOF + b",x=more", "malformed proof"),
        (b"c=biws,r=NONCE,p=", "malformed proof"),
        (b"c=biws,r=NONCE,p=!!!!", "malformed proof"),
        (b"c=biws,r=NONCE,p=" + PROOF[:-1], "malformed proof"),
        (b"c=biws,r=NONCE,p=" + PROOF + b"\n", "malformed proof"),
        (b"c=biws,r=NONCE,p=" + b64encode(bytes(31)), "wrong length"),
        (b"c=biws,r=NONCE,p=" + b64encode(bytes(33)), "wrong length"),
        (b"c=eSws,r=NONCE,p=" + PROOF, "channel-binding attribute"),
        (b"c=,r=NONCE,p=" + PROOF, "channel-binding attribute"),
        (b"c=biws,r=rOprNGfwEbeRWgbNEkqO,p=" + PROOF, "nonce does not match"),
        (b"c=biws,r=NONCE1,p=" + PROOF, "nonce does not match"),
        (b"c=biws,r=,p=" + PROOF, "nonce does not match"),
        (b"r=NONCE,p=" + PROOF, "expected attribute 'c'"),
        (b"r=NONCE,c=biws,p=" + PROOF, "expected attribute 'c'"),
        (b"c=biws,p=" + PROOF, "expected attribute 'r'"),
        (b",p=" + PROOF, "attribute expected"),
    ],
)
def test_client_final_that_is_refused(message: bytes, reason: str) -> None:
    """A client-final-message that is malformed, or not of this exchange, is refused with the reason."""
    with pytest.raises(ProtocolError, match=reason):
        begun_server(iterations=1).finish(message.replace(b"NONCE", CLIENT_NONCE + SERVER_NONCE))


def test_the_binding_flag_is_part_of_the_proof() -> None:
    """A client that began with y must say so again in the end, so that nobody strips a binding on the way."""
    server = ScramServer(make_verifier("pencil"), b"xyz")
    server.challenge(b"y,,n=,r=abc")

    with pytest.raises(ProtocolError, match="channel-binding attribute"):
        server.finish(b"c=biws,r=abcxyz,p=" + PROOF)
    assert server.finish(b"c=eSws,r=abcxyz,p=" + PROOF) is None


@given(first=st.binary(max_size=80), final=st.binary(max_size=80))
def test_no_message_breaks_the_server(first: bytes, final: bytes) -> None:
    """Arbitrary bytes are refused with ProtocolError, nothing else."""
    with pytest.raises(ProtocolError):
        ScramServer(make_verifier("pencil")).challenge(b"n," + first)
    with pytest.raises(ProtocolError):
        begun_server(iterations=1).finish(final)


# -- What the client refuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "attribute expected"),
        (b"r=abcx", "expected attribute 's'"),
        (b"r=abcx,s=W22Z", "expected attribute 'i'"),
        (b"s=W22Z,r=abcx,i=4096", "expected attribute 'r'"),
        (b"m=must,r=abcx,s=W22Z,i=4096", "expected attribute 'r'"),
        (b"r=abc,s=W22Z,i=4096", "nonce does not match"),
        (b"r=ab,s=W22Z,i=4096", "nonce does not match"),
        (b"r=xabc,s=W22Z,i=4096", "nonce does not match"),
        (b"r=abc\x7f,s=W22Z,i=4096", "nonce does not match"),
        (b"r=abcx,s=,i=4096", "malformed salt"),
        (b"r=abcx,s=W22,i=4096", "malformed salt"),
        (b"r=abcx,s=\xff\xff\xff\xff,i=4096", "malformed salt"),
        (b"r=abcx,s=W22Z,i=", "iteration count"),
        (b"r=abcx,s=W22Z,i=0", "iteration count"),
        (b"r=abcx,s=W22Z,i=-1", "iteration count"),
        (b"r=abcx,s=W22Z,i=4_096", "iteration count"),
        (b"r=abcx,s=W22Z,i=0x10", "iteration count"),
        (b"r=abcx,s=W22Z,i=" + b"9" * 5000, "iteration count"),
    ],
)
def test_server_first_that_is_refused(message: bytes, reason: str) -> None:
    """A server-first-message that is malformed, or not of this exchange, is refused with the reason."""
    with pytest.raises(ProtocolError, match=reason):
        ScramClient("pencil", b"abc").respond(message)


@pytest.mark.parametrize("iterations", [MAX_ITERATIONS + 1, 0x7FFFFFFF, 9_999_999_999])
def test_too_many_rounds_are_not_done(iterations: int) -> None:
    """A server cannot make us compute for minutes: beyond the bound the login fails at once."""
    with pytest.raises(LoginFailed, match=f"asks for {iterations} SCRAM iterations"):
        ScramClient("pencil", b"abc").respond(b"r=abcx,s=W22Z,i=%d" % iterations)


def test_the_bound_on_rounds_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rounds as the bound are done, one more is not, in both roles."""
    monkeypatch.setattr("hyperpool.auth.scram.MAX_ITERATIONS", 5)

    assert ScramClient("pencil", b"abc").respond(b"r=abcx,s=W22Z,i=5")
    assert make_verifier("pencil", iterations=5).accepts("pencil")
    with pytest.raises(LoginFailed, match="more than our limit of 5"):
        ScramClient("pencil", b"abc").respond(b"r=abcx,s=W22Z,i=6")
    assert not make_verifier("pencil", iterations=6).accepts("pencil")


def test_server_first_with_an_extension_is_answered() -> None:
    """Optional extensions at the end are ignored, but part of what is signed."""
    client, plain = (ScramClient("pencil", b"abc") for _ in range(2))

    answer = client.respond(b"r=abcx,s=W22Z,i=1,x=extension")

    assert answer.startswith(b"c=biws,r=abcx,p=")
    assert answer != plain.respond(b"r=abcx,s=W22Z,i=1")


@pytest.mark.parametrize(
    ("message", "failure", "reason"),
    [
        (b"v=" + b64encode(bytes(32)), LoginFailed, "could not prove"),
        (SERVER_FINAL[:-5] + b"A5G4=", LoginFailed, "could not prove"),
        (b"v=" + b64encode(b"short"), LoginFailed, "could not prove"),
        (b"e=invalid-proof", LoginFailed, "with an error"),
        (b"", ProtocolError, "attribute expected"),
        (b"v=", ProtocolError, "malformed server signature"),
        (b"v=x", ProtocolError, "malformed server signature"),
        (b"x=" + SERVER_FINAL[2:], ProtocolError, "expected attribute 'v'"),
    ],
)
def test_server_final_that_is_refused(message: bytes, failure: type[Exception], reason: str) -> None:
    """A server that does not know the verifier is not trusted."""
    client = ScramClient("pencil", CLIENT_NONCE, b"user")
    client.respond(SERVER_FIRST)

    with pytest.raises(failure, match=reason):
        client.verify(message)


@given(first=st.binary(max_size=80), final=st.binary(max_size=80))
def test_no_message_breaks_the_client(first: bytes, final: bytes) -> None:
    """Arbitrary bytes are refused with ProtocolError or LoginFailed, nothing else."""
    client = ScramClient("pencil", b"abc")

    with pytest.raises(ProtocolError):
        client.respond(first)
    with pytest.raises((ProtocolError, LoginFailed)):
        client.verify(final)


# -- Keys ----------------------------------------------------------------------------------------------------


def test_salted_password_is_pbkdf2_of_the_prepared_password() -> None:
    """The slow step is PBKDF2-HMAC-SHA-256 over the password in its normal form."""
    assert salted_password("\u2168", b"salt", 3) == pbkdf2_hmac("sha256", b"IX", b"salt", 3)


def test_slow_step_is_done_once_per_password_salt_and_rounds() -> None:
    """A second login with the same secret costs no PBKDF2, and the memory for this is bounded."""
    before = salted_password.cache_info()
    for _ in range(3):
        ScramClient("only here", b"abc").respond(b"r=abcx,s=W22Z,i=7")
    after = salted_password.cache_info()

    assert (after.misses - before.misses, after.hits - before.hits) == (1, 2)
    assert after.maxsize == 4096


def test_cleartext_password_against_a_verifier() -> None:
    """A verifier recognizes its password in any form that SASLprep makes equal, and no other."""
    verifier = make_verifier("IX", iterations=10)

    assert verifier.accepts("IX")
    assert verifier.accepts("\u2168")
    assert not verifier.accepts("ix")
    assert not verifier.accepts("")


def test_guesses_leave_the_cache_alone() -> None:
    """Cleartext passwords that clients try do not push the keys of real ones out."""
    before = salted_password.cache_info()

    make_verifier("pencil").accepts("guess")

    assert salted_password.cache_info() == before


def test_cleartext_password_that_is_too_long_to_hash() -> None:
    """Beyond pgbouncer's bound a password is wrong without a look at it."""
    longest = "x" * MAX_CLEARTEXT_LENGTH

    assert make_verifier(longest).accepts(longest)
    assert not make_verifier(longest + "x").accepts(longest + "x")


def test_verifier_with_too_many_rounds_accepts_no_cleartext() -> None:
    """A stored verifier cannot make us compute for minutes."""
    verifier = ScramVerifier(MAX_ITERATIONS + 1, SALT, bytes(32), bytes(32))

    assert not verifier.accepts("pencil")
