"""Searching texts for names, of which there may be many.

A name is found wherever it stands as a word: as an identifier, quoted or not, and in strings and comments, too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_FEW: Final = 32
"""So many names are found faster one by one than by taking the text apart."""

_CUT: Final = 63
"""Bytes to which the server shortens names (NAMEDATALEN)."""

_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_$]*")

_EDGE: Final = re.compile(r"[\w$]")

_BLANKED: Final = bytes(
    code if code >= 0x80 or chr(code).isalnum() or chr(code) in "_$" else 0x20 for code in range(256)
)
"""Translates what cannot be part of a word to blanks."""


class Names:
    """Names to be found in texts.

    Attributes:
        all: them all, in lower case.
        needles: a text without any of these substrings has none of the names, apart from those for `among`.
        many: they are so many that some have to be looked for by `among`.
        foreign: some are not ASCII, and can only be found in texts that are UTF-8.
    """

    __slots__ = ("_exact", "_words", "all", "foreign", "many", "needles")

    def __init__(self, names: Iterable[str]) -> None:
        self.all = frozenset(name.lower() for name in names)
        self.foreign = not all(name.isascii() for name in self.all)
        plain = {name for name in self.all if _PLAIN.fullmatch(name) and len(name) < _CUT}
        if len(plain) <= _FEW:
            plain.clear()
        self._words = frozenset(name.encode() for name in plain)
        self.many = bool(plain)
        written = sorted(name.replace('"', '""') for name in self.all - plain)
        self.needles = tuple(
            name for name in written if not any(other in name for other in written if other != name)
        )
        self._exact = re.compile("|".join(map(_word, written)))

    def among(self, text: bytes | bytearray) -> bool:
        """Whether a text may have one of those names that have no needle."""
        return not self._words.isdisjoint(_words_of(text))

    def within(self, text: bytes | bytearray, low: str) -> bool:
        """Whether a text has one of the names as a word.

        Args:
            text: as it came.
            low: decoded, and in lower case.
        """
        if any(needle in low for needle in self.needles) and self._exact.search(low):
            return True
        return self.among(text)


def _word(name: str) -> str:
    """A regular expression for a name; of one that the server may have shortened, more may follow."""
    before = r"(?<![\w$])" if _EDGE.match(name[:1]) else ""
    after = r"(?![\w$])" if _EDGE.match(name[-1:]) and len(name.encode()) < _CUT else ""
    return before + re.escape(name) + after


def _words_of(text: bytes | bytearray) -> list[bytes]:
    return bytes(text).lower().translate(_BLANKED).split()
