"""Reading the syntax tree of a text, as PostgreSQL's own parser (libpg_query) makes it.

The parser is that of one PostgreSQL version. What it does not know is not read wrongly: it is `Unreadable`.

Sources of the rules: PostgreSQL documentation, "SQL Commands"; "Functions and Operators", sections "System
Administration Functions" and "XML Functions"; "Text Search Functions"; names of settings that have been renamed: its
`guc.c`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError, Message
from postgast import PgQueryError, parse
from postgast import pg_query_pb2 as pb

from hyperpool.sql.model import EVERYTHING, NONE, Effects, Pin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TRANSIENT: Final = frozenset(
    {"transaction_isolation", "transaction_read_only", "transaction_deferrable", "seed"}
)
"""Settings of the transaction, and the state of ``random()``, which nobody relies on."""

_RESETS: Final = frozenset({pb.VAR_RESET, pb.VAR_SET_DEFAULT})

_RENAMED: Final = {"sort_mem": "work_mem", "vacuum_mem": "maintenance_work_mem"}

_LOCKS: Final = frozenset(
    {
        "pg_advisory_lock",
        "pg_advisory_lock_shared",
        "pg_try_advisory_lock",
        "pg_try_advisory_lock_shared",
    }
)
_UNLOCKS: Final = frozenset({"pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all"})
_RUNS_SQL: Final = frozenset(
    {"query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema", "ts_stat", "ts_rewrite"}
)
"""Functions of PostgreSQL itself that run a text of SQL which they are given."""

_HARMLESS_DDL: Final = frozenset({"alter_role_set_stmt", "alter_database_set_stmt", "alter_system_stmt"})
"""They change what later sessions begin with."""

_STORED: Final = frozenset(
    {
        "view_stmt",
        "rule_stmt",
        "create_function_stmt",
        "create_trig_stmt",
        "create_policy_stmt",
        "alter_policy_stmt",
    }
)
"""What they mention is called later, by others."""

_MADE: Final = {"create_stmt": "relation", "create_seq_stmt": "sequence", "view_stmt": "view"}
"""Statements that make a relation, which may be a temporary one -> the field that names it."""

_DDL: Final = ("alter_", "create", "drop", "rename_", "define_", "rule_", "composite_", "import_foreign_")
"""What the names of statements that change the schema begin with, as the parser's messages name them."""

_LEAVES: Final = frozenset({pb.A_Const, pb.ColumnRef, pb.ParamRef, pb.String})
"""Parts of a tree that need not be gone into."""

_Repeated: Final = type(pb.ParseResult().stmts)

_TEMPORARY_SCHEMA: Final = re.compile(r"pg_temp(?:_\d+)?")
_HOLD: Final = 0x20  # CURSOR_OPT_HOLD of PostgreSQL's parsenodes.h


class Unreadable(Exception):
    """The parser cannot read a text."""


class TreeReader:
    """Finds the effects of texts in their syntax trees.

    Args:
        pinning: functions whose call is `Pin.FUNCTION`; lower case, without schema.
        stateful: names whose mention makes everything possible; lower case.
    """

    def __init__(self, pinning: frozenset[str], stateful: frozenset[str]) -> None:
        self.pinning = pinning
        self._stateful = stateful
        self.names = pinning | stateful

    def read(self, text: str, codec: str, *, deep: bool, mentions: bool) -> Effects | None:
        """Find the effects of a text.

        Args:
            text: without zero bytes, and not so long that its tree could be too deep for the parser.
            codec: what the text was decoded with.
            deep: it has words that mean something inside of expressions, too.
            mentions: it mentions what makes everything possible, perhaps in a string.

        Returns:
            The effects; None for nothing.

        Raises:
            Unreadable: the parser does not understand it, or it is too deep to be looked at.
        """
        try:
            result = parse(text)
        except (PgQueryError, DecodeError, UnicodeDecodeError) as error:
            raise Unreadable(str(error)) from None
        found = _Findings(self, codec, deep=deep)
        if mentions:
            found.add(EVERYTHING)
        for statement in result.stmts:
            found.statement(statement.stmt)
        return found.effects()

    def mentioned(self, name: str) -> Effects | None:
        """What may follow from the mention of a name."""
        if _in_temporary(name):
            return Effects(pins=Pin.TEMPORARY)
        return EVERYTHING if name in self._stateful else None


