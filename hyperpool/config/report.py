"""Collecting problems: all of them, each once, as one line with its dotted path."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import TypeAlias

KeyPath: TypeAlias = "tuple[str, ...]"
"""Where a setting stands: ``("databases", "app", "host")``."""

_PLAIN_KEY: Final = re.compile(r"[\w*-]+")
_PLACE: Final = re.compile(r"(\S*?):(\d+): ")
_LONGEST: Final = 60
_MOST: Final = 5
_LARGEST: Final = 10**18


class Report:
    """The problems found so far.

    Attributes:
        problems: one line per problem, in the order in which they were found.
        notes: what is accepted, though it is not what the file says; one line each.
        lenient: the file is one of pgbouncer's, which starts with settings that make no sense together.
        places: file and line of what stands in a file of lines, by path.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.lenient = False
        self.places: dict[KeyPath, str] = {}
        self._broken: set[KeyPath] = set()
        self._meant: set[KeyPath] = set()

    def add(self, path: KeyPath, problem: str) -> None:
        """Note a problem.

        Args:
            path: of the setting; an empty one for the file as a whole.
            problem: what was found, what is expected and the remedy; must not hold a secret.
        """
        self._broken.add(path)
        self.problems.append(self._located(path, problem))

    def doubt(self, path: KeyPath, problem: str) -> None:
        """Note what makes no sense: a problem, but where pgbouncer would start with it.

        Args:
            path: as for `add`.
            problem: as for `add`.
        """
        if self.lenient:
            self.note(path, problem)
        else:
            self.add(path, problem)

    def note(self, path: KeyPath, remark: str) -> None:
        """Note what is accepted, though it is not what the file says.

        Args:
            path: as for `add`.
            remark: what, and why; must not hold a secret.
        """
        self.notes.append(self._located(path, remark))

    def add_at(self, place: str, problem: str) -> None:
        """Note a problem of one line that is no setting.

        Args:
            place: its file and line.
            problem: as for `add`.
        """
        self.problems.append(f"{place}: {problem}")

    def _located(self, path: KeyPath, text: str) -> str:
        if not path:
            return text
        length = next((length for length in range(len(path), 0, -1) if path[:length] in self.places), 0)
        place = f"{self.places[path[:length]]}: " if length else ""
        shown = path[1:] if self.lenient and path[0] == "pooler" else path
        return f"{place}{dotted(shown)}: {text}" if shown else f"{place}{text}"

    def in_order(self) -> list[str]:
        """The problems, those of a file of lines in the order of its lines."""
        return sorted(self.problems, key=_line)

    def suppose(self, path: KeyPath) -> None:
        """Take this setting for the one that is meant by something unknown: its default is not what is wanted.

        Args:
            path: as for `add`.
        """
        self._meant.add(path)

    def is_sound(self, *paths: KeyPath) -> bool:
        """Whether nothing was found at, above or below any of these settings: then they can be compared."""
        return not any(_touches(path, self._broken) or _touches(path, self._meant) for path in paths)

    def is_broken(self, path: KeyPath) -> bool:
        """Whether this setting, or something above or below it, stands in the file and cannot be used."""
        return _touches(path, self._broken)


def _touches(path: KeyPath, others: set[KeyPath]) -> bool:
    return any(other[: len(path)] == path[: len(other)] for other in others)


def _line(problem: str) -> tuple[str, int]:
    match = _PLACE.match(problem)
    return (match[1], int(match[2])) if match else ("", 0)


def key_text(key: object) -> str:
    """A key as part of a path, whatever YAML made of it."""
    return key if isinstance(key, str) else describe(key)


def dotted(path: KeyPath) -> str:
    """A path for people.

    Names that hold dots, spaces or worse are quoted. What follows a colon is left out: ``password:secret`` becomes
    a key when the space behind the colon is forgotten.
    """
    return ".".join(_shown(key) for key in path)


def _shown(key: str) -> str:
    before, colon, _ = key.partition(":")
    if colon:
        return quoted(f"{before}:...")
    return key if _PLAIN_KEY.fullmatch(key) else quoted(key)


def quoted(text: str) -> str:
    """A text in quotes, on one line and not too long."""
    return repr(text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")


def describe(value: object) -> str:
    """What was found in the file, with the value where it tells something; a URL, or its query, may hold a password."""
    if isinstance(value, str):
        path, mark, _ = value.partition("?")
        text = f"{path}?..." if mark and "/" in path else value
        return "a URL" if "://" in value else f"the text {quoted(text)}"
    if isinstance(value, list):
        shown = [describe(one) if isinstance(one, str) else describe_type(one) for one in value[:_MOST]]
        more = f" and {len(value) - _MOST} more" if len(value) > _MOST else ""
        return f"a list of {', '.join(shown)}{more}" if value else "an empty list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < _LARGEST else "a huge number"
    return repr(value) if isinstance(value, float) else describe_type(value)


def describe_type(value: object) -> str:
    """What kind of thing was found in the file, without its value."""
    if value is None:
        return "nothing"
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (str, "a text"),
        (bool, "true or false"),
        ((int, float), "a number"),
        (Mapping, "a mapping"),
        (bytes, "binary data"),
        (Sequence, "a list"),
        (dt.date, "a date"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "something else")
