"""A text that must not be shown."""

from __future__ import annotations

import hmac
from typing import final


@final
class Secret:
    """Holds a password, or what is stored in place of one, and keeps it out of logs and error messages.

    It is false when it is empty. Two secrets are equal when their texts are; the comparison takes the same
    time whatever they hold.

    Args:
        text: the secret; bytes that are not UTF-8 as lone surrogates (PEP 383).
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._raw(), other._raw())

    def __hash__(self) -> int:
        return hash(self._text)

    def _raw(self) -> bytes:
        return self._text.encode(errors="surrogatepass")