class _Findings:
    """The effects that have been found so far in one text."""

    def __init__(self, reader: TreeReader, codec: str, *, deep: bool) -> None:
        self._reader = reader
        self._codec = codec
        self._deep = deep
        self._calls = True
        self.settings: set[str] = set()
        self.unknown_settings = False
        self.pins = NONE
        self.releases = False
        self.deallocates: list[bytes] = []
        self.deallocates_all = False
        self.discards_all = False
        self.resets: set[str] = set()
        self.resets_all = False
        self.sets: set[str] = set()
        self.local = False
        self.schema = False

    def effects(self) -> Effects | None:
        """All of them; None for nothing."""
        effects = Effects(
            settings=frozenset(self.settings),
            unknown_settings=self.unknown_settings,
            pins=self.pins,
            releases=self.releases,
            deallocates=tuple(self.deallocates),
            deallocates_all=self.deallocates_all,
            discards_all=self.discards_all,
            resets=frozenset(self.resets),
            resets_all=self.resets_all,
            sets=frozenset(self.sets),
            local=self.local,
            schema=self.schema,
        )
        return effects if effects != Effects() else None

    def add(self, effects: Effects | None) -> None:
        """Add what a name does."""
        if effects is not None:
            self.unknown_settings |= effects.unknown_settings
            self.pins |= effects.pins
            self.releases |= effects.releases
            self.schema |= effects.schema

    def statement(self, node: Message) -> None:
        """Add what a statement does.

        Args:
            node: the Node message that has it.
        """
        kind = node.WhichOneof("node")
        if kind is None or kind in _HARMLESS_DDL:
            return
        message = getattr(node, kind)
        special = _STATEMENTS.get(kind)
        if special is not None:
            special(self, message)
            return
        made = _MADE.get(kind)
        if made is not None:
            self._make(getattr(message, made))
        elif kind.startswith(_DDL):
            self.schema = True
            self.releases |= kind.startswith("drop")
        self._walk(message, calls=kind not in _STORED)

    # -- statements of their own kind ----------------------------------------------------------------------------

    def _set(self, message: Message) -> None:
        if message.name.lower() == "search_path":
            for item in message.args:
                self._search_path(_constant(item))
        if message.is_local or message.name.startswith("TRANSACTION"):
            self.local |= not message.name.startswith("TRANSACTION")
            return
        if message.kind == pb.VAR_RESET_ALL:
            self._reset_all()
        elif message.name == "SESSION CHARACTERISTICS":
            for item in message.args:
                self._setting("default_" + item.def_elem.defname)
        else:
            self._setting(message.name, resets=message.kind in _RESETS)

    def _setting(self, name: str, *, resets: bool = False) -> None:
        name = name.lower()
        name = _RENAMED.get(name, name)
        if name in _TRANSIENT:
            return
        names = {name, "role"} if name == "session_authorization" else {name}
        self.settings |= names
        if resets:
            self.resets |= names
            self.sets -= names
        else:
            self.sets |= names
            self.resets -= names

    def _reset_all(self) -> None:
        self.unknown_settings = self.resets_all = True
        self.sets.clear()

    def _search_path(self, value: str | None) -> None:
        """With the temporary schema in it, tables may become temporary without a further word."""
        if value is None or "\\" in value or "pg_temp" in value.lower():
            self.pins |= Pin.TEMPORARY

    def _discard(self, message: Message) -> None:
        self.releases = True
        if message.target == pb.DISCARD_ALL:
            self._reset_all()
            self.deallocates_all = self.discards_all = True

    def _deallocate(self, message: Message) -> None:
        self.releases = True
        if message.isall or not message.name:
            self.deallocates_all = True
        else:
            self.deallocates.append(message.name.encode(self._codec))

    def _listen(self, _message: Message) -> None:
        self.pins |= Pin.LISTEN

    def _load(self, _message: Message) -> None:
        self.pins |= Pin.LOAD

    def _prepare(self, message: Message) -> None:
        self.pins |= Pin.PREPARE
        self._walk(message)

    def _release(self, _message: Message) -> None:
        self.releases = True

    def _declare(self, message: Message) -> None:
        if message.options & _HOLD:
            self.pins |= Pin.HOLD
        self._walk(message)

    def _unknown(self, message: Message) -> None:
        self.add(EVERYTHING)
        self._walk(message)

    def _explain(self, message: Message) -> None:
        self.statement(message.query)

    def _create_schema(self, message: Message) -> None:
        self.schema = True
        for item in message.schema_elts:
            self.statement(item)

    def _create_table_as(self, message: Message) -> None:
        if message.query.WhichOneof("node") == "execute_stmt":
            self.add(EVERYTHING)
        self._make(message.into.rel)
        self._walk(message)

    def _make(self, relation: Message) -> None:
        if _is_temporary(relation):
            self.pins |= Pin.TEMPORARY
        else:
            self.schema = True

    # -- expressions ---------------------------------------------------------------------------------------------

    def _walk(self, message: Message, *, calls: bool = True) -> None:
        """Add what the parts of a statement do, however deep they are.

        Args:
            message: the statement.
            calls: executing it calls the functions in it.
        """
        if not self._deep:
            return
        self._calls = calls
        stack = [message]
        while stack:
            part = stack.pop()
            kind = part.__class__
            if kind is pb.Node:
                name = part.WhichOneof("node")
                if name is None:
                    continue
                part = getattr(part, name)
                kind = part.__class__
            look = _PARTS.get(kind)
            if look is not None:
                look(self, part)
            if kind not in _LEAVES:
                for _field, value in part.ListFields():
                    if value.__class__ is _Repeated:
                        stack.extend(value)
                    elif isinstance(value, Message):
                        stack.append(value)

    def _relation(self, relation: Message) -> None:
        if _is_temporary(relation):
            self.pins |= Pin.TEMPORARY
        self.add(self._reader.mentioned(relation.relname.lower()))

    def _update(self, update: Message) -> None:
        if update.relation.relname == "pg_settings":
            self.unknown_settings = True

    def _name(self, name: Message) -> None:
        self.add(self._reader.mentioned(name.sval.lower()))

    def _attribute(self, column: Message) -> None:
        """A column; or, with a row in front, a function that is called with it."""
        for part in column.fields:
            name = part.string.sval.lower()
            if name in self._reader.names:
                self.add(self._reader.mentioned(name))
                self._pinning(name)

    def _attributes(self, indirection: Message) -> None:
        for part in indirection.indirection:
            self._pinning(part.string.sval)

    def _call(self, call: Message) -> None:
        name = _fold(call.funcname[-1].string.sval)
        self._pinning(name)
        if not self._calls:
            return
        if _in_temporary(call.funcname[0].string.sval):
            self.add(EVERYTHING)
        if name == "set_config":
            self._set_config(call.args)
        elif name in _LOCKS:
            self.pins |= Pin.LOCK
        elif name in _UNLOCKS:
            self.releases = True
        elif name in _RUNS_SQL:
            self.add(EVERYTHING)

    def _pinning(self, name: str) -> None:
        if self._calls and name.lower() in self._reader.pinning:
            self.pins |= Pin.FUNCTION

    def _set_config(self, args: Sequence[Message]) -> None:
        if len(args) != 3 or any(arg.HasField("named_arg_expr") for arg in args):
            self.unknown_settings = True
            return
        name, value, local = _constant(args[0]), _constant(args[1]), _is_true(args[2])
        if name is not None and name.lower() == "search_path" and (value is not None or not local):
            self.unknown_settings |= value is None
            self._search_path(value)
        if local:
            self.local = True
            return
        if name is None or "\\" in name:
            self.unknown_settings = True
        else:
            self._setting(name)


