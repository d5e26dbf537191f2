"""The first look at a text of SQL: whether it can change nothing in the session, for sure and at next to no cost.

This is the form in Python; `glance.pyx` is the same in C, which `hyperpool.form` prefers. tests/props/test_forms.py
holds them to be equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Glance:
    """Knows which beginnings and words are harmless; before it has learned any, nothing is."""

    __slots__ = ("_ascii_only", "_calls", "_needles", "_never", "_starts")

    def __init__(self) -> None:
        self._starts: dict[bytes, int] = {}
        self._needles: tuple[bytes, ...] = ()
        self._calls: tuple[bytes, ...] = ()
        self._ascii_only = False
        self._never = False

    def learn(
        self,
        starts: Mapping[str, int],
        needles: Iterable[str],
        calls: Iterable[str],
        *,
        ascii_only: bool,
        never: bool,
    ) -> None:
        """Take the place of what was learned before.

        Args:
            starts: the first four characters of harmless texts, in lower case, and whether they are of a query: what
                is behind those of a query may have an effect.
            needles: what a harmless query does not contain, in lower case.
            calls: what a harmless query with a parenthesis does not contain.
            ascii_only: a text that is not ASCII needs a closer look.
            never: and so does every query.
        """
        self._starts = {start.encode(): kind for start, kind in starts.items() if len(start) == 4}
        self._needles = tuple(needle.encode() for needle in needles)
        self._calls = (*self._needles, *(call.encode() for call in calls))
        self._ascii_only = ascii_only
        self._never = never

    def passes(self, text: bytes | bytearray, start: int, end: int) -> bool:
        """Tell whether a text is harmless; if not, a closer look may find that it is.

        Args:
            text: holds the text.
            start: where it begins.
            end: where it ends.
        """
        low = text[start:end].lower()
        kind = self._starts.get(bytes(low[:4]))
        if kind is None or (b";" in low and low.find(b";") < len(low) - 1):
            return False
        if self._ascii_only and not low.isascii():
            return False
        if not kind:
            return True
        if self._never or (b"temp" in low and (b"pg_temp" in low or b"into" in low)) or b'u&"' in low:
            return False
        for name in self._calls if b"(" in low else self._needles:  # noqa: SIM110 - a generator takes longer
            if name in low:
                return False
        return True
