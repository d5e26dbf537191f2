"""pgbouncer.ini as a settings file: its lines become what the same settings would be in YAML.

What a name means, its kind and its limits are those of the settings themselves (`hyperpool.config.model`); this is
about the differences: where pgbouncer's defaults are others, how it writes values, and what has no place here.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, Final, get_args

import attrs

from hyperpool.config import kinds
from hyperpool.config.entries import DatabaseSettings, PeerSettings, UserSettings
from hyperpool.config.inifile import parse_pairs, read_lines
from hyperpool.config.model import PoolerSettings
from hyperpool.config.report import quoted
from hyperpool.config.unsupported import UNSUPPORTED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hyperpool.config.inifile import Line
    from hyperpool.config.report import KeyPath, Report

Raw = dict[object, Any]

DEFAULTS: Final[Mapping[str, object]] = {
    "unix_socket_dir": "/tmp",  # noqa: S108 - where clients of PostgreSQL look for its socket
    "session_state": "keep",
    "tcp_defer_accept": True,
    "log_format": "pgbouncer",
}
"""Defaults of pgbouncer's where the settings have others, and how it behaves and logs."""

_SECTIONS: Final[Mapping[str, tuple[str, type[attrs.AttrsInstance]]]] = {
    "pgbouncer": ("pooler", PoolerSettings),
    "databases": ("databases", DatabaseSettings),
    "users": ("users", UserSettings),
    "peers": ("peers", PeerSettings),
}
for _, _cls in _SECTIONS.values():
    attrs.resolve_types(_cls)

_ALIASES: Final = {"reserve_pool": "reserve_pool_size"}
_WITHOUT_EFFECT: Final[Mapping[str, tuple[frozenset[str], str]]] = {
    "client_tls13_ciphers": (
        frozenset(),
        "the ciphers of TLS 1.3 cannot be chosen: OpenSSL's own order is used",
    ),
    "server_tls13_ciphers": (
        frozenset(),
        "the ciphers of TLS 1.3 cannot be chosen: OpenSSL's own order is used",
    ),
    "client_tls_dheparams": (
        frozenset({"auto", "none"}),
        "keys are agreed on with elliptic curves, which every client of the last decade can",
    ),
}
"""Settings with values that have no effect here: the values that do, and why the others do not."""

_INTEGER: Final = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,18}|[1-9][0-9]{0,18})")
_PEER: Final = re.compile(r"[0-9]{1,9}")
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?")
_WORDS: Final = ("pool_mode", "auth_type", "load_balance_hosts", "client_tls_sslmode", "server_tls_sslmode")
"""Settings whose values are words, in capital letters or not."""


@attrs.frozen
class PgbouncerFile:
    """What a pgbouncer.ini says.

    Attributes:
        raw: the sections, as they would be in YAML.
        comments: the comments above sections and settings, by path.
        places: where each setting stands, by path; what has its default is not there.
        dropped: what has no effect here, by path: its value, and why.
    """

    raw: Raw
    comments: Mapping[KeyPath, tuple[str, ...]]
    places: Mapping[KeyPath, str]
    dropped: Mapping[KeyPath, tuple[str, str]]


def read_pgbouncer(path: Path, report: Report) -> PgbouncerFile:
    """Read a file of pgbouncer's, and those that it includes.

    Args:
        path: the file.
        report: becomes lenient, gets to know where each setting stands, and gets the problems.
    """
    report.lenient = True
    reader = _Reader(report)
    for line in read_lines(path, report):
        reader.take(line)
    return reader.finish()


