"""Which tables a statement may change: those that it names, and what foreign keys, triggers, rules and functions add.

When in doubt, the answer is: any table.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.cache.catalog_rows import FIRST_USER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hyperpool.cache.catalog_rows import Function, Relation, Rows
    from hyperpool.sql.reading import Reading

_RUN_SQL: Final = frozenset(
    {
        "query_to_xml",
        "query_to_xmlschema",
        "query_to_xml_and_xmlschema",
        "cursor_to_xml",
        "cursor_to_xmlschema",
    }
    | {"ts_stat", "ts_rewrite"}
)
"""Functions of PostgreSQL that run what they are given, if they are VOLATILE. Others write at most what no answer is
kept of."""

_READ_ALL: Final = frozenset(
    {
        *("table_to_xml", "table_to_xml_and_xmlschema", "schema_to_xml", "schema_to_xml_and_xmlschema"),
        *("database_to_xml", "database_to_xml_and_xmlschema"),
    }
)
"""Functions of PostgreSQL that read tables and views, and so call what is in those."""

_LIBRARIES: Final = re.compile(
    r"(?:.*/)?(?:uuid-ossp|pgcrypto|citext|hstore|ltree|pg_trgm|intarray|unaccent|fuzzystrmatch|btree_gist|btree_gin|cube"
    r"|isn|moddatetime|autoinc|insert_username|vector)(?:\.\w+)?"
)
"""Extensions whose functions in C run no statements of SQL, though some are VOLATILE."""

_CHANGING: Final = frozenset("insert update delete merge truncate copy refresh reindex cluster call".split())  # noqa: SIM905
"""Words of a function's source that may change rows."""

_SHAPING: Final = frozenset("create alter drop grant revoke import reassign security".split())  # noqa: SIM905
"""Words that may change what there is, or who may do what."""

_RUNNING: Final = frozenset({"execute", "prepare"})
"""Words that run what the source does not say."""

_SKIPPED: Final = re.compile(r"'[^']*'|--[^\n]*|/\*.*?\*/|\"[^\"]*\"", re.DOTALL)
"""Strings, comments and quoted names, whichever begins first."""

_HARD: Final = re.compile(r"[\"\\]|\$(?!\d)|/\*|\*/")
"""What may hide words, once those have been left out."""

_AMBIGUOUS: Final = re.compile(r"\\'|\"\"|u&", re.IGNORECASE)
"""With these, they may end elsewhere than they seem to."""

_WORD: Final = re.compile(r"[a-z_\u0080-\U0010ffff][\w$]*")
_DO: Final = re.compile(r"\bdo\b(?!\s+(?:nothing|update|instead|also)\b)")

_TRIGGERS: Final = frozenset({2279, 3838})
"""What functions of triggers and event triggers return: nothing else can call those (pg_type.dat)."""

_REFERENCE: Final = re.compile(r":relid (\d+)")
_CALL: Final = re.compile(r":(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)")

_REMEMBERED: Final = 4096


class Reach(enum.IntEnum):
    """How far it goes what a function does."""

    NOTHING = 0
    """It reads at most."""
    ROWS = 1
    """It may change rows of any table."""
    UNKNOWN = 2
    """It runs what nobody knows: rows and, less likely, what tables and functions there are."""
    SCHEMA = 3
    """It is made to change what there is, or who may do what."""


@attrs.frozen
class Touched:
    """What a statement may change.

    Attributes:
        tables: oids of those whose rows it may change; None for any.
        reach: how far the functions go that it calls.
    """

    tables: frozenset[int] | None
    reach: Reach = Reach.NOTHING


