"""Queries: what they read, and the types of their columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError, Message
from postgast import PgQueryError, parse
from postgast import pg_query_pb2 as pb

from hyperpool.cache.judge import Refused
from hyperpool.cache.judge_expression import Expressions
from hyperpool.cache.judge_scope import merged, resolved
from hyperpool.cache.judge_types import INT8, RECORD, UNKNOWN
from hyperpool.sql.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyperpool.cache.judge_scope import Columns

_PASSES: Final = 8
"""So many times a query is looked at until nothing new is found."""

_PLAIN_NAMES: Final = {
    "a_array_expr": "array",
    "row_expr": "row",
    "coalesce_expr": "coalesce",
    "grouping_func": "grouping",
    "case_expr": "case",
}
"""What PostgreSQL calls a column without a name (FigureColname of its ``parse_target.c``)."""


class QueryJudge(Expressions):
    """Looks at queries."""

    def judge_text(self, text: str) -> Columns:
        """Look at a text.

        Args:
            text: a single query.

        Returns:
            Its columns.

        Raises:
            Refused: it is none, or its answer must not be cached.
        """
        try:
            statements = parse(text).stmts
        except (PgQueryError, DecodeError, UnicodeDecodeError):
            raise Refused(Reason.PARSE_ERROR, "") from None
        if len(statements) != 1 or not statements[0].stmt.HasField("select_stmt"):
            raise Refused(Reason.NOT_A_QUERY, "a single query is wanted")
        return self.judge_query(statements[0].stmt.select_stmt)

    def judge_query(self, statement: Message) -> Columns:
        """The same, for a syntax tree, a SelectStmt."""
        for _ in range(_PASSES):
            columns = self.query(statement)
            if not self.again():
                return columns
        raise Refused(Reason.UNCERTAIN, "columns whose types depend on each other")

    def query(self, statement: Message) -> Columns:
        """Look at a query, perhaps inside of another one; returns its columns."""
        if statement.HasField("into_clause"):
            raise Refused(Reason.INTO, "")
        if statement.locking_clause:
            raise Refused(Reason.LOCKING, "")
        if statement.HasField("with_clause"):
            self._with(statement.with_clause)
        if statement.op not in {pb.SETOP_NONE, pb.SET_OPERATION_UNDEFINED}:
            columns = self._set_operation(statement)
        elif statement.values_lists:
            columns = self._values(statement.values_lists)
        else:
            columns = self._select(statement)
        self.sort(statement.sort_clause, columns)
        for bound in ("limit_offset", "limit_count"):
            if statement.HasField(bound):
                self._count(getattr(statement, bound))
        return columns

    def _count(self, node: Message) -> None:
        types = self.types_of(node)
        self._infer(node, [INT8])
        self.convert([types], (INT8,))

    def _select(self, statement: Message) -> Columns:
        for item in statement.from_clause:
            self._from(item)
        if statement.HasField("where_clause"):
            self.types_of(statement.where_clause)
        columns: Columns = []
        for target in statement.target_list:
            self._target(target.res_target, columns)
        for _, types in columns:
            for oid in types - {UNKNOWN}:
                self.judge.check_type(oid)
        for node in (*statement.group_clause, *statement.distinct_clause):
            self._group(node, columns)
        if statement.HasField("having_clause"):
            self.types_of(statement.having_clause)
        for node in statement.window_clause:
            self.window(node.window_def)
        return columns

    def _group(self, node: Message, columns: Columns) -> None:
        if node.WhichOneof("node") is None:
            return  # DISTINCT without ON
        if node.HasField("grouping_set"):
            for inner in node.grouping_set.content:
                self._group(inner, columns)
            return
        for oid in self.named_or(node, columns) - {UNKNOWN}:
            self.judge.check_type(oid)

    def _target(self, target: Message, columns: Columns) -> None:
        node = target.val
        if target.indirection:
            raise Refused(Reason.UNSUPPORTED_SYNTAX, "part of a column")
        if node.HasField("column_ref") and not node.column_ref.fields[-1].HasField("string"):
            # All columns: they can be looked up by their names already.
            self.types_of(node)
            columns.append(("*", self.everything() | {RECORD}))
            return
        columns.append((target.name or figure_name(node), self.types_of(node)))

    def _values(self, rows: Sequence[Message]) -> Columns:
        groups = [list(row.list.items) for row in rows]
        if len({len(group) for group in groups}) != 1:
            raise Refused(Reason.UNCERTAIN, "VALUES of different lengths")
        return [
            (f"column{number}", self._common(nodes))
            for number, nodes in enumerate(zip(*groups, strict=True), start=1)
        ]

    def _set_operation(self, statement: Message) -> Columns:
        left, right = self.query(statement.larg), self.query(statement.rarg)
        if _starred(left) or _starred(right):
            types = merged([types for _, types in (*left, *right)])
            columns = [(name, types) for name, _ in left]
        elif len(left) != len(right):
            raise Refused(Reason.UNCERTAIN, "queries with different numbers of columns")
        else:
            columns = [(name, merged([one, two])) for (name, one), (_, two) in zip(left, right, strict=True)]
        for _, types in columns:
            for oid in types:
                self.judge.check_type(oid)
                self.judge.check_read(oid, literal=True, path=self.path)
                for other in types:
                    self.converted(oid, other, self.types.conversion(oid, other))
        return columns

    # -- WITH and FROM -------------------------------------------------------------------------------------------

    def _with(self, clause: Message) -> None:
        for node in clause.ctes:
            cte = node.common_table_expr
            if not cte.ctequery.HasField("select_stmt"):
                raise Refused(Reason.DATA_MODIFYING_CTE, cte.ctename)
            if cte.HasField("search_clause") or cte.HasField("cycle_clause"):
                raise Refused(Reason.UNSUPPORTED_SYNTAX, "SEARCH or CYCLE")
            if clause.recursive:
                self.ctes.setdefault(cte.ctename, [])
            columns = self.query(cte.ctequery.select_stmt)
            self.define_cte(cte.ctename, _renamed(columns, [name.string.sval for name in cte.aliascolnames]))

    def _from(self, item: Message) -> None:
        kind = item.WhichOneof("node")
        if kind == "range_var":
            self._table(item.range_var)
        elif kind == "join_expr":
            self._join(item.join_expr)
        elif kind == "range_subselect":
            inner = item.range_subselect
            self._derived(self.query(inner.subquery.select_stmt), inner.alias)
        elif kind == "range_function":
            self._table_function(item.range_function)
        else:
            reason = Reason.TABLESAMPLE if kind == "range_table_sample" else Reason.UNSUPPORTED_SYNTAX
            raise Refused(reason, str(kind).replace("_", " "))

    def _table(self, table: Message) -> None:
        name = table.relname
        if table.catalogname:
            raise Refused(Reason.UNSUPPORTED_SYNTAX, "a table's name with a database")
        cte = self.ctes.get(name) if not table.schemaname else None
        if cte is not None:
            self._derived(cte, table.alias, name)
        relations = self.relations(table.schemaname, name)
        if not relations and cte is None:
            raise Refused(Reason.UNKNOWN_RELATION, f"{table.schemaname}.{name}" if table.schemaname else name)
        rows: set[int] = set()
        for relation in relations:
            self.read(relation)
            rows.add(relation.row_type)
            for label in table.alias.colnames:
                self.define(label.string.sval, relation.types.values())
        if relations:
            self.define_row(table.alias.aliasname or name, rows)

    def _derived(self, columns: Columns, alias: Message, name: str = "") -> None:
        """A query whose columns have names here."""
        for label, types in _renamed(columns, [label.string.sval for label in alias.colnames]):
            self.define(label, types)
        if alias.aliasname or name:
            self.define_row(alias.aliasname or name, [RECORD])

    def _join(self, join: Message) -> None:
        self._from(join.larg)
        self._from(join.rarg)
        if join.is_natural:
            raise Refused(Reason.UNSUPPORTED_SYNTAX, "NATURAL JOIN")
        for node in join.using_clause:
            types = self.column(node.string.sval)
            self.operate("", "=", types, types)
        if join.HasField("quals"):
            self.types_of(join.quals)
        if join.alias.colnames:
            everything = self.everything()
            for label in join.alias.colnames:
                self.define(label.string.sval, everything)
        for alias in (join.alias, join.join_using_alias):
            if alias.aliasname:
                self.define_row(alias.aliasname, [RECORD])

    def _table_function(self, item: Message) -> None:
        found: set[int] = set()
        alias = item.alias.aliasname
        for entry in item.functions:
            node = entry.list.items[0]
            types = self.types_of(node)
            found |= types
            columns = [field for oid in types for field in self.types.fields(oid)]
            if node.HasField("func_call"):
                columns += self._out_columns(node.func_call)
                self.define(node.func_call.funcname[-1].string.sval, types)
            self._function_columns(columns, found)
            if len(entry.list.items) > 1 and entry.list.items[1].HasField("list"):
                self._definitions(entry.list.items[1].list.items, found)
        self._definitions(item.coldeflist, found)
        if item.ordinality:
            self.define("ordinality", [INT8])
            found.add(INT8)
        if alias:
            self.define(alias, found)
            self.define_row(alias, found | {RECORD})
        for label in item.alias.colnames:
            self.define(label.string.sval, found)

    def _function_columns(self, columns: Sequence[tuple[str, int]], found: set[int]) -> None:
        for label, kind in columns:
            self.define(label, [kind])
            found.add(kind)

    def _out_columns(self, call: Message) -> list[tuple[str, int]]:
        """The types of what functions return in OUT arguments; those of any type are defined when they are called."""
        names = [part.string.sval for part in call.funcname]
        functions = self.functions(names[0] if len(names) == 2 else "", names[-1])
        columns = [
            (label or f"column{number}", kind)
            for function in functions
            for number, (label, mode, kind) in enumerate(function.names, start=1)
            if mode in "obt"
        ]
        return [
            (label, made)
            for label, kind in columns
            for made in self.types.results(kind, [self.column(label, optional=True)])
        ]

    def _definitions(self, definitions: Sequence[Message], found: set[int]) -> None:
        """The columns of a function that returns a record."""
        for node in definitions:
            column = node.column_def
            types = self.type_named(column.type_name)
            for oid in types:
                # Functions that make records of JSON read texts as values of these types.
                self.judge.check_type(oid)
                self.judge.check_read(oid, literal=False, path=self.path)
            self.define(column.colname, types)
            found |= types


def figure_name(node: Message) -> str:
    """The name that a column gets from its expression; "?column?" if it gets none."""
    kind = node.WhichOneof("node")
    inner = getattr(node, kind)
    if kind == "column_ref":
        return str(inner.fields[-1].string.sval)
    if kind == "func_call":
        return str(inner.funcname[-1].string.sval)
    if kind == "type_cast":
        name = figure_name(inner.arg)
        return str(inner.type_name.names[-1].string.sval) if name in {"?column?", "case"} else name
    if kind == "collate_clause":
        return figure_name(inner.arg)
    if kind == "case_expr" and inner.HasField("defresult"):
        name = figure_name(inner.defresult)
        return "case" if name == "?column?" else name
    return _figure_other(kind, inner)


def _figure_other(kind: str, inner: Message) -> str:
    if kind == "a_indirection":
        labels = [part.string.sval for part in inner.indirection if part.HasField("string")]
        return str(labels[-1]) if labels else figure_name(inner.arg)
    if kind == "min_max_expr":
        return "greatest" if inner.op == pb.IS_GREATEST else "least"
    if kind == "a_expr" and inner.kind == pb.AEXPR_NULLIF:
        return "nullif"
    if kind == "sub_link":
        if inner.sub_link_type == pb.EXPR_SUBLINK:
            targets = inner.subselect.select_stmt.target_list
            if targets:
                return str(targets[0].res_target.name) or figure_name(targets[0].res_target.val)
            return "column1"
        return {pb.EXISTS_SUBLINK: "exists", pb.ARRAY_SUBLINK: "array"}.get(inner.sub_link_type, "?column?")
    return _PLAIN_NAMES.get(kind, "?column?")


def _starred(columns: Columns) -> bool:
    return any(name == "*" for name, _ in columns)


def _renamed(columns: Columns, labels: Sequence[str]) -> Columns:
    """Columns with other names."""
    columns = [(name, resolved(types)) for name, types in columns]
    if not labels:
        return columns
    if _starred(columns):
        everything = merged([types for _, types in columns])
        return columns + [(label, everything) for label in labels]
    return [
        (labels[number] if number < len(labels) else name, types)
        for number, (name, types) in enumerate(columns)
    ]
