"""A database's catalog, as far as the result cache must know it.

There is one `Catalog` for a database, whoever asks it. It is asked for with `question`, and does not change: when it is
asked for again, `Catalog.renewed` is what there is then.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hyperpool.cache.catalog_query import question
from hyperpool.cache.catalog_rows import Rows
from hyperpool.cache.catalog_writes import Writers
from hyperpool.cache.judge import Judge, Reached, Refused
from hyperpool.cache.judge_query import QueryJudge
from hyperpool.cache.judge_types import POLYMORPHIC
from hyperpool.cache.verdict import Verdict
from hyperpool.sql.clock import mentions_clock
from hyperpool.sql.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hyperpool.cache.catalog_rows import Function
    from hyperpool.cache.catalog_writes import Touched
    from hyperpool.sql.reading import Reading, Text

__all__ = ["Catalog", "question", "search_path"]

_REMEMBERED: Final = 4096
"""Verdicts that are remembered."""


class Catalog:
    """What a database says of its tables, types, functions and operators.

    Args:
        rows: the answer to `question`, each row a list of texts.

    Attributes:
        version: names this state of the catalog, for `question`.

    Raises:
        ValueError: the rows are not such an answer.
    """

    def __init__(self, rows: Iterable[Sequence[str | None]]) -> None:
        self._rows = Rows(rows)
        self.version = self._rows.version
        self._judge = Judge(self._rows, self._open)
        self._writers = Writers(self._rows)
        self._verdicts: dict[tuple[Reading, bytes, tuple[str, ...], tuple[int, ...]], Verdict] = {}

    def __repr__(self) -> str:
        return f"<Catalog {self.version}>"

    def renewed(self, rows: Sequence[Sequence[str | None]]) -> Catalog:
        """What there is after the database has been asked again.

        Args:
            rows: the answer to ``question(catalog.version)``.

        Returns:
            This catalog, if nothing has changed.

        Raises:
            ValueError: the rows are no such answer.
        """
        if len(rows) == 1 and rows[0][:2] == ["v", self.version]:
            return self
        return Catalog(rows)

    def judge(
        self, text: Text, search_path: tuple[str, ...], parameter_types: tuple[int, ...] = ()
    ) -> Verdict:
        """Say whether the answer to a query may be kept.

        Args:
            text: one that does not refuse by itself.
            search_path: the schemas of the session's search_path, see `search_path`.
            parameter_types: oids that the client has declared with its Parse message; 0 for none.
        """
        reading = text.reading
        if reading.reason is not None:
            return Verdict(reason=reading.reason)
        # The name of a setting is a literal, and part of the verdict.
        named = text.canonical if b"current_setting" in text.canonical else b""
        key = (reading, named, search_path, parameter_types)
        known = self._verdicts.get(key)
        if known is None:
            known = self._decide(text, search_path, parameter_types)
            while len(self._verdicts) >= _REMEMBERED:
                del self._verdicts[next(iter(self._verdicts))]
            self._verdicts[key] = known
        return known

    def touched(self, reading: Reading, search_path: tuple[str, ...] | None) -> Touched:
        """The tables whose rows a statement may change, by itself or by the functions that it calls.

        Args:
            reading: what its text says.
            search_path: the schemas of the session's search_path, see `search_path`; None for any schema.

        Returns:
            Oids; also those of tables that foreign keys and rules change, of ancestors and of descendants. Empty for a
            statement that writes nothing.
        """
        return self._writers.touched(reading, search_path)

    def names(self, tables: Iterable[int]) -> tuple[str, ...]:
        """Names of tables, for people."""
        known = self._rows.relations
        return tuple(sorted(str(known[oid]) if oid in known else str(oid) for oid in tables))

    def find(self, name: str) -> frozenset[int]:
        """The oids of all tables and views of a name, which may have its schema in front."""
        schema, dot, relation = name.rpartition(".")
        found = self._rows.relation_names.get(relation, ())
        return frozenset(one.oid for one in found if not dot or one.schema == schema)

    def _decide(self, read: Text, path: tuple[str, ...], parameters: tuple[int, ...]) -> Verdict:
        judge = QueryJudge(self._judge, path, parameters)
        text = read.canonical.decode()
        try:
            judge.judge_text(text)
        except Refused as refused:
            return Verdict(refused.reason, refused.detail, table_names=self._named(read.reading, path))
        except RecursionError:
            return Verdict(Reason.TOO_DEEP)
        tables = frozenset(judge.reached.tables)
        undeclared = "$" in text and (not parameters or 0 in parameters)
        return Verdict(
            tables=tables,
            table_names=self.names(tables),
            unlogged=self.names(judge.reached.unlogged),
            settings=frozenset(judge.reached.settings),
            clock=undeclared or self._judge.types.tells_time(parameters),
        )

    def _named(self, reading: Reading, path: tuple[str, ...]) -> tuple[str, ...]:
        """The tables and views that a text names."""
        found = set()
        for schema, name in reading.relations:
            for relation in self._rows.relation_names.get(name, ()):
                if relation.schema == schema or (schema is None and relation.schema in path):
                    found.add(str(relation))
        return tuple(sorted(found))

    def _open(self, function: Function, path: tuple[str, ...]) -> Reached:
        """What the text of an SQL function depends on."""
        if function.source is None:
            raise Refused(Reason.UNCERTAIN, "its source is too long")
        if "\\" in function.source:
            raise Refused(Reason.AMBIGUOUS, "what a backslash means depends on a setting")
        if not POLYMORPHIC.isdisjoint(function.arguments):
            raise Refused(Reason.UNCERTAIN, "it takes arguments of any type")
        for setting in function.config:
            path = search_path(setting.partition("=")[2], "")
        judge = QueryJudge(self._judge, path, function.arguments)
        for label, _, kind in function.names:
            if label:
                judge.define(label, [kind])
        columns = judge.judge_text(function.source)
        if mentions_clock(function.source.encode()):
            raise Refused(Reason.CLOCK_LITERAL, "it may mean the clock")
        fields = judge.types.fields(function.result) if judge.types.is_row(function.result) else ()
        for (_, types), (_, kind) in zip(
            columns, fields or [("", function.result)] * len(columns), strict=False
        ):
            if not judge.types.is_row(kind):
                judge.cast_types(types, kind)
        return judge.reached


def search_path(value: str, user: str) -> tuple[str, ...]:
    """The schemas that a value of the setting search_path names, in order.

    Args:
        value: as ``SHOW search_path`` has it.
        user: what ``"$user"`` stands for: the current role.
    """
    found = []
    for quoted, plain in re.findall(r'"((?:[^"]|"")*)"|([^\s,"]+)', value):
        name = quoted.replace('""', '"') if quoted or not plain else plain.lower()
        if name == "$user":
            name = user
        if name:
            found.append(name)
    return tuple(found)
