"""What is stored about a user: a plain password, an MD5 digest or a SCRAM verifier.

The forms are those of ``pg_authid.rolpassword`` and of pgbouncer's ``auth_file``. As in PostgreSQL, a text
that is not exactly of one of the two hashed forms is a plain password.
"""

from __future__ import annotations

import binascii
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.auth.scram import KEY_LENGTH, ScramVerifier
from hyperpool.wire.text import encode

if TYPE_CHECKING:
    from hyperpool.auth.scram import ScramKeys
    from hyperpool.config import Secret

_MD5: Final = re.compile("md5([0-9a-f]{32})")
_SCRAM: Final = re.compile(
    r"SCRAM-SHA-256\$([1-9][0-9]{0,9}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)"
)
_MAX_INT32: Final = 0x7FFFFFFF
_REMEMBERED: Final = 4096


@attrs.frozen
class PlainPassword:
    """The password itself.

    Attributes:
        text: the password; bytes that are not UTF-8 as lone surrogates (PEP 383).
    """

    text: str = attrs.field(repr=False)

    @property
    def raw(self) -> bytes:
        """The password's bytes.

        Raises:
            ProtocolError: it holds a zero byte, which no message can carry.
        """
        return encode(self.text)


@attrs.frozen
class MD5Digest:
    """The MD5 digest of password and user name.

    Attributes:
        digest: 32 lower-case hexadecimal digits, without the prefix ``md5``.
    """

    digest: str = attrs.field(repr=False)


@attrs.frozen
class Shown:
    """What a login of a client has brought to light, and a login to a server may use.

    Attributes:
        secret: the password, if the client has sent it; else what a server has stored about the user; None if that is
            not known from a login.
        keys: what the client has shown in a SCRAM exchange with a stored verifier.
    """

    secret: Secret | None = None
    keys: ScramKeys | None = None


@lru_cache(_REMEMBERED)
def parse_secret(text: str) -> PlainPassword | MD5Digest | ScramVerifier:
    """Tell by its form what a stored secret is; remembered, since each login asks.

    Args:
        text: ``md5`` and 32 hexadecimal digits, or ``SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`` with
            salt and keys in base64, or a plain password.
    """
    if match := _MD5.fullmatch(text):
        return MD5Digest(match[1])
    if match := _SCRAM.fullmatch(text):
        try:
            salt, stored_key, server_key = (
                binascii.a2b_base64(part, strict_mode=True) for part in match.groups()[1:]
            )
        except binascii.Error:
            return PlainPassword(text)
        iterations = int(match[1])
        if len(stored_key) == len(server_key) == KEY_LENGTH and iterations <= _MAX_INT32:
            return ScramVerifier(iterations, salt, stored_key, server_key)
    return PlainPassword(text)