class _Reader:
    def __init__(self, report: Report) -> None:
        self._report = report
        self._raw: Raw = {"pooler": dict(DEFAULTS), "databases": {}, "users": {}, "peers": {}}
        self._comments: dict[KeyPath, tuple[str, ...]] = {}
        self._dropped: dict[KeyPath, tuple[str, str]] = {}

    def take(self, line: Line) -> None:
        """Take over one line."""
        known = _SECTIONS.get(line.section)
        if known is None:
            if line.key is None:
                expected = ", ".join(_SECTIONS)
                self._report.add_at(
                    line.place,
                    f"found section {quoted(line.section)}, expected one of {expected}; rename or remove it",
                )
            return
        section, cls = known
        path: KeyPath = (section,) if line.key is None else (section, line.key)
        if line.comments:
            self._comments[path] = line.comments
        if line.key is None:
            return
        self._report.places[path] = line.place
        if section == "pooler":
            self._set(self._raw[section], path, line.value, cls)
            return
        name: object = int(line.key) if section == "peers" and _PEER.fullmatch(line.key) else line.key
        entry: Raw = {}
        self._raw[section][name] = entry
        try:
            pairs = parse_pairs(line.value)
        except ValueError as error:
            self._report.add(path, str(error))
            return
        for key, value in pairs:
            self._set(entry, (*path, key), value, cls)

    def finish(self) -> PgbouncerFile:
        """What can be said only of all lines together."""
        directory = self._raw["pooler"]["unix_socket_dir"]
        for name, entry in self._raw["databases"].items():
            if "host" not in entry:
                # As in pgbouncer: there is no host, so it is the Unix socket.
                entry["host"] = directory
            if not entry["host"]:
                self._report.add(
                    ("databases", str(name), "host"),
                    "found neither a host nor a unix_socket_dir, where the server's Unix socket would be; add a host",
                )
                entry["host"] = DEFAULTS["unix_socket_dir"]
            if "password" in entry and "user" not in entry:
                self._report.note(
                    ("databases", str(name), "password"), "has no effect without a user, as in pgbouncer"
                )
                del entry["password"]
        return PgbouncerFile(self._raw, self._comments, self._report.places, self._dropped)

    def _set(self, settings: Raw, path: KeyPath, text: str, cls: type[attrs.AttrsInstance]) -> None:
        key = _ALIASES.get(path[-1], path[-1])
        fields = attrs.fields_dict(cls)
        if reason := self._without_effect(path, key, text):
            self._dropped[path] = text, reason
            self._report.note(path, f"has no effect: {reason}")
        elif key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {close[0]}?" if close else "; remove it"
            self._report.add(path, f"found an unknown setting{hint}")
            if close:
                self._report.suppose((*path[:-1], close[0]))
        else:
            try:
                value = _value(fields[key], text)
            except ValueError as error:
                self._report.add(path, str(error))
                return
            if cls is not PoolerSettings and isinstance(value, int) and value < 0:
                # pgbouncer writes a size that is not set as -1.
                settings.pop(key, None)
            else:
                settings[key] = value

    def _without_effect(self, path: KeyPath, key: str, text: str) -> str:
        if path[0] != "pooler":
            return ""
        effective, reason = _WITHOUT_EFFECT.get(key, (frozenset({text}), ""))
        if text and text not in effective:
            return reason
        return UNSUPPORTED.get(key, "")


def _value(field: attrs.Attribute[Any], text: str) -> object:
    """What YAML would make of a value.

    Raises:
        ValueError: pgbouncer would not take it, either; the message holds it only if it cannot be a secret.
    """
    kinds_of = get_args(field.type) or (field.type,)
    if field.metadata["parse"] is kinds.file_mode:
        return f"{_integer(text):04o}"
    if bool in kinds_of:
        return _integer(text, "0 or 1") != 0
    if int in kinds_of:
        return text if "," in text else _integer(text)
    if float in kinds_of:
        return _number(text)
    if field.type == tuple[str, ...]:
        return [word.strip() for word in text.split(",") if word.strip()]
    if field.name in _WORDS:
        return text.lower()
    # What would be the name of an environment variable in YAML is plain text here.
    return text.replace("${", "$${")


def _integer(text: str, expected: str = "a whole number") -> int:
    """A whole number as C writes it: ``0x`` begins a hexadecimal one, and 0 an octal one."""
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"found the text {quoted(text)}, expected {expected}")
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.removeprefix("+"))
    base = 16 if digits[:2].lower() == "0x" else 8 if digits.startswith("0") else 10
    return sign * int(digits, base)


def _number(text: str) -> int | float:
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"found the text {quoted(text)}, expected a number of seconds")
    number = float(text)
    return int(number) if number.is_integer() else number
