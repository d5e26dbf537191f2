"""Durations and sizes as people write them: ``30s``, ``64KiB``."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBER_AND_UNIT: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,40})?) ?([A-Za-z]+)")

_SECONDS: Final[Mapping[str, Decimal]] = {
    "d": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
    "us": Decimal("0.000001"),
}
_BYTES: Final[Mapping[str, Decimal]] = {
    "GiB": Decimal(1024**3),
    "MiB": Decimal(1024**2),
    "KiB": Decimal(1024),
    "GB": Decimal(1000**3),
    "MB": Decimal(1000**2),
    "kB": Decimal(1000),
    "B": Decimal(1),
}


def parse_duration(text: str) -> float:
    """Read a duration.

    Args:
        text: a number and one of ``us``, ``ms``, ``s``, ``m``, ``h`` and ``d``.

    Returns:
        Seconds.

    Raises:
        ValueError: it is not of that form; the message does not hold the text.
    """
    return float(_parse(text, _SECONDS))


def format_duration(seconds: float) -> str:
    """Write a duration so that `parse_duration` reads the same one, in the largest unit that needs no fraction.

    Args:
        seconds: finite and not negative.
    """
    return _format(seconds, _SECONDS, "s")


def parse_size(text: str) -> int:
    """Read a size.

    Args:
        text: a number and one of ``B``, ``kB``, ``MB``, ``GB`` (powers of 1000), ``KiB``, ``MiB`` and ``GiB``
            (powers of 1024).

    Returns:
        Bytes.

    Raises:
        ValueError: it is not of that form, or not a whole number of bytes; the message does not hold the text.
    """
    size = _parse(text, _BYTES)
    if size != size.to_integral_value():
        raise ValueError("not a whole number of bytes")
    return int(size)


def format_size(size: int) -> str:
    """Write a size so that `parse_size` reads the same one, in the largest unit that needs no fraction.

    Args:
        size: bytes, not negative.
    """
    return _format(size, _BYTES, "B")


def _parse(text: str, units: Mapping[str, Decimal]) -> Decimal:
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError("not a number with a known unit")
    return Decimal(match[1]) * units[match[2]]


def _format(value: float, units: Mapping[str, Decimal], base: str) -> str:
    amount = Decimal(repr(value))
    for unit, scale in units.items():
        count = (amount / scale).to_integral_value()
        if count and count * scale == amount:
            return f"{count:f}{unit}"
    return f"{amount.normalize():f}{base}"
