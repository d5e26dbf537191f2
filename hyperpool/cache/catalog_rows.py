"""A database's catalog as the answer to `question` tells it: relations, types, functions, operators and casts.

Most of it is never looked at, so that it is kept as it came, and taken apart when it is asked for.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Unpack = Callable[[str], Sequence["Function | Operator"]]

FIRST_USER: Final = 16384
"""Oids below belong to what comes with PostgreSQL (FirstNormalObjectId of its ``transam.h``)."""

_OID: Final = re.compile(r'\[(\d+), "')


@attrs.frozen(eq=False)
class Function:
    """A function, procedure, aggregate or window function (pg_proc).

    Attributes:
        kind: f, p, a or w.
        volatility: i, s or v; for an aggregate, the worst of its parts.
        arguments: types of its input arguments.
        defaults: so many arguments may be left out at the end.
        variadic: type of the elements of its last argument; 0 if it is no VARIADIC one.
        names: of all arguments, with their modes (i, o, b, v, t) and types.
        config: settings that it sets for itself.
        source: of functions in SQL and PL/pgSQL, unless it is too long; the library, of functions in C.
        body: the tree of an SQL function whose body is no text.
        default_values: the trees of what stands for arguments that are left out.
        definer: it runs with the rights of its owner, to whom names may mean something else.
    """

    oid: int
    schema: str
    name: str
    kind: str
    volatility: str
    arguments: tuple[int, ...]
    defaults: int
    variadic: int
    result: int
    set_of: bool
    language: str
    names: tuple[tuple[str, str, int], ...]
    config: tuple[str, ...]
    source: str | None
    body: str | None
    default_values: str | None
    definer: bool

    @property
    def builtin(self) -> bool:
        """It comes with PostgreSQL."""
        return self.oid < FIRST_USER


@attrs.frozen(eq=False)
class Operator:
    """An operator (pg_operator); the left type of a prefix operator is 0."""

    oid: int
    schema: str
    name: str
    left: int
    right: int
    result: int
    function: int
    function_name: str


@attrs.frozen(eq=False)
class Cast:
    """A cast (pg_cast); function 0 for one without a function."""

    source: int
    target: int
    function: int
    function_name: str | None
    implicit: bool
    by_text: bool


@attrs.frozen(eq=False)
class Type:
    """A type (pg_type), but for those of tables and views.

    Attributes:
        kind: b(ase), c(omposite), d(omain), e(num), p(seudo), r(ange) or m(ultirange).
        category: pg_type.typcategory.
        element: of an array.
        array: the array of it.
        base: of a domain.
        subtype: of a range; the range of a multirange.
        inputs: volatilities of its input functions.
        outputs: the same, of its output functions.
        support: oids of the functions behind its comparisons, unless those come with PostgreSQL.
        checks: trees of a domain's constraints.
    """

    oid: int
    schema: str
    name: str
    kind: str
    category: str
    element: int
    array: int
    base: int
    subtype: int
    inputs: str
    outputs: str
    support: tuple[int, ...]
    checks: tuple[str, ...]


class Relation:
    """A table, view or whatever else is in pg_class.

    Attributes:
        kind: pg_class.relkind.
        persistence: p, u (unlogged) or t.
        row_security: it has it switched on.
        foreign_method: its access method is none of PostgreSQL's own.
        row_type: the type of its rows.
        row_array: the type of arrays of its rows.
    """

    __slots__ = (
        "_columns",
        "_extra",
        "_types",
        "foreign_method",
        "kind",
        "name",
        "oid",
        "persistence",
        "row_array",
        "row_security",
        "row_type",
        "schema",
    )

    def __init__(self, row: Sequence[str | None]) -> None:
        _, oid, schema, name, flags, types, columns, extra = row
        self.oid = int(oid or 0)
        self.schema = schema or ""
        self.name = name or ""
        flags = flags or "?"
        self.kind = flags[0]
        self.persistence = flags[1:2]
        self.row_security = "s" in flags[2:]
        self.foreign_method = "a" in flags[2:]
        row_type, _, row_array = (types or "0").partition(" ")
        self.row_type = int(row_type)
        self.row_array = int(row_array or 0)
        self._columns: str | tuple[tuple[str, int], ...] | None = columns
        self._extra: str | dict[str, Any] | None = extra
        self._types: dict[str, int] | None = None

    def __repr__(self) -> str:
        return f"<Relation {self}>"

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def builtin(self) -> bool:
        """It comes with PostgreSQL."""
        return self.oid < FIRST_USER

    @property
    def columns(self) -> tuple[tuple[str, int], ...]:
        """Names and types, in order."""
        if not isinstance(self._columns, tuple):
            self._columns = tuple((name, kind) for name, kind in json.loads(self._columns or "[]"))
        return self._columns

    @property
    def types(self) -> dict[str, int]:
        """Types of its columns, by their names."""
        if self._types is None:
            self._types = dict(self.columns)
        return self._types

    def _more(self, key: str) -> list[Any]:
        if self._extra is None:
            return []
        if isinstance(self._extra, str):
            self._extra = dict(json.loads(self._extra))
        return self._extra.get(key) or []

    @property
    def children(self) -> list[int]:
        """Oids of its partitions, or the tables that inherit from it."""
        return self._more("children")

    @property
    def view(self) -> str:
        """The tree of a view's query; empty if it is no view."""
        return "".join(self._more("view"))  # a string is a list of its characters

    @property
    def rules(self) -> list[str]:
        """Trees of the rules for writing to it."""
        return self._more("rules")

    @property
    def policies(self) -> list[str]:
        """Trees of what row security lets through on reading."""
        return self._more("policies")

    @property
    def triggers(self) -> list[int]:
        """Oids of its triggers' functions."""
        return self._more("triggers")

    @property
    def cascades(self) -> list[int]:
        """Oids of the tables whose rows a foreign key to this one changes."""
        return self._more("cascades")

    @property
    def functions(self) -> list[int]:
        """Oids of users' functions in defaults (also of its domains), constraints, policies, triggers and indexes."""
        return self._more("functions")


