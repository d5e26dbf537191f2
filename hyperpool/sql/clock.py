"""Values that mean the clock: ``'now'``, ``'today'`` and their like.

PostgreSQL takes such a word for the time at which it reads the value, wherever a value of a date or time type is read
from text: also next to other parts of a date, and inside of arrays, ranges and rows (PostgreSQL documentation, "Date/
Time Types", "Special Values"; "Arrays", "Array Input and Output Syntax").
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["mentions_clock"]

_WORDS: Final = (b"now", b"today", b"tomorrow", b"yesterday")

_WORD: Final = re.compile(rb"(?<![a-z])(?:now|today|tomorrow|yesterday)(?![a-z])")
"""A date is taken apart into runs of letters, digits and the rest."""

_SILENT: Final = bytes.maketrans(b"", b""), b'\\"'
"""Quotes and backslashes are part of how arrays and rows are written: ``{to"da"y}``."""


def mentions_clock(value: bytes) -> bool:
    """Whether a value in text format may mean the clock if its type is made of dates or times.

    Args:
        value: a string's content, or several with something between them that is no letter.
    """
    low = value.lower()
    if b'"' in low or b"\\" in low:
        return _mentioned(low) or _mentioned(low.translate(*_SILENT))
    return _mentioned(low)


def _mentioned(low: bytes) -> bool:
    for word in _WORDS:
        if word in low:
            return _WORD.search(low) is not None
    return False
