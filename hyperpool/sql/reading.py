"""What a text means for the result cache, as values."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

if TYPE_CHECKING:
    from hyperpool.sql.reasons import Reason

__all__ = [
    "ANYTHING",
    "NOTHING",
    "Cast",
    "Function",
    "Hint",
    "Name",
    "Reading",
    "Source",
    "Text",
    "Writes",
    "unreadable",
]

Name: TypeAlias = "tuple[str | None, str]"
"""The schema, or None if the text names none, and the name, as the server folds them."""

Function: TypeAlias = "tuple[str | None, str, int]"
"""A `Name`, and the number of arguments that it is called with (those of ``WITHIN GROUP`` too, none for ``*``)."""


class Source(enum.Enum):
    """What is cast."""

    CONSTANT = "constant"
    """A string, which the type's input function reads; or NULL."""
    PARAMETER = "parameter"
    """A parameter, which takes the type of the cast unless the client has given it another one."""
    EXPRESSION = "expression"
    """Anything else, numbers too."""


@attrs.frozen
class Cast:
    """A cast that a text asks for.

    Attributes:
        type: to what; the name of an array type is that of its elements with ``[]`` behind it.
        source: what is cast.
    """

    type: Name
    source: Source


@attrs.frozen
class Writes:
    """What executing a text may write by its own words. What the functions in it do, the catalog knows.

    Attributes:
        tables: whose rows it changes, as they are named: foreign keys, triggers, rules, partitions and views may
            carry that further.
        anything: it may change any table.
        schema: it may change what names mean, what functions do, or who may read what.
    """

    tables: frozenset[Name] = frozenset()
    anything: bool = False
    schema: bool = False

    def __bool__(self) -> bool:
        return self.anything or self.schema or bool(self.tables)


NOTHING: Final = Writes()

ANYTHING: Final = Writes(anything=True, schema=True)
"""What a text may write that cannot be read."""


@attrs.frozen
class Hint:
    """What a comment ``/*+ hyperpool: ... */`` asks for.

    Attributes:
        nocache: neither to answer from the cache nor to store the answer.
        max_age: seconds; None if the comment does not say.
        stale_while_revalidate: seconds; None if the comment does not say.
    """

    nocache: bool = False
    max_age: float | None = None
    stale_while_revalidate: float | None = None


@attrs.frozen(eq=False)
class Reading:
    """What all texts mean that differ in plain literals alone. There is one object for all of them, to be a key.

    Names are those that the catalog has to be asked for, wherever they stand in the text, for statements that write
    as well. Names of WITH queries are left out where they hide a table.

    Attributes:
        reason: why answers cannot be cached; None if that depends on the catalog.
        fingerprint: libpg_query's, in hex; texts that differ only in literals and blanks have the same. Empty if the
            text could not be parsed.
        template: the text with ``$1``, ``$2``, ... instead of literals; for statements that are neither queries nor
            INSERT, UPDATE, DELETE or MERGE, what they are. It holds no values.
        hint: what a comment asks for.
        relations: tables and views.
        types: types that casts, declarations of columns and the like name; arrays as in `Cast`.
        casts: explicit casts.
        constants: names of the types that literals have: int4, int8, numeric, bool, bit, unknown.
        parameters: numbers of the parameters.
        functions: aggregates and window functions as well, and what SQL's own syntax calls (EXTRACT, AT TIME ZONE).
            A name may also be a type's (then it is a cast).
        operators: explicit ones, and those that IN, BETWEEN, LIKE, CASE, NULLIF, DISTINCT FROM and the like stand for.
        compares: values are compared, sorted or hashed by their types' default operator classes (ORDER BY, GROUP BY,
            DISTINCT, UNION, IN with a subquery, windows, GREATEST, NATURAL JOIN, rows).
        columns: last parts of the names of columns, and of whole rows; not what is in `attributes` alone.
        attributes: names behind a dot, where a function of a row may be meant.
        star: all columns of something may be read, by ``*`` or as a whole row.
        writes: what executing it may write.
    """

    reason: Reason | None
    fingerprint: str = ""
    template: str = ""
    hint: Hint | None = None
    relations: frozenset[Name] = frozenset()
    types: frozenset[Name] = frozenset()
    casts: frozenset[Cast] = frozenset()
    constants: frozenset[str] = frozenset()
    parameters: frozenset[int] = frozenset()
    functions: frozenset[Function] = frozenset()
    operators: frozenset[Name] = frozenset()
    compares: bool = False
    columns: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    star: bool = False
    writes: Writes = NOTHING


@attrs.define(eq=False)
class Text:
    """What one text means.

    Attributes:
        canonical: the text without what does not matter: tokens as PostgreSQL's scanner finds them, with one blank
            between two, no comments, keywords and plain names in lower case. Two texts with the same canonical form
            ask the same. Empty if the reading has a reason.
        reading: what it has in common with others.
    """

    canonical: bytes
    reading: Reading


def unreadable(reason: Reason) -> Text:
    """What is known of a text that cannot be read: it is not cached, and may write anything."""
    return Text(b"", Reading(reason, writes=ANYTHING))
