"""Telling texts apart that have more than literals apart from each other, without reading them again.

A text is split into pieces that look like literals, and what is between them. Once the scanner has told which of the
pieces are literals of their own (not parts of names, of comments, of longer tokens), other literals in their places
make another text of the same meaning, as long as all else is the same, byte for byte: the scanner is in the same state
behind a string or a number, whatever the string or the number is.
"""

from __future__ import annotations

import re
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.sql.canonical import Canonical
    from hyperpool.sql.reading import Reading

__all__ = ["Pattern", "pattern", "split"]

_PIECE: Final = re.compile(rb"([0-9'](?:(?<=')(?:[^']++|'')*+'|(?<=[0-9])[0-9]*+))")
"""A string or digits. (It begins with a set of characters, which is searched for faster than alternatives are.)"""

split: Final = _PIECE.split
"""Takes a text apart: every second part is a piece that looks like a literal."""

_QUOTE: Final = 39

_INT4: Final = 2147483647
_INT8: Final = 9223372036854775807

_STRING: Final = 0

_Want: TypeAlias = "int | bytes"
"""A piece that is no literal; or what kind the literal is of: a string, or 1 (int4), 2 (int8) or 3 (numeric)."""


@attrs.frozen(eq=False)
class Pattern:
    """Which pieces of a text are literals.

    Attributes:
        form: the canonical form, to be filled in with the literals by ``%``.
        wanted: what each piece has to be.
        literals: picks those that are literals, for the form.
        strings: which of them are strings.
        reading: what the text means, and all that fit.
    """

    form: bytes
    wanted: tuple[_Want, ...]
    literals: Callable[[list[bytes]], object]
    strings: tuple[int, ...]
    reading: Reading

    def fits(self, pieces: list[bytes]) -> bool:
        """Whether a text that is the same around its pieces has the same meaning, but for what its literals are."""
        for piece, want in zip(pieces, self.wanted, strict=True):
            if want.__class__ is int:
                if _kind(piece) != want:
                    return False
            elif piece != want:
                return False
        return True


def pattern(text: bytes, found: Canonical, reading: Reading) -> Pattern | None:
    """Find which pieces of a text are literals.

    Args:
        text: the text.
        found: its canonical form.
        reading: what it means.

    Returns:
        None if the pieces are not what the scanner finds.
    """
    ends = dict(found.literals)
    wanted: list[_Want] = []
    free: list[int] = []
    strings: list[int] = []
    for index, piece in enumerate(_PIECE.finditer(text)):
        if ends.get(piece.start()) != piece.end():
            wanted.append(piece[0])
            continue
        kind = _kind(piece[0])
        wanted.append(kind)
        free.append(index)
        if kind == _STRING:
            strings.append(index)
    if len(free) != len(found.literals):
        return None
    literals = itemgetter(*free) if free else _no_literals
    return Pattern(found.form, tuple(wanted), literals, tuple(strings), reading)


def _no_literals(_pieces: list[bytes]) -> tuple[()]:
    return ()


def _kind(piece: bytes) -> int:
    if piece[0] == _QUOTE:
        return _STRING
    if len(piece) < 10:
        return 1
    number = int(piece) if len(piece) < 20 else _INT8 + 1
    return 1 if number <= _INT4 else 2 if number <= _INT8 else 3
