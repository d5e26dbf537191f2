"""Reading texts for the result cache: what each means is found once, and remembered."""

from __future__ import annotations

import re
from typing import Final

from google.protobuf.message import DecodeError
from postgast import PgQueryError, fingerprint, normalize, parse

from hyperpool.sql.abridge import abridged
from hyperpool.sql.canonical import canonical
from hyperpool.sql.clock import mentions_clock
from hyperpool.sql.effects import LONGEST
from hyperpool.sql.hints import read_hint
from hyperpool.sql.literals import Pattern, pattern, split
from hyperpool.sql.memo import Memo
from hyperpool.sql.reading import Hint, Reading, Text, unreadable
from hyperpool.sql.reasons import Reason
from hyperpool.sql.survey import Survey

__all__ = ["CAPACITY", "LONGEST_QUERY", "QueryReader"]

CAPACITY: Final = 4 << 20
"""Bytes of texts that are remembered, and of what they mean."""

_TEXT_OVERHEAD: Final = 400
_PATTERN_OVERHEAD: Final = 4000

_DEEPEST: Final = 64
"""Comments in a text that is read; the parser's time grows with the square of their depth."""

LONGEST_QUERY: Final = 16384
"""Bytes of a query that is read whole, if it is long for its columns and tables and not for its values."""

_QUERY: Final = re.compile(
    rb"(?i)(?:\s++|/\*(?:[^*/]++|\*(?!/)|/(?!\*))*+\*/|--[^\n]*+\n|\()*+(?:select|with)\b"
)

_NESTING: Final = re.compile(
    rb"(?i)[-()\[\]+*/<>=~!@#%^&|?:]"
    rb"|\b(?:and|at|between|case|collate|except|ilike|in|intersect|is|isnull|join|like|not|notnull|or|select|similar"
    rb"|union|when)\b"
)
"""What may put one expression, query or join into another one: a syntax tree is no deeper than there are of these."""

_MOST_NESTING: Final = LONGEST // 8
"""Of these in a long query: so many ``(SELECT`` have room in a short one."""

_MOST_PATTERNS: Final = 8
"""Patterns that differ only in what is no literal though it looks so, such as the digits in names of partitions."""


