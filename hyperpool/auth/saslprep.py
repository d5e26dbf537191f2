"""SASLprep (RFC 4013) as PostgreSQL does it: the normal form of a password for SCRAM.

PostgreSQL deviates from the RFC, and since a password verifier holds a hash of the result, so must we:

- a password of ASCII alone is taken as it is, control characters included;
- a password that SASLprep refuses, or that is not UTF-8, is taken as it is;
- what is prohibited is looked for before normalization, not after.
"""

from __future__ import annotations

import stringprep
import unicodedata

from hyperpool.wire.text import encode

_PROHIBITED = (
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def saslprep(password: str) -> bytes:
    """Bring a password into the form that SCRAM hashes.

    Args:
        password: the password; bytes that are not UTF-8 as lone surrogates (PEP 383).

    Raises:
        ProtocolError: it holds a zero byte, or a surrogate that stands for no byte.
    """
    raw = encode(password)
    if password.isascii():
        return raw
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in password
        if stringprep.in_table_c12(char) or not stringprep.in_table_b1(char)
    )
    if not mapped or _is_prohibited(mapped) or _breaks_bidi_rules(mapped):
        return raw
    return unicodedata.normalize("NFKC", mapped).encode()


def _is_prohibited(text: str) -> bool:
    return any(in_table(char) for char in text for in_table in _PROHIBITED)


def _breaks_bidi_rules(text: str) -> bool:
    """Check RFC 3454 section 6: right-to-left text starts and ends so, and holds nothing left-to-right."""
    if not any(map(stringprep.in_table_d1, text)):
        return False
    return (
        any(map(stringprep.in_table_d2, text))
        or not stringprep.in_table_d1(text[0])
        or not stringprep.in_table_d1(text[-1])
    )
