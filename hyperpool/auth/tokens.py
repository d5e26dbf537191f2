"""Service tokens: who may come in through a tunnel.

A token is a pair of an id and a secret, sent as the HTTP headers ``CF-Access-Client-Id`` and
``CF-Access-Client-Secret`` (the names of Cloudflare Access, so that the same client works behind either).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

ID_HEADER: Final = b"cf-access-client-id"
SECRET_HEADER: Final = b"cf-access-client-secret"

_FINGERPRINT: Final = 12


@attrs.frozen
class Token:
    """A token that is accepted.

    Attributes:
        name: what the settings call it; may be logged, as may the id.
        id: its public half.
        digest: SHA-256 of its secret half. Secrets are long and random, so that salt and stretching would add nothing.
    """

    name: str
    id: str
    digest: bytes = attrs.field(repr=False)


class TokenTable:
    """The tokens that are accepted now.

    Args:
        tokens: several may have the same id or the same name, as while a secret is being replaced.
    """

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._tokens = tuple(tokens)
        self._ids = tuple(secret_digest(token.id.encode()) for token in self._tokens)

    def verify(self, token_id: bytes, secret: bytes) -> Token | None:
        """Find the token that was presented.

        The time that this takes depends on what was presented and on how many tokens there are, and neither on which
        token it is nor on whether id or secret are known: every token is looked at, by digests, in constant time.

        Args:
            token_id: as received; empty when there was none.
            secret: as received.
        """
        presented_id, presented = secret_digest(token_id), secret_digest(secret)
        found: Token | None = None
        for token, known_id in zip(self._tokens, self._ids, strict=True):
            same_id = hmac.compare_digest(known_id, presented_id)
            same_secret = hmac.compare_digest(token.digest, presented)
            found = token if same_id & same_secret else found
        return found

    def describe(self, token_id: bytes) -> str:
        """What a log may say about an id that was presented and not let in.

        An id that is known is shown. Any other may be a secret in the wrong place, and is shown as a fingerprint.
        """
        if not token_id:
            return "none"
        shown = next((token.id for token in self._tokens if token.id.encode() == token_id), None)
        return shown or f"unknown (sha256 {hashlib.sha256(token_id).hexdigest()[:_FINGERPRINT]}...)"

    def holds(self, token: Token) -> bool:
        """Whether a token that was let in earlier is still one that would be."""
        return token in self._tokens


def secret_digest(secret: bytes) -> bytes:
    """What is kept of a secret: its SHA-256."""
    return hashlib.sha256(secret).digest()
