"""What a client may have left behind on a server connection: suspicions, and the question that settles them.

A text tells what it might do to a session, not what it did: a transaction may roll back, a lock may have been taken
already, a temporary table may be gone at commit. So texts only raise a `Suspicion`, and when the transaction has ended,
the server is asked once what is true. Texts that raise none cost nothing, and nor do their servers.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Final

from hyperpool.relay.deallocation import Deallocations
from hyperpool.relay.parameters import CHECKED, IDENTITY, literal
from hyperpool.sql.effects import Pin
from hyperpool.wire.text import decode

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from hyperpool.sql.effects import Effects


class Pinned(enum.IntFlag):
    """Why a client keeps its server connection."""

    TEMPORARY = Pin.TEMPORARY.value
    LISTEN = Pin.LISTEN.value
    LOCK = Pin.LOCK.value
    HOLD = Pin.HOLD.value
    PREPARE = Pin.PREPARE.value
    LOAD = Pin.LOAD.value
    FUNCTION = Pin.FUNCTION.value
    STATEMENT = 1 << 16


UNPINNED: Final = Pinned(0)

WORDS: Final = {
    Pinned.TEMPORARY: "temporary objects",
    Pinned.LISTEN: "LISTEN",
    Pinned.LOCK: "session advisory locks",
    Pinned.HOLD: "WITH HOLD cursors",
    Pinned.PREPARE: "SQL-level PREPARE",
    Pinned.LOAD: "LOAD",
    Pinned.FUNCTION: "a function in pin_functions",
    Pinned.STATEMENT: "a prepared statement that the pooler does not keep",
}

_TRUTHS: Final = {
    # With pg_temp in the search_path, no text tells what will be temporary.
    Pinned.TEMPORARY: "EXISTS(SELECT FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=)"
    " 'pg_catalog.pg_namespace'::pg_catalog.regclass"
    " AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
    " OR pg_catalog.strpos(pg_catalog.current_setting('search_path'), 'pg_temp') OPERATOR(pg_catalog.>) 0",
    Pinned.LISTEN: "EXISTS(SELECT FROM pg_catalog.pg_listening_channels())",
    Pinned.LOCK: "EXISTS(SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'"
    " AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND granted)",
    Pinned.HOLD: "EXISTS(SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)",
    Pinned.PREPARE: "EXISTS(SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)",
}
"""What can be asked, and how. Every name is qualified: the session's search_path may lead anywhere."""

_TIMEOUT: Final = "statement_timeout"
_VALUE: Final = "SELECT '%s', pg_catalog.current_setting('%s'), NULL"
_TRANSIENT: Final = frozenset(
    {"transaction_isolation", "transaction_read_only", "transaction_deferrable", "seed"}
)
"""Parameters that mean the transaction, not the session."""

_REPORTED: Final = (
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "standard_conforming_strings",
    "application_name",
    "IntervalStyle",
)
_KEPT: Final = ",".join(f"'{name}'" for name in sorted({*CHECKED, *_TRANSIENT, *_REPORTED}))
"""What is not set to its default to see what that is: the server might refuse it, or tell more than it was asked."""

_ROW: Final = (
    # The view has a default without its unit: it must be set to be seen as it is shown.
    "SELECT pg_catalog.lower(name), pg_catalog.current_setting(name),"  # noqa: S608 - of constants
    " CASE WHEN setting OPERATOR(pg_catalog.=) reset_val THEN pg_catalog.current_setting(name)"
    " WHEN context OPERATOR(pg_catalog.=) 'user' AND pg_catalog.strpos(name, '.') OPERATOR(pg_catalog.=) 0"
    f" AND name OPERATOR(pg_catalog.<>) ALL (ARRAY[{_KEPT}])"
    " THEN pg_catalog.set_config(name, reset_val, true) END FROM pg_catalog.pg_settings"
)
_DEFAULTS: Final = (
    f"{_ROW} WHERE pg_catalog.lower(name) OPERATOR(pg_catalog.=) ANY (ARRAY[%s]::pg_catalog.text[])"
)
_VALUES: Final = (
    "SELECT n, pg_catalog.current_setting(n, true), NULL"
    " FROM pg_catalog.unnest(ARRAY[%s]::pg_catalog.text[]) n"
)
_ALL_SETTINGS: Final = (
    f"{_ROW} WHERE source OPERATOR(pg_catalog.=) 'session'"
    " UNION ALL SELECT 'role', pg_catalog.current_setting('role'), NULL"
    " UNION ALL SELECT 'session_authorization', pg_catalog.current_setting('session_authorization'), NULL"
)

