"""What session state a text of SQL may change: a look that costs little, and the parser for what looks suspicious.

Nearly all texts change nothing, and every query is read. So a text is first searched for the words without which it
could do nothing: that does not depend on where strings, comments and names begin and end, and thus not on the client's
encoding or ``standard_conforming_strings``. Only a text with such words is parsed (`hyperpool.sql.tree`), and only
where both sides must agree on where its tokens end; otherwise, it may do `EVERYTHING`.

What cannot be seen is what stored code does: functions and triggers (see `EffectReader.learn`), views, operators,
defaults. ``SELECT ... INTO`` makes a bare table, and does not count as a change of the schema.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hyperpool.sql.model import EVERYTHING, NONE, Effects, Pin
from hyperpool.sql.tree import TreeReader, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["EVERYTHING", "EffectReader", "Effects", "Pin"]

LONGEST: Final = 4096
"""Bytes. Longer texts are not parsed: the parser's stack grows with the depth of a text, and its time, with some texts,
with the square of their length."""

CAPACITY: Final = 1 << 20
"""Bytes of texts whose effects are remembered."""

_OVERHEAD: Final = 300
"""Bytes that remembering a text costs apart from the text itself."""

_DEEPEST: Final = 64
"""Comments that may be open at once; the parser's time grows with the square of their depth."""

_HARMLESS: Final = 0
_QUERY: Final = 1

_WORDS: Final = {
    **dict.fromkeys(
        (
            *("", "begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"),
            *("show", "fetch", "move", "lock", "notify", "checkpoint", "comment", "grant", "revoke"),
        ),
        _HARMLESS,
    ),
    **dict.fromkeys(
        (
            *("select", "insert", "update", "delete", "merge", "with", "values", "table", "copy"),
            *("truncate", "vacuum", "analyze", "analyse", "cluster", "reindex", "refresh"),
        ),
        _QUERY,
    ),
}
"""First word -> whether what follows may call a function or make a temporary table, or can do nothing."""

_STARTS: Final = {word[:4]: kind for word, kind in _WORDS.items()} | {
    "end" + after: _HARMLESS for after in (" ", ";", "\n")
}
"""The same, for the first four characters: no statement that does something begins with them."""

_FIRST_WORD: Final = re.compile(
    r"(?:[ \t\n\r\f\v(]|--[^\n\r]*+[\n\r]|/\*(?:[^*/]|\*(?!/)|/(?!\*))*+\*/)*+([a-z]*)(?![^ \t\n\r\f\v(*'\"/-])"
)
"""Blanks, comments and parentheses, and the word behind them."""

_CALLS: Final = "set_conf.{1,2}g|adv.{1,2}sory_(?:un)?lock|query_to_xml|ts_stat|ts_rewrite"
"""Functions of PostgreSQL itself. A Turkish server takes a capital I with a dot for an i."""

_ALARMING: Final = re.compile(rf'u&"|{_CALLS}|(?<![\w$])pg_temp')
_TEMPORARY: Final = re.compile(r"(?<![\w$])temp(?:orary)?(?![\w$])")

_AMBIGUOUS: Final = re.compile(rb"\\'|[\x80-\xff][:-@\[-`{-~]|\x00")
"""What may be read in two ways: a backslash is an escape in some strings, and in some encodings (SJIS, BIG5, GBK,
GB18030, JOHAB), a byte behind one with its high bit set is part of a character, whatever it looks like."""

_LOADS: Final = re.compile(r"(?<![\w$])load\s*(?:[en]?'|u&'|\$|/\*|--)")


