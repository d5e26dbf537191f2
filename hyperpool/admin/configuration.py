"""The settings as the console shows and sets them: SHOW CONFIG and SET, in pgbouncer's notation."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

import attrs

from hyperpool.admin.outcomes import ConsoleError
from hyperpool.admin.tables import columns
from hyperpool.config import PoolerSettings, tls
from hyperpool.config.fields import Problem, Problems, read_value
from hyperpool.config.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.tables import Row

CONFIG: Final = columns("key value default changeable")

_WITHOUT_EFFECT: Final = {
    "conffile": ("", "no"),
    "dns_zone_check_period": ("0", "yes"),
    "job_name": ("pgbouncer", "no"),
    "pkt_buf": ("4096", "no"),
    "sbuf_loopcnt": ("5", "yes"),
}
"""pgbouncer's settings that mean nothing here, for scripts that expect them: its default, and if it can be changed."""
_WORDS: Final[dict[tuple[str, object], str]] = {
    ("client_tls_protocols", tls.SECURE): "secure",
    ("server_tls_protocols", tls.SECURE): "secure",
    ("client_tls_ciphers", ""): "default",
    ("server_tls_ciphers", ""): "default",
    ("client_tls_ecdhcurve", ""): "auto",
}
"""What pgbouncer calls a value."""
_OCTAL: Final = frozenset({"unix_socket_mode"})
_TRUE: Final = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE: Final = frozenset({"0", "false", "f", "no", "n", "off"})


def config(around: Surroundings) -> Iterator[Row]:
    """SHOW CONFIG: every setting of the pooler, sorted by name."""
    rows = [
        (name, str(around.config_path) if name == "conffile" else default, default, changeable)
        for name, (default, changeable) in _WITHOUT_EFFECT.items()
    ]
    yield from sorted((*rows, *_settings(around.settings().pooler)))


def _settings(pooler: PoolerSettings) -> Iterator[tuple[str, str, str, str]]:
    for field in attrs.fields_dict(PoolerSettings).values():
        default: Any = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs has it as a function for type checkers
            default = default.factory()
        yield (
            field.name,
            written(field.name, getattr(pooler, field.name)),
            written(field.name, default),
            "yes" if field.metadata["reload"] else "no",
        )


def written(name: str, value: object) -> str:
    """A setting's value in pgbouncer's notation: 1 and 0 for flags, commas between names, seconds as numbers."""
    if word := _WORDS.get((name, value)):
        return word
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, tuple | list | frozenset):
        return ", ".join(str(one) for one in value)
    if isinstance(value, float):
        return f"{value:.12g}"
    if name in _OCTAL and isinstance(value, int):
        return f"0{value:o}"
    return str(value)


def assigned(pooler: PoolerSettings, key: str, value: str, directory: Path) -> PoolerSettings:
    """The pooler's settings with one of them changed (SET).

    Args:
        pooler: as they are.
        key: the setting's name, however it is spelled.
        value: in pgbouncer's notation, or in that of the settings file.
        directory: where relative paths start.

    Raises:
        ConsoleError: there is no such setting, it cannot be changed at run time, or the value does not fit.
    """
    fields = attrs.fields_dict(PoolerSettings)
    field = fields.get(key.lower())
    if field is None:
        raise ConsoleError("SET failed", detail=f"there is no setting {key}", hint="use SHOW CONFIG;")
    if not field.metadata["reload"]:
        raise ConsoleError("SET failed", detail=f"{field.name} can be changed by a restart alone")
    found: Any = None
    try:
        if value or field.default is not None:
            found = read_value(field, _plain(field, value), Source(directory, {}))
    except Problem as problem:
        raise ConsoleError("SET failed", detail=f"{field.name}: {problem}") from None
    except Problems as problems:
        detail = "; ".join(problem for _, problem in problems.found)
        raise ConsoleError("SET failed", detail=f"{field.name}: {detail}") from None
    return attrs.evolve(pooler, **{field.name: found})


def _plain(field: attrs.Attribute[Any], value: str) -> object:
    """What would stand in the settings file: a flag or a number, where the setting is one."""
    default = field.default
    if isinstance(default, bool):
        word = value.lower()
        return True if word in _TRUE else False if word in _FALSE else value
    if isinstance(default, int | float):
        try:
            return int(value)
        except ValueError:
            pass
        try:
            return float(value)
        except ValueError:
            return value
    return value
