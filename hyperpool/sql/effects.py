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
from hyperpool.sql.names import Names
from hyperpool.sql.tree import TreeReader, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EVERYTHING", "EffectReader", "Effects", "Pin"]

LONGEST: Final = 4096
"""Bytes. Longer texts are not parsed: the parser's stack grows with the depth of a text, and its time, with some texts,
with the square of their length."""

LONGEST_BATCH: Final = 65536
"""Characters. In longer texts, not all semicolons are looked at."""

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

_BLANKS: Final = " \t\n\r\f\v("

_FIRST_WORD: Final = re.compile(
    r"(?:[ \t\n\r\f\v(]|--[^\n\r]*+[\n\r]|/\*(?:[^*/]++|\*(?!/)|/(?!\*))*+\*/)*+([a-z]*)(?![^ \t\n\r\f\v(*'\"/-])"
)
"""Blanks, comments and parentheses, and the word behind them."""

_CALLS: Final = {
    "set_conf": re.compile("set_conf.{1,2}g"),
    "sory_": re.compile("adv.{1,2}sory_(?:un)?lock"),
    "query_to_xml": re.compile("query_to_xml"),
    "ts_stat": re.compile(r"(?<![\w$])ts_stat"),
    "ts_rewrite": re.compile(r"(?<![\w$])ts_rewrite"),
}
"""What to search for first -> what to search for then: functions of PostgreSQL itself. A Turkish server takes a capital
I with a dot for an i."""

_SCHEMA: Final = re.compile(r"(?<![\w$])pg_temp")
_TEMPORARY: Final = re.compile(r"(?<![\w$])temp(?:orary)?(?![\w$])")

_AMBIGUOUS: Final = re.compile(rb"\\'|[\x80-\xff][:-@\[-`{-~]|\x00")
"""What may be read in two ways: a backslash is an escape in some strings, and in some encodings (SJIS, BIG5, GBK,
GB18030, JOHAB), a byte behind one with its high bit set is part of a character, whatever it looks like."""

_LOADS: Final = re.compile(r"(?<![\w$])load\s*(?:[en]?'|u&'|\$|/\*|--)")

_NEW: Final = Effects()


class EffectReader:
    """Tells what session state texts may change.

    Args:
        pinning: functions whose call is `Pin.FUNCTION`; a schema in front of the name is ignored.
        capacity: bytes of texts whose effects are remembered.
    """

    __slots__ = (
        "_called",
        "_capacity",
        "_foreign",
        "_known",
        "_many",
        "_names",
        "_needles",
        "_pinning",
        "_size",
        "_tree",
    )

    def __init__(self, pinning: Iterable[str] = (), capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._pinning = Names(name.rpartition(".")[2].strip('"') for name in pinning)
        self._known: dict[bytes, Effects | None] = {}
        self._size = 0
        self.learn(())

    def learn(self, stateful: Iterable[str]) -> None:
        """Take the place of what was learned before.

        Args:
            stateful: names of functions and relations; a text that mentions one of them may do everything.
        """
        self._names = Names(stateful)
        self._needles = ("pg_settings", *self._names.needles, *self._pinning.needles)
        self._called = (*self._needles, *_CALLS)
        self._many = self._names.many or self._pinning.many
        self._foreign = self._names.foreign or self._pinning.foreign
        self._tree = TreeReader(self._pinning.all, self._names.all)
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
            low = text.lower().decode()
            if self._foreign:
                low = low.lower()
        except UnicodeDecodeError:
            low = text.lower().decode("latin-1")
            if self._foreign:
                return _unreadable(low, calls=self._pinning.foreign or self._pinning.within(text, low))
        kind = _STARTS.get(low[:4])
        if kind is None or (";" in low and low.find(";") < len(low) - 1):
            known = self._known.get(bytes(text), _NEW)
            if known is not _NEW:
                return self._parsed(bytes(text), low)
            kind = _kind(low) if len(low) <= LONGEST_BATCH else None
            if kind is None:
                return self._parsed(bytes(text), low)
        if not kind:
            return None
        if ("temp" in low and ("pg_temp" in low or "into" in low)) or ("&" in low and 'u&"' in low):
            return self._look(text, low)
        for name in self._called if "(" in low else self._needles:
            if name in low:
                return self._look(text, low)
        if self._many and (self._names.among(text) or self._pinning.among(text)):
            return self._look(text, low)
        return None

    def _look(self, text: bytes | bytearray, low: str) -> Effects | None:
        """Look closer at queries that are not harmless at first sight."""
        if not self._pinning.within(text, low):
            if self._names.within(text, low):
                return EVERYTHING
            if not _alarming(low) and not ("into" in low and _TEMPORARY.search(low)):
                return None
        return self._parsed(bytes(text), low)

    def _parsed(self, text: bytes, low: str) -> Effects | None:
        known = self._known
        if text in known:
            effects = known[text] = known.pop(text)
            return effects
        effects = self._parse(text, low)
        if len(text) <= LONGEST:
            self._remember(text, effects)
        return effects

    def _parse(self, text: bytes, low: str) -> Effects | None:
        calls, mentions = self._pinning.within(text, low), self._names.within(text, low)
        if len(text) > LONGEST or _AMBIGUOUS.search(text) or low.count("/*") > _DEEPEST:
            return _unreadable(low, calls=calls)
        try:
            decoded, codec = text.decode(), "utf-8"
        except UnicodeDecodeError:
            decoded, codec = text.decode("latin-1"), "latin-1"
        deep = mentions or calls or _alarming(low) or _TEMPORARY.search(low) is not None
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


def _kind(low: str) -> int | None:
    """What kind of statements a text has; None if one of them is of another kind than `_WORDS` knows.

    Behind each semicolon may begin a statement, or go on a string or a comment. Where that is not certain, the answer
    is None; so each statement there is has been looked at, and perhaps some that are none.
    """
    kind = _HARMLESS
    for piece in low.split(";"):
        found = _STARTS.get(piece.lstrip(_BLANKS)[:4])
        if found is None:
            first = _FIRST_WORD.match(piece)
            if first is None or (not first[1] and first.end() < len(piece)):
                return None
            found = _WORDS.get(first[1])
            if found is None:
                return None
        kind |= found
    return kind


def _alarming(low: str) -> bool:
    """Whether a text has one of the words that do something in the midst of any statement."""
    if 'u&"' in low or ("pg_temp" in low and _SCHEMA.search(low)):
        return True
    for name, exact in _CALLS.items():
        if name in low and exact.search(low):
            return True
    return "pg_settings" in low and "update" in low


def _unreadable(low: str, *, calls: bool) -> Effects:
    pins = Pin.FUNCTION if calls else NONE
    if _LOADS.search(low):
        pins |= Pin.LOAD
    if not pins:
        return EVERYTHING
    return Effects(unknown_settings=True, pins=EVERYTHING.pins | pins, releases=True, schema=True)
