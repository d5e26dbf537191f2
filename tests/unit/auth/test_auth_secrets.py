"""The forms of stored secrets."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.auth.scram import ScramVerifier
from hyperpool.auth.secrets import MD5Digest, PlainPassword, parse_secret
from hyperpool.errors import ProtocolError

DIGEST = "4a0a68b43b6cd5cf266fa02f196e2371"
SALT = bytes(range(16))
STORED_KEY = bytes(range(100, 132))
SERVER_KEY = bytes(range(200, 232))


def verifier_text(
    iterations: str = "4096",
    salt: bytes = SALT,
    stored_key: bytes = STORED_KEY,
    server_key: bytes = SERVER_KEY,
) -> str:
    """Write a verifier as PostgreSQL stores it."""
    salt64, stored64, server64 = (b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${iterations}:{salt64}${stored64}:{server64}"


def test_md5_digest() -> None:
    """The prefix and 32 lower-case hexadecimal digits are an MD5 digest."""
    assert parse_secret("md5" + DIGEST) == MD5Digest(DIGEST)


@pytest.mark.parametrize("iterations", [1, 4096, 0x7FFFFFFF])
def test_scram_verifier(iterations: int) -> None:
    """A verifier is taken apart."""
    text = verifier_text(str(iterations))

    assert parse_secret(text) == ScramVerifier(iterations, SALT, STORED_KEY, SERVER_KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "md5",
        "md5" + DIGEST[:-1],
        "md5" + DIGEST + "0",
        "md5" + DIGEST + "\n",
        "md5" + DIGEST.upper(),
        "MD5" + DIGEST,
        "SCRAM-SHA-256$",
        verifier_text() + "\n",
        verifier_text() + ":",
        verifier_text("0"),
        verifier_text("-1"),
        verifier_text("4096x"),
        verifier_text("2147483648"),
        verifier_text("9" * 11),
        verifier_text(salt=b""),
        verifier_text(stored_key=STORED_KEY[:-1]),
        verifier_text(server_key=SERVER_KEY + b"x"),
        verifier_text().replace("=", "", 1),
        verifier_text().replace(":", ":!", 1),
        verifier_text().replace("SCRAM-SHA-256$", "SCRAM-SHA-1$"),
    ],
)
def test_everything_else_is_a_plain_password(text: str) -> None:
    """As in PostgreSQL, what only resembles a hashed form is a password like any other."""
    assert parse_secret(text) == PlainPassword(text)


@given(st.text() | st.from_regex(r"SCRAM-SHA-256\$\d+:[\w+/=]*\$[\w+/=]*:[\w+/=]*"))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Whatever is configured is one of the three forms."""
    assert isinstance(parse_secret(text), PlainPassword | MD5Digest | ScramVerifier)


def test_password_bytes() -> None:
    """A password is UTF-8 on the wire; one that no message can carry is refused."""
    assert PlainPassword("Gr\u00fc\u00dfe").raw == b"Gr\xc3\xbc\xc3\x9fe"
    with pytest.raises(ProtocolError):
        _ = PlainPassword("a\x00b").raw


@pytest.mark.parametrize("text", ["secret", "md5" + DIGEST, verifier_text()])
def test_secrets_do_not_show_in_logs(text: str) -> None:
    """The representation of a secret tells nothing that helps to log in."""
    shown = repr(parse_secret(text))

    assert "secret" not in shown
    assert DIGEST not in shown
    assert repr(STORED_KEY) not in shown
    assert repr(SERVER_KEY) not in shown
