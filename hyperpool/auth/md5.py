"""PostgreSQL's MD5 password authentication.

The server stores ``md5`` and the hexadecimal digest of password and user name; a client proves that it knows
the digest by hashing it once more with a salt (PostgreSQL documentation, "Message Flow",
AuthenticationMD5Password).
"""

from __future__ import annotations

import hashlib
from typing import Final

SALT_LENGTH: Final = 4
"""Bytes of the salt in AuthenticationMD5Password."""


def digest(password: bytes, user: bytes) -> str:
    """Hash a password as PostgreSQL stores it: 32 hexadecimal digits, without the prefix ``md5``."""
    return _md5_hex(password + user)


def response(stored_digest: str, salt: bytes) -> bytes:
    """Compute the body of the answer to a challenge, without its terminator.

    Args:
        stored_digest: as `digest` returns it.
        salt: the four bytes of the challenge.
    """
    return b"md5" + _md5_hex(stored_digest.encode() + salt).encode()


def _md5_hex(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
