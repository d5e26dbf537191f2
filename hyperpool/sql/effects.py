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

from hyperpool.sql.glance import Glance
from hyperpool.sql.model import EVERYTHING, NONE, Effects, Pin
from hyperpool.sql.names import Names
from hyperpool.sql.tree import TreeReader, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EVERYTHING", "EffectReader", "Effects", "Pin"]

LONGEST: Final = 4096
"""Bytes. Longer texts are not parsed: the parser needs stack for the depth of a text, up to 1 MiB for so many bytes,
and its time grows, for some texts, with the square of their length."""

_MOST: Final = 10000
"""Semicolons that are looked at."""

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
    "set_conf": re.compile(r"(?<![\w$])set_conf.{1,2}g"),
    "sory_": re.compile(r"(?<![\w$])pg_(?:try_)?adv.{1,2}sory_(?:un)?lock"),
    "query_to_xml": re.compile(r"(?<![\w$])query_to_xml"),
    "ts_stat": re.compile(r"(?<![\w$])ts_stat"),
    "ts_rewrite": re.compile(r"(?<![\w$])ts_rewrite"),
}
"""What to search for first -> what to search for then: functions of PostgreSQL itself. A Turkish server takes a capital
I with a dot for an i."""

_SCHEMA: Final = re.compile(r"(?<![\w$])pg_temp(?:_\d+)?(?![\w$])")
_TEMPORARY: Final = re.compile(r"(?<![\w$])temp(?:orary)?(?![\w$])")
_INTO: Final = re.compile(r"into\s*(?:(?:local|global)\s*)?(?:/\*|--|temp(?:orary)?(?![\w$]))")
"""``INTO TEMP``, or a comment where TEMP may stand behind."""

_AMBIGUOUS: Final = re.compile(rb"\\'|[\x80-\xff][:-@\[-`{-~]|\x00")
"""What may be read in two ways: a backslash is an escape in some strings, and in some encodings (SJIS, BIG5, GBK,
GB18030, JOHAB), a byte behind one with its high bit set is part of a character, whatever it looks like."""

_ESCAPED: Final = re.compile(rb"\\'|\x81_'")
"""The same, where it matters for a string. SHIFT_JIS_2004 has a backslash of two bytes."""

_OTHER_QUOTES: Final = re.compile(r'"|--|/\*|\$(?!\d)')

_LOADS: Final = re.compile(r"(?<![\w$])load\s*(?:[en]?'|u&'|\$|/\*|--)")

_NEW: Final = Effects()


class EffectReader:
    """Tells what session state texts may change.

    Args:
        pinning: functions whose call is `Pin.FUNCTION`; a schema in front of the name is ignored.
        capacity: bytes of texts whose effects are remembered.

    Attributes:
        glance: the first look: a text that passes changes nothing.
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
        "glance",
    )

    def __init__(self, pinning: Iterable[str] = (), capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._pinning = Names(name.rpartition(".")[2].strip('"') for name in pinning)
        self._known: dict[bytes, Effects | None] = {}
        self._size = 0
        self.glance = Glance()
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
        self.glance.learn(_STARTS, self._needles, _CALLS, ascii_only=self._foreign, never=self._many)
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
        return None if self.glance.passes(text, 0, len(text)) else self._closer(text)

    def _closer(self, text: bytes | bytearray) -> Effects | None:
        try:
            low = text.lower().decode()
            if self._foreign:
                low = low.lower()
        except UnicodeDecodeError:
            low = text.lower().decode("latin-1")
            if self._foreign:
                return self._unreadable(text, low)
        kind = _STARTS.get(low[:4])
        if kind is None or (";" in low and low.find(";") < len(low) - 1):
            known = self._known.get(bytes(text), _NEW)
            if known is not _NEW:
                return self._parsed(bytes(text), low)
            kind = _kind(low)
            if kind is None and "'" in low and not _ESCAPED.search(text):
                kind = _kind(_without_strings(low))
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
        if 'u&"' not in low and not self._pinning.within(text, low):
            if self._names.within(text, low):
                return EVERYTHING
            if not _alarming(low) and not _INTO.search(low):
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
        if len(text) > LONGEST or _AMBIGUOUS.search(text) or low.count("/*") > _DEEPEST:
            return self._unreadable(text, low)
        try:
            decoded, codec = text.decode(), "utf-8"
        except UnicodeDecodeError:
            decoded, codec = text.decode("latin-1"), "latin-1"
        calls, mentions = self._pinning.within(text, low), self._names.within(text, low)
        deep = calls or _alarming(low) or _TEMPORARY.search(low) is not None
        try:
            return self._tree.read(decoded, codec, deep=deep, mentions=mentions)
        except Unreadable:
            return self._unreadable(text, low)

    def _unreadable(self, text: bytes | bytearray, low: str) -> Effects:
        """What a text may do that is not parsed; what no server can be asked for afterwards is searched for."""
        pins, pinning = NONE, self._pinning
        hidden = ('u&"' in low and pinning.all) or (pinning.foreign and not low.isascii())
        if hidden or pinning.within(text, low):
            pins |= Pin.FUNCTION
        if _LOADS.search(low):
            pins |= Pin.LOAD
        if not pins:
            return EVERYTHING
        return Effects(unknown_settings=True, pins=EVERYTHING.pins | pins, releases=True, schema=True)

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
    if low.count(";") > _MOST:
        return None
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


def _without_strings(low: str) -> str:
    """Leave out the strings of a text with no backslash in front of a quote.

    Where quotes may be part of something else, a quoted name, a comment or another kind of string, the text comes back
    as it is.
    """
    parts = low.split("'")
    rest = "'".join(parts[::2])
    return low if _OTHER_QUOTES.search(rest) else rest


def _alarming(low: str) -> bool:
    """Whether a text has one of the words that do something in the midst of any statement."""
    if 'u&"' in low or ("pg_temp" in low and _SCHEMA.search(low)):
        return True
    for name, exact in _CALLS.items():
        if name in low and exact.search(low):
            return True
    return "pg_settings" in low and "update" in low
