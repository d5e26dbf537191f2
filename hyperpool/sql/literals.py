"""Telling texts apart that have more than literals apart from each other, without reading them again.

A text is split into pieces that look like literals, and what is between them. Once the scanner has told which of the
pieces are literals of their own (not parts of names, of comments, of longer tokens), other literals in their places
make another text of the same meaning, as long as all else is the same, byte for byte: the scanner is in the same state
behind a string or a number, whatever the string or the number is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from hyperpool.sql.canonical import Canonical
    from hyperpool.sql.reading import Reading

__all__ = ["Pattern", "Split", "pattern", "split"]

_PIECE: Final = re.compile(rb"([0-9'](?:(?<=')(?:[^']++|'')*+'|(?<=[0-9])[0-9]*+))")
"""A string or digits. (It begins with a set of characters, which is searched for faster than alternatives are.)"""

_INT4: Final = 2147483647
_INT8: Final = 9223372036854775807

_STRING: Final = 0
"""What kind a string is; the kinds of numbers are 1 (int4), 2 (int8) and 3 (numeric)."""


@attrs.frozen
class Split:
    """A text in pieces.

    Attributes:
        pieces: what looks like literals.
        shape: all else, and what kind each piece is of.
    """

    pieces: list[bytes]
    shape: tuple[bytes, bytes]


@attrs.frozen
class Pattern:
    """Which pieces of texts of one shape are literals.

    Attributes:
        form: the canonical form, to be filled in with the literals by ``%``.
        free: the indices of the pieces that are literals, in order.
        strings: of those, the strings'.
        fixed: the others, and what they are.
        reading: what the texts mean.
    """

    form: bytes
    free: tuple[int, ...]
    strings: tuple[int, ...]
    fixed: tuple[tuple[int, bytes], ...]
    reading: Reading

    def fits(self, pieces: list[bytes]) -> bool:
        """Whether a text of the same shape has the same meaning, but for what its literals are."""
        return all(pieces[index] == piece for index, piece in self.fixed)


def split(text: bytes) -> Split:
    """Take a text apart."""
    parts = _PIECE.split(text)
    pieces = parts[1::2]
    return Split(pieces, (b"\0".join(parts[::2]), bytes([_kind(piece) for piece in pieces])))


def pattern(text: bytes, found: Canonical, reading: Reading) -> Pattern | None:
    """Find which pieces of a text are literals.

    Args:
        text: the text.
        found: its canonical form.
        reading: what it means.

    Returns:
        None if what looks like pieces is not what the scanner finds.
    """
    starts = dict(found.literals)
    free: list[int] = []
    strings: list[int] = []
    fixed: list[tuple[int, bytes]] = []
    for index, piece in enumerate(_PIECE.finditer(text)):
        if starts.get(piece.start()) == piece.end():
            free.append(index)
            if piece[0][:1] == b"'":
                strings.append(index)
        else:
            fixed.append((index, piece[0]))
    if len(free) != len(found.literals):
        return None
    return Pattern(found.form, tuple(free), tuple(strings), tuple(fixed), reading)


def _kind(piece: bytes) -> int:
    if piece[0] == 39:
        return _STRING
    if len(piece) < 10:
        return 1
    number = int(piece) if len(piece) < 20 else _INT8 + 1
    return 1 if number <= _INT4 else 2 if number <= _INT8 else 3
