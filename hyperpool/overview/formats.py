"""Values as people read them. `dashboard/static/formats.js` does the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.overview.model import Kind

if TYPE_CHECKING:
    from hyperpool.overview.model import Value

NOTHING: Final = "-"
"""What stands for a value that is not known."""

_TIMES: Final = (("h", 3.6e9), ("min", 6e7), ("s", 1e6), ("ms", 1e3))
_SIZES: Final = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_UPWARDS: Final = 2
"""A unit is used from so many of it on: 90 s is not 1.5 min."""


def spell(kind: Kind, value: Value) -> str:
    """A value for people, on one line."""
    if value is None:
        return "" if kind in {Kind.TEXT, Kind.CODE} else NOTHING
    if isinstance(value, str):
        return " ".join(value.split())
    match kind:
        case Kind.TEXT | Kind.CODE:
            return str(value)
        case Kind.COUNT:
            return f"{value:,.0f}"
        case Kind.RATE:
            return _short(value)
        case Kind.SHARE:
            return f"{value * 100:.3g} %"
        case Kind.TIME:
            return _with_unit(value, _TIMES, "µs")
        case Kind.BYTES:
            return _with_unit(value, _SIZES, "B")
        case Kind.BYTE_RATE:
            return f"{_with_unit(value, _SIZES, 'B')}/s"


def is_alarming(value: Value) -> bool:
    """Whether a value of a field with an alarm is anything but nothing."""
    return bool(value)


def _with_unit(value: float, units: tuple[tuple[str, float], ...], smallest: str) -> str:
    for unit, size in units:
        if value >= _UPWARDS * size:
            return f"{_short(value / size)} {unit}"
    return f"{_short(value)} {smallest}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"
