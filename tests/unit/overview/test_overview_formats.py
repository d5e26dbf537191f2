"""Values as people read them."""

from __future__ import annotations

from typing import Final

import pytest

from hyperpool.overview.formats import spell
from hyperpool.overview.model import Kind, Meter

VALUES: Final[list[tuple[Kind, str | float | None, str]]] = [
    (Kind.COUNT, 1234567, "1,234,567"),
    (Kind.COUNT, None, "-"),
    (Kind.RATE, 12.34, "12.3"),
    (Kind.RATE, 1234.5, "1,234"),
    (Kind.SHARE, 0.98765, "98.8 %"),
    (Kind.TIME, 850, "850 µs"),
    (Kind.TIME, 1999, "1,999 µs"),
    (Kind.TIME, 2500, "2.5 ms"),
    (Kind.TIME, 90e6, "90 s"),
    (Kind.TIME, 7200e6, "2 h"),
    (Kind.BYTES, 999, "999 B"),
    (Kind.BYTES, 2_500_000, "2.5 MB"),
    (Kind.BYTE_RATE, 4096.0, "4.1 kB/s"),
    (Kind.TEXT, 4242, "4242"),
    (Kind.CODE, "SELECT\n  1", "SELECT 1"),
    (Kind.TEXT, "", ""),
    (Kind.TEXT, None, ""),
]


@pytest.mark.parametrize(("kind", "value", "expected"), VALUES)
def test_values(kind: Kind, value: str | float | None, expected: str) -> None:
    """With units that leave a few digits."""
    assert spell(kind, value) == expected


def test_a_counter_that_has_begun_anew() -> None:
    """It is not compared with what it was, and from then on with itself."""
    meter = Meter()
    found = []
    for now, total in enumerate([100, 160, 10, 30]):
        meter.begin(float(now))
        found.append(meter.grown("queries", (total, 5)))
    assert found == [None, (60, 0), None, (20, 0)]
