"""Making long texts short enough for the parser: by leaving out values.

What is long is nearly always a list of values: the rows of an INSERT, an ``IN (...)``, a large string. A short text of
the same statements tells what they write.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["abridged"]

_STRING: Final = re.compile(rb"'(?:[^']++|'')*+'")

_ODD: Final = re.compile(rb"'|--|/\*|&\"|\$(?![0-9])|[\w&$\"\x80-\xff]\0")
"""What may make a string something else than it seems to be, or hide one."""

_VALUE: Final = (
    rb"(?:\0|[+-]?[0-9]++(?:\.[0-9]++)?|\$[0-9]++|(?i:null|true|false|default)(?!\w))"
    rb"(?:::[A-Za-z_]\w*+(?:\[\])?)?+"
)
_LIST: Final = re.compile(rb"\(\s*+" + _VALUE + rb"(?:\s*+,\s*+" + _VALUE + rb")++\s*+\)")
_LISTS: Final = re.compile(rb"\(0\)(?:\s*+,\s*+\(0\))++")
"""Several lists of values, as in ``VALUES (0), (0)``."""


def abridged(text: bytes) -> bytes | None:
    """Leave out values.

    Args:
        text: in an encoding whose strings end where an apostrophe is.

    Returns:
        A text whose statements have the same kinds and name the same tables, columns and functions, though these are
        called with fewer arguments perhaps. None if strings, comments and names cannot be told apart without more ado.
    """
    short = _STRING.sub(b"\0", text)
    if _ODD.search(short):
        return None
    if b'"' in short:
        parts = short.split(b'"')
        if len(parts) % 2 == 0 or any(b"\0" in part or b"(" in part for part in parts[1::2]):
            return None
    short = _LISTS.sub(b"(0)", _LIST.sub(b"(0)", short))
    return short.replace(b"\0", b"''")
