"""The names that a query may use, and what they may mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.cache.judge import Reached, Refused
from hyperpool.cache.judge_types import RECORD, TEXT, UNKNOWN, TypeRules, Types
from hyperpool.sql.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hyperpool.cache.catalog_rows import Function, Operator, Relation
    from hyperpool.cache.judge import Judge

Columns = list[tuple[str, Types]]

_NONE: Final[Types] = frozenset()
_UNKNOWN: Final[Types] = frozenset({UNKNOWN})

_PHYSICAL: Final = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
"""System columns: they change without a statement that writes."""


class Scope:
    """What the names in one query may mean, wherever they stand in it.

    A name of a column means all columns of that name: those of all relations that the query reads, and of all queries
    inside. That is more than SQL's own rules say, but never less. Since a name may be used before what it stands for
    has been looked at (``WITH RECURSIVE``, ``LATERAL``), the query is looked at again until nothing is added.

    Args:
        judge: knows the catalog.
        path: schemas in which names without a schema are looked for, besides pg_catalog.
        parameters: types of ``$1`` and so on; 0 and what is missing is told by the context.
    """

    def __init__(self, judge: Judge, path: tuple[str, ...], parameters: Sequence[int]) -> None:
        self.judge = judge
        self.types: TypeRules = judge.types
        self.path = path
        self.reached = Reached()
        self.final = False
        self.changed = False
        self.missed = False
        self.ctes: dict[str, Columns] = {}
        self._declared = parameters
        self._inferred: dict[int, set[int]] = {}
        self._uses: dict[int, set[int]] = {}
        self._columns: dict[str, set[int]] = {}
        self._rows: dict[str, set[int]] = {}
        self._relations: dict[int, Relation] = {}
        self._asked: set[str] = set()
        self._asked_all = False

    def again(self) -> bool:
        """Whether the query must be looked at once more, since what has been told was not yet all."""
        again = self.changed or (self.missed and not self.final)
        self.final = not self.changed
        self.changed = self.missed = False
        return again

    # -- the catalog ---------------------------------------------------------------------------------------------

    def _visible(self, schema: str, wanted: str) -> bool:
        return schema == wanted if wanted else schema == "pg_catalog" or schema in self.path

    def relations(self, schema: str, name: str) -> list[Relation]:
        """All relations that a name may mean."""
        named = self.judge.rows.relation_names.get(name, ())
        return [relation for relation in named if self._visible(relation.schema, schema)]

    def functions(self, schema: str, name: str) -> list[Function]:
        """All functions that a name may mean."""
        return [one for one in self.judge.rows.functions(name) if self._visible(one.schema, schema)]

    def operators(self, schema: str, name: str) -> list[Operator]:
        """All operators that a name may mean."""
        return [one for one in self.judge.rows.operators(name) if self._visible(one.schema, schema)]

    def types_named(self, schema: str, name: str) -> Types:
        """All types that a name may mean."""
        rows = self.judge.rows
        made = [one.oid for one in rows.type_names.get(name, ()) if self._visible(one.schema, schema)]
        if not made or not schema:
            made += [one.row_type for one in self.relations(schema, name) if one.row_type]
        return frozenset(made)

    # -- definitions ---------------------------------------------------------------------------------------------

    def read(self, relation: Relation) -> None:
        """Take in a relation that the query reads.

        Raises:
            Refused: it must not be cached.
        """
        if relation.oid not in self._relations:
            self.reached.add(self.judge.relation(relation.oid, self.path))
            self._relations[relation.oid] = relation
            if self._asked_all or not self._asked.isdisjoint(relation.types):
                self.changed = True

    def define(self, name: str, types: Iterable[int]) -> None:
        """Take in a column."""
        self._define(self._columns, name, types)

    def define_row(self, name: str, types: Iterable[int]) -> None:
        """Take in a name for whole rows."""
        self._define(self._rows, name, types)

    def _define(self, names: dict[str, set[int]], name: str, types: Iterable[int]) -> None:
        known = names.setdefault(name, set())
        before = len(known)
        known.update(TEXT if oid == UNKNOWN else oid for oid in types)
        if len(known) > before and (self._asked_all or name in self._asked):
            self.changed = True

    def define_cte(self, name: str, columns: Columns) -> None:
        """Take in a WITH query."""
        known = self.ctes.get(name)
        if known is not None and len(known) == len(columns):
            columns = [(label, one | two) for (label, one), (_, two) in zip(columns, known, strict=True)]
        if known != columns:
            self.changed = known is not None or self.changed
            self.ctes[name] = columns

    # -- uses ----------------------------------------------------------------------------------------------------

    def column(self, name: str, *, optional: bool = False) -> Types:
        """The types that a column of that name may have, or rows of a table of that name.

        Args:
            name: of a column or a table.
            optional: it may be the name of something else.

        Raises:
            Refused: nothing has that name.
        """
        self._asked.add(name)
        found = set(self._columns.get(name, ()))
        found.update(self._rows.get(name, ()))
        for relation in self._relations.values():
            kind = relation.types.get(name)
            if kind is not None:
                found.add(kind)
        if name in _PHYSICAL:
            raise Refused(Reason.UNCERTAIN, f"system column {name}")
        if not found and not optional:
            self.not_yet(Reason.UNCERTAIN, f"column {name} was not found")
        return frozenset(found)

    def not_yet(self, reason: Reason, detail: str) -> None:
        """Something was not found; it may be once the rest of the query has been looked at.

        Raises:
            Refused: all of it has been.
        """
        if self.final:
            raise Refused(reason, detail)
        self.missed = True

    def rows(self) -> Types:
        """The types of whole rows that may be meant by some name."""
        self._asked_all = True
        return frozenset({RECORD}.union(*self._rows.values()))

    def everything(self) -> Types:
        """The types of all columns that are known."""
        self._asked_all = True
        found = set[int]().union(*self._columns.values())
        for relation in self._relations.values():
            found.update(relation.types.values())
        return frozenset(found)

    # -- parameters ----------------------------------------------------------------------------------------------

    def parameter(self, number: int, location: int) -> Types:
        """The types that a parameter may have; unknown for one whose type its context tells.

        Args:
            number: from 1 on.
            location: where it stands.
        """
        if 0 < number <= len(self._declared) and self._declared[number - 1]:
            return frozenset({self._declared[number - 1]})
        uses = self._uses.setdefault(number, set())
        if location not in uses:
            uses.add(location)
            self.changed |= len(uses) == 2
        return frozenset({UNKNOWN, *self._inferred.get(number, ())}) if len(uses) > 1 else _UNKNOWN

    def infer(self, number: int, types: Iterable[int]) -> None:
        """A parameter's type may be one of these: its first use decides, for all uses."""
        known = self._inferred.setdefault(number, set())
        before = len(known)
        known.update(oid for oid in types if oid != UNKNOWN)
        if len(known) > before and len(self._uses.get(number, ())) > 1:
            self.changed = True


def merged(groups: Iterable[Types]) -> Types:
    """The types that may come out where several expressions must get a common type."""
    return resolved(_NONE.union(*groups))


def resolved(types: Types) -> Types:
    """The types, where PostgreSQL takes text for what is unknown still."""
    if UNKNOWN not in types:
        return types
    return types - {UNKNOWN} or frozenset({TEXT})
