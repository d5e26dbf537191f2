"""Session parameters that the pooler follows: what the server reports in ParameterStatus.

A set of parameters is interned: two connections in the same state hold the same object, so that the question whether a
server must be adjusted for a client costs one identity comparison per link.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALWAYS_TRACKED: Final = (
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "standard_conforming_strings",
    "application_name",
)
"""The parameters that pgbouncer follows, too; ``track_extra_parameters`` adds to them."""


class ParameterSet:
    """An immutable, interned set of parameters; made by `ParameterTracker` alone."""

    __slots__ = ("__weakref__", "values")

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values

    def __repr__(self) -> str:
        return f"<ParameterSet {dict(self.values)!r}>"


class ParameterTracker:
    """Knows which parameters are followed, and interns sets of them.

    Args:
        extra: names from ``track_extra_parameters``.
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        self._names = {name.lower(): name for name in (*extra, *ALWAYS_TRACKED)}
        self._sets: weakref.WeakValueDictionary[tuple[tuple[str, str], ...], ParameterSet] = (
            weakref.WeakValueDictionary()
        )

    def canonical(self, name: str) -> str | None:
        """The name as the server reports it, or None when it is not followed; names fold case as in PostgreSQL."""
        return self._names.get(name.lower())

    def intern(self, values: Mapping[str, str]) -> ParameterSet:
        """The set of the followed parameters among `values`."""
        names = self._names
        kept = {names[key]: value for name, value in values.items() if (key := name.lower()) in names}
        identity = tuple(sorted(kept.items()))
        found = self._sets.get(identity)
        if found is None:
            found = self._sets[identity] = ParameterSet(kept)
        return found

    def changed(self, old: ParameterSet, name: str, value: str) -> ParameterSet:
        """`old` with one parameter changed; `old` itself when the parameter is not followed."""
        canonical = self.canonical(name)
        if canonical is None:
            return old
        return self.intern({**old.values, canonical: value})


def adjustment(wanted: ParameterSet, current: ParameterSet) -> str:
    """The SQL that brings a session from `current` to `wanted`; only differences, "" if there are none."""
    return "".join(
        f"SET {name} = {quote_literal(value)};"
        for name, value in wanted.values.items()
        if current.values.get(name) != value
    )


def quote_literal(value: str) -> str:
    """A string constant that reads the same whatever ``standard_conforming_strings`` is.

    Source: PostgreSQL docs, "String Constants with C-Style Escapes".
    """
    if "\\" in value:
        return " E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + value.replace("'", "''") + "'"


_ENCODINGS: Final = {
    alias: name
    for name, aliases in {
        "UTF8": "UNICODE",
        "SQL_ASCII": "SQLASCII",
        "MULE_INTERNAL": "MULEINTERNAL",
        "EUC_CN": "EUCCN",
        "EUC_JP": "EUCJP",
        "EUC_JIS_2004": "EUCJIS2004",
        "EUC_KR": "EUCKR",
        "EUC_TW": "EUCTW",
        "SJIS": "MSKANJI SHIFTJIS WIN932 WINDOWS932",
        "SHIFT_JIS_2004": "SHIFTJIS2004",
        "BIG5": "WIN950 WINDOWS950",
        "GBK": "WIN936 WINDOWS936",
        "UHC": "WIN949 WINDOWS949",
        "KOI8R": "KOI8",
        "LATIN1": "ISO88591",
        "LATIN2": "ISO88592",
        "LATIN3": "ISO88593",
        "LATIN4": "ISO88594",
        "LATIN5": "ISO88599",
        "LATIN6": "ISO885910",
        "LATIN7": "ISO885913",
        "LATIN8": "ISO885914",
        "LATIN9": "ISO885915",
        "LATIN10": "ISO885916",
        "ISO_8859_5": "ISO88595",
        "ISO_8859_6": "ISO88596",
        "ISO_8859_7": "ISO88597",
        "ISO_8859_8": "ISO88598",
        "WIN866": "ALT WINDOWS866",
        "WIN874": "WINDOWS874",
        "WIN1250": "WINDOWS1250",
        "WIN1251": "WIN WINDOWS1251",
        "WIN1252": "WINDOWS1252",
        "WIN1253": "WINDOWS1253",
        "WIN1254": "WINDOWS1254",
        "WIN1255": "WINDOWS1255",
        "WIN1256": "WINDOWS1256",
        "WIN1257": "WINDOWS1257",
        "WIN1258": "ABC TCVN TCVN5712 VSCII WINDOWS1258",
    }.items()
    for alias in aliases.split()
}
"""Other names of an encoding, in capitals and without punctuation (PostgreSQL docs, "Supported Character Sets")."""


def canonical_encoding(value: str) -> str:
    """The name by which a server reports an encoding, for the spellings that drivers use (``'utf-8'``, ``unicode``)."""
    name = "".join(char for char in value.upper() if char.isalnum())
    return _ENCODINGS.get(name, name)
