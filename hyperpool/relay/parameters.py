"""Session parameters that follow the client: what the server reports, and what the client has set.

The server reports some parameters by itself (ParameterStatus): those of `ALWAYS_TRACKED` and
``track_extra_parameters`` are *tracked*, and every set has their values. Whatever else a client has set is known from
asking the server; a set has those that differ from the server's defaults, with names in lower case.

A set of parameters is interned: two connections in the same state hold the same object, so that the question whether a
server must be adjusted for a client costs one identity comparison per link.
"""

from __future__ import annotations

import re
import weakref
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from hyperpool.wire.text import encode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

ALWAYS_TRACKED: Final = (
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "standard_conforming_strings",
    "application_name",
    "search_path",
    "default_transaction_read_only",
)
"""Those that pgbouncer follows, too, and more that newer servers report; ``track_extra_parameters`` adds to them."""


_MAX_FLAVOR: Final = 1024
"""Characters of what statements keep as it is."""


class ParameterSet:
    """An immutable, interned set of parameters; made by `ParameterTracker` alone.

    Attributes:
        values: by name.
        flavor: what of them may change what a text means when it is parsed: a date in it, its characters, its schema;
            a digest of that, if it is long: each statement keeps it.
    """

    __slots__ = ("__weakref__", "flavor", "values")

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        flavor = tuple(
            item
            for item in sorted(values.items())
            if item[0] != "application_name" and not item[0].endswith("timeout")
        )
        if sum(len(name) + len(value) for name, value in flavor) > _MAX_FLAVOR:
            flavor = (("", sha256(ascii(flavor).encode()).hexdigest()),)
        self.flavor = flavor

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

    def intern(self, reported: Mapping[str, str], others: Mapping[str, str] | None = None) -> ParameterSet:
        """The set of the tracked parameters among those reported, and of others that have been set."""
        names = self._names
        kept = {names[key]: value for name, value in reported.items() if (key := name.lower()) in names}
        return self._intern({**kept, **others} if others else kept)

    def _intern(self, kept: Mapping[str, str]) -> ParameterSet:
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
        return self._intern({**old.values, canonical: value})

    def with_settings(self, old: ParameterSet, settings: Mapping[str, str | None]) -> ParameterSet:
        """`old` with parameters set, or back at their defaults (None); names are in lower case."""
        values: dict[str, str | None] = {**old.values, **settings}
        return self._intern({name: value for name, value in values.items() if value is not None})

    def reported_alone(self, old: ParameterSet, reported: Collection[str]) -> ParameterSet:
        """`old` without what servers do not report; `reported` holds the names that they do, in lower case."""
        return self._intern({name: value for name, value in old.values.items() if name.lower() in reported})

    def with_others(self, old: ParameterSet, others: ParameterSet, reported: Collection[str]) -> ParameterSet:
        """What servers report of `old`, and what they do not report of `others`."""
        values = {name: value for name, value in old.values.items() if name.lower() in reported}
        values.update((name, value) for name, value in others.values.items() if name.lower() not in reported)
        return self._intern(values)


IDENTITY: Final = ("role", "session_authorization")
"""Who the session is: undone before anything else is changed, and set when everything else has been."""

_LISTS: Final = frozenset(
    {"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"}
)
"""Parameters whose value is a list of quoted names: SET would take one string for one name (guc_tables.c,
GUC_LIST_QUOTE)."""


_ITEM: Final = re.compile(r'"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*')
_LIST: Final = re.compile(rf"(?:{_ITEM.pattern})(?:, (?:{_ITEM.pattern}))*")
"""A list as SET makes it."""


def adjustment(wanted: ParameterSet, current: ParameterSet) -> str:
    """The SQL that brings a session from `current` to `wanted`; only differences, "" if there are none.

    It is ASCII, whatever encodings the two sessions have.
    """
    ours, theirs = wanted.values, current.values
    if ours == theirs:
        return ""
    encoding = theirs.get(_ENCODING)
    steps = ["RESET ROLE;RESET SESSION AUTHORIZATION;"] if any(name in theirs for name in IDENTITY) else []
    steps += [_reset(name, encoding) for name in theirs if name not in ours and name not in IDENTITY]
    recoded = ours.get(_ENCODING) != encoding
    return "".join(steps) + assignments(
        {
            name: value
            for name, value in ours.items()
            if name in IDENTITY or theirs.get(name) != value or (recoded and not value.isascii())
        },
        ours.get(_ENCODING),
    )


def assignments(values: Mapping[str, str], encoding: str | None) -> str:
    """The SQL that sets parameters; it is ASCII.

    Args:
        values: by name; who the session is comes last, because it decides what else may be set, and timeouts before
            that, because they hold at once.
        encoding: the ``client_encoding`` in which names and values were told.
    """
    return "".join(
        (_identification if name in IDENTITY else _assignment)(name, values[name], encoding)
        for name in _in_order(values)
    )


def reassignment(values: Mapping[str, str], user: str, encoding: str | None) -> str:
    """The SQL that sets those parameters again that have been reset, and leaves alone what has been set since.

    Args:
        values: by name, in the order of `assignments`.
        user: who has logged in.
        encoding: the ``client_encoding`` in which names and values were told.
    """
    defaults = {"role": "none", "session_authorization": user}
    rows = ",".join(
        f"({number},{literal(name, encoding)},{literal(values[name], encoding)},"
        f"{literal(defaults.get(name, ''), encoding)})"
        for number, name in enumerate(_in_order(values))
    )
    return _REASSIGNMENT % rows


