"""The types that the expressions of a query may have, and whether what they call is fit to be cached.

The syntax trees are those of libpg_query. Each kind of node has a method here; any other kind refuses.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final

from postgast import pg_query_pb2 as pb

from hyperpool.cache.judge import Refused, setting_name
from hyperpool.cache.judge_calls import Calls
from hyperpool.cache.judge_scope import merged, resolved
from hyperpool.cache.judge_types import (
    ANY,
    BIT,
    BOOL,
    INT4,
    INT8,
    JSONB,
    NUMERIC,
    POLYMORPHIC,
    RECORD,
    TEXT,
    UNKNOWN,
    Types,
)
from hyperpool.sql.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.protobuf.message import Message

    from hyperpool.cache.catalog_rows import Function
    from hyperpool.cache.judge_scope import Columns

_UNKNOWN: Final[Types] = frozenset({UNKNOWN})
_BOOL: Final[Types] = frozenset({BOOL})

_CURRENT_SETTING: Final = frozenset({2077, 3294})

_BETWEEN: Final = {
    pb.AEXPR_BETWEEN: (">=", "<="),
    pb.AEXPR_NOT_BETWEEN: ("<", ">"),
    pb.AEXPR_BETWEEN_SYM: (">=", "<="),
    pb.AEXPR_NOT_BETWEEN_SYM: ("<", ">"),
}

_PLAIN: Final = frozenset({pb.AEXPR_OP, pb.AEXPR_LIKE, pb.AEXPR_ILIKE, pb.AEXPR_SIMILAR})


class Expressions(Calls, ABC):
    """Looks at expressions."""

    @abstractmethod
    def query(self, statement: Message) -> Columns:
        """Look at a query inside of an expression, a SelectStmt; returns its columns."""

    def types_of(self, node: Message) -> Types:
        """The types that an expression may have.

        Args:
            node: a Node.

        Raises:
            Refused: it may call what is not fit to be cached.
        """
        kind = node.WhichOneof("node")
        look = self._LOOKS.get(kind)
        if look is None:
            raise Refused(Reason.UNSUPPORTED_SYNTAX, str(kind).replace("_", " "))
        return look(self, getattr(node, kind))

    def look(self, nodes: Sequence[Message]) -> list[Types]:
        """The same, of several expressions."""
        return [self.types_of(node) for node in nodes]

    # -- leaves --------------------------------------------------------------------------------------------------

    def _constant(self, constant: Message) -> Types:
        kind = constant.WhichOneof("val")
        if kind == "ival":
            return frozenset({INT4})
        if kind == "fval":
            digits = constant.fval.fval
            return frozenset({INT8 if digits.isdigit() and int(digits) < 1 << 63 else NUMERIC})
        if kind == "boolval":
            return _BOOL
        return frozenset({BIT}) if kind == "bsval" else _UNKNOWN

    def _parameter(self, parameter: Message) -> Types:
        return self.parameter(parameter.number, parameter.location)

    def _column(self, column: Message) -> Types:
        last = column.fields[-1]
        if not last.HasField("string"):
            # All columns of a table: whoever sees them by name looks them up.
            for oid in self.everything():
                self.judge.check_type(oid)
            return frozenset({RECORD})
        name = last.string.sval
        if len(column.fields) == 1:
            return self.column(name)
        computed = self._attribute(name, self.rows())
        return computed | self.column(name, optional=bool(computed))

    def _attribute(self, name: str, given: Types) -> Types:
        """``a.b`` may be the function b that is called with a whole row."""
        functions = [
            one
            for one in self.functions("", name)
            if any(map(self._takes_row, self.types.parameters(one, 1) or ()))
        ]
        return self.call_one_of(functions, [given]) if functions else frozenset()

    def _takes_row(self, oid: int) -> bool:
        return oid == ANY or oid in POLYMORPHIC or self.types.is_row(oid)

    # -- operators -----------------------------------------------------------------------------------------------

    def _operation(self, expression: Message) -> Types:
        kind = expression.kind
        names = [part.string.sval for part in expression.name]
        left = expression.lexpr if expression.HasField("lexpr") else None
        right = expression.rexpr
        if kind in _PLAIN:
            return self._compared(names, left, right)
        if kind in _BETWEEN:
            low, high = right.list.items
            for bound in (low, high):
                for sign in _BETWEEN[kind]:
                    self._compared([sign], left, bound)
            return _BOOL
        if kind == pb.AEXPR_IN:
            for item in right.list.items:
                self._compared(names, left, item)
            items = merged([self.types_of(left), *self.look(right.list.items)])
            self.operate("", names[-1], self.types_of(left), items)
            return _BOOL
        if kind in {pb.AEXPR_OP_ANY, pb.AEXPR_OP_ALL}:
            arrays = self._consumed(right, self.types_of(right), ())
            elements = frozenset(UNKNOWN if oid == UNKNOWN else self.types.element(oid) for oid in arrays) - {
                0
            }
            self._infer(right, [self.types.array(oid) for oid in self.types_of(left)])
            self.operate(_schema(names), names[-1], self.types_of(left), elements)
            return _BOOL
        if kind in {pb.AEXPR_DISTINCT, pb.AEXPR_NOT_DISTINCT, pb.AEXPR_NULLIF}:
            self._compared(names or ["="], left, right)
            return self.types_of(left) if kind == pb.AEXPR_NULLIF else _BOOL
        raise Refused(Reason.UNSUPPORTED_SYNTAX, "an operator of an unknown kind")

    def _compared(self, names: list[str], left: Message, right: Message) -> Types:
        """An operator between two expressions, or rows of them."""
        schema, name = _schema(names), names[-1]
        if left is not None:
            lefts, rights = self._row(left), self._row(right)
            if len(lefts) == len(rights) and len(lefts) > 1:
                for one, two in zip(lefts, rights, strict=True):
                    self.operate(schema, name, one, two)
                return _BOOL
        right_types = self.types_of(right)
        if left is None:
            return self.operate(schema, name, None, right_types)
        left_types = self.types_of(left)
        self._infer(left, right_types)
        self._infer(right, left_types)
        return self.operate(schema, name, left_types, right_types)

    def _row(self, node: Message) -> list[Types]:
        """The types of a row's fields; or of what is no row, as a single field."""
        if node.HasField("row_expr"):
            return self.look(node.row_expr.args)
        if node.HasField("sub_link") and node.sub_link.sub_link_type == pb.EXPR_SUBLINK:
            return [types for _, types in self.query(node.sub_link.subselect.select_stmt)]
        return [self.types_of(node)]

    # -- functions -----------------------------------------------------------------------------------------------

    def _call(self, call: Message) -> Types:
        names = [part.string.sval for part in call.funcname]
        schema, name = _schema(names), names[-1]
        if len(names) > 2:
            raise Refused(Reason.UNSUPPORTED_SYNTAX, "a function's name with a database")
        given = [self.types_of(node.named_arg_expr.arg if _named(node) else node) for node in call.args]
        self.sort(call.agg_order)
        if call.agg_within_group:
            given += [self.types_of(item.sort_by.node) for item in call.agg_order]
        if call.HasField("agg_filter"):
            self.types_of(call.agg_filter)
        if call.HasField("over"):
            self.window(call.over)
        if not all(given):
            self.missed = True
            return frozenset()
        candidates = [one for one in self.functions(schema, name) if self._callable(one, call, given)]
        found: set[int] = set()
        if len(call.args) == 1 and not call.agg_star:
            # A type's name is the name of its casts, too.
            for target in self.types_named(schema, name):
                found |= self.cast(call.args[0], given[0], target)
        if not candidates and not found:
            kinds = ", ".join("|".join(self.types.name(oid) for oid in sorted(types)) for types in given)
            self.not_yet(Reason.UNKNOWN_FUNCTION, f"{'.'.join(names)}({kinds})")
        for one in candidates:
            if one.oid in _CURRENT_SETTING:
                self._setting(call.args[0])
                found.add(TEXT)
        candidates = [one for one in candidates if one.oid not in _CURRENT_SETTING]
        for node, position in zip(call.args, range(len(given)), strict=False):
            self._infer(
                node, [wanted[position] for wanted in map(self._wanted(len(given)), candidates) if wanted]
            )
        return frozenset(found) | self.call_one_of(candidates, given)

    def _wanted(self, count: int) -> Callable[[Function], tuple[int, ...] | None]:
        return lambda function: self.types.parameters(function, count)

    def _callable(self, function: Function, call: Message, given: list[Types]) -> bool:
        if any(map(_named, call.args)):
            return len(given) <= len(function.arguments)
        wanted = self.types.parameters(function, len(given))
        return wanted is not None and self.types.fits(given, wanted)

    def _setting(self, node: Message) -> None:
        constant = node.a_const.sval.sval if node.HasField("a_const") else ""
        self.reached.settings.add(setting_name(constant))

    # -- parameters ----------------------------------------------------------------------------------------------

    def _consumed(self, node: Message, types: Types, context: Sequence[int]) -> Types:
        self._infer(node, context)
        return types

    def _infer(self, node: Message, context: Sequence[int] | Types) -> None:
        """Where a parameter without a type stands, it may get the type of its context."""
        if node.HasField("param_ref"):
            self.infer(
                node.param_ref.number,
                [oid for oid in context if oid and oid not in POLYMORPHIC and oid != ANY],
            )

    # -- casts ---------------------------------------------------------------------------------------------------

    def _cast(self, cast: Message) -> Types:
        targets = self.type_named(cast.type_name)
        found: set[int] = set()
        for target in targets:
            element = self.types.element(target)
            if element and cast.arg.HasField("a_array_expr"):
                found |= self._cast_array(cast.arg.a_array_expr, element, target)
            else:
                found |= self.cast(cast.arg, self.types_of(cast.arg), target)
        return frozenset(found)

    def _cast_array(self, array: Message, element: int, target: int) -> Types:
        """The elements of an array that is written out are cast one by one."""
        for node in array.elements:
            if node.HasField("a_array_expr"):
                self._cast_array(node.a_array_expr, element, target)
            else:
                self.cast(node, self.types_of(node), element)
        self.judge.check_type(target)
        return frozenset({target})

    def type_named(self, name: Message) -> Types:
        """The types that a type's name may mean.

        Raises:
            Refused: it means none.
        """
        names = [part.string.sval for part in name.names]
        if name.setof or name.pct_type or len(names) > 2:
            raise Refused(Reason.UNSUPPORTED_SYNTAX, "a type that is made from something else")
        found = self.types_named(_schema(names), names[-1])
        if name.array_bounds:
            found = frozenset(self.types.array(oid) for oid in found) - {0}
        if not found:
            raise Refused(Reason.UNKNOWN_TYPE, ".".join(names))
        return found

    def cast(self, node: Message, types: Types, target: int) -> Types:
        """Cast an expression of some types to a type; returns that type."""
        self._infer(node, [target])
        self.cast_types(types, target)
        return frozenset({target})

    # -- the rest ------------------------------------------------------------------------------------------------

    def _common(self, nodes: Sequence[Message]) -> Types:
        """Expressions that get a common type."""
        groups = self.look(nodes)
        found = merged(groups)
        if any(UNKNOWN in types for types in groups):
            for oid in found:
                self.judge.check_read(oid, literal=True, path=self.path)
        for node in nodes:
            self._infer(node, found)
        for source in found:
            for target in found:
                self.converted(source, target, self.types.conversion(source, target))
        return found

    def _all_of(self, expression: Message) -> Types:
        self.look(expression.args)
        return _BOOL

    def _test(self, expression: Message) -> Types:
        self.types_of(expression.arg)
        return _BOOL

    def _case(self, case: Message) -> Types:
        results = []
        for item in case.args:
            when = item.case_when
            if case.HasField("arg"):
                self._compared(["="], case.arg, when.expr)
            else:
                self.types_of(when.expr)
            results.append(when.result)
        if case.HasField("defresult"):
            results.append(case.defresult)
        return self._common(results)

    def _choice(self, expression: Message) -> Types:
        found = self._common(expression.args)
        for oid in found:
            self.judge.check_type(oid)
        return found

    def _array(self, array: Message) -> Types:
        found = self._common(array.elements)
        arrays = {oid if self.types.element(oid) else self.types.array(oid) for oid in found}
        return frozenset(arrays) - {0}

    def _row_expression(self, row: Message) -> Types:
        for types in self.look(row.args):
            for oid in types - {UNKNOWN}:
                self.judge.check_type(oid)
        return frozenset({RECORD})

    def _collate(self, clause: Message) -> Types:
        return resolved(self.types_of(clause.arg))

    def _grouping(self, grouping: Message) -> Types:
        self.look(grouping.args)
        return frozenset({INT4})

    def _indirection(self, expression: Message) -> Types:
        found = self.types_of(expression.arg)
        for sliced, parts in itertools.groupby(
            expression.indirection, key=lambda part: part.HasField("a_indices")
        ):
            if sliced:
                found = self._subscript(found, [part.a_indices for part in parts])
                continue
            for part in parts:
                if not part.HasField("string"):
                    raise Refused(Reason.UNSUPPORTED_SYNTAX, "(...).*")
                found = self._field(part.string.sval, found)
        return found

    def _field(self, name: str, types: Types) -> Types:
        fields = {kind for oid in types for label, kind in self.types.fields(oid) if label == name}
        found = frozenset(fields) | self._attribute(name, types | {RECORD})
        return found if fields else found | self.column(name, optional=bool(found))

    def _subscript(self, types: Types, subscripts: Sequence[Message]) -> Types:
        """Subscripts that stand together give an element, or with a slice among them an array."""
        for indices in subscripts:
            for bound in ("lidx", "uidx"):
                if indices.HasField(bound):
                    self.types_of(getattr(indices, bound))
        found: set[int] = set()
        for oid in types:
            element = self.types.element(oid)
            if element:
                found.add(oid if any(indices.is_slice for indices in subscripts) else element)
            elif oid == JSONB:
                found.add(oid)
            else:
                raise Refused(Reason.UNCERTAIN, f"subscript of {self.types.name(oid)}")
        return frozenset(found)

    def _sublink(self, link: Message) -> Types:
        columns = self.query(link.subselect.select_stmt)
        kind = link.sub_link_type
        if kind == pb.EXISTS_SUBLINK:
            return _BOOL
        if kind == pb.EXPR_SUBLINK:
            return resolved(columns[0][1])
        if kind == pb.ARRAY_SUBLINK:
            inner = resolved(columns[0][1])
            return frozenset(oid if self.types.element(oid) else self.types.array(oid) for oid in inner) - {0}
        if kind in {pb.ANY_SUBLINK, pb.ALL_SUBLINK}:
            names = [part.string.sval for part in link.oper_name] or ["="]
            lefts = self._row(link.testexpr)
            if len(lefts) != len(columns):
                raise Refused(Reason.UNCERTAIN, "a row that is compared with a query")
            for types, (_, other) in zip(lefts, columns, strict=True):
                self._infer(link.testexpr, resolved(other))
                self.operate(_schema(names), names[-1], types, resolved(other))
            return _BOOL
        raise Refused(Reason.UNSUPPORTED_SYNTAX, "a query inside of an expression")

    def sort(self, items: Sequence[Message], columns: Columns | None = None) -> None:
        """Look at an ORDER BY clause.

        Args:
            items: what to sort by.
            columns: the query's own columns, which may be named there.
        """
        for item in items:
            by = item.sort_by
            types = self.named_or(by.node, columns)
            for oid in types - {UNKNOWN}:
                self.judge.check_type(oid)
            if by.use_op:
                names = [part.string.sval for part in by.use_op]
                self.operate(_schema(names), names[-1], types, types)

    def named_or(self, node: Message, columns: Columns | None) -> Types:
        """The types of an expression, which may be the name of one of a query's columns."""
        if columns is not None and node.HasField("column_ref") and len(node.column_ref.fields) == 1:
            name = node.column_ref.fields[0].string.sval
            named = [types for label, types in columns if label == name]
            if named:
                return merged([*named, self.column(name, optional=True)])
        return self.types_of(node)

    def window(self, definition: Message) -> None:
        """Look at a window."""
        for node in definition.partition_clause:
            for oid in self.types_of(node) - {UNKNOWN}:
                self.judge.check_type(oid)
        self.sort(definition.order_clause)
        offsets = [
            self.types_of(getattr(definition, bound))
            for bound in ("start_offset", "end_offset")
            if definition.HasField(bound)
        ]
        if offsets and definition.order_clause:
            self._range_offsets(definition, offsets)

    def _range_offsets(self, definition: Message, offsets: list[Types]) -> None:
        """RANGE with an offset calls an in_range function (pg_amproc) of the sorted type."""
        for item in definition.order_clause:
            for oid in self.types_of(item.sort_by.node):
                made = self.types.type(self.types.base(oid))
                if made is None or made.schema != "pg_catalog":
                    raise Refused(Reason.UNCERTAIN, f"a window of {self.types.name(oid)}")
        for types in offsets:
            if UNKNOWN not in types and any(oid >= 16384 for oid in types):
                raise Refused(Reason.UNCERTAIN, "the bounds of a window")

    _LOOKS: ClassVar[dict[str | None, Callable[[Expressions, Message], Types]]] = {
        "a_const": _constant,
        "param_ref": _parameter,
        "column_ref": _column,
        "a_expr": _operation,
        "bool_expr": _all_of,
        "null_test": _test,
        "boolean_test": _test,
        "func_call": _call,
        "type_cast": _cast,
        "case_expr": _case,
        "coalesce_expr": _choice,
        "min_max_expr": _choice,
        "a_array_expr": _array,
        "row_expr": _row_expression,
        "collate_clause": _collate,
        "grouping_func": _grouping,
        "a_indirection": _indirection,
        "sub_link": _sublink,
    }


def _schema(names: Sequence[str]) -> str:
    return names[0] if len(names) == 2 else ""


def _named(node: Message) -> bool:
    return bool(node.HasField("named_arg_expr"))