def _is_temporary(relation: Message) -> bool:
    return relation.relpersistence == "t" or _in_temporary(relation.schemaname)


def _in_temporary(schema: str) -> bool:
    schema = schema.lower()
    return schema.startswith("pg_temp") and _TEMPORARY_SCHEMA.fullmatch(schema) is not None


def _fold(name: str) -> str:
    """Fold a function's name; a Turkish server folds the capital I with a dot, too, in UTF-8 or as ISO 8859-9."""
    return name.replace("\u0130", "i").replace("\u00dd", "i").lower()


def _constant(node: Message) -> str | None:
    """The text that an expression is; None if it is no constant text."""
    while node.HasField("type_cast"):
        node = node.type_cast.arg
    if node.HasField("a_const") and node.a_const.HasField("sval"):
        value: str = node.a_const.sval.sval
        return value
    return None


def _is_true(node: Message) -> bool:
    """Whether an expression is certainly true."""
    while node.HasField("type_cast"):
        node = node.type_cast.arg
    if not node.HasField("a_const"):
        return False
    constant = node.a_const
    return constant.boolval.boolval or constant.sval.sval.lower() in {"t", "true"}


_STATEMENTS: Final[dict[str, Callable[[_Findings, Message], None]]] = {
    "variable_set_stmt": _Findings._set,  # noqa: SLF001 - a table of the class's own methods
    "discard_stmt": _Findings._discard,  # noqa: SLF001
    "deallocate_stmt": _Findings._deallocate,  # noqa: SLF001
    "listen_stmt": _Findings._listen,  # noqa: SLF001
    "unlisten_stmt": _Findings._release,  # noqa: SLF001
    "load_stmt": _Findings._load,  # noqa: SLF001
    "close_portal_stmt": _Findings._release,  # noqa: SLF001
    "prepare_stmt": _Findings._prepare,  # noqa: SLF001
    "declare_cursor_stmt": _Findings._declare,  # noqa: SLF001
    "execute_stmt": _Findings._unknown,  # noqa: SLF001
    "do_stmt": _Findings._unknown,  # noqa: SLF001
    "call_stmt": _Findings._unknown,  # noqa: SLF001
    "explain_stmt": _Findings._explain,  # noqa: SLF001
    "create_schema_stmt": _Findings._create_schema,  # noqa: SLF001
    "create_table_as_stmt": _Findings._create_table_as,  # noqa: SLF001
}

_PARTS: Final[dict[type[Message], Callable[[_Findings, Message], None]]] = {
    pb.FuncCall: _Findings._call,  # noqa: SLF001
    pb.UpdateStmt: _Findings._update,  # noqa: SLF001
    pb.RangeVar: _Findings._relation,  # noqa: SLF001
    pb.String: _Findings._name,  # noqa: SLF001
    pb.ColumnRef: _Findings._attribute,  # noqa: SLF001
    pb.A_Indirection: _Findings._attributes,  # noqa: SLF001
}
