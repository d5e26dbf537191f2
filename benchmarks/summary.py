"""From single measurements to medians, spreads and ratios. Nothing here prints."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from attrs import frozen

from benchmarks.groups import GROUPS
from benchmarks.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.results import Cell, Result


@frozen
class Spread:
    """A median with its spread.

    Attributes:
        median: over the rounds.
        low: smallest value.
        high: largest value.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """The spread of some values; None if there are none."""
        known = list(values)
        return cls(statistics.median(known), min(known), max(known)) if known else None

    @property
    def deviation(self) -> float:
        """Half the range, as a part of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


@frozen
class Row:
    """What the rounds say about one target in one scenario.

    Ratios are taken within each round, of this target to the group's reference, before the median: what slowed the
    machine down during one round then weighs on both sides.

    Attributes:
        group: of the scenario.
        scenario: its name.
        target: its name.
        rounds: how many worked out.
        errors: why the others did not.
        figures: by quantity.
        ratios: by quantity; empty where the reference was not measured.
        quantiles: latency in milliseconds by percentage, the median over the rounds.
        notes: what a reader should know, each of them once.
    """

    group: str
    scenario: str
    target: str
    rounds: int
    errors: Sequence[str]
    figures: Mapping[str, Spread]
    ratios: Mapping[str, Spread]
    quantiles: Mapping[float, float]
    notes: Sequence[str]


def summarise(cells: Sequence[Cell]) -> list[Row]:
    """One row per scenario and target: scenarios as they were first measured, targets in their usual order."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.scenario, cell.target), []).append(cell)
    order = list(TARGETS)
    scenarios = dict.fromkeys(cell.scenario for cell in cells)
    rows = []
    for scenario in scenarios:
        targets = {target for name, target in found if name == scenario}
        known = sorted(targets, key=lambda target: order.index(target) if target in TARGETS else len(order))
        for target in known:
            group = GROUPS.get(found[scenario, target][0].group)
            reference = found.get((scenario, group.reference), []) if group else []
            rows.append(_row(found[scenario, target], _results(reference)))
    return rows


def _results(cells: Iterable[Cell]) -> dict[int, Result]:
    return {cell.round: cell.result for cell in cells if cell.result is not None}


def _row(cells: Sequence[Cell], reference: Mapping[int, Result]) -> Row:
    results = _results(cells)
    names = dict.fromkeys(name for result in results.values() for name in result.figures)
    percents = dict.fromkeys(percent for result in results.values() for percent in result.quantiles)
    figures = {name: Spread.of(_values(name, results.values())) for name in names}
    ratios = {
        name: Spread.of(
            result.figures[name] / other
            for number, result in results.items()
            if name in result.figures
            and number in reference
            and (other := reference[number].figures.get(name))
        )
        for name in names
    }
    return Row(
        group=cells[0].group,
        scenario=cells[0].scenario,
        target=cells[0].target,
        rounds=len(results),
        errors=[cell.error or "unknown error" for cell in cells if cell.result is None],
        figures={name: spread for name, spread in figures.items() if spread},
        ratios={name: spread for name, spread in ratios.items() if spread},
        quantiles={
            float(percent): statistics.median(
                result.quantiles[percent] for result in results.values() if percent in result.quantiles
            )
            for percent in percents
        },
        notes=list(dict.fromkeys(note for result in results.values() for note in result.notes)),
    )


def _values(name: str, results: Iterable[Result]) -> Iterable[float]:
    return (result.figures[name] for result in results if name in result.figures)
