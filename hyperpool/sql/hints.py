"""Hints in comments: ``/*+ hyperpool: max_age=5s, stale_while_revalidate=0s */``, ``/*+ hyperpool: nocache */``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hyperpool.config.units import parse_duration
from hyperpool.sql.reading import Hint

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["read_hint"]

_HINT: Final = re.compile(r"/\*\+\s*hyperpool\s*:(.*)\*/", re.DOTALL | re.IGNORECASE)

_AGES: Final = frozenset({"max_age", "stale_while_revalidate"})

_NOCACHE: Final = Hint(nocache=True)


def read_hint(comments: Iterable[str]) -> Hint | None:
    """Read the hints among the comments of a text.

    Whoever writes a hint that cannot be understood wants something special, and gets no answer from the cache rather
    than one that may be too old.

    Args:
        comments: with their delimiters.

    Returns:
        What they ask for together, of two ages the shorter one; None if there is no hint.
    """
    ages: dict[str, float] = {}
    hinted = False
    for comment in comments:
        match = _HINT.fullmatch(comment)
        if match is None:
            continue
        hinted = True
        for item in match[1].split(","):
            name, _, value = (part.strip() for part in item.partition("="))
            try:
                seconds = parse_duration(value)
            except ValueError:
                return _NOCACHE
            if name not in _AGES:
                return _NOCACHE
            ages[name] = min(seconds, ages.get(name, seconds))
    if not hinted:
        return None
    return Hint(max_age=ages.get("max_age"), stale_while_revalidate=ages.get("stale_while_revalidate"))