class Writers:
    """Widens what statements write.

    Args:
        rows: the catalog.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._parents: dict[int, list[int]] | None = None
        self._own: dict[int, tuple[Reach, frozenset[int]]] = {}
        self._reach: dict[int, Reach] = {}
        self._hidden: Reach | None = None
        self._farthest: Reach | None = None
        self._spread: dict[int, Touched] = {}
        self._known: dict[tuple[Reading, tuple[str, ...] | None], Touched] = {}

    def touched(self, reading: Reading, path: tuple[str, ...] | None) -> Touched:
        """What a statement may change; see `Catalog.touched`."""
        key = (reading, path)
        known = self._known.get(key)
        if known is None:
            known = self._find(reading, path)
            while len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[key] = known
        return known

    def _find(self, reading: Reading, path: tuple[str, ...] | None) -> Touched:
        writes = reading.writes
        reach = max(self._hides(), self._calls(reading, path))
        unknown = writes.anything or writes.schema or reach > Reach.NOTHING
        found: set[int] = set()
        for schema, name in writes.tables:
            if schema is not None and schema.startswith("pg_temp"):
                continue
            relations = self._relations(schema, name, path)
            unknown = unknown or not relations
            for relation in relations:
                more = self._table(relation.oid)
                reach = max(reach, more.reach)
                unknown = unknown or more.tables is None
                found |= more.tables or frozenset()
        return Touched(None if unknown else frozenset(found), reach)

    def _relations(self, schema: str | None, name: str, path: tuple[str, ...] | None) -> list[Relation]:
        named = self._rows.relation_names.get(name, [])
        if schema is not None:
            return [one for one in named if one.schema == schema]
        if path is None:
            return named
        return [one for one in named if one.schema in path or one.schema == "pg_catalog"]

    def _calls(self, reading: Reading, path: tuple[str, ...] | None) -> Reach:
        """How far the functions go that the statement may call."""
        rows = self._rows
        named = {name for _, name, _ in reading.functions}
        functions = {one.oid for name in named | reading.attributes for one in rows.functions(name)}
        temporary = any(
            schema is not None and schema.startswith("pg_temp") for schema, _, _ in reading.functions
        )
        if temporary or any(not rows.functions(name) and name not in rows.type_names for name in named):
            # It is temporary, or new.
            return Reach.UNKNOWN
        for schema, name in reading.relations:
            for relation in self._relations(schema, name, path):
                functions |= self._behind(relation)
        return self._farthest_of(functions)

    def _behind(self, relation: Relation) -> set[int]:
        """The functions that reading a relation may call."""
        seen: set[int] = set()
        found: set[int] = set()
        stack = [relation.oid]
        while stack:
            oid = stack.pop()
            one = self._rows.relations.get(oid)
            if oid in seen or one is None or one.builtin:
                continue
            seen.add(oid)
            stack.extend(one.children)
            for tree in (one.view, *one.policies):
                found |= _called(tree)
                stack.extend(map(int, _REFERENCE.findall(tree)))
        return found

    # -- tables --------------------------------------------------------------------------------------------------

    def _table(self, oid: int) -> Touched:
        """All that writing to a table may change."""
        if oid not in self._spread:
            self._spread[oid] = self._widen(oid)
        return self._spread[oid]

    def _widen(self, oid: int) -> Touched:
        found: set[int] = set()
        functions: set[int] = set()
        reach = Reach.NOTHING
        elsewhere = False
        stack = [oid]
        while stack:
            oid = stack.pop()
            if oid in found:
                continue
            found.add(oid)
            relation = self._rows.relations.get(oid)
            if relation is None:
                continue
            if relation.builtin:
                reach = Reach.SCHEMA
            elif relation.kind == "m":
                # Its query is executed.
                reach = max(reach, self._any())
            elsewhere = elsewhere or relation.kind == "f"
            functions.update(relation.triggers, relation.functions)
            stack.extend(relation.children)
            stack.extend(self._ancestors(oid))
            stack.extend(relation.cascades)
            for tree in (*relation.rules, relation.view):
                functions |= _called(tree)
                stack.extend(map(int, _REFERENCE.findall(tree)))
        reach = max(reach, self._farthest_of(functions))
        return Touched(None if reach or elsewhere else frozenset(found), reach)

    def _ancestors(self, oid: int) -> list[int]:
        if self._parents is None:
            self._parents = {}
            for relation in self._rows.relations.values():
                for child in relation.children:
                    self._parents.setdefault(child, []).append(relation.oid)
        return self._parents.get(oid, [])

    # -- functions -----------------------------------------------------------------------------------------------

    def _farthest_of(self, functions: Iterable[int]) -> Reach:
        return max(map(self._function, functions), default=Reach.NOTHING)

    def _function(self, oid: int) -> Reach:
        """How far a function goes, with all that it calls."""
        known = self._reach.get(oid)
        if known is None:
            known = Reach.NOTHING
            seen = {oid}
            stack = [oid]
            while stack and known < Reach.SCHEMA:
                own, calls = self._alone(stack.pop())
                known = max(known, own)
                stack.extend(calls - seen)
                seen |= calls
            self._reach[oid] = known
        return known

    def _alone(self, oid: int) -> tuple[Reach, frozenset[int]]:
        """How far a function goes by itself, and what it calls."""
        if oid not in self._own:
            function = self._rows.function(oid)
            self._own[oid] = (Reach.UNKNOWN, frozenset()) if function is None else self._look(function)
        return self._own[oid]

    def _look(self, function: Function) -> tuple[Reach, frozenset[int]]:
        """PostgreSQL lets functions that are not VOLATILE write nothing, but call others that do."""
        volatile, source = function.volatility == "v", function.source
        if function.builtin:
            runs = (volatile and function.name in _RUN_SQL) or function.name in _READ_ALL
            return (self._any() if runs else Reach.NOTHING), frozenset()
        if function.language in {"c", "internal"} or function.kind == "a":
            harmless = not volatile or (function.language == "c" and _LIBRARIES.fullmatch(source or ""))
            return (Reach.NOTHING if harmless else Reach.UNKNOWN), frozenset()
        if function.body is not None:
            calls = _called(function.body)
            for relation in map(self._rows.relations.get, map(int, _REFERENCE.findall(function.body))):
                calls |= self._behind(relation) if relation is not None else set()
            return (Reach.ROWS if volatile else Reach.NOTHING), frozenset(calls)
        if function.language not in {"plpgsql", "sql"} or source is None:
            return (Reach.UNKNOWN if volatile else self._any()), frozenset()
        return self._read(function, source)

    def _read(self, function: Function, source: str) -> tuple[Reach, frozenset[int]]:
        """What a function's source may do, and what is called by its words."""
        volatile = function.volatility == "v"
        quoted: set[str] = set()

        def left(skipped: re.Match[str]) -> str:
            if skipped[0].startswith('"'):
                quoted.add(skipped[0][1:-1])
            return "''" if skipped[0].startswith("'") else " "

        low = _SKIPPED.sub(left, source).lower()
        words = quoted.union(_WORD.findall(low))
        hidden = _AMBIGUOUS.search(source) or _HARD.search(low) or "'" in low.replace("''", "")
        if hidden or not words.isdisjoint(_RUNNING) or _DO.search(low):
            if not volatile:
                return self._any(), frozenset()
            shapes = not _SHAPING.isdisjoint(_WORD.findall(source.lower()))
            return (Reach.SCHEMA if shapes else Reach.UNKNOWN), frozenset()
        rows = self._rows
        calls = {one.oid for word in words for one in rows.functions(word)}
        for word in words:
            for relation in rows.relation_names.get(word, ()):
                calls |= self._behind(relation)
        if not volatile:
            return Reach.NOTHING, frozenset(calls)
        makes_table = function.language == "sql" and "into" in words and words.isdisjoint({"insert", "merge"})
        if makes_table or not words.isdisjoint(_SHAPING):
            return Reach.SCHEMA, frozenset(calls)
        return (Reach.NOTHING if words.isdisjoint(_CHANGING) else Reach.ROWS), frozenset(calls)

    def _any(self) -> Reach:
        """How far any function of a user goes that can be called."""
        if self._farthest is None:
            self._farthest = max(
                (
                    self._alone(one.oid)[0]
                    for one in self._rows.user_functions()
                    if one.volatility == "v" and one.result not in _TRIGGERS
                ),
                default=Reach.NOTHING,
            )
        return self._farthest

    def _hides(self) -> Reach:
        """How far operators, casts, types and domains go: any text may call their functions."""
        if self._hidden is None:
            checks: set[int] = set()
            hidden = Reach.NOTHING
            for made in self._rows.types.values():
                if made.oid >= FIRST_USER:
                    checks.update(*map(_called, made.checks))
                    if "v" in made.inputs + made.outputs:
                        hidden = Reach.ROWS
            self._hidden = max(hidden, self._farthest_of({*checks, *self._unnamed_functions()}))
        return self._hidden

    def _unnamed_functions(self) -> Iterable[int]:
        """Users' functions that are called without being named."""
        rows = self._rows
        yield from (cast.function for cast in rows.casts() if cast.function >= FIRST_USER)
        for made in rows.types.values():
            yield from made.support
        for operator in rows.all_operators():
            if operator.function >= FIRST_USER:
                yield operator.function


def _called(tree: str) -> set[int]:
    """Oids of the functions that an expression calls."""
    return set(map(int, _CALL.findall(tree)))
