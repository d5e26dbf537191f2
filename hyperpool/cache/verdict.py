"""What the catalog stage says of a query that its text does not refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from hyperpool.sql.reasons import Reason


@attrs.frozen(eq=False)
class Verdict:
    """Whether the answer to a query may be kept, as far as a database's catalog can tell.

    Attributes:
        reason: why not; None if it may.
        detail: what it was about, for people: a function with its argument types, a relation, a type. Never a value.
        tables: oids of all tables whose rows the answer can depend on: also those behind views, functions and
            policies, and the descendants of partitioned and inherited tables.
        table_names: the same, for people: ``schema.name``. With a reason, those that the text names.
        unlogged: those of them that are unlogged: a crash of the server empties them.
        settings: lower-case names of the settings, apart from PostgreSQL's own, that the answer can depend on: those
            that policies of row security read.
        clock: a parameter may be read as a date or a time: an answer for a value in text format that
            `hyperpool.sql.clock.mentions_clock` is not kept.
    """

    reason: Reason | None = None
    detail: str = ""
    tables: frozenset[int] = frozenset()
    table_names: tuple[str, ...] = ()
    unlogged: tuple[str, ...] = ()
    settings: frozenset[str] = frozenset()
    clock: bool = False
