"""What is taken for the stored secret of a user of whom nothing is stored, so that strangers do not stand out.

As in PostgreSQL (its source, ``mock_scram_secret``), an exchange with such a user has a salt that follows from the name
and from a key that nobody knows, and as many rounds as are usual. What is usual is what most stored secrets are like:
a stranger is asked for the same, and its password costs us the same, as with most of those who exist.
"""

from __future__ import annotations

import hmac
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.auth.scram import DEFAULT_ITERATIONS, KEY_LENGTH, SALT_LENGTH, ScramVerifier
from hyperpool.auth.secrets import MD5Digest, PlainPassword, parse_secret
from hyperpool.wire.text import encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hyperpool.config import Secret

_MOST: Final = 64
"""Kinds of secrets that are counted."""

_REMEMBERED: Final = 4096


@attrs.frozen
class Likeness:
    """What a client can tell of a stored secret.

    Attributes:
        kind: its form.
        iterations: rounds of PBKDF2, of a `ScramVerifier`.
        salt_length: bytes of salt, of a `ScramVerifier`.
    """

    kind: type[PlainPassword | MD5Digest | ScramVerifier]
    iterations: int = 0
    salt_length: int = 0


PLAIN: Final = Likeness(PlainPassword)
"""Of a password."""

SERVERS: Final = Likeness(ScramVerifier, DEFAULT_ITERATIONS, SALT_LENGTH)
"""Of what PostgreSQL stores, if nothing else is set there."""


def likeness(secret: Secret) -> Likeness:
    """What a client can tell of a stored secret."""
    stored = parse_secret(secret.reveal())
    if isinstance(stored, ScramVerifier):
        return Likeness(ScramVerifier, stored.iterations, len(stored.salt))
    return Likeness(type(stored))


class Usual:
    """What most secrets are like.

    Args:
        secrets: that are known from the beginning; those that are empty let nobody in, and do not count.
        default: what counts while there are none.

    Attributes:
        likeness: of most; among equals, of the one that came first.
    """

    __slots__ = ("_counted", "likeness")

    def __init__(self, secrets: Iterable[Secret], default: Likeness) -> None:
        self._counted = Counter(likeness(secret) for secret in secrets if secret)
        self.likeness = max(self._counted, key=self._counted.__getitem__, default=default)

    def add(self, secret: Secret) -> None:
        """One more is known."""
        if not secret:
            return
        of_it = likeness(secret)
        if of_it not in self._counted and len(self._counted) >= _MOST:
            return
        self._counted[of_it] += 1
        if self._counted[of_it] > self._counted[self.likeness]:
            self.likeness = of_it


def mock_salt(user: str, key: bytes, length: int = SALT_LENGTH) -> bytes:
    """A salt that is the same from try to try.

    Args:
        user: whose.
        key: random bytes that nobody knows.
        length: in bytes; from 65 on, they repeat themselves.
    """
    digest = hmac.digest(key, encode(user), "sha512")
    return (digest * (1 + length // len(digest)))[:length]


@lru_cache(_REMEMBERED)
def stand_in(user: str, key: bytes, usual: Likeness) -> PlainPassword | MD5Digest | ScramVerifier:
    """A secret that nobody knows; remembered, as what real ones mean is (`parse_secret`).

    Args:
        user: whose; it is the same from try to try.
        key: random bytes that nobody knows.
        usual: what it is like.
    """
    if usual.kind is ScramVerifier:
        return mock_verifier(user, key, usual.iterations, usual.salt_length)
    unknown = _unknown(user, key)
    return PlainPassword(unknown.hex()) if usual.kind is PlainPassword else MD5Digest(unknown[:16].hex())


@lru_cache(_REMEMBERED)
def mock_verifier(user: str, key: bytes, iterations: int, salt_length: int = SALT_LENGTH) -> ScramVerifier:
    """A verifier of a password that nobody knows, with a salt of `mock_salt`; remembered, as real ones are."""
    unknown = _unknown(user, key)
    salt = mock_salt(user, key, salt_length)
    return ScramVerifier(iterations, salt, unknown[:KEY_LENGTH], unknown[KEY_LENGTH:])


def _unknown(user: str, key: bytes) -> bytes:
    return hmac.digest(key, b"secret of " + encode(user), "sha512")
