"""Why an answer does not come from the result cache: names for people and counters.

A reason belongs to the stage that finds it: the text alone (`hyperpool.sql.reading`), the database's catalog
(`hyperpool.cache`), or the moment at which a client asks (`hyperpool.relay`).
"""

from __future__ import annotations

import enum
from typing import Self

__all__ = ["Reason", "Stage"]


class Stage(enum.Enum):
    """What has to be looked at to find a reason."""

    TEXT = "text"
    CATALOG = "catalog"
    MOMENT = "moment"


class Reason(enum.Enum):
    """Why an answer is neither taken from the cache nor stored in it.

    Attributes:
        value: the name that ``SHOW CACHE_REASONS`` has, which stays the same from release to release.
        stage: what finds it.
        sentence: what it means.
        remedy: what to do about it.
    """

    stage: Stage
    sentence: str
    remedy: str

    def __new__(cls, name: str, stage: Stage, sentence: str, remedy: str) -> Self:
        """Make a member whose value is its name."""
        self = object.__new__(cls)
        self._value_ = name
        self.stage = stage
        self.sentence = sentence
        self.remedy = remedy
        return self

    # -- the text ------------------------------------------------------------------------------------------------

    NOT_A_QUERY = (
        "not_a_query",
        Stage.TEXT,
        "It is not a SELECT, VALUES or TABLE.",
        "Nothing to do: only queries have answers that can be asked for again.",
    )
    EMPTY = ("empty", Stage.TEXT, "The text has no statement.", "Nothing to do.")
    MULTIPLE_STATEMENTS = (
        "multiple_statements",
        Stage.TEXT,
        "The text has several statements.",
        "Send the query in a text of its own.",
    )
    PARSE_ERROR = (
        "parse_error",
        Stage.TEXT,
        "PostgreSQL's parser, as hyperpool has it, does not understand the text.",
        "Look for a mistake in the query, or for syntax that is newer than PostgreSQL 18's.",
    )
    TOO_LONG = (
        "too_long",
        Stage.TEXT,
        "The text is longer than what is parsed for the cache.",
        "Use parameters or an array instead of long lists of literals.",
    )
    TOO_DEEP = (
        "too_deep",
        Stage.TEXT,
        "The query is nested too deeply to be looked at.",
        "Split it, or use a view for its inner parts.",
    )
    AMBIGUOUS = (
        "ambiguous",
        Stage.TEXT,
        "Where strings end, or what they are, depends on standard_conforming_strings.",
        "Double quotes within strings instead of writing a backslash, and leave standard_conforming_strings on.",
    )
    ENCODING = (
        "encoding",
        Stage.TEXT,
        "The text has characters outside ASCII that are not UTF-8, or are not folded alike everywhere.",
        "Set client_encoding to UTF8 or pass such values as parameters; name things without such capital letters.",
    )
    LOCKING = (
        "locking",
        Stage.TEXT,
        "FOR UPDATE or FOR SHARE locks rows.",
        "Leave the locking clause out where no lock is needed.",
    )
    INTO = ("into", Stage.TEXT, "SELECT INTO makes a table.", "Nothing to do.")
    DATA_MODIFYING_CTE = (
        "data_modifying_cte",
        Stage.TEXT,
        "INSERT, UPDATE, DELETE or MERGE in a WITH clause changes data.",
        "Nothing to do.",
    )
    TABLESAMPLE = ("tablesample", Stage.TEXT, "TABLESAMPLE draws rows at random.", "Nothing to do.")
    CLOCK_LITERAL = (
        "clock_literal",
        Stage.TEXT,
        "A string or a parameter has 'now', 'today', 'tomorrow' or 'yesterday' in it, which may mean the clock.",
        "Write the date itself.",
    )
    SQL_VALUE_FUNCTION = (
        "sql_value_function",
        Stage.TEXT,
        "CURRENT_DATE, CURRENT_TIMESTAMP, CURRENT_USER and the like differ from call to call or user to user.",
        "Pass the value as a parameter, rounded as far as the query allows.",
    )
    UNSUPPORTED_SYNTAX = (
        "unsupported_syntax",
        Stage.TEXT,
        "The query has a clause that the cache does not know to be harmless, such as XML or SQL/JSON expressions.",
        "Write it with functions and operators, if it is asked often.",
    )

    # -- the catalog ---------------------------------------------------------------------------------------------

    CATALOG_PENDING = (
        "catalog_pending",
        Stage.CATALOG,
        "What the database says about its tables and functions has not been read yet, or must be read again.",
        "Nothing to do: it is read within moments. If this goes on, see the log.",
    )
    UNKNOWN_RELATION = (
        "unknown_relation",
        Stage.CATALOG,
        "A table or view was not found by its name along the search_path.",
        "Check the name; for something just made outside of hyperpool, wait until the catalog is read again.",
    )
    SYSTEM_CATALOG = (
        "system_catalog",
        Stage.CATALOG,
        "The query reads PostgreSQL's own catalogs or statistics.",
        "Nothing to do: they change without a statement that hyperpool could see.",
    )
    TEMPORARY_TABLE = (
        "temporary_table",
        Stage.CATALOG,
        "The query may read a temporary table, which belongs to one session.",
        "Nothing to do.",
    )
    FOREIGN_TABLE = (
        "foreign_table",
        Stage.CATALOG,
        "The query reads a foreign table, whose data changes elsewhere.",
        "Add a rule with `always` if an answer of the age `max_age` is good enough.",
    )
    UNLOGGED_TABLE = (
        "unlogged_table",
        Stage.CATALOG,
        "The query reads an unlogged table, and the settings exclude those.",
        "Set `cache.unlogged: true` for the database if they may be cached.",
    )
    ROW_SECURITY = (
        "row_security",
        Stage.CATALOG,
        "Row security of a table depends on something that is not in the key.",
        "Let policies depend on the role, or on settings that hyperpool follows.",
    )
    VOLATILE_FUNCTION = (
        "volatile_function",
        Stage.CATALOG,
        "A function, operator or cast that the query may call is VOLATILE.",
        "Declare it IMMUTABLE if it is, or add a rule with `always`.",
    )
    STABLE_FUNCTION = (
        "stable_function",
        Stage.CATALOG,
        "A function, operator or cast that the query may call is STABLE: its result may differ from call to call.",
        "Declare it IMMUTABLE if it is, or add a rule with `always`.",
    )
    UNKNOWN_FUNCTION = (
        "unknown_function",
        Stage.CATALOG,
        "A function or operator was not found by its name along the search_path.",
        "Check the name; for something just made outside of hyperpool, wait until the catalog is read again.",
    )
    UNKNOWN_TYPE = (
        "unknown_type",
        Stage.CATALOG,
        "A type was not found by its name along the search_path, or its values cannot be judged.",
        "Check the name; for something just made outside of hyperpool, wait until the catalog is read again.",
    )
    UNCERTAIN = (
        "uncertain",
        Stage.CATALOG,
        "What the query calls cannot be told with certainty.",
        "Cast literals and parameters explicitly, or add a rule with `always`.",
    )

    # -- the moment ----------------------------------------------------------------------------------------------

    IN_TRANSACTION = (
        "in_transaction",
        Stage.MOMENT,
        "The client is in a transaction, which has a snapshot and perhaps writes of its own.",
        "Ask outside of the transaction (autocommit).",
    )
    PINNED = (
        "pinned",
        Stage.MOMENT,
        "The client has session state that ties it to one server connection.",
        "See SHOW CLIENTS for what it is; temporary tables, LISTEN, advisory locks and the like have this effect.",
    )
    PIPELINE = (
        "pipeline",
        Stage.MOMENT,
        "The query came together with other requests.",
        "Send it with a Sync of its own.",
    )
    ROW_LIMIT = (
        "row_limit",
        Stage.MOMENT,
        "The client asked for a limited number of rows at a time.",
        "Fetch all rows at once, or use LIMIT.",
    )
    PROTOCOL = (
        "protocol",
        Stage.MOMENT,
        "The client used a form of the protocol that the cache does not answer.",
        "Use the usual order Parse, Bind, Describe, Execute, Sync.",
    )
    SETTINGS_UNKNOWN = (
        "settings_unknown",
        Stage.MOMENT,
        "A setting of the client's session that can change answers is not known.",
        "Use `session_state: follow`, and SET with plain values.",
    )
    TOO_LARGE = (
        "too_large",
        Stage.MOMENT,
        "The answer is larger than `max_entry`.",
        "Raise `max_entry`, or ask for less.",
    )
    NOTICE = (
        "notice",
        Stage.MOMENT,
        "The answer came with a notice, a notification or a changed parameter.",
        "Nothing to do.",
    )
    FAILED = ("failed", Stage.MOMENT, "The query failed or was canceled.", "Nothing to do.")
    OWN_WRITE = (
        "own_write",
        Stage.MOMENT,
        "Something that the query reads was written to while it ran.",
        "Nothing to do.",
    )
    HINT = ("hint", Stage.MOMENT, "A comment in the text says nocache.", "Take the hint out of the text.")
    RULE = ("rule", Stage.MOMENT, "A rule in the settings says never.", "Change the rule.")
    USER_OFF = ("user_off", Stage.MOMENT, "The cache is off for this user.", "Change the user's settings.")
    SESSION_OFF = (
        "session_off",
        Stage.MOMENT,
        "The client has said SET hyperpool.cache = off.",
        "SET hyperpool.cache = on.",
    )
