"""pgbouncer's ``auth_ident_file``: which users somebody may be whom the system, or a certificate, knows by a name.

One entry per line, ``map-name system-name database-name``, as in PostgreSQL's ``pg_ident.conf``; ``all`` as the last
one stands for every user. Fields may stand in double quotes, which take away the meaning of ``all``. What follows a
``#`` is a comment. There are neither regular expressions nor groups, nor files to include.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELD: Final = re.compile(r"""\s*(?:"((?:[^"]|"")+)"(?!")|([^\s"#]+))(?=\s|#|$)""")
"""A field of a line: what stands in quotes, or a word."""

END: Final = re.compile(r"\s*(#.*)?")
"""What may stand behind the last field."""

_INCLUDES: Final = frozenset({"include", "include_if_exists", "include_dir"})


@attrs.frozen
class IdentEntry:
    """One line.

    Attributes:
        system: the name that somebody is known by.
        user: as whom that one may log in; None for every user.
    """

    system: str
    user: str | None


def parse_ident(text: str) -> tuple[dict[str, tuple[IdentEntry, ...]], list[str]]:
    """Read the content of an ``auth_ident_file``.

    Args:
        text: the content; bytes that are not UTF-8 as lone surrogates (PEP 383).

    Returns:
        The entries by the names of their maps, and the problems: one per line that cannot be understood.
    """
    maps: dict[str, tuple[IdentEntry, ...]] = {}
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        fields, rest = split_fields(line)
        if not fields and END.fullmatch(rest):
            continue
        problem = _problem(fields, rest)
        if problem:
            problems.append(f"line {number}: {problem}")
            continue
        (name, _), (system, _), (user, quoted) = fields
        entry = IdentEntry(system, None if user == "all" and not quoted else user)
        maps[name] = (*maps.get(name, ()), entry)
    return maps, problems


def split_fields(line: str) -> tuple[list[tuple[str, bool]], str]:
    """The fields of a line, each with whether it stood in quotes, and what is left behind them."""
    fields = []
    at = 0
    while match := FIELD.match(line, at):
        quoted = match[1] is not None
        fields.append((match[1].replace('""', '"') if quoted else match[2], quoted))
        at = match.end()
    return fields, line[at:]


def is_allowed(maps: Mapping[str, tuple[IdentEntry, ...]], name: str, system: str, user: str) -> bool:
    """Whether somebody may log in as a user.

    Args:
        maps: as read.
        name: of the map; empty for none, and then the two names must be the same.
        system: the name that somebody is known by.
        user: as whom that one wants to log in.
    """
    if not name:
        return system == user
    return any(entry.system == system and entry.user in {None, user} for entry in maps.get(name, ()))


def _problem(fields: list[tuple[str, bool]], rest: str) -> str:
    if fields and fields[0][0] in _INCLUDES and not fields[0][1]:
        return "found the name of another file, expected an entry; put its lines here"
    if len(fields) != 3 or not END.fullmatch(rest):
        return "expected three fields: map name, system name, database user"
    (system, quoted_system), (user, quoted_user) = fields[1:]
    if system.startswith("/") and not quoted_system:
        return "found a regular expression, expected a system name; write one line for each name"
    if user.startswith(("/", "+")) and not quoted_user:
        return "found a regular expression or a group, expected a user or all; write one line for each user"
    return ""
