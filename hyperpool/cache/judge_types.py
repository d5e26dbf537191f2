"""Which types an expression may have, and which of several functions or operators PostgreSQL may choose for it.

Every answer is a set that has at least what PostgreSQL would choose. Source of the rules: its documentation, "Type
Conversion"; "Extending SQL", section "Polymorphic Types".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hyperpool.cache.catalog_rows import Cast, Function, Operator, Rows, Type

Types = frozenset[int]

BOOL: Final = 16
INT8: Final = 20
INT4: Final = 23
TEXT: Final = 25
UNKNOWN: Final = 705
NUMERIC: Final = 1700
BIT: Final = 1560
RECORD: Final = 2249
RECORDS: Final = 2287
ANY: Final = 2276
JSON: Final = 114
JSONB: Final = 3802

_ELEMENTS: Final = frozenset({2283, 2776, 3500, 5077, 5079})
"""anyelement, anynonarray, anyenum, anycompatible, anycompatiblenonarray"""
_NO_ARRAYS: Final = frozenset({2776, 5079})
_ARRAYS: Final = frozenset({2277, 5078})
_RANGES: Final = frozenset({3831, 5080})
_MULTIRANGES: Final = frozenset({4537, 4538})
POLYMORPHIC: Final = _ELEMENTS | _ARRAYS | _RANGES | _MULTIRANGES

_CLOCKS: Final = frozenset({1082, 1083, 1114, 1184, 1266})
"""date, time, timestamp, timestamptz, timetz"""

_READ_BY_SETTINGS: Final = frozenset({1186, 790, 142})
"""interval, money, xml: what their input functions make of a text depends on the text and on settings alone."""

_SEARCHED: Final = frozenset({3734, 3769})
"""regconfig, regdictionary: what a name stands for is told by the search_path, until a statement changes the schema."""

_PRINTED_BY_SETTINGS: Final = frozenset({1082, 1114, 1184, 1186, 790})
"""date, timestamp, timestamptz, interval, money: their output functions look at settings alone."""


class TypeRules:
    """What follows from the types of a catalog."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def type(self, oid: int) -> Type | None:
        """The type, unless it is one of a table's rows."""
        return self._rows.types.get(oid)

    def name(self, oid: int) -> str:
        """The name of a type, for people."""
        made = self._rows.types.get(oid)
        if made is not None:
            return made.name if made.schema == "pg_catalog" else f"{made.schema}.{made.name}"
        relation = self._rows.row_types.get(oid)
        return str(relation) if relation is not None else "?"

    def base(self, oid: int) -> int:
        """The type behind a domain, or the type itself."""
        for _ in range(32):
            made = self._rows.types.get(oid)
            if made is None or made.kind != "d":
                break
            oid = made.base
        return oid

    def element(self, oid: int) -> int:
        """The type of an array's elements; 0 if it is no array."""
        oid = self.base(oid)
        made = self._rows.types.get(oid)
        if made is not None:
            return made.element if made.category == "A" else 0
        relation = self._rows.row_arrays.get(oid)
        return relation.row_type if relation is not None else 0

    def array(self, oid: int) -> int:
        """The type of arrays of a type; 0 if there is none."""
        made = self._rows.types.get(oid)
        if made is not None:
            return made.array
        relation = self._rows.row_types.get(oid)
        return relation.row_array if relation is not None else 0

    def is_row(self, oid: int) -> bool:
        """Whether values of a type are rows."""
        if oid == RECORD or oid in self._rows.row_types:
            return True
        made = self._rows.types.get(self.base(oid))
        return made is not None and made.kind == "c"

    def fields(self, oid: int) -> tuple[tuple[str, int], ...]:
        """Names and types of a row type's columns."""
        relation = self._rows.row_types.get(self.base(oid))
        return relation.columns if relation is not None else ()

    def inside(self, oid: int) -> list[int]:
        """The types that values of a type are made of."""
        oid = self.base(oid)
        element = self.element(oid)
        if element:
            return [element]
        made = self._rows.types.get(oid)
        if made is not None and made.subtype:
            return [made.subtype]
        return [kind for _, kind in self.fields(oid)]

    def closure(self, types: Iterable[int]) -> set[int]:
        """The types, and what they are made of, however deeply."""
        found: set[int] = set()
        stack = list(types)
        while stack:
            oid = stack.pop()
            if oid not in found:
                found.add(oid)
                stack.append(self.base(oid))
                stack.extend(self.inside(oid))
        return found

    def tells_time(self, types: Iterable[int]) -> bool:
        """Whether a text that is read as one of these types may mean the clock."""
        return not self.closure(types).isdisjoint(_CLOCKS)

    # -- reading and printing ------------------------------------------------------------------------------------

    def unreadable(self, oid: int, *, literal: bool) -> int:
        """Find what makes the reading of a text as a value of a type depend on more than the text and on settings.

        Args:
            oid: the type.
            literal: the text stands in the query or is a parameter, and has been searched for words for the clock.

        Returns:
            The type that does; 0 for none.
        """
        for inner in self.closure([oid]):
            made = self._rows.types.get(inner)
            if made is None or inner in _READ_BY_SETTINGS:
                continue
            if inner in _CLOCKS:
                # The zone of a timetz is that of today, if it is not given as an offset.
                if not literal or inner == 1266:
                    return inner
            elif made.kind == "b" and not made.element and made.inputs.strip("i"):
                if literal and inner in _SEARCHED:
                    continue
                if made.schema == "pg_catalog" and made.inputs[:1] == "i":
                    continue  # only what is sent in binary depends on something: the client's encoding
                return inner
        return 0

    def unprintable(self, oid: int) -> int:
        """Find what makes a value's text depend on more than the value and on settings: a type; 0 for none."""
        for inner in self.closure([oid]):
            made = self._rows.types.get(inner)
            if made is None or made.kind != "b" or made.element or inner in _PRINTED_BY_SETTINGS:
                continue
            if made.schema == "pg_catalog" and made.outputs[:1] == "i":
                continue
            if made.outputs.strip("i"):
                return inner
        return 0

    # -- conversion ----------------------------------------------------------------------------------------------

    def conversion(self, source: int, target: int, *, explicit: bool = False) -> Cast | bool:
        """How a value is converted when a function wants another type.

        Returns:
            The cast; True if nothing has to be done or what is done is told by the types' own input and output
            functions; False if it is not converted.
        """
        if source in {target, UNKNOWN} or target == ANY:
            return True
        if target in POLYMORPHIC:
            return self._matches(source, target)
        cast = self._rows.cast(source, target)
        if cast is None:
            based, wanted = self.base(source), self.base(target)
            if based == wanted:
                return True
            cast = self._rows.cast(based, wanted)
            if cast is None:
                return self._structural(based, wanted, explicit=explicit)
        if not cast.implicit and not explicit:
            return False
        return cast if cast.function else True

    def _matches(self, source: int, target: int) -> bool:
        source = self.base(source)
        if target in _ELEMENTS:
            if target in _NO_ARRAYS and self.element(source):
                return False
            return target != 3500 or self._kind(source) == "e"
        if target in _ARRAYS:
            return self.element(source) != 0 or source in {22, 30, RECORDS}
        return self._kind(source) == ("r" if target in _RANGES else "m")

    def _kind(self, oid: int) -> str:
        made = self._rows.types.get(oid)
        return made.kind if made is not None else "c"

    def _structural(self, source: int, target: int, *, explicit: bool) -> Cast | bool:
        if self.is_row(source) and (self.is_row(target) or target == RECORD):
            return True
        inner, wanted = self.element(source), self.element(target)
        if inner and wanted:
            return self.conversion(inner, wanted, explicit=explicit)
        return bool(target == RECORDS and inner and self.is_row(inner))

    # -- functions and operators ---------------------------------------------------------------------------------

    def parameters(self, function: Function, count: int) -> tuple[int, ...] | None:
        """The types that a function wants of so many arguments; None if it does not take so many."""
        arguments = function.arguments
        if len(arguments) - function.defaults <= count <= len(arguments):
            return arguments[:count]
        if function.variadic and count >= len(arguments) - 1:
            return arguments[:-1] + (function.variadic,) * (count - len(arguments) + 1)
        return None

    def fits(self, given: Sequence[Types], wanted: Sequence[int]) -> bool:
        """Whether values of some of the given types can be passed as the wanted ones."""
        return all(
            any(self.conversion(source, target) is not False for source in types)
            for types, target in zip(given, wanted, strict=True)
        )

    def exact(self, given: Sequence[Types], wanted: Sequence[int]) -> bool:
        """Whether the given types are the wanted ones, beyond doubt; a domain's base type is as good as itself."""
        if len(given) != len(wanted):
            return False
        for types, target in zip(given, wanted, strict=True):
            if (
                len(types) != 1
                or target == UNKNOWN
                or (target not in types and target != self.base(min(types)))
            ):
                return False
        return True

    def operators(self, candidates: Sequence[Operator], left: Types | None, right: Types) -> list[Operator]:
        """The operators that may be meant, given the types of the operands (left is None for a prefix operator)."""
        given = (right,) if left is None else (left, right)
        pairs = [
            ((one.right,) if left is None else (one.left, one.right), one)
            for one in candidates
            if (one.left == 0) == (left is None)
        ]
        assumed = given
        if left is not None and left == {UNKNOWN} != right:
            assumed = (right, right)
        elif left is not None and right == {UNKNOWN} != left:
            assumed = (left, left)
        exact = [one for wanted, one in pairs if self.exact(assumed, wanted)]
        return exact or [one for wanted, one in pairs if self.fits(given, wanted)]

    def results(self, declared: int, given: Iterable[Types]) -> Types:
        """What a function may return that is declared to return a type, given the types of its arguments."""
        if declared not in POLYMORPHIC:
            return frozenset({declared})
        found: set[int] = set()
        for types in given:
            for oid in types:
                found.update(self._related(TEXT if oid == UNKNOWN else self.base(oid)))
        if declared in _ARRAYS:
            return frozenset(oid for oid in found if self.element(oid))
        if declared in _RANGES:
            return frozenset(oid for oid in found if self._kind(oid) == "r")
        if declared in _MULTIRANGES:
            return frozenset(oid for oid in found if self._kind(oid) == "m")
        return frozenset(found)

    def _related(self, oid: int) -> set[int]:
        """A type, the types inside of it, and the array and ranges of those."""
        near = {oid, self.element(oid)}
        made = self._rows.types.get(oid)
        if made is not None and made.subtype:
            near |= {made.subtype}
            inner = self._rows.types.get(made.subtype)
            if inner is not None and inner.subtype:
                near.add(inner.subtype)
        for one in self._rows.types.values() if made is not None and made.kind in "rm" else ():
            if one.subtype in near and one.kind in "rm":
                near.add(one.oid)
        near |= {self.array(one) for one in near}
        return near - {0}
