"""SASLprep as PostgreSQL does it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp.utils import saslprep as scramp_saslprep

from hyperpool.auth.saslprep import saslprep
from hyperpool.errors import ProtocolError


@pytest.mark.parametrize(
    ("password", "prepared"),
    [("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX")],
)
def test_examples_of_the_rfc(password: str, prepared: str) -> None:
    """The examples of RFC 4013 that do not fail come out as it says."""
    assert saslprep(password) == prepared.encode()


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\u200b", "\u3000"])
def test_every_space_is_an_ascii_space(space: str) -> None:
    """Spaces of other scripts become the ASCII space; U+200B, too, although another table would drop it."""
    assert saslprep(f"a{space}b") == b"a b"


def test_right_to_left_text_is_normalized() -> None:
    """A password in Hebrew with a presentation form is valid and normalized."""
    assert saslprep("\u05d0\ufb2a") == "\u05d0\u05e9\u05c1".encode()


@pytest.mark.parametrize(
    "password",
    [
        "\u0007",
        "caf\u00e9\u0007",
        "\u00adx\u0340",
        "\u2168\ue000",
        "\u2168\ufdd0",
        "\u2168\ufffd",
        "\u2168\u2ff0",
        "\u2168\U000e0001",
        "\u2168\u0221",
        "\u05d01",
        "1\u05d0",
        "\u05d0a\u05d0",
        "\u00ad",
    ],
    ids=[
        "ASCII control",
        "control",
        "deprecated",
        "private",
        "not a character",
        "replacement",
        "description",
        "tag",
        "unassigned in Unicode 3.2",
        "right-to-left, then a digit",
        "a digit, then right-to-left",
        "left-to-right inside right-to-left",
        "nothing left",
    ],
)
def test_what_saslprep_refuses_is_taken_as_it_is(password: str) -> None:
    """PostgreSQL takes a password that SASLprep refuses unchanged instead of refusing it."""
    assert saslprep(password) == password.encode()


def test_bytes_that_are_not_utf8_are_taken_as_they_are() -> None:
    """A password in another encoding is hashed byte for byte."""
    assert saslprep(b"\xc2\xad caf\xe9".decode("utf-8", "surrogateescape")) == b"\xc2\xad caf\xe9"


def test_what_no_message_can_carry_is_refused() -> None:
    """A zero byte cannot be part of a password."""
    with pytest.raises(ProtocolError):
        saslprep("a\x00b")


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x21F, exclude_categories=["Cc"]), min_size=1))
def test_agrees_with_another_implementation(password: str) -> None:
    """On Latin text, where PostgreSQL does not deviate from the RFC, scramp prepares the same."""
    assert saslprep("\u00e9" + password) == scramp_saslprep("\u00e9" + password).encode()
