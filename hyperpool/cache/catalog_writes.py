"""Which tables a statement may change: those that it names, and what foreign keys, triggers, rules and functions add.

When in doubt, the answer is: any table.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

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
"""Functions of PostgreSQL that run what they are given. Others write at most what no answer is kept of."""

_LIBRARIES: Final = re.compile(
    r"(?:.*/)?(?:uuid-ossp|pgcrypto|citext|hstore|ltree|pg_trgm|intarray|unaccent|fuzzystrmatch|btree_gist|btree_gin|cube"
    r"|isn|moddatetime|autoinc|insert_username|vector)(?:\.\w+)?"
)
"""Extensions whose functions in C run no statements of SQL, though some are VOLATILE."""

_WRITING: Final = frozenset(
    """insert update delete merge truncate execute call copy create drop alter refresh do import reindex cluster grant
    revoke join""".split()  # noqa: SIM905 - a table
)
"""Words of a function's source that may write, or read what may call functions."""

_HARD: Final = re.compile(r'["\\]|\$(?!\d)|/\*')
"""What may hide words, once strings and comments have been left out."""

_STRING: Final = re.compile(r"'[^']*'")
_COMMENT: Final = re.compile(r"--[^\n]*|/\*[^*]*\*/")
_WORD: Final = re.compile(r"[a-z_\u0080-\U0010ffff][\w$]*")
_FROM: Final = re.compile(r"\bfrom\b")
_DISTINCT_FROM: Final = re.compile(r"\bdistinct\s+from\b")

_REFERENCE: Final = re.compile(r":relid (\d+)")
_CALL: Final = re.compile(r":(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)")

_REMEMBERED: Final = 4096


