"""What a database's catalog says of a query: whether its answer may be kept, and on which tables that depends.

Names in a text are resolved generously: a name may mean whatever bears it in any schema of the search_path, since what
a role may look into is not known here; an expression may have each of a set of types (`hyperpool.cache.judge_query`);
of overloaded functions, each that could be meant must be fit. So a query may be refused that is harmless, but what is
allowed is harmless however PostgreSQL resolves it.

Views, policies and functions with a parsed body are kept by PostgreSQL with everything resolved: their trees are
searched for what they use. Every kind of node that is not known to be harmless refuses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from hyperpool.cache.catalog_rows import FIRST_USER
from hyperpool.cache.judge_settings import PRINTING, SETTINGS_ONLY
from hyperpool.cache.judge_types import JSON, JSONB, TypeRules
from hyperpool.sql.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from hyperpool.cache.catalog_rows import Cast, Function, Relation, Rows
    from hyperpool.cache.judge_types import Types

_DEEPEST: Final = 32
"""Views and functions that may be inside of each other."""

_SAFE_NODES: Final = frozenset(
    """AGGREF ALIAS ARRAYCOERCEEXPR ARRAYEXPR BOOLEANTEST BOOLEXPR CASE CASETESTEXPR CASEEXPR CASEWHEN COALESCE
    COALESCEEXPR COERCETODOMAIN COERCETODOMAINVALUE COERCEVIAIO COLLATE COLLATEEXPR COMMONTABLEEXPR CONST
    CONVERTROWTYPEEXPR CTECYCLECLAUSE CTESEARCHCLAUSE DISTINCTEXPR FIELDSELECT FROMEXPR FUNCEXPR GROUPINGFUNC
    GROUPINGSET JOINEXPR MINMAX MINMAXEXPR NAMEDARGEXPR NULLIFEXPR NULLTEST OPEXPR PARAM QUERY RANGETBLENTRY
    RANGETBLFUNCTION RANGETBLREF RELABELTYPE ROW ROWCOMPARE ROWCOMPAREEXPR ROWEXPR RTE RTEPERMISSIONINFO
    SCALARARRAYOPEXPR SETOPERATIONSTMT SORTGROUPCLAUSE SUBLINK SUBSCRIPTINGREF SUBSCRIPTREF SBSREF TARGETENTRY
    VAR WHEN WINDOWCLAUSE WINDOWFUNC WITHCHECKOPTION""".split()  # noqa: SIM905 - a table
)
"""Nodes of PostgreSQL 13 to 17 (``outfuncs.c``) that do nothing by themselves, or what is looked at here."""

_WHO: Final = frozenset({"9", "10", "11", "12", "13"})
"""CURRENT_ROLE, CURRENT_USER, USER, SESSION_USER and CURRENT_CATALOG, as SQLValueFunctionOp (``primnodes.h``)."""

_TREE: Final = re.compile(
    r"\{(?P<node>[A-Z_]+)(?: :op (?P<value>\d+))?"
    r"|:funcid (?:2077|3294) [^{]*\{CONST :consttype 25 [^\[\]{}]*:constvalue \d+ \[ (?P<setting>[-\d ]+)\]"
    r"|:(?:funcid|opfuncid|aggfnoid|winfnoid) (?P<function>\d+)"
    r"|:(?:opno|eqop|sortop) (?P<operator>\d+)|:opnos \(o (?P<operators>[\d ]+)\)"
    r"|:relid (?P<relation>\d+)"
    r"|:resulttype (?P<read>\d+) :resultcollid"
    r"|:resulttype (?P<domain>\d+) :resulttypmod -?\d+ :resultcollid \d+ :coercionformat"
    r"|:minmaxtype (?P<compared>\d+)"
    r"|:varattno (?P<system>-\d+)"
    r"|(?P<writes>:commandType [2-9]|:hasModifyingCTE true)"
)
"""What is of interest in an expression or query as PostgreSQL keeps it (pg_node_tree).

Names in such a tree have their blanks escaped, so that none can look like a field; a string is a list of bytes."""
_UNFIT: Final = {
    "writes": (Reason.DATA_MODIFYING_CTE, "a statement inside that writes"),
    "system": (Reason.UNCERTAIN, "system columns"),
}
"""What must not be found there."""

_NAME: Final = re.compile(r"[A-Za-z_][\w$]*(?:\.[A-Za-z_][\w$]*)+")
"""A setting that is no parameter of PostgreSQL's own has a dot in its name."""


