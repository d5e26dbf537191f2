"""The short form of a client's SCRAM exchange: it answers as the long one does, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.auth import proof as proofs
from hyperpool.auth import scram
from hyperpool.auth.proof import ScramProof
from hyperpool.auth.scram import ScramClient, ScramVerifier, challenge_end
from hyperpool.auth.server_side import ClientAuthentication
from hyperpool.config import AuthType, Secret
from hyperpool.errors import HyperpoolError
from hyperpool.wire import messages

# RFC 7677, section 3.
STORED = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)
CLIENT_NONCE = b"rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
FIRST = messages.sasl_initial_response("SCRAM-SHA-256", b"n,,n=user,r=" + CLIENT_NONCE)
CHALLENGE = b"r=" + CLIENT_NONCE + SERVER_NONCE + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = messages.sasl_response(
    b"c=biws,r=" + CLIENT_NONCE + SERVER_NONCE + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SIGNATURE = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@pytest.fixture(autouse=True)
def _nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody draws another one."""
    for module in (scram, proofs):
        monkeypatch.setattr(module, "make_nonce", lambda: SERVER_NONCE)


def long_way() -> ClientAuthentication:
    """The same exchange, behind the offer."""
    authentication = ClientAuthentication(AuthType.SCRAM_SHA_256, "user", Secret(STORED), bytes(32))
    authentication.start()
    return authentication


def verifier() -> ScramVerifier:
    """What is stored."""
    found = long_way().verifier
    assert found is not None
    return found


def short_way() -> ScramProof:
    """The short one."""
    return ScramProof(verifier(), challenge_end(verifier()))


def receive(authentication: ClientAuthentication, data: bytes) -> bytes | str:
    """What the long way makes of one message; if it refuses it, why."""
    try:
        return authentication.receive(data[0], data[5:])
    except HyperpoolError as error:
        return str(error)


def test_the_example_of_the_rfc() -> None:
    """Byte for byte."""
    proof = short_way()
    begun = [proof.begun]
    assert proof.challenge(FIRST) == messages.authentication_sasl_continue(CHALLENGE)
    begun.append(proof.begun)
    assert begun == [False, True]
    assert proof.conclude(FINAL) == messages.authentication_sasl_final(SIGNATURE)


@pytest.mark.parametrize("user", [b"", b"user", b"a=2Cb", b"\xc3\xa9\n"])
@pytest.mark.parametrize("header", [b"n,,", b"y,,"])
@pytest.mark.parametrize("nonce", [b"!", b"~" * 200, CLIENT_NONCE])
def test_usual_clients(user: bytes, header: bytes, nonce: bytes) -> None:
    """They are answered as on the long way."""
    client = ScramClient("pencil", nonce, user, header)
    first = messages.sasl_initial_response("SCRAM-SHA-256", client.first())
    proof, authentication = short_way(), long_way()
    challenge = proof.challenge(first)
    assert challenge == receive(authentication, first)
    final = messages.sasl_response(client.respond(challenge[9:]))
    answer = proof.conclude(final)
    assert answer == receive(authentication, final)
    client.verify(answer[9:])


_SPOILS = st.tuples(
    st.integers(0, 200),
    st.integers(0, 3),
    st.binary(max_size=4) | st.sampled_from([b",", b"=", b",x=1", b"\0"]),
)


def spoil(data: bytes, at: int, removed: int, added: bytes, *, announced: bool) -> bytes:
    """Change a message in one place; its length says so, or does not."""
    at %= len(data)
    changed = data[:at] + added + data[at + removed :]
    return changed[:1] + (len(changed) - 1).to_bytes(4) + changed[5:] if announced else changed


@given(_SPOILS, st.booleans())
def test_a_first_message_that_is_changed(change: tuple[int, int, bytes], announced: bool) -> None:
    """It is answered as on the long way, or nothing has happened."""
    data = spoil(FIRST, *change, announced=announced)
    proof = short_way()
    answer = proof.challenge(data)
    if answer:
        assert answer == receive(long_way(), data)
    else:
        assert not proof.begun
        assert proof.challenge(FIRST) == messages.authentication_sasl_continue(CHALLENGE)


@given(_SPOILS, st.booleans())
def test_a_proof_that_is_changed(change: tuple[int, int, bytes], announced: bool) -> None:
    """It is answered as on the long way, which goes on with the same exchange."""
    data = spoil(FINAL, *change, announced=announced)
    proof, all_long, late = short_way(), long_way(), long_way()
    proof.challenge(FIRST)
    receive(all_long, FIRST)
    answer = proof.conclude(data)
    late.challenged(proof.exchange())
    if len(data) < 5:
        assert not answer
        return
    expected = receive(all_long, data)
    assert receive(late, data) == expected
    assert (late.done, late.shown) == (all_long.done, all_long.shown)
    if answer:
        assert answer == expected


@pytest.mark.parametrize("data", [b"", b"p", FIRST[:-1], FIRST + b"Q", FIRST[:30], b"Q" + FIRST[1:], FINAL])
def test_what_is_no_first_message(data: bytes) -> None:
    """Nothing is read beyond its end."""
    assert short_way().challenge(data) == b""


@pytest.mark.parametrize("data", [b"", b"p", FINAL[:-1], FINAL + b"Q", FINAL[:30], b"Q" + FINAL[1:], FIRST])
def test_what_is_no_proof(data: bytes) -> None:
    """Nothing is read beyond its end."""
    proof = short_way()
    proof.challenge(FIRST)
    assert proof.conclude(data) == b""