class Writers:
    """Widens what statements write.

    Args:
        rows: the catalog.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._parents: dict[int, list[int]] | None = None
        self._writing: dict[int, bool] = {}
        self._hidden: bool | None = None
        self._spread: dict[int, frozenset[int] | None] = {}
        self._known: dict[tuple[Reading, tuple[str, ...] | None], frozenset[int] | None] = {}

    def touched(self, reading: Reading, path: tuple[str, ...] | None) -> frozenset[int] | None:
        """The tables that a statement may change; see `Catalog.touched`."""
        key = (reading, path)
        try:
            return self._known[key]
        except KeyError:
            pass
        found = self._find(reading, path)
        while len(self._known) >= _REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[key] = found
        return found

    def _find(self, reading: Reading, path: tuple[str, ...] | None) -> frozenset[int] | None:
        writes = reading.writes
        if writes.anything or writes.schema or self._hides():
            return None
        found: set[int] = set()
        for schema, name in writes.tables:
            if schema is not None and schema.startswith("pg_temp"):
                continue
            relations = self._relations(schema, name, path)
            if not relations:
                return None
            for relation in relations:
                more = self._table(relation.oid)
                if more is None:
                    return None
                found |= more
        if self._calls(reading, path):
            return None
        return frozenset(found)

    def _relations(self, schema: str | None, name: str, path: tuple[str, ...] | None) -> list[Relation]:
        named = self._rows.relation_names.get(name, [])
        if schema is not None:
            return [one for one in named if one.schema == schema]
        if path is None:
            return named
        return [one for one in named if one.schema in path or one.schema == "pg_catalog"]

    def _calls(self, reading: Reading, path: tuple[str, ...] | None) -> bool:
        """Whether the statement may call a function that writes."""
        rows = self._rows
        names = {name for _, name, _ in reading.functions} | reading.attributes
        if any(self.writes(one) for name in names for one in rows.functions(name)):
            return True
        return any(
            self._reading_writes(relation)
            for schema, name in reading.relations
            for relation in self._relations(schema, name, path)
        )

    def _reading_writes(self, relation: Relation) -> bool:
        """Whether reading a relation may call a function that writes."""
        seen: set[int] = set()
        stack = [relation.oid]
        while stack:
            oid = stack.pop()
            one = self._rows.relations.get(oid)
            if oid in seen or one is None or one.builtin:
                continue
            seen.add(oid)
            stack.extend(one.children)
            for tree in (one.view, *one.policies):
                if self._tree_writes(tree):
                    return True
                stack.extend(map(int, _REFERENCE.findall(tree)))
        return False

    def _tree_writes(self, tree: str) -> bool:
        return any(self._function_writes(int(oid)) for oid in set(_CALL.findall(tree)))

    # -- tables --------------------------------------------------------------------------------------------------

    def _table(self, oid: int) -> frozenset[int] | None:
        """All tables that writing to a table may change; None for any."""
        if oid not in self._spread:
            self._spread[oid] = self._widen(oid)
        return self._spread[oid]

    def _widen(self, oid: int) -> frozenset[int] | None:
        found: set[int] = set()
        stack = [oid]
        while stack:
            oid = stack.pop()
            if oid in found:
                continue
            found.add(oid)
            relation = self._rows.relations.get(oid)
            if relation is None:
                continue
            if any(map(self._function_writes, (*relation.triggers, *relation.functions))):
                return None
            stack.extend(relation.children)
            stack.extend(self._ancestors(oid))
            stack.extend(relation.cascades)
            for tree in (*relation.rules, relation.view):
                if self._tree_writes(tree):
                    return None
                stack.extend(map(int, _REFERENCE.findall(tree)))
        return frozenset(found)

    def _ancestors(self, oid: int) -> list[int]:
        if self._parents is None:
            self._parents = {}
            for relation in self._rows.relations.values():
                for child in relation.children:
                    self._parents.setdefault(child, []).append(relation.oid)
        return self._parents.get(oid, [])

    # -- functions -----------------------------------------------------------------------------------------------

    def _function_writes(self, oid: int) -> bool:
        function = self._rows.function(oid)
        return function is None or self.writes(function)

    def writes(self, function: Function) -> bool:
        """Whether a function may change a table.

        PostgreSQL does not let functions write that are not VOLATILE.
        """
        known = self._writing.get(function.oid)
        if known is None:
            self._writing[function.oid] = True  # while it is looked at: it may call itself
            known = self._writing[function.oid] = self._writes(function)
        return known

    def _writes(self, function: Function) -> bool:
        if function.volatility != "v":
            return False
        if function.builtin:
            return function.name in _RUN_SQL
        if function.language == "c":
            return function.source is None or not _LIBRARIES.fullmatch(function.source)
        if function.language not in {"plpgsql", "sql"} or function.body is not None:
            return True
        return function.kind == "a" or function.source is None or self._source_writes(function.source)

    def _source_writes(self, source: str) -> bool:
        """Whether a function's source may write: it has a word that does, or one that is a function that does."""
        low = _COMMENT.sub(" ", _STRING.sub("''", source.lower()))
        if "'" in low.replace("''", "") or _HARD.search(low):
            return True
        words = set(_WORD.findall(low))
        if not words.isdisjoint(_WRITING) or len(_FROM.findall(low)) != len(_DISTINCT_FROM.findall(low)):
            return True
        return any(self.writes(one) for word in words for one in self._rows.functions(word))

    def _hides(self) -> bool:
        """Whether some operator, cast, type or domain calls a function that writes, in which case every text may."""
        if self._hidden is None:
            self._hidden = any(self._function_writes(oid) for oid in self._unnamed_functions()) or any(
                made.oid >= FIRST_USER
                and (self._checks_write(made.checks) or "v" in made.inputs + made.outputs)
                for made in self._rows.types.values()
            )
        return self._hidden

    def _checks_write(self, checks: Iterable[str]) -> bool:
        return any(map(self._tree_writes, checks))

    def _unnamed_functions(self) -> Iterable[int]:
        """Users' functions that are called without being named."""
        rows = self._rows
        yield from (cast.function for cast in rows.casts() if cast.function >= FIRST_USER)
        for made in rows.types.values():
            yield from made.support
        for operator in rows.all_operators():
            if operator.function >= FIRST_USER:
                yield operator.function