class EffectReader:
    """Tells what session state texts may change.

    Args:
        pinning: functions whose call is `Pin.FUNCTION`; a schema in front of the name is ignored.
        capacity: bytes of texts whose effects are remembered.
    """

    __slots__ = ("_capacity", "_known", "_names", "_pinning", "_size", "_stateful", "_tree")

    def __init__(self, pinning: Iterable[str] = (), capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._pinning = tuple(sorted({name.rpartition(".")[2].strip('"').lower() for name in pinning}))
        self._known: dict[bytes, Effects | None] = {}
        self._size = 0
        self.learn(())

    def learn(self, stateful: Iterable[str]) -> None:
        """Take the place of what was learned before.

        Args:
            stateful: names of functions and relations; a text that mentions one of them may do everything.
        """
        self._stateful = frozenset(name.lower() for name in stateful)
        self._names = _finder(self._stateful)
        self._tree = TreeReader(frozenset(self._pinning), self._stateful)
        self._known.clear()
        self._size = 0

    def read(self, text: bytes | bytearray) -> Effects | None:
        """Tell what a text may change.

        Args:
            text: one or several statements, in the client's encoding.

        Returns:
            What it may change; None for nothing.
        """
        try:
            low = text.decode().lower()
        except UnicodeDecodeError:
            low = text.decode("latin-1").lower()
        kind = _STARTS.get(low[:4])
        if kind is None or (";" in low and low.find(";") < len(low) - 1):
            return self._look(bytes(text), low)
        if kind and (
            "temp" in low
            or ("&" in low and 'u&"' in low)
            or (
                "(" in low
                and (
                    "set_conf" in low
                    or "sory_" in low
                    or "query_to_xml" in low
                    or "ts_stat" in low
                    or "ts_rewrite" in low
                    or any(name in low for name in self._pinning)
                )
            )
            or (self._names is not None and self._names(low))
        ):
            return self._look(bytes(text), low)
        return None

    def _look(self, text: bytes, low: str) -> Effects | None:
        """Look closer at a text that is not harmless at first sight."""
        known = self._known
        if text in known:
            effects = known[text] = known.pop(text)
            return effects
        mentions = self._names is not None and self._names(low) is not None
        calls = any(name in low for name in self._pinning)
        if _only_queries(low):
            if not calls and mentions:
                return EVERYTHING
            if not calls and not _ALARMING.search(low) and not _makes_temporary(low):
                return None
        effects = self._parse(text, low, mentions=mentions, calls=calls)
        if len(text) <= LONGEST:
            self._remember(text, effects)
        return effects

    def _parse(self, text: bytes, low: str, *, mentions: bool, calls: bool) -> Effects | None:
        if len(text) > LONGEST or _AMBIGUOUS.search(text) or low.count("/*") > _DEEPEST:
            return _unreadable(low, calls=calls)
        try:
            decoded, codec = text.decode(), "utf-8"
        except UnicodeDecodeError:
            decoded, codec = text.decode("latin-1"), "latin-1"
        deep = mentions or calls or _ALARMING.search(low) is not None or _TEMPORARY.search(low) is not None
        try:
            return self._tree.read(decoded, codec, deep=deep, mentions=mentions)
        except Unreadable:
            return _unreadable(low, calls=calls)

    def _remember(self, text: bytes, effects: Effects | None) -> None:
        known = self._known
        known[text] = effects
        self._size += len(text) + _OVERHEAD
        while self._size > self._capacity:
            oldest = next(iter(known))
            del known[oldest]
            self._size -= len(oldest) + _OVERHEAD


def _finder(names: Iterable[str]) -> Callable[[str], re.Match[str] | None] | None:
    """A search for any of these names as a word."""
    words = [re.escape(name.replace('"', '""')) for name in names]
    return re.compile(rf"(?<![\w$])(?:{'|'.join(words)})(?![\w$])").search if words else None


def _only_queries(low: str) -> bool:
    """Whether all statements begin with a word that is known.

    Behind each semicolon may begin a statement, or go on a string or a comment. Where that is not certain, the answer
    is no; so each statement there is has been looked at, and perhaps some that are none.
    """
    for piece in low.split(";"):
        found = _FIRST_WORD.match(piece)
        if found is None or found[1] not in _WORDS or (not found[1] and found.end() < len(piece)):
            return False
    return True


def _makes_temporary(low: str) -> bool:
    return "into" in low and _TEMPORARY.search(low) is not None


def _unreadable(low: str, *, calls: bool) -> Effects:
    pins = Pin.FUNCTION if calls else NONE
    if _LOADS.search(low):
        pins |= Pin.LOAD
    if not pins:
        return EVERYTHING
    return Effects(unknown_settings=True, pins=EVERYTHING.pins | pins, releases=True, schema=True)