class Rows:
    """The catalog, by oids and by names.

    Args:
        rows: the answer to `question`.

    Raises:
        ValueError: they are no such answer.
    """

    def __init__(self, rows: Iterable[Sequence[str | None]]) -> None:
        self.version = ""
        self.relations: dict[int, Relation] = {}
        self.relation_names: dict[str, list[Relation]] = {}
        self.row_types: dict[int, Relation] = {}
        self.row_arrays: dict[int, Relation] = {}
        self.types: dict[int, Type] = {}
        self.type_names: dict[str, list[Type]] = {}
        self._functions: dict[str, str | list[Function]] = {}
        self._operators: dict[str, str | list[Operator]] = {}
        self._casts: dict[tuple[int, int], Cast] = {}
        self._names: dict[int, str] = {}
        self._operator_names: dict[int, str] = {}
        for row in rows:
            self._take(row)
        if not self.version:
            raise ValueError("the catalog's version is missing")

    def _take(self, row: Sequence[str | None]) -> None:
        kind, first, second = row[0], row[1], row[2]
        if kind == "r":
            relation = Relation(row)
            self.relations[relation.oid] = relation
            self.relation_names.setdefault(relation.name, []).append(relation)
            if relation.row_type:
                self.row_types[relation.row_type] = relation
            if relation.row_array:
                self.row_arrays[relation.row_array] = relation
        elif kind == "f":
            self._functions[first or ""] = second or "[]"
        elif kind == "t":
            made = _type(row)
            self.types[made.oid] = made
            self.type_names.setdefault(made.name, []).append(made)
        elif kind == "o":
            self._operators[first or ""] = second or "[]"
        elif kind == "c":
            for source, target, function, name, context, method in json.loads(first or "[]"):
                self._casts[source, target] = Cast(
                    source, target, function, name, context == "i", method == "i"
                )
        elif kind == "v":
            self.version = first or ""
        else:
            raise ValueError(f"the catalog has a row of an unknown kind, {kind!r}")

    def functions(self, name: str) -> list[Function]:
        """All functions of a name."""
        found = self._functions.get(name)
        if found is None:
            return []
        if isinstance(found, str):
            found = self._functions[name] = [_function(name, fields) for fields in json.loads(found)]
        return found

    def user_functions(self) -> Iterable[Function]:
        """All functions that do not come with PostgreSQL."""
        for name, entry in list(self._functions.items()):
            if not isinstance(entry, str) or any(int(oid) >= FIRST_USER for oid in _OID.findall(entry)):
                yield from (one for one in self.functions(name) if not one.builtin)

    def operators(self, name: str) -> list[Operator]:
        """All operators of a name."""
        found = self._operators.get(name)
        if found is None:
            return []
        if isinstance(found, str):
            found = self._operators[name] = [
                Operator(oid, schema, name, left, right, result, function, function_name)
                for oid, schema, left, right, result, function, function_name in json.loads(found)
            ]
        return found

    def all_operators(self) -> Iterable[Operator]:
        """All operators."""
        for name in list(self._operators):
            yield from self.operators(name)

    def cast(self, source: int, target: int) -> Cast | None:
        """The cast from one type to another, if there is one in the catalog."""
        return self._casts.get((source, target))

    def casts(self) -> Iterable[Cast]:
        """All of them."""
        return self._casts.values()

    def function(self, oid: int, name: str | None = None) -> Function | None:
        """The function with that oid; it is found faster if its name is known."""
        if name is None:
            if not self._names:
                self._names = _index(self._functions, self.functions)
            name = self._names.get(oid)
        if name is not None:
            for function in self.functions(name):
                if function.oid == oid:
                    return function
        return None

    def operator(self, oid: int) -> Operator | None:
        """The operator with that oid."""
        if not self._operator_names:
            self._operator_names = _index(self._operators, self.operators)
        for operator in self.operators(self._operator_names.get(oid, "")):
            if operator.oid == oid:
                return operator
        return None


