"""pgbouncer's ``auth_file``: user names and what is stored about them.

One user per line, ``"name" "secret"``; a double quote inside is doubled. What follows on the line is ignored, as are
empty lines and lines that start with a semicolon. When a name stands there twice, the last line counts.
"""

from __future__ import annotations

import re
from typing import Final

from hyperpool.config.secret import Secret

_QUOTED: Final = '"((?:[^"]|"")*)"(?!")'
_ENTRY: Final = re.compile(rf"\s*{_QUOTED}\s+{_QUOTED}.*")


def parse_userlist(text: str) -> tuple[dict[str, Secret], list[str]]:
    """Read the content of an ``auth_file``.

    Args:
        text: the content; bytes that are not UTF-8 as lone surrogates (PEP 383).

    Returns:
        The secrets by user name, and the problems: one per line that is of another form, with its number and
        without its content.
    """
    entries: dict[str, Secret] = {}
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith(";"):
            continue
        match = _ENTRY.fullmatch(line)
        if match is None:
            problems.append(f'line {number} is not of the form "user" "secret", with both in double quotes')
        elif not match[1]:
            problems.append(f"line {number} has an empty user name")
        elif "\0" in line:
            problems.append(
                f"line {number} holds a zero byte, which PostgreSQL can neither store nor transfer"
            )
        else:
            user, secret = (part.replace('""', '"') for part in match.groups())
            entries[user] = Secret(secret)
    return entries, problems