ASKABLE: Final = Pinned(sum(_TRUTHS))
"""What the server can tell."""
LASTING: Final = Pinned.LOAD | Pinned.FUNCTION
"""What only the end of the server connection undoes."""


class Suspicion:
    """What the texts of a client may have changed since the server was last asked.

    Attributes:
        settings: names of parameters, in lower case.
        everything: parameters that cannot be told from the text.
        pins: what may have been created, or may have ended.
        touches_settings: any text may change a parameter, whether the server reports that or not.
        restores: parameters that texts on their way set back to what the server's session began with, and what the
            client's began with, by name.
        resetting: which of the ReadyForQuery messages that the client asks for comes behind these texts.
        has_reset: the server has said that it has done it.
        tries: how often asking was cancelled.
        taints: parameters may have been set that no text names and no server lists.
        strange: of the settings that are asked for, those whose defaults are not known.
        deallocations: the texts among them that deallocate statements.
        routines: what is called by other statements may have changed.
        recodes: values that are not ASCII may be told in another encoding now.
        schema: plans of prepared statements may be out of date.
    """

    __slots__ = (
        "deallocations",
        "everything",
        "has_reset",
        "pins",
        "recodes",
        "resetting",
        "restores",
        "routines",
        "schema",
        "settings",
        "strange",
        "taints",
        "touches_settings",
        "tries",
    )

    def __init__(self) -> None:
        self.settings: set[str] = set()
        self.everything = False
        self.touches_settings = False
        self.pins = Pinned(0)
        self.restores: dict[str, str] = {}
        self.resetting = 0
        self.has_reset = False
        self.schema = False
        self.routines = False
        self.taints = False
        self.recodes = False
        self.tries = 0
        self.strange: set[str] = set()
        self.deallocations = Deallocations()

    def add(self, effects: Effects, text: bytes, pinned: Pinned, reported: Collection[str]) -> None:
        """Another text.

        Args:
            effects: what it may do.
            text: itself.
            pinned: why the client is pinned already.
            reported: parameters that need not be asked for, because the server reports them.
        """
        self.settings |= effects.settings - _TRANSIENT - set(reported)
        self.everything = self.everything or effects.unknown_settings
        if effects.unknown_settings and not _CLEANING.fullmatch(text):
            self.taints = True
        self.touches_settings = (
            self.touches_settings or self.everything or effects.local or bool(effects.settings)
        )
        self.pins |= Pinned(effects.pins.value)
        if effects.releases or effects.unknown_settings:
            self.pins |= pinned & ASKABLE
        elif "search_path" in effects.settings:
            self.pins |= pinned & Pinned.TEMPORARY
        if effects.schema and (not effects.unknown_settings or _SCHEMA.search(text)):
            self.schema = True
            self.routines = self.routines or _STORED.search(text) is not None
        self.recodes = self.recodes or "client_encoding" in effects.settings
        if effects.schema and _ROUTINE.search(text):
            # It may be called in this transaction already, when nobody knows it.
            self.everything = self.taints = True
        if effects.unknown_settings:
            # A parameter of nobody's, with a dot in its name, is not listed by the server, but the text may name it.
            words = _DOTTED.findall(text[:_MAX_SEARCHED].lower())[:_MAX_WORDS]
            self.settings |= {decode(word) for word in words}
        if len(self.settings) > _MAX_NAMES:
            self.settings.clear()
            self.everything = self.taints = True

    def resets(self, effects: Effects, begun: Mapping[str, str], number: int) -> None:
        """Another text, of which it is known what it sets and resets.

        Args:
            effects: what it may do.
            begun: what the client's session began with and the server's did not, by name in lower case.
            number: of the ReadyForQuery message behind it.
        """
        names = begun.keys() - effects.sets - {*IDENTITY} if effects.resets_all else effects.resets
        for name in effects.settings:
            self.restores.pop(name, None)
        self.restores.update((name, value) for name, value in begun.items() if name in names)
        self.resetting = number

    def not_reset(self) -> None:
        """What was to be reset is as it was."""
        self.restores.clear()
        self.has_reset = False

    @property
    def asks(self) -> bool:
        """Whether the server has to be asked."""
        return bool(self.settings or self.everything or self.pins & ASKABLE)

    def asked_again(self) -> bool:
        """Whether the same question may be asked once more."""
        self.tries += 1
        return self.tries < _MAX_TRIES

    def merge(self, other: Suspicion | None) -> None:
        """What has been suspected meanwhile."""
        if other is not None:
            self.settings |= other.settings
            self.everything = self.everything or other.everything
            self.pins |= other.pins
            self.restores, self.resetting, self.has_reset = other.restores, other.resetting, other.has_reset
            self.touches_settings = self.touches_settings or other.touches_settings
            self.recodes = self.recodes or other.recodes
            self.schema = self.schema or other.schema
            self.taints = self.taints or other.taints
            self.routines = self.routines or other.routines
            self.deallocations = other.deallocations

    def distrust(self) -> bool:
        """The question failed: perhaps somebody has tried to set a parameter that he may not even see.

        Returns:
            Whether another question may do: what the server lists by itself.
        """
        tried = {name for name in self.settings if "." not in name}
        self.settings -= tried
        self.everything = True
        return bool(tried)

    def question(
        self,
        held: Collection[str],
        known: Mapping[str, str | None],
        custom: Collection[str],
        encoding: str | None = None,
    ) -> str:
        """The SQL that asks for the truth.

        Args:
            held: what differs from the server's defaults so far.
            known: parameters whose defaults are known.
            custom: parameters with a dot in their names that functions may set: the server does not list such.
            encoding: in which the names were told.
        """
        parts = []
        if self.everything:
            self.settings.update(name for name in held if "." in name)
            self.settings.update(custom)
        if self.everything or any(
            name.startswith("default_transaction_") for name in (*self.settings, *held)
        ):
            # A serializable, deferrable transaction that reads would wait for other transactions.
            parts.append("SET TRANSACTION ISOLATION LEVEL READ COMMITTED NOT DEFERRABLE")
        self.strange = {name for name in self.settings if name not in known}
        if self.everything or _TIMEOUT in self.settings or _TIMEOUT in held:
            # It would be the pooler's own query that it ends. What it is, is asked for first.
            self.settings.discard(_TIMEOUT)
            parts += [_VALUE % (_TIMEOUT, _TIMEOUT), f"SET LOCAL {_TIMEOUT} = 0"]
        if self.pins & ASKABLE:
            parts.append("SELECT " + ",".join(_TRUTHS.values()))
        for sql, names in ((_DEFAULTS, self.strange), (_VALUES, self.settings)):
            if names:
                parts.append(sql % ",".join(literal(name, encoding) for name in sorted(names)))
        if self.everything:
            parts.append(_ALL_SETTINGS)
        return ";".join(parts)


