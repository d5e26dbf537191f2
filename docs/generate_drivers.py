#!/usr/bin/env python3
"""Writes the tables of docs/drivers.md from tests/drivers/matrix.py; the prose around them is kept.

python docs/generate_drivers.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.drivers.checklist import Driver

PAGE: Final = Path(__file__).with_name("drivers.md")
ROOT: Final = PAGE.parents[1]


def render(page: str) -> str:
    """Fill in the generated parts of the page.

    Args:
        page: its text; each part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``.

    Returns:
        The text as it should be.

    Raises:
        KeyError: a part has a name that is not known.
    """
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from tests.drivers.checklist import CELLS, MAPPER_CELLS  # noqa: PLC0415 - not to be found before
    from tests.drivers.matrix import DRIVERS  # noqa: PLC0415

    python = [driver for driver in DRIVERS if driver.language == "Python"]
    parts = {
        "cells": _cells({**CELLS, **MAPPER_CELLS}),
        "python": _matrix([driver for driver in python if not driver.mapper]),
        "mappers": _matrix([driver for driver in python if driver.mapper]),
        "others": _matrix([driver for driver in DRIVERS if driver.language != "Python"]),
        "versions": _versions(DRIVERS),
    }

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n" + "\n".join(parts[match[2]]) + f"\n{match[3]}"

    return re.sub(r"(<!-- generated: (\w+) -->).*?(<!-- end -->)", fill, page, flags=re.DOTALL)


def _cells(cells: dict[str, str]) -> list[str]:
    return [
        "| cell | what is checked |",
        "|---|---|",
        *(f"| {cell} | {about} |" for cell, about in cells.items()),
    ]


def _matrix(drivers: Sequence[Driver]) -> list[str]:
    """The table of some drivers, with the reasons for what does not apply below it."""
    reasons = list(dict.fromkeys(reason for driver in drivers for reason in driver.without.values()))

    def mark(driver: Driver, cell: str) -> str:
        if cell not in driver.without:
            return "✓"
        return f"&ndash;<sup>{reasons.index(driver.without[cell]) + 1}</sup>"

    table = [f"| | {' | '.join(map(_heading, drivers))} |", "|---|" + ":-:|" * len(drivers)]
    table += [
        f"| {cell} | {' | '.join(mark(driver, cell) for driver in drivers)} |"
        for cell in (drivers[0].checklist if drivers else ())
    ]
    return [*table, *([""] if reasons else []), *(f"{n}. {reason}" for n, reason in enumerate(reasons, 1))]


def _heading(driver: Driver) -> str:
    return driver.name if driver.language == "Python" else f"{driver.name}<br>{driver.language}"


def _versions(drivers: Sequence[Driver]) -> Iterator[str]:
    yield "| driver | language | versions |"
    yield "|---|---|---|"
    for driver in drivers:
        versions = ", ".join(f"{name} {version}" for name, version in driver.packages.items())
        yield f"| {driver.name} | {driver.language} | {versions} |"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text("utf-8")), "utf-8")
