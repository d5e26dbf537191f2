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
    "UNICODE": "UTF8",
    "SQLASCII": "SQL_ASCII",
    "EUCJP": "EUC_JP",
    "EUCKR": "EUC_KR",
    "EUCCN": "EUC_CN",
}


def canonical_encoding(value: str) -> str:
    """The name by which a server reports an encoding, for the spellings that drivers use (``'utf-8'``, ``unicode``)."""
    name = "".join(char for char in value.upper() if char.isalnum())
    return _ENCODINGS.get(name, name)