class Truth:
    """What the server has answered.

    Args:
        rows: the rows of the answer: five truths, or name, value and perhaps default.
        defaults: what every session begins with, by name, as far as it is known; what the rows tell is added.

    Attributes:
        pins: what is there.
        settings: values by name; None for what is not set, or is what every session begins with.
    """

    __slots__ = ("pins", "settings")

    def __init__(self, rows: Sequence[Sequence[str | None]], defaults: dict[str, str | None]) -> None:
        self.pins = Pinned(0)
        self.settings: dict[str, str | None] = {}
        for row in rows:
            if len(row) == len(_TRUTHS):
                for pin, truth in zip(_TRUTHS, row, strict=True):
                    self.pins |= pin if truth == "t" else Pinned(0)
            elif row[0] is not None and row[0] not in _TRANSIENT:
                self.settings.setdefault(row[0], row[1])
                if row[2] is not None:
                    defaults[row[0]] = row[2]
        for name, value in self.settings.items():
            default = defaults.get(name)
            if value == default or not (value or default):
                self.settings[name] = None


def names_of(pins: Pinned) -> str:
    """The reasons in words."""
    return ", ".join(words for pin, words in WORDS.items() if pin & pins)


_ROUTINE: Final = re.compile(rb"(?i)\b(?:function|procedure|trigger|routine|extension|operator|aggregate)\b")
_CLEANING: Final = re.compile(
    rb"(?i)(?:\s*+(?:reset\s+all|discard\s+all|close\s+all|unlisten\s+\*|deallocate\s+all"
    rb"|select\s+pg_advisory_unlock_all\(\))\s*+;?)++\s*"
)
"""What a driver's pool sends when it takes a connection back: it leaves nothing."""
_STORED: Final = re.compile(
    rb"(?i)\b(?:function|procedure|trigger|routine|extension|operator|aggregate|view|rule|default|language|schema"
    rb"|policy|check|constraint|domain|type|cast|index|generated|partition|inherits|references)\b"
)
_SCHEMA: Final = re.compile(rb"(?i)\b(?:alter|create|drop)\b")
_MAX_TRIES: Final = 5
_MAX_SEARCHED: Final = 65536
_MAX_WORDS: Final = 100
_MAX_NAMES: Final = 1000
_DOTTED: Final = re.compile(rb"(?<![\w.])[a-z_]\w*+(?:\.[a-z_]\w*+)+")
