"""The language of the console: pgbouncer's commands, and the little SQL that drivers send unasked. Sans-IO."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORD: Final = r'"(?:[^"]|"")*"|[0-9a-z_]+'
_PARAMETER: Final = r"\$[1-9][0-9]{0,4}"
_TEXT: Final = "'(?:[^']|'')*'"
_COMMAND: Final = re.compile(rf"({_WORD})(?:\s+({_WORD}|{_PARAMETER}|{_TEXT}))?", re.IGNORECASE)
_SET: Final = re.compile(
    rf"set\s+({_WORD})\s*(?:=|\sto\s)\s*({_TEXT}|{_PARAMETER}|{_WORD}|[-+.0-9a-z_]+)", re.IGNORECASE
)
_BRACED: Final = re.compile(rf"\(\s*({_TEXT}|[-+.0-9]+)(?:::[a-z0-9_]+)?\s*\)\Z", re.IGNORECASE)
"""How pgjdbc puts a parameter into the text, with ``preferQueryMode=simple``: ``('x')`` and ``('7'::int4)``."""

_CACHE: Final = re.compile(r"\s*(explain|purge)\s+cache\b\s*(.*)", re.IGNORECASE | re.DOTALL)
"""What follows may be a query, whose comments count."""

_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
"""One without an end goes up to the end: each `/*` would be looked at up to there else."""

_TRANSACTION: Final = re.compile(
    r"(begin|start\s+transaction|commit|end|rollback|abort)(\s+(work|transaction))?"
    r"(\s+(isolation\s+level\s+(serializable|repeatable\s+read|read\s+(un)?committed)|read\s+(only|write)))*",
    re.IGNORECASE,
)
_LONGEST_SHOWN: Final = 200
"""Characters of a text that an error quotes."""


class Unintelligible(ValueError):
    """The text is no command of the console."""


@attrs.frozen
class Command:
    """A verb with its argument.

    Attributes:
        verb: in lower case; ``show`` also for ``SELECT``. ``EXPLAIN CACHE`` and ``PURGE CACHE`` are two words.
        argument: without quotes; ``$1`` for a parameter that is not bound yet; empty for none. All that is behind the
            two words, as it is.
        is_parameter: the argument stands for a parameter.
        text: as the client has written it, for errors.
    """

    verb: str
    argument: str = ""
    is_parameter: bool = False
    text: str = attrs.field(default="", eq=False)


@attrs.frozen
class Assignment:
    """``SET key = value``.

    Attributes:
        key: the setting, as it was written.
        value: without quotes; ``$1`` for a parameter that is not bound yet.
        is_parameter: the value stands for a parameter.
    """

    key: str
    value: str
    is_parameter: bool = False


@attrs.frozen
class TransactionControl:
    """Drivers begin and end transactions without being asked.

    Attributes:
        begins: BEGIN or START TRANSACTION.
        commits: COMMIT or END; else it rolls back.
    """

    begins: bool
    commits: bool


@attrs.frozen
class Nothing:
    """No statement at all: white space, comments, a lone semicolon."""


Statement: TypeAlias = "Command | Assignment | TransactionControl | Nothing"


def parse(text: str) -> Statement:
    """Read one statement.

    Raises:
        Unintelligible: it is no command of the console; the message quotes it as pgbouncer does.
    """
    if found := _CACHE.fullmatch(text):
        argument = found[2].strip().removesuffix(";").rstrip()
        return Command(f"{found[1].lower()} cache", argument, text=text[:_LONGEST_SHOWN])
    bare = _BRACED.sub(r"\1", _COMMENT.sub(" ", text).strip().removesuffix(";").rstrip())
    if not bare:
        return Nothing()
    if found := _TRANSACTION.fullmatch(bare):
        word = found[1].lower()
        return TransactionControl(word.startswith(("begin", "start")), word in {"commit", "end"})
    if found := _SET.fullmatch(bare):
        return Assignment(_unquoted(found[1]), _unquoted(found[2]), found[2].startswith("$"))
    if found := _COMMAND.fullmatch(bare):
        verb, argument = _unquoted(found[1]).lower(), found[2] or ""
        verb = "show" if verb == "select" else verb
        if verb == "show" and argument.startswith("'"):
            raise _unintelligible(text)
        return Command(verb, _unquoted(argument), argument.startswith("$"), text[:_LONGEST_SHOWN])
    raise _unintelligible(text)


def parameters_of(statement: Statement) -> int:
    """How many parameters a statement has: the number in ``$n``, or 0."""
    if isinstance(statement, Command) and statement.is_parameter:
        return int(statement.argument[1:])
    if isinstance(statement, Assignment) and statement.is_parameter:
        return int(statement.value[1:])
    return 0


def bind(statement: Statement, values: Sequence[str]) -> Statement:
    """Put a parameter's value in its place.

    Args:
        statement: as parsed.
        values: of the parameters ``$1`` and so on; as many as `parameters_of` says.
    """
    count = parameters_of(statement)
    if isinstance(statement, Command) and count:
        return Command(statement.verb, values[count - 1], text=statement.text)
    if isinstance(statement, Assignment) and count:
        return Assignment(statement.key, values[count - 1])
    return statement


def _unintelligible(text: str) -> Unintelligible:
    return Unintelligible(f"invalid command '{text[:_LONGEST_SHOWN]}', use SHOW HELP;")


def _unquoted(word: str) -> str:
    for quote in ('"', "'"):
        if word.startswith(quote):
            return word[1:-1].replace(quote * 2, quote)
    return word
