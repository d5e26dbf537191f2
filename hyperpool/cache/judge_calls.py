"""What a query calls: operators, functions and casts, and whether they are fit to be cached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperpool.cache.judge import Reached, Refused
from hyperpool.cache.judge_scope import Scope
from hyperpool.cache.judge_types import ANY, POLYMORPHIC, UNKNOWN, Types
from hyperpool.sql.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyperpool.cache.catalog_rows import Cast, Function


class Calls(Scope):
    """Finds what may be called for operands of some types."""

    # -- operators -----------------------------------------------------------------------------------------------

    def operate(self, schema: str, name: str, left: Types | None, right: Types) -> Types:
        """Use an operator.

        Args:
            schema: of the operator, if it has been given.
            name: its signs.
            left: types of its left operand; None for a prefix operator.
            right: of its right operand.

        Returns:
            The types of the result.

        Raises:
            Refused: an operator that may be meant is not fit to be cached.
        """
        if not right or (left is not None and not left):
            self.missed = True
            return frozenset()
        key = (schema, name, left, right, self.path)
        known = self.judge.operations.get(key)
        if known is None:
            before, self.reached = self.reached, Reached()
            try:
                known = self._operate(schema, name, left, right), self.reached
            finally:
                self.reached = before
            self.judge.remember(key, known)
        if not known[0]:
            operands = " or ".join(self.types.name(oid) for oid in sorted((left or right) | right))
            self.not_yet(Reason.UNKNOWN_FUNCTION, f"operator {name} for {operands}")
        self.reached.add(known[1])
        return known[0]

    def _operate(self, schema: str, name: str, left: Types | None, right: Types) -> Types:
        given = [right] if left is None else [left, right]
        found: set[int] = set()
        for one in self.types.operators(self.operators(schema, name), left, right):
            wanted = (one.right,) if left is None else (one.left, one.right)
            self._use(one.function, one.function_name)
            self.convert(given, wanted)
            found |= self.types.results(one.result, given)
        return frozenset(found)

    # -- functions -----------------------------------------------------------------------------------------------

    def call_one_of(self, candidates: list[Function], given: list[Types]) -> Types:
        """Call one of several functions; those that fit exactly go before others."""
        exact = [one for one in candidates if not one.variadic and self.types.exact(given, one.arguments)]
        found: set[int] = set()
        for one in exact or candidates:
            self.reached.add(self.judge.function(one, self.path))
            if len(given) < len(one.arguments) and one.default_values:
                self.reached.add(self.judge.tree(one.default_values, self.path))
            wanted = self.types.parameters(one, len(given)) or one.arguments[: len(given)]
            self.convert(given, wanted)
            found |= self._results(one, given)
        return frozenset(found)

    def _results(self, function: Function, given: list[Types]) -> Types:
        found = self.types.results(function.result, given)
        for label, mode, kind in function.names:
            if mode in "obt" and label:
                self.define(label, self.types.results(kind, given))
        return found

    def _use(self, oid: int, name: str) -> None:
        function = self.judge.rows.function(oid, name)
        if function is None:
            raise Refused(Reason.UNKNOWN_FUNCTION, name)
        self.reached.add(self.judge.function(function, self.path))

    def convert(self, given: Sequence[Types], wanted: Sequence[int]) -> None:
        """Convert arguments to what is wanted."""
        for types, target in zip(given, wanted, strict=False):
            self.judge.check_domain(target, self.path)
            for source in types:
                if source == UNKNOWN:
                    for kind in self._read_as(target, given):
                        self.judge.check_read(kind, literal=True, path=self.path)
                elif source != target:
                    self.converted(source, target, self.types.conversion(source, target))

    def _read_as(self, target: int, given: Sequence[Types]) -> Sequence[int]:
        """The types that a literal may be read as which is passed for a type."""
        if target == ANY or target not in POLYMORPHIC:
            return [] if target == ANY else [target]
        return [oid for oid in self.types.closure(frozenset().union(*given)) if oid != UNKNOWN]

    def converted(self, source: int, target: int, cast: Cast | bool) -> None:
        """Take in a conversion, as `TypeRules.conversion` has found it.

        Raises:
            Refused: it calls what is not fit to be cached.
        """
        if isinstance(cast, bool):
            known = self.judge.rows.cast(self.types.base(source), self.types.base(target))
            if cast and known is not None and known.by_text:
                self.judge.check_type(source)
                self.judge.check_read(target, literal=False, path=self.path)
        else:
            self.reached.add(self.judge.cast(cast, self.path))

    # -- casts ---------------------------------------------------------------------------------------------------

    def cast_types(self, types: Types, target: int) -> None:
        """Cast values of some types to a type.

        Raises:
            Refused: the cast may call what is not fit to be cached.
        """
        self.judge.check_type(target)
        self.judge.check_domain(target, self.path)
        for source in types:
            if source == UNKNOWN:
                self.judge.check_read(target, literal=True, path=self.path)
            elif source != target:
                self._cast_from(source, target)
        adjusting = self.judge.rows.cast(self.types.base(target), self.types.base(target))
        if adjusting is not None:
            self.reached.add(self.judge.cast(adjusting, self.path))

    def _cast_from(self, source: int, target: int) -> None:
        conversion = self.types.conversion(source, target, explicit=True)
        if conversion is False:
            # By way of the value's text, or not at all.
            self.judge.check_type(source)
            self.judge.check_read(target, literal=False, path=self.path)
        elif (
            conversion is True
            and self.types.is_row(source)
            and self.types.base(source) != self.types.base(target)
        ):
            raise Refused(Reason.UNCERTAIN, f"cast of a row to {self.types.name(target)}")
        else:
            self.converted(source, target, conversion)
