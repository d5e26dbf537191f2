"""What a syntax tree names and does, as far as the result cache has to know.

Only nodes that are known are harmless. Any other one, such as a later version of PostgreSQL may add, makes a text one
that cannot be cached and that may write anything.

Sources of the rules: PostgreSQL documentation, "SQL Commands"; "WITH Queries"; "Type Conversion"; what syntax stands
for: its ``gram.y`` and ``parse_expr.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from hyperpool.sql.findings import Findings, number_type, strings
from hyperpool.sql.reading import Cast, Source
from hyperpool.sql.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeAlias

    from hyperpool.sql.reading import Name

    Scope: TypeAlias = "frozenset[str]"

__all__ = ["Survey"]

_Repeated: Final = type(pb.ParseResult().stmts)

_BETWEEN: Final = ("<", "<=", ">", ">=")


class Survey(Findings):
    """Looks at the statements of one text."""

    def read(self, statements: Sequence[Message]) -> None:
        """Look at all statements of a text.

        Args:
            statements: RawStmt messages.
        """
        if not statements:
            self.refuse(Reason.EMPTY)
        elif len(statements) > 1:
            self.refuse(Reason.MULTIPLE_STATEMENTS)
        elif statements[0].stmt.WhichOneof("node") != "select_stmt":
            self.refuse(Reason.NOT_A_QUERY)
        kinds = [statement.stmt.WhichOneof("node") or "" for statement in statements]
        self.plain = _NORMALIZED.issuperset(kinds)
        self.kinds = "; ".join(kind.removesuffix("_stmt").replace("_", " ").upper() for kind in kinds)
        for statement in statements:
            self._statement(statement.stmt, frozenset())

    # -- statements ----------------------------------------------------------------------------------------------

    def _statement(self, node: Message, scope: Scope) -> None:
        kind = node.WhichOneof("node")
        if kind in _HARMLESS:
            return
        special = _STATEMENTS.get(kind) if kind is not None else None
        if special is None:
            self._write_anything()
        else:
            special(self, getattr(node, kind), scope)

    def _select(self, message: Message, scope: Scope) -> None:
        self.compares |= bool(
            message.op > pb.SETOP_NONE
            or message.distinct_clause
            or message.group_clause
            or message.window_clause
            or message.sort_clause
        )
        self._position(message.group_clause)
        self._position(message.distinct_clause)
        if message.HasField("into_clause"):
            self.refuse(Reason.INTO)
            if not _is_temporary(message.into_clause.rel):
                self._write_anything()
        self._scoped(message, scope, besides=("into_clause",))

    def _change(self, message: Message, scope: Scope) -> None:
        """INSERT, UPDATE, DELETE or MERGE."""
        self._target(message.relation)
        self._scoped(message, scope, besides=("relation",))

    def _target(self, relation: Message) -> None:
        name = self._name((relation.schemaname, relation.relname))
        self._tables.add(name)
        self.relations.add(name)
        self._rows.update((relation.relname, relation.alias.aliasname))

    def _truncate(self, message: Message, _scope: Scope) -> None:
        for relation in message.relations:
            self._target(relation.range_var)
        # CASCADE empties all tables with a foreign key to these, whatever that is to do on DELETE.
        self._any_table = self._any_table or message.behavior == pb.DROP_CASCADE

    def _copy(self, message: Message, scope: Scope) -> None:
        if message.is_program:
            self._write_anything()
        if message.is_from:
            self._target(message.relation)
        elif message.HasField("query"):
            self._statement(message.query, scope)
        else:
            self._relation(message.relation, scope)
        self._children(message, scope, besides=("relation", "query", "options"))

    def _refresh(self, message: Message, _scope: Scope) -> None:
        self._target(message.relation)

    def _within(self, message: Message, scope: Scope) -> None:
        """EXPLAIN, which may execute a statement, and DECLARE."""
        self._statement(message.query, scope)

    def _call_procedure(self, message: Message, scope: Scope) -> None:
        self._visit(message.funccall, scope)

    def _create_table(self, message: Message, _scope: Scope) -> None:
        if not _is_temporary(message.relation):
            self._write_anything()

    def _create_view(self, message: Message, _scope: Scope) -> None:
        if not _is_temporary(message.view):
            self._write_anything()

    def _create_table_as(self, message: Message, scope: Scope) -> None:
        if not _is_temporary(message.into.rel):
            self._write_anything()
        self._statement(message.query, scope)

    def _drop(self, message: Message, _scope: Scope) -> None:
        names = [strings(node.list.items) for node in message.objects]
        if not all(len(name) > 1 and name[0] == "pg_temp" for name in names):
            self._write_anything()

    def _transaction(self, message: Message, _scope: Scope) -> None:
        if message.kind not in _TRANSACTIONS:
            self._write_anything()

    # -- what is in them -----------------------------------------------------------------------------------------

    def _scoped(self, message: Message, scope: Scope, besides: tuple[str, ...]) -> None:
        """Look at a statement that may have a WITH clause: its names are relations from here on."""
        if message.HasField("with_clause"):
            ctes = [node.common_table_expr for node in message.with_clause.ctes]
            if message.with_clause.recursive:
                scope |= {cte.ctename for cte in ctes}
            for cte in ctes:
                self._children(cte, scope, besides=("ctequery",))
                self._cte(cte.ctequery, scope)
                self._rows.add(cte.ctename)
                scope |= {cte.ctename}
        self._children(message, scope, besides=("with_clause", *besides))

    def _cte(self, query: Message, scope: Scope) -> None:
        if query.WhichOneof("node") != "select_stmt":
            self.refuse(Reason.DATA_MODIFYING_CTE)
        self._statement(query, scope)

    def _children(self, message: Message, scope: Scope, besides: tuple[str, ...] = ()) -> None:
        for field, value in message.ListFields():
            if field.name in besides:
                continue
            if value.__class__ is _Repeated:
                for item in value:
                    self._visit(item, scope)
            elif isinstance(value, Message):
                self._visit(value, scope)

    def _visit(self, message: Message, scope: Scope) -> None:
        if message.__class__ is pb.Node:
            kind = message.WhichOneof("node")
            if kind is None:
                return
            message = getattr(message, kind)
        look = _NODES.get(message.__class__)
        if look is None:
            self.refuse(Reason.UNSUPPORTED_SYNTAX)
            self._write_anything()
        else:
            look(self, message, scope)

    def _leaf(self, _message: Message, _scope: Scope) -> None:
        pass

    def _comparing(self, message: Message, scope: Scope) -> None:
        self.compares = True
        self._children(message, scope)

    def _grouping(self, message: Message, scope: Scope) -> None:
        self._position(message.content)
        self._comparing(message, scope)

    def _position(self, nodes: Iterable[Message]) -> None:
        self.positions.update(node.a_const.location for node in nodes if node.HasField("a_const"))

    def _sort(self, message: Message, scope: Scope) -> None:
        self._position((message.node,))
        if message.use_op:
            self._operator(message.use_op)
        self.compares = True
        self._children(message, scope, besides=("use_op",))

    def _unsupported(self, message: Message, scope: Scope) -> None:
        """What is known not to write."""
        self.refuse(Reason.UNSUPPORTED_SYNTAX)
        self._children(message, scope)

    def _sample(self, message: Message, scope: Scope) -> None:
        self.refuse(Reason.TABLESAMPLE)
        self.functions.add((*self._name(strings(message.method)), len(message.args)))
        self._children(message, scope, besides=("method",))

    def _lock(self, _message: Message, _scope: Scope) -> None:
        self.refuse(Reason.LOCKING)

    def _value_function(self, _message: Message, _scope: Scope) -> None:
        self.refuse(Reason.SQL_VALUE_FUNCTION)

    def _relation(self, relation: Message, scope: Scope) -> None:
        if relation.catalogname:
            self.refuse(Reason.UNKNOWN_RELATION)
        if relation.schemaname or relation.relname not in scope:
            self.relations.add(self._name((relation.schemaname, relation.relname)))
        self._rows.add(relation.relname)
        self._children(relation, scope)

    def _alias(self, alias: Message, _scope: Scope) -> None:
        self._rows.add(alias.aliasname)

    def _join(self, join: Message, scope: Scope) -> None:
        if join.is_natural or join.using_clause:
            self.operators.add((None, "="))
            self.compares = True
        self._star |= join.is_natural
        self.columns.update(strings(join.using_clause))
        self._children(join, scope, besides=("using_clause",))

    def _column(self, column: Message, _scope: Scope) -> None:
        *qualifiers, last = column.fields
        if last.HasField("a_star"):
            self._star = True
        elif qualifiers:
            self.columns.add(self._fold(last.string.sval))
            self.attributes.add(last.string.sval)
        else:
            self.columns.add(self._fold(last.string.sval))

    def _indirection(self, message: Message, scope: Scope) -> None:
        for part in message.indirection:
            if part.HasField("string"):
                self.columns.add(part.string.sval)
                self.attributes.add(self._fold(part.string.sval))
            elif part.HasField("a_star"):
                self._star = True
        self._children(message, scope)

    def _parameter(self, message: Message, _scope: Scope) -> None:
        self.parameters.add(message.number)

    def _constant(self, constant: Message, _scope: Scope) -> None:
        kind = constant.WhichOneof("val")
        if kind == "sval":
            self.strings.append(constant.sval.sval)
        elif kind == "fval":
            self.constants.add(number_type(constant.fval.fval))
            return
        self.constants.add(_CONSTANTS[kind])

    def _call(self, call: Message, scope: Scope) -> None:
        count = len(call.args) + (len(call.agg_order) if call.agg_within_group else 0)
        self.functions.add((*self._name(strings(call.funcname)), count))
        self.compares |= bool(call.agg_distinct or call.agg_order)
        self._children(call, scope, besides=("funcname",))

    def _expression(self, message: Message, scope: Scope) -> None:
        if message.kind in _BETWEENS:
            self.operators.update((None, name) for name in _BETWEEN)
        elif message.kind in _PLAIN:
            self._operator(message.name)
        else:
            self.refuse(Reason.UNSUPPORTED_SYNTAX)
        self.compares |= message.lexpr.HasField("row_expr")
        self._children(message, scope, besides=("name",))

    def _case(self, case: Message, scope: Scope) -> None:
        if case.HasField("arg"):
            self.operators.add((None, "="))
        self._children(case, scope)

    def _sublink(self, sublink: Message, scope: Scope) -> None:
        if sublink.oper_name:
            self._operator(sublink.oper_name)
        elif sublink.HasField("testexpr"):
            self.operators.add((None, "="))
        self.compares = True
        self._children(sublink, scope, besides=("oper_name",))

    def _cast(self, cast: Message, scope: Scope) -> None:
        argument = cast.arg.WhichOneof("node")
        source = Source.EXPRESSION
        if argument == "param_ref":
            source = Source.PARAMETER
        elif argument == "a_const" and cast.arg.a_const.WhichOneof("val") in {"sval", "isnull"}:
            source = Source.CONSTANT
        self.casts.add(Cast(self._type_name(cast.type_name), source))
        self._children(cast, scope)

    def _type(self, type_name: Message, scope: Scope) -> None:
        self.types.add(self._type_name(type_name))
        if type_name.pct_type:
            self.refuse(Reason.UNSUPPORTED_SYNTAX)
        self._children(type_name, scope, besides=("names", "array_bounds"))

    def _type_name(self, type_name: Message) -> Name:
        schema, name = self._name(strings(type_name.names))
        return schema, name + "[]" if type_name.array_bounds else name


def _is_temporary(relation: Message) -> bool:
    return bool(relation.relpersistence == "t" or relation.schemaname == "pg_temp")


_CONSTANTS: Final = {
    "ival": "int4",
    "boolval": "bool",
    "sval": "unknown",
    "bsval": "bit",
    "isnull": "unknown",
    None: "int4",
}
"""Field of A_Const -> type. A zero is an Integer with nothing in it, which is there none the less."""

_PLAIN: Final = frozenset(
    {
        *(pb.AEXPR_OP, pb.AEXPR_OP_ANY, pb.AEXPR_OP_ALL, pb.AEXPR_DISTINCT, pb.AEXPR_NOT_DISTINCT),
        *(pb.AEXPR_NULLIF, pb.AEXPR_IN, pb.AEXPR_LIKE, pb.AEXPR_ILIKE, pb.AEXPR_SIMILAR),
    }
)
"""Expressions whose name is that of the operator."""

_BETWEENS: Final = frozenset(
    {pb.AEXPR_BETWEEN, pb.AEXPR_NOT_BETWEEN, pb.AEXPR_BETWEEN_SYM, pb.AEXPR_NOT_BETWEEN_SYM}
)

_TRANSACTIONS: Final = frozenset(
    {
        *(pb.TRANS_STMT_BEGIN, pb.TRANS_STMT_START, pb.TRANS_STMT_COMMIT, pb.TRANS_STMT_ROLLBACK),
        *(pb.TRANS_STMT_SAVEPOINT, pb.TRANS_STMT_RELEASE, pb.TRANS_STMT_ROLLBACK_TO),
        *(pb.TRANS_STMT_PREPARE, pb.TRANS_STMT_ROLLBACK_PREPARED),
    }
)
"""All but COMMIT PREPARED, which makes writes visible that another session may have made."""

_NORMALIZED: Final = frozenset({"select_stmt", "insert_stmt", "update_stmt", "delete_stmt", "merge_stmt"})

_HARMLESS: Final = frozenset(
    {
        *(
            "variable_set_stmt",
            "variable_show_stmt",
            "discard_stmt",
            "deallocate_stmt",
            "constraints_set_stmt",
        ),
        *("listen_stmt", "unlisten_stmt", "notify_stmt", "lock_stmt", "check_point_stmt", "comment_stmt"),
        *("vacuum_stmt", "cluster_stmt", "reindex_stmt", "fetch_stmt", "close_portal_stmt", "prepare_stmt"),
    }
)
"""Statements that write no rows: what a cursor calls counts when it is declared, what PREPARE holds when it is
executed."""

_STATEMENTS: Final[dict[str, Callable[[Survey, Message, Scope], None]]] = {
    "select_stmt": Survey._select,  # noqa: SLF001 - a table of the class's own methods
    "insert_stmt": Survey._change,  # noqa: SLF001
    "update_stmt": Survey._change,  # noqa: SLF001
    "delete_stmt": Survey._change,  # noqa: SLF001
    "merge_stmt": Survey._change,  # noqa: SLF001
    "truncate_stmt": Survey._truncate,  # noqa: SLF001
    "copy_stmt": Survey._copy,  # noqa: SLF001
    "refresh_mat_view_stmt": Survey._refresh,  # noqa: SLF001
    "call_stmt": Survey._call_procedure,  # noqa: SLF001
    "explain_stmt": Survey._within,  # noqa: SLF001
    "declare_cursor_stmt": Survey._within,  # noqa: SLF001
    "create_stmt": Survey._create_table,  # noqa: SLF001
    "view_stmt": Survey._create_view,  # noqa: SLF001
    "create_table_as_stmt": Survey._create_table_as,  # noqa: SLF001
    "drop_stmt": Survey._drop,  # noqa: SLF001
    "transaction_stmt": Survey._transaction,  # noqa: SLF001
}

_NODES: Final[dict[type[Message], Callable[[Survey, Message, Scope], None]]] = {
    **dict.fromkeys(
        (
            *(
                pb.A_ArrayExpr,
                pb.A_Indices,
                pb.BoolExpr,
                pb.BooleanTest,
                pb.CaseWhen,
                pb.CoalesceExpr,
                pb.NullTest,
            ),
            *(
                pb.CollateClause,
                pb.ColumnDef,
                pb.NamedArgExpr,
                pb.ResTarget,
                pb.RangeFunction,
                pb.RangeSubselect,
            ),
            *(
                pb.List,
                pb.MultiAssignRef,
                pb.InferClause,
                pb.IndexElem,
                pb.OnConflictClause,
                pb.MergeWhenClause,
            ),
            *(pb.ReturningClause, pb.ReturningOption, pb.GroupingFunc),
        ),
        Survey._children,  # noqa: SLF001
    ),
    **dict.fromkeys(
        (
            *(pb.A_Star, pb.String, pb.Integer, pb.Float, pb.Boolean, pb.BitString, pb.SetToDefault),
            *(pb.CurrentOfExpr, pb.CTESearchClause),
        ),
        Survey._leaf,  # noqa: SLF001
    ),
    **dict.fromkeys(
        (pb.MinMaxExpr, pb.RowExpr, pb.WindowDef, pb.CTECycleClause),
        Survey._comparing,  # noqa: SLF001
    ),
    **dict.fromkeys(
        (
            *(
                pb.XmlExpr,
                pb.XmlSerialize,
                pb.RangeTableFunc,
                pb.RangeTableFuncCol,
                pb.JsonIsPredicate,
                pb.JsonFormat,
            ),
            *(
                pb.JsonValueExpr,
                pb.JsonBehavior,
                pb.JsonOutput,
                pb.JsonReturning,
                pb.JsonArgument,
                pb.JsonFuncExpr,
            ),
            *(pb.JsonTable, pb.JsonTablePathSpec, pb.JsonTableColumn, pb.JsonKeyValue, pb.JsonParseExpr),
            *(pb.JsonScalarExpr, pb.JsonSerializeExpr, pb.JsonObjectConstructor, pb.JsonArrayConstructor),
            *(pb.JsonArrayQueryConstructor, pb.JsonAggConstructor, pb.JsonObjectAgg, pb.JsonArrayAgg),
            pb.MergeSupportFunc,
        ),
        Survey._unsupported,  # noqa: SLF001
    ),
    pb.SelectStmt: Survey._select,  # noqa: SLF001
    pb.GroupingSet: Survey._grouping,  # noqa: SLF001
    pb.RangeVar: Survey._relation,  # noqa: SLF001
    pb.RangeTableSample: Survey._sample,  # noqa: SLF001
    pb.Alias: Survey._alias,  # noqa: SLF001
    pb.JoinExpr: Survey._join,  # noqa: SLF001
    pb.LockingClause: Survey._lock,  # noqa: SLF001
    pb.ColumnRef: Survey._column,  # noqa: SLF001
    pb.A_Indirection: Survey._indirection,  # noqa: SLF001
    pb.ParamRef: Survey._parameter,  # noqa: SLF001
    pb.A_Const: Survey._constant,  # noqa: SLF001
    pb.FuncCall: Survey._call,  # noqa: SLF001
    pb.A_Expr: Survey._expression,  # noqa: SLF001
    pb.CaseExpr: Survey._case,  # noqa: SLF001
    pb.SubLink: Survey._sublink,  # noqa: SLF001
    pb.SortBy: Survey._sort,  # noqa: SLF001
    pb.TypeCast: Survey._cast,  # noqa: SLF001
    pb.TypeName: Survey._type,  # noqa: SLF001
    pb.SQLValueFunction: Survey._value_function,  # noqa: SLF001
}
