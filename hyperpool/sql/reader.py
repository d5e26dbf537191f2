"""Reading texts for the result cache: what each means is found once, and remembered."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError
from postgast import PgQueryError, fingerprint, normalize, parse

from hyperpool.sql.canonical import canonical
from hyperpool.sql.clock import mentions_clock
from hyperpool.sql.effects import LONGEST
from hyperpool.sql.hints import read_hint
from hyperpool.sql.literals import Pattern, Split, pattern, split
from hyperpool.sql.reading import Reading, Text, unreadable
from hyperpool.sql.reasons import Reason
from hyperpool.sql.survey import Survey

__all__ = ["CAPACITY", "QueryReader"]

CAPACITY: Final = 4 << 20
"""Bytes of texts that are remembered, and of what they mean."""

_TEXT_OVERHEAD: Final = 400
_PATTERN_OVERHEAD: Final = 4000

_DEEPEST: Final = 64
"""Comments in a text that is read; the parser's time grows with the square of their depth."""

_MOST_PATTERNS: Final = 8
"""Patterns of one shape. Names that differ only in digits, such as those of partitions, have one shape."""


class QueryReader:
    """Tells what texts mean for the result cache.

    Args:
        capacity: bytes of texts that are remembered, and of what they mean. (Two thirds of it for texts as they are,
            a third for what texts have in common that differ in literals.)
    """

    __slots__ = ("_patterns", "_patterns_room", "_texts", "_texts_room")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._texts: dict[bytes, Text] = {}
        self._texts_room = capacity * 2 // 3
        self._patterns: dict[tuple[bytes, bytes], list[Pattern]] = {}
        self._patterns_room = capacity // 3

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
            self._remember(text, known)
        if (utf8 or text.isascii()) and (conforming or b"\\" not in text):
            return known
        return unreadable(Reason.AMBIGUOUS if utf8 or text.isascii() else Reason.ENCODING)

    def _new(self, text: bytes) -> Text:
        parts = split(text)
        for known in self._patterns.get(parts.shape, ()):
            if known.fits(parts.pieces):
                pieces = parts.pieces
                strings = known.strings
                if strings and mentions_clock(b"\0".join([pieces[index] for index in strings])):
                    break
                reading = known.reading
                if reading.reason:
                    return Text(b"", reading)
                return Text(known.form % tuple([pieces[index] for index in known.free]), reading)
        return self._read(text, parts)

    def _read(self, text: bytes, parts: Split) -> Text:
        if b"\\'" in text:
            return unreadable(Reason.AMBIGUOUS)
        if len(text) > LONGEST:
            return unreadable(Reason.TOO_LONG)
        if text.count(b"/*") > _DEEPEST:
            return unreadable(Reason.TOO_DEEP)
        try:
            decoded = text.decode()
        except UnicodeDecodeError:
            return unreadable(Reason.ENCODING)
        survey = Survey()
        try:
            survey.read(parse(decoded).stmts)
            found = canonical(text)
            name = fingerprint(decoded).hex
            template = normalize(decoded) if survey.plain else survey.kinds
        except DecodeError:
            return unreadable(Reason.TOO_DEEP)
        except (PgQueryError, UnicodeDecodeError):
            return unreadable(Reason.PARSE_ERROR)
        clock = mentions_clock("\0".join(survey.strings).encode())
        reading = _reading(
            survey,
            Reason.CLOCK_LITERAL if clock and survey.reason is None else survey.reason,
            (name, template),
            [comment.decode() for comment in found.comments],
        )
        if not clock:
            self._learn(text, parts, pattern(text, found, reading))
        return Text(b"" if reading.reason else found.text, reading)

    def _learn(self, text: bytes, parts: Split, learned: Pattern | None) -> None:
        if learned is None:
            return
        known = self._patterns.setdefault(parts.shape, [])
        known.append(learned)
        self._patterns_room -= len(text) + _PATTERN_OVERHEAD
        if len(known) > _MOST_PATTERNS:
            del known[0]
            self._patterns_room += len(text) + _PATTERN_OVERHEAD
        while self._patterns_room < 0:
            shape = next(iter(self._patterns))
            size = len(shape[0]) + len(shape[1])
            for _ in self._patterns.pop(shape):
                self._patterns_room += size + _PATTERN_OVERHEAD

    def _remember(self, text: bytes, known: Text) -> None:
        self._texts[text] = known
        self._texts_room -= 2 * len(text) + _TEXT_OVERHEAD
        while self._texts_room < 0:
            oldest = next(iter(self._texts))
            del self._texts[oldest]
            self._texts_room += 2 * len(oldest) + _TEXT_OVERHEAD


def _reading(survey: Survey, reason: Reason | None, names: tuple[str, str], comments: list[str]) -> Reading:
    return Reading(
        reason=reason,
        fingerprint=names[0],
        template=names[1],
        hint=read_hint(comments),
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