def _index(packed: Mapping[str, str | Sequence[Function | Operator]], unpack: Unpack) -> dict[int, str]:
    """The names to oids, of what may still be packed."""
    index: dict[int, str] = {}
    for name, entry in list(packed.items()):
        if isinstance(entry, str):
            index.update((int(oid), name) for oid in _OID.findall(entry))
        else:
            index.update((made.oid, name) for made in unpack(name))
    return index


def _function(name: str, fields: Sequence[Any]) -> Function:
    (oid, schema, kind, volatility, arguments, defaults, variadic, result, set_of, language, *rest) = fields
    all_arguments, modes, names, config, source, body, default_values, definer = rest
    types = all_arguments or arguments
    labels = names or [""] * len(types)
    return Function(
        oid=oid,
        schema=schema,
        name=name,
        kind=kind,
        volatility=volatility,
        arguments=tuple(arguments),
        defaults=defaults,
        variadic=variadic,
        result=result,
        set_of=set_of,
        language=language,
        names=tuple(zip(labels, modes or "i" * len(types), types, strict=False)),
        config=tuple(config or ()),
        source=source,
        body=body,
        default_values=default_values,
        definer=definer,
    )


def _type(row: Sequence[str | None]) -> Type:
    _, oid, schema, name, kind, numbers, support, checks = row
    element, array, base, subtype, inputs, outputs = (numbers or "").split(" ")
    return Type(
        oid=int(oid or 0),
        schema=schema or "",
        name=name or "",
        kind=(kind or "?")[0],
        category=(kind or "??")[1],
        element=int(element),
        array=int(array),
        base=int(base),
        subtype=int(subtype),
        inputs=inputs,
        outputs=outputs,
        support=tuple(json.loads(support)) if support else (),
        checks=tuple(json.loads(checks)) if checks else (),
    )