class QueryReader:
    """Tells what texts mean for the result cache.

    Args:
        capacity: bytes of texts that are remembered, and of what they mean.
    """

    __slots__ = ("_patterns", "_texts")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._texts: Memo[bytes, Text] = Memo(capacity // 2)
        self._patterns: Memo[bytes, list[Pattern]] = Memo(capacity // 2)

    def read(self, text: bytes, *, utf8: bool = True, conforming: bool = True) -> Text:
        """Tell what a text means.

        Args:
            text: one or several statements, as the client has sent them, without the zero byte.
            utf8: the client's encoding is UTF8 (SQL_ASCII does not count).
            conforming: ``standard_conforming_strings`` is on.

        Returns:
            What it means. If it cannot be read, it may write anything.
        """
        known = self._texts.get(text)
        if known is None:
            known = self._new(text)
            self._texts.put(text, known, 2 * len(text) + _TEXT_OVERHEAD)
        if not utf8 and not text.isascii():
            return unreadable(Reason.ENCODING)
        if not conforming and b"\\" in text:
            return unreadable(Reason.AMBIGUOUS)
        return known

    def _new(self, text: bytes) -> Text:
        if len(text) > LONGEST:
            short = abridged(text) if b"\\'" not in text else None
            if not _is_long_query(text, short):
                return self._abridged(short)
        if text.endswith(b"*/"):
            known = self._without_comment(text)
            if known is not None:
                return known
        parts = split(text)
        between = b"\0".join(parts[::2])
        patterns = self._patterns.get(between)
        if patterns is not None:
            pieces = parts[1::2]
            for one in patterns:
                if one.fits(pieces):
                    strings = one.strings
                    if strings and mentions_clock(b"\0".join([pieces[index] for index in strings])):
                        break
                    reading = one.reading
                    return Text(b"" if reading.reason else one.form % one.literals(pieces), reading)
        found, learned = _read(text)
        if learned is not None:
            patterns = [learned, *(patterns or ())][:_MOST_PATTERNS]
            self._patterns.put(between, patterns, len(text) + _PATTERN_OVERHEAD)
        return found

    def _without_comment(self, text: bytes) -> Text | None:
        """Read a text with a comment behind it, which may be another one each time; None if it is no such comment.

        If what is in front of it can be read, it is not in the midst of a string or a name.
        """
        start = text.find(b"/*")
        if (
            start < 0
            or text.startswith(b"/*+", start)
            or text.find(b"*/") < len(text) - 2
            or text.count(b"/*") > 1
        ):
            return None
        known = self.read(text[:start].rstrip())
        return known if known.reading.fingerprint else None

    def _abridged(self, short: bytes | None) -> Text:
        """Tell what a long text may write, by a short one."""
        if short is None or len(short) > LONGEST:
            return unreadable(Reason.TOO_LONG)
        reading = self.read(short).reading
        return Text(
            b"",
            Reading(
                Reason.TOO_LONG,
                reading.fingerprint,
                reading.template,
                functions=reading.functions,
                writes=reading.writes,
                relations=reading.relations,
                attributes=reading.attributes,
            ),
        )


def _is_long_query(text: bytes, short: bytes | None) -> bool:
    """Whether a text that is longer than others are read may be read whole.

    The parser needs stack for the depth of a text, which is to be no more than for one of `LONGEST` bytes. And texts
    that are long for their values differ from one to the next, so that each would have to be parsed.
    """
    if len(text) > LONGEST_QUERY or not _QUERY.match(text):
        return False
    if short is not None and len(short) < len(text) // 2:
        return False
    return len(_NESTING.findall(text)) <= _MOST_NESTING


def _read(text: bytes) -> tuple[Text, Pattern | None]:
    """Parse a text; returns what it means, and how to find others that mean the same."""
    decoded = _decoded(text)
    if isinstance(decoded, Reason):
        return unreadable(decoded), None
    survey = Survey()
    try:
        survey.read(parse(decoded).stmts)
        found = canonical(text, survey.positions)
        name = fingerprint(decoded).hex
        template = normalize(decoded) if survey.plain else survey.kinds
    except DecodeError:
        return unreadable(Reason.TOO_DEEP), None
    except (PgQueryError, UnicodeDecodeError):
        return unreadable(Reason.PARSE_ERROR), None
    clock = mentions_clock("\0".join(survey.strings).encode())
    if clock:
        survey.refuse(Reason.CLOCK_LITERAL)
    reading = _reading(survey, name, template, read_hint(comment.decode() for comment in found.comments))
    return (
        Text(b"" if reading.reason else found.text, reading),
        None if clock else pattern(text, found, reading),
    )


def _decoded(text: bytes) -> str | Reason:
    """A text for the parser; or why it does not get it."""
    if b"\\'" in text:
        return Reason.AMBIGUOUS
    if len(text) > LONGEST_QUERY:
        return Reason.TOO_LONG
    if text.count(b"/*") > _DEEPEST:
        return Reason.TOO_DEEP
    try:
        return text.decode()
    except UnicodeDecodeError:
        return Reason.ENCODING


def _reading(survey: Survey, name: str, template: str, hint: Hint | None) -> Reading:
    return Reading(
        reason=survey.reason,
        fingerprint=name,
        template=template,
        hint=hint,
        relations=frozenset(survey.relations),
        types=frozenset(survey.types),
        casts=frozenset(survey.casts),
        constants=frozenset(survey.constants),
        parameters=frozenset(survey.parameters),
        functions=frozenset(survey.functions),
        operators=frozenset(survey.operators),
        compares=survey.compares,
        columns=frozenset(survey.columns),
        attributes=frozenset(survey.attributes),
        star=survey.star,
        writes=survey.writes,
    )