_OPERATIONS: Final = 4096
"""Uses of operators that are remembered."""

Operation: TypeAlias = "tuple[str, str, Types | None, Types, tuple[str, ...]]"
"""An operator's schema, if it is given, and name; types of its operands; search_path."""


class Refused(Exception):
    """A query's answer may not be kept.

    Attributes:
        reason: why.
        detail: what it is about, for people.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason.value, detail)
        self.reason = reason
        self.detail = detail


@attrs.define(eq=False)
class Reached:
    """What has been reached so far: oids of tables, of those that are unlogged, and names of settings."""

    tables: set[int] = attrs.field(factory=set)
    unlogged: set[int] = attrs.field(factory=set)
    settings: set[str] = attrs.field(factory=set)

    def add(self, other: Reached) -> None:
        """Add what has been reached elsewhere."""
        self.tables |= other.tables
        self.unlogged |= other.unlogged
        self.settings |= other.settings


class Judge:
    """Looks at relations, functions and types, and remembers what it has found.

    Args:
        rows: the catalog.
        open_text: judges the text of an SQL function, called along a search_path.

    Attributes:
        operations: the types of an operator's result, and what it depends on.
    """

    def __init__(
        self,
        rows: Rows,
        open_text: Callable[[Function, tuple[str, ...]], Reached],
    ) -> None:
        self.rows = rows
        self.types = TypeRules(rows)
        self._open_text = open_text
        self._found: dict[tuple[object, ...], Reached | Refused] = {}
        self._open: set[tuple[object, ...]] = set()
        self._good_types: dict[int, Refused | None] = {}
        self.operations: dict[Operation, tuple[Types, Reached]] = {}

    def remember(self, operation: Operation, found: tuple[Types, Reached]) -> None:
        """Remember what an operator gives for operands of some types."""
        if len(self.operations) >= _OPERATIONS:
            self.operations.clear()
        self.operations[operation] = found

    def _once(self, key: tuple[object, ...], find: Callable[[], Reached]) -> Reached:
        """Find something out, unless it is known; what uses itself is refused."""
        found = self._found.get(key)
        if found is None:
            if key in self._open or len(self._open) > _DEEPEST:
                raise Refused(
                    Reason.UNCERTAIN, "functions or views that use themselves, or many levels of them"
                )
            self._open.add(key)
            try:
                found = find()
            except Refused as refused:
                if self._open == {key}:
                    # What was found on the way to something else may be refused for the way.
                    self._found[key] = refused
                raise
            finally:
                self._open.discard(key)
            self._found[key] = found
        if isinstance(found, Refused):
            raise Refused(found.reason, found.detail)
        return found

    # -- relations -----------------------------------------------------------------------------------------------

    def relation(self, oid: int, path: tuple[str, ...]) -> Reached:
        """What reading a relation depends on.

        Args:
            oid: the relation.
            path: the search_path, for functions behind views.

        Raises:
            Refused: it must not be cached.
        """
        return self._once((oid, path), lambda: self._relation(oid, path))

    def _relation(self, oid: int, path: tuple[str, ...]) -> Reached:
        relation = self.rows.relations.get(oid)
        if relation is None:
            raise Refused(Reason.UNKNOWN_RELATION, f"relation with oid {oid}")
        if relation.builtin or relation.schema in {"pg_catalog", "information_schema"}:
            raise Refused(Reason.SYSTEM_CATALOG, str(relation))
        self._check_kind(relation)
        for _, kind in relation.columns:
            self.check_type(kind)
        reached = Reached()
        if relation.kind == "v":
            reached.add(self.tree(relation.view, path, itself=oid))
            return reached
        reached.tables.add(oid)
        if relation.persistence == "u":
            reached.unlogged.add(oid)
        if relation.row_security:
            for policy in relation.policies:
                try:
                    reached.add(self.tree(policy, path))
                except Refused as refused:
                    raise Refused(Reason.ROW_SECURITY, f"{relation}: {refused.detail}") from None
        for child in relation.children:
            reached.add(self.relation(child, path))
        return reached

    def _check_kind(self, relation: Relation) -> None:
        if relation.kind == "f":
            raise Refused(Reason.FOREIGN_TABLE, str(relation))
        if relation.kind not in "rpvm":
            raise Refused(Reason.UNKNOWN_RELATION, f"{relation} is no table or view")
        if relation.persistence == "t":
            raise Refused(Reason.TEMPORARY_TABLE, str(relation))
        if relation.foreign_method:
            raise Refused(Reason.UNCERTAIN, f"{relation} has an access method of an extension")

    # -- types ---------------------------------------------------------------------------------------------------

    def check_type(self, oid: int) -> None:
        """Make sure that values of a type can be compared, sorted and printed, always alike.

        Raises:
            Refused: they cannot, or nobody knows.
        """
        if oid not in self._good_types:
            self._good_types[oid] = None
            try:
                self._check_type(oid)
            except Refused as refused:
                self._good_types[oid] = refused
        known = self._good_types[oid]
        if known is not None:
            raise Refused(known.reason, known.detail)

    def _check_type(self, oid: int) -> None:
        bad = self.types.unprintable(oid)
        if bad:
            raise Refused(Reason.STABLE_FUNCTION, f"output of type {self.types.name(bad)}")
        for inner in self.types.closure([oid]):
            made = self.rows.types.get(inner)
            for function in made.support if made is not None else ():
                self.function(self._known_function(function), ())

    def check_read(self, oid: int, *, literal: bool, path: tuple[str, ...]) -> None:
        """Make sure that what a text is read as depends on the text alone, and on settings.

        Raises:
            Refused: it does not.
        """
        bad = self.types.unreadable(oid, literal=literal)
        if bad:
            raise Refused(Reason.STABLE_FUNCTION, f"input of type {self.types.name(bad)}")
        for inner in self.types.closure([oid]):
            self.check_domain(inner, path)

    def check_domain(self, oid: int, path: tuple[str, ...]) -> None:
        """Make sure that a domain's constraints are fit to be cached.

        Raises:
            Refused: one is not.
        """
        made = self.rows.types.get(oid)
        while made is not None and made.kind == "d":
            for check in made.checks:
                if self.tree(check, path).tables:
                    raise Refused(Reason.UNCERTAIN, f"constraints of domain {self.types.name(oid)}")
            made = self.rows.types.get(made.base)

    # -- functions -----------------------------------------------------------------------------------------------

    def function(self, function: Function, path: tuple[str, ...]) -> Reached:
        """What a function's result depends on.

        Args:
            function: the very function that is called.
            path: the search_path that it is called with.

        Raises:
            Refused: it depends on more than what the cache knows of.
        """
        if function.volatility == "i" and (function.builtin or function.language != "sql"):
            return Reached()
        return self._once((function, path), lambda: self._function(function, path))

    def _function(self, function: Function, path: tuple[str, ...]) -> Reached:
        if function.builtin:
            signature = self.signature(function)
            if function.schema == "pg_catalog" and signature in SETTINGS_ONLY:
                return self._json_casts(path) if signature in PRINTING else Reached()
        elif function.language == "sql" and function.kind == "f":
            try:
                return self._open_function(function, path)
            except Refused as refused:
                # An IMMUTABLE function that reads no table is taken at its word, as PostgreSQL does.
                if function.volatility != "i" or function.body is not None or _reads(function.source):
                    raise Refused(refused.reason, f"{self.signature(function)}: {refused.detail}") from None
                return Reached()
        reason = Reason.STABLE_FUNCTION if function.volatility == "s" else Reason.VOLATILE_FUNCTION
        raise Refused(reason, self.signature(function))

    def _open_function(self, function: Function, path: tuple[str, ...]) -> Reached:
        if function.definer:
            raise Refused(Reason.UNCERTAIN, "a function with the rights of its owner")
        for setting in function.config:
            if not setting.startswith("search_path="):
                raise Refused(Reason.UNCERTAIN, "a function with settings of its own")
        if function.body is not None:
            return self.tree(function.body, path)
        return self._open_text(function, path)

    def signature(self, function: Function) -> str:
        """A function's name and argument types, with its schema unless that is pg_catalog."""
        kinds = ",".join(self.types.name(kind) for kind in function.arguments)
        name = function.name if function.schema == "pg_catalog" else f"{function.schema}.{function.name}"
        return f"{name}({kinds})"

    def _json_casts(self, path: tuple[str, ...]) -> Reached:
        """Functions that make JSON call users' casts to it."""
        reached = Reached()
        for cast in self.rows.casts():
            if cast.target in {JSON, JSONB} and cast.function >= FIRST_USER:
                reached.add(self.cast(cast, path))
        return reached

    def cast(self, cast: Cast | bool, path: tuple[str, ...]) -> Reached:
        """What a conversion depends on.

        Raises:
            Refused: on more than what the cache knows of.
        """
        if isinstance(cast, bool) or not cast.function:
            return Reached()
        return self.function(self._known_function(cast.function, cast.function_name), path)

    def _known_function(self, oid: int, name: str | None = None) -> Function:
        function = self.rows.function(oid, name)
        if function is None:
            raise Refused(Reason.UNKNOWN_FUNCTION, f"function with oid {oid}")
        return function

    # -- trees ---------------------------------------------------------------------------------------------------

    def tree(self, tree: str, path: tuple[str, ...], *, itself: int = 0) -> Reached:
        """What a stored query or expression depends on.

        Args:
            tree: as PostgreSQL keeps it.
            path: the search_path of whoever uses it.
            itself: the view that it belongs to, which it mentions.

        Raises:
            Refused: on more than what the cache knows of.
        """
        found: dict[str, set[str]] = {}
        for match in _TREE.finditer(tree):
            found.setdefault(match.lastgroup or "", set()).add(match[match.lastgroup or 0])
            if match["node"] is not None:
                _check_node(match["node"], match["value"])
        _check_parts(found)
        reached = Reached()
        for oid in _numbers(found, "relation"):
            if oid not in {0, itself}:
                reached.add(self.relation(oid, path))
        for oid in _numbers(found, "function"):
            if oid:
                reached.add(self.function(self._known_function(oid), path))
        for oid in _numbers(found, "operator", "operators"):
            operator = self.rows.operator(oid)
            if operator is not None:
                reached.add(
                    self.function(self._known_function(operator.function, operator.function_name), path)
                )
            elif oid:
                raise Refused(Reason.UNKNOWN_FUNCTION, f"operator with oid {oid}")
        for oid in _numbers(found, "read"):
            self.check_read(oid, literal=False, path=path)
        for oid in _numbers(found, "domain"):
            self.check_domain(oid, path)
        for oid in _numbers(found, "compared"):
            self.check_type(oid)
        reached.settings.update(_setting(octets) for octets in found.get("setting", ()))
        return reached


