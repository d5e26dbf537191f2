"""Files in pgbouncer's own format: lines, sections, included files, and connection strings.

Rules as in pgbouncer 1.25 (libusual's cfparser.c, and loader.c): a comment has a line of its own that begins with ``;``
or ``#``; a value ends with its line; ``%include FILE`` stands for the lines of that file, whose sections go on behind
it, and a relative path starts at the working directory.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.config.report import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.config.report import Report

MAX_INCLUDES: Final = 10
"""How deep files may include each other, as in pgbouncer."""

_SECTION: Final = re.compile(r"\[([^\]]*)\]\s*(.*)")
_INCLUDE: Final = re.compile(r"%include[ \t]+(.+)")
_SETTING: Final = re.compile(r'(?:([\w.*-]+)|"((?:[^"]|"")*)")[ \t]*=[ \t]*(.*)', re.ASCII)
_BEGINNING: Final = re.compile(rb"\[\w+\]|%include[ \t]")
_COMMENT: Final = ("#", ";")
_SPACES: Final = " \t"
_BLANKS: Final = " \t\n\r\v\f"
"""What C's isspace knows: other spaces belong to a value."""


@attrs.frozen
class Line:
    """A setting, or the beginning of a section.

    Attributes:
        section: the section that it belongs to.
        key: the setting's name; None for the beginning of a section.
        value: what stands behind the equals sign.
        place: file and line number, for people.
        comments: the comments right above it.
    """

    section: str
    key: str | None
    value: str
    place: str
    comments: tuple[str, ...] = ()


def is_ini(path: Path) -> bool:
    """Whether a file is one of pgbouncer's: its name ends in ``.ini``, or its first section stands in brackets."""
    if path.suffix in {".ini", ".yaml", ".yml"}:
        return path.suffix == ".ini"
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    except OSError:
        return False
    first = next(
        (line for line in map(bytes.strip, lines) if line and not line.startswith((b"#", b";"))), b""
    )
    return _BEGINNING.match(first) is not None


def read_lines(path: Path, report: Report) -> list[Line]:
    """Read a file and those that it includes.

    Args:
        path: the file.
        report: gets what is wrong with single lines, which are left out, and what cannot be read.
    """
    return list(_Reader(report).lines(path, str(path), 0))


class _Reader:
    def __init__(self, report: Report) -> None:
        self._report = report
        self._section = ""

    def lines(self, path: Path, included_from: str, depth: int) -> Iterator[Line]:
        """The lines of one file.

        Args:
            path: the file.
            included_from: where it is named.
            depth: in how many others it is included.
        """
        text = self._read(path, included_from)
        comments: list[str] = []
        for number, raw in enumerate(text.split("\n"), 1):
            line, place = raw.strip(_BLANKS), f"{path}:{number}"
            if line.startswith(_COMMENT):
                comments.append(line)
                continue
            if line:
                yield from self._content(line, place, tuple(comments), depth)
            comments.clear()

    def _read(self, path: Path, included_from: str) -> str:
        try:
            return path.read_bytes().removeprefix(codecs.BOM_UTF8).decode()
        except OSError as error:
            reason = error.strerror or "unknown reason"
            self._report.add_at(
                included_from, f"cannot read {str(path)!r}: {reason}; name a file that can be read"
            )
        except UnicodeDecodeError as error:
            number = error.object[: error.start].count(b"\n") + 1
            self._report.add_at(f"{path}:{number}", "found bytes that are not UTF-8; save the file as UTF-8")
        return ""

    def _content(self, line: str, place: str, comments: tuple[str, ...], depth: int) -> Iterator[Line]:
        if match := _SECTION.fullmatch(line):
            self._section = match[1]
            yield Line(self._section, None, "", place, comments)
            if match[2] and not match[2].startswith(_COMMENT):
                yield from self._content(match[2], place, (), depth)
        elif match := _INCLUDE.fullmatch(line):
            if depth >= MAX_INCLUDES:
                self._report.add_at(
                    place, f"files include each other more than {MAX_INCLUDES} deep; remove the circle"
                )
                return
            yield from self.lines(Path(match[1]), place, depth + 1)
        elif match := _SETTING.fullmatch(line):
            key = match[1] if match[2] is None else match[2].replace('""', '"')
            if self._section:
                yield Line(self._section, key, match[3], place, comments)
            else:
                self._report.add_at(
                    place, f"found {quoted(key)} above the first section; put it below [pgbouncer]"
                )
        else:
            self._report.add_at(
                place,
                "found no setting, expected a name, an equals sign and a value; a comment begins with a semicolon",
            )


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """Read a connection string: ``name=value`` with spaces between; a value in single quotes may hold spaces.

    Raises:
        ValueError: it is not of that form; the message does not hold the text, which may be a password.
    """
    pairs: list[tuple[str, str]] = []
    at = _skip(text, 0)
    while at < len(text):
        key, at = _key(text, at)
        value, at = _value(text, at, key)
        pairs.append((key, value))
        at = _skip(text, at)
    return pairs


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACES:
        at += 1
    return at


def _key(text: str, at: int) -> tuple[str, int]:
    end = at
    while end < len(text) and text[end] != "=" and text[end] not in _SPACES:
        end += 1
    equals = _skip(text, end)
    if end == at or text[equals : equals + 1] != "=":
        raise ValueError(f"found a word without an equals sign behind {at} characters, expected name=value")
    return text[at:end], _skip(text, equals + 1)


def _value(text: str, at: int, key: str) -> tuple[str, int]:
    if text[at : at + 1] == "'":
        end = at + 1
        while (end := text.find("'", end)) >= 0 and text[end + 1 : end + 2] == "'":
            end += 2
        if end < 0:
            raise ValueError(f"found no end of the quoted value of {quoted(key)}, expected a single quote")
        value, end = text[at + 1 : end].replace("''", "'"), end + 1
    else:
        end = at
        while end < len(text) and text[end] not in _SPACES:
            end += 1
        value = text[at:end]
    if not value:
        raise ValueError(f"found nothing as {quoted(key)}, expected a value; leave it out for the default")
    return value, end