def is_safe_change(wanted: ParameterSet, current: ParameterSet) -> bool:
    """Whether a session can be adjusted with the client's request right behind, because it cannot fail.

    It can if somebody else acts in it, if a timeout may end it, if a value names something that may be gone or has to
    be converted, and for parameters with a dot in their names: the library that they belong to may have been loaded in
    one session and not in the other, and only then has rules for them.
    """
    ours, theirs = wanted.values, current.values
    if any(name in IDENTITY or _is_timeout(name) for name in theirs):
        return False
    recoded = ours.get(_ENCODING) != theirs.get(_ENCODING)
    for name in ours.keys() | theirs.keys():
        value = ours.get(name, "")
        if (theirs.get(name) != ours.get(name) or (recoded and not value.isascii())) and not _is_safe(
            name, value
        ):
            return False
    return True


def _in_order(values: Iterable[str]) -> list[str]:
    """Names in the order in which parameters are set, see `assignments`."""
    names = sorted((name for name in values if name not in IDENTITY), key=_is_timeout)
    return names + [name for name in reversed(IDENTITY) if name in values]


def _is_timeout(name: str) -> bool:
    return name.endswith("timeout")


def _is_safe(name: str, value: str) -> bool:
    folded = name.lower()
    known = folded in _SAFE or folded.startswith("enable_") or _is_timeout(folded)
    return known and value.isascii() and "." not in folded


_SAFE: Final = frozenset(
    {
        *(name.lower() for name in ALWAYS_TRACKED),
        *("intervalstyle", "bytea_output", "extra_float_digits", "xmlbinary", "array_nulls", "row_security"),
        *("work_mem", "maintenance_work_mem", "hash_mem_multiplier", "effective_cache_size", "jit", "geqo"),
        *("seq_page_cost", "random_page_cost", "cpu_tuple_cost", "cpu_index_tuple_cost", "cpu_operator_cost"),
        *("parallel_setup_cost", "parallel_tuple_cost", "max_parallel_workers_per_gather", "plan_cache_mode"),
        *("from_collapse_limit", "join_collapse_limit", "constraint_exclusion", "cursor_tuple_fraction"),
        *("default_statistics_target", "default_transaction_isolation", "default_transaction_deferrable"),
        *("client_min_messages", "check_function_bodies", "synchronous_commit", "transform_null_equals"),
        *("quote_all_identifiers", "escape_string_warning", "backslash_quote"),
    }
)
"""Parameters that any session may set at any time, in lower case: neither state nor rights are in the way."""


CHECKED: Final = (
    "default_text_search_config",
    "default_tablespace",
    "temp_tablespaces",
    "default_table_access_method",
    "local_preload_libraries",
    "session_preload_libraries",
    "temp_buffers",
)
"""Parameters whose value names something that may be gone, and that which cannot be set any more when it is in use."""

_ENCODING: Final = "client_encoding"

_REASSIGNMENT: Final = (
    "SELECT pg_catalog.set_config(n, v, false) FROM (SELECT n, v, d, s.source FROM (VALUES %s) b (i, n, v, d)"
    " LEFT JOIN pg_catalog.pg_settings s"
    " ON pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) pg_catalog.lower(n) ORDER BY i OFFSET 0) b"
    " WHERE CASE WHEN source IS NULL THEN COALESCE(pg_catalog.current_setting(n, true), '')"
    " OPERATOR(pg_catalog.=) d ELSE source OPERATOR(pg_catalog.<>) 'session' END"
)
"""Whoever sets a parameter leaves the source `session`. The view does not list who the session is, nor parameters of
nobody's; of those it is told when they are as at the beginning."""
_SPOKEN: Final = {"role": "ROLE", "session_authorization": "SESSION AUTHORIZATION"}


def _assignment(name: str, value: str, encoding: str | None) -> str:
    if not (name + value).isascii():
        return _call(literal(name, encoding), literal(value, encoding))
    if name.lower() in _LISTS:
        if not _LIST.fullmatch(value):
            return _call(quote_literal(name), quote_literal(value))
        # A function call would take a snapshot, which may have to wait, and SET TRANSACTION could not follow.
        items = [item[1:-1].replace('""', '"') if item[0] == '"' else item for item in _ITEM.findall(value)]
        return f"SET {name} = {','.join(map(quote_literal, items))};"
    return f"SET {_quoted_name(name)} = {quote_literal(value)};"


def _identification(name: str, value: str, encoding: str | None) -> str:
    if value.isascii():
        return f"SET {_SPOKEN[name]} {quote_literal(value)};"
    return _call(quote_literal(name), literal(value, encoding))


def _reset(name: str, encoding: str | None) -> str:
    return f"RESET {_quoted_name(name)};" if name.isascii() else _call(literal(name, encoding), "NULL")


def _call(name: str, value: str) -> str:
    return f"SELECT pg_catalog.set_config({name},{value},false);"


def _quoted_name(name: str) -> str:
    if name.isidentifier():
        return name
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def literal(value: str, encoding: str | None) -> str:
    """An SQL expression for a text that was told in some encoding; the expression is ASCII.

    In some encodings a byte that looks like a quote or a backslash is part of a character.

    Args:
        value: as `hyperpool.wire.text.decode` gives it.
        encoding: as ``client_encoding`` has it.
    """
    if value.isascii():
        return quote_literal(value)
    source = quote_literal(encoding or "UTF8")
    return f"pg_catalog.convert_from(pg_catalog.decode('{encode(value).hex()}','hex'),{source})"


def quote_literal(value: str) -> str:
    """A string constant that reads the same whatever ``standard_conforming_strings`` is.

    Args:
        value: ASCII.

    Source: PostgreSQL docs, "String Constants with C-Style Escapes".
    """
    if "\\" in value:
        return " E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + value.replace("'", "''") + "'"