def _check_parts(found: Container[str]) -> None:
    for part, (reason, detail) in _UNFIT.items():
        if part in found:
            raise Refused(reason, detail)


def _check_node(node: str, value: str | None) -> None:
    if node == "SQLVALUEFUNCTION":
        if value not in _WHO:
            raise Refused(Reason.SQL_VALUE_FUNCTION, "CURRENT_TIMESTAMP, CURRENT_SCHEMA and the like")
    elif node not in _SAFE_NODES:
        raise Refused(Reason.UNSUPPORTED_SYNTAX, node.lower())


def _numbers(found: dict[str, set[str]], *groups: str) -> Iterable[int]:
    for group in groups:
        for text in found.get(group, ()):
            yield from map(int, text.split())


def _setting(octets: str) -> str:
    """The name of a setting, given the bytes of a value of type text with its header of four bytes."""
    try:
        name = bytes(int(octet) % 256 for octet in octets.split()[4:]).decode()
    except ValueError:
        name = ""
    return setting_name(name)


def setting_name(name: str) -> str:
    """The name of a setting that users have made, in lower case.

    Raises:
        Refused: it is none; those of PostgreSQL tell also about the server's state.
    """
    if not _NAME.fullmatch(name):
        raise Refused(Reason.STABLE_FUNCTION, "current_setting(text)")
    return name.lower()


_TABLES: Final = re.compile(r"\b(from|join|table)\b", re.IGNORECASE)


def _reads(source: str | None) -> bool:
    return source is None or _TABLES.search(source) is not None
