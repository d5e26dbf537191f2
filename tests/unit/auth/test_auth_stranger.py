"""What stands in place of the secrets of users that do not exist."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.auth.scram import ScramVerifier
from hyperpool.auth.secrets import MD5Digest, PlainPassword
from hyperpool.auth.stranger import PLAIN, SERVERS, Likeness, Usual, likeness, mock_salt, stand_in
from hyperpool.config import Secret

KEY = bytes(32)
VERIFIER = Secret(f"SCRAM-SHA-256$777:c2FsdA==${'A' * 43}=:{'A' * 43}=")
DIGEST = Secret("md5" + "0" * 32)


def test_what_is_usual() -> None:
    """That of which there are most; what lets nobody in does not count."""
    usual = Usual([Secret("a"), DIGEST, Secret(""), Secret("")], SERVERS)
    assert usual.likeness == PLAIN
    usual.add(DIGEST)
    assert usual.likeness == Likeness(MD5Digest)
    usual.add(VERIFIER)
    usual.add(Secret(""))
    assert usual.likeness == Likeness(MD5Digest)
    for _ in range(2):
        usual.add(VERIFIER)
    assert usual.likeness == Likeness(ScramVerifier, 777, 4)


def test_nothing_is_usual_yet() -> None:
    """Then what was said counts; and what is counted has a bound."""
    usual = Usual([], SERVERS)
    assert usual.likeness == SERVERS
    for rounds in range(1, 1000):
        usual.add(Secret(VERIFIER.reveal().replace("777", str(rounds))))
    assert usual.likeness.iterations == 1
    assert len(usual._counted) == 64


@pytest.mark.parametrize("usual", [PLAIN, Likeness(MD5Digest), Likeness(ScramVerifier, 5, 100)], ids=str)
def test_a_stand_in_is_like_the_others(usual: Likeness) -> None:
    """The same from try to try, another for another user or another key."""
    made = stand_in("ann", KEY, usual)
    assert made == stand_in("ann", KEY, usual)
    assert made not in {stand_in("bob", KEY, usual), stand_in("ann", b"another", usual)}
    match made:
        case PlainPassword(text):
            assert likeness(Secret(text)) == usual
        case MD5Digest(digest):
            assert likeness(Secret(f"md5{digest}")) == usual
        case ScramVerifier(iterations, salt, _, _):
            assert (iterations, len(salt)) == (usual.iterations, usual.salt_length)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.integers(0, 200))
def test_salts_of_any_length(user: str, length: int) -> None:
    """A longer one begins like a shorter one."""
    salt = mock_salt(user, KEY, length)
    assert len(salt) == length
    assert mock_salt(user, KEY, 200).startswith(salt)
