"""From single measurements to medians, spreads and ratios. Nothing here prints."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.run import Cell
    from benchmarks.scenarios import Result

REFERENCE = "pgbouncer"


@frozen
class Figure:
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
    def of(cls, values: Iterable[float | None]) -> Figure | None:
        """The figure of the values that are there; None if there are none."""
        known = [value for value in values if value is not None]
        return cls(statistics.median(known), min(known), max(known)) if known else None


@frozen
class Row:
    """What the rounds say about one target in one scenario.

    Ratios are taken within each round, of this target to pgbouncer, before the median: what slowed the
    machine down during one round then weighs on both sides. They are None where pgbouncer was not measured.

    Attributes:
        scenario: its name.
        target: direct, pgbouncer or hyperpool.
        rounds: how many worked out.
        errors: why the others did not.
        rate: see `benchmarks.scenarios.Result`, as all of the following.
        latency_ms: median of the rounds' medians.
        p99_ms: median of the rounds' values.
        cpu_us: CPU per query, megabyte or login.
        bytes_per_client: memory per idle client.
        growth: resident bytes at the highest point over those at the start.
        rate_ratio: rate as a multiple of pgbouncer's.
        latency_ratio: latency as a multiple of pgbouncer's.
        cpu_ratio: CPU as a multiple of pgbouncer's.
    """

    scenario: str
    target: str
    rounds: int
    errors: Sequence[str]
    rate: Figure | None
    latency_ms: Figure | None
    p99_ms: Figure | None
    cpu_us: Figure | None
    bytes_per_client: Figure | None
    growth: Figure | None
    rate_ratio: Figure | None
    latency_ratio: Figure | None
    cpu_ratio: Figure | None


def summarise(cells: Sequence[Cell]) -> list[Row]:
    """One row per scenario and target, in the order in which scenarios were first measured."""
    results: dict[tuple[str, str], dict[int, Result]] = {}
    errors: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        key = (cell.scenario, cell.target)
        found = results.setdefault(key, {})
        if cell.result is not None:
            found[cell.round] = cell.result
        else:
            errors.setdefault(key, []).append(cell.error or "unknown error")
    scenarios = dict.fromkeys(scenario for scenario, _ in results)
    order = ("direct", REFERENCE, "hyperpool")
    return [
        _row(key, results[key], results.get((scenario, REFERENCE), {}), errors.get(key, []))
        for scenario in scenarios
        for target in order
        if (key := (scenario, target)) in results
    ]


def _row(
    key: tuple[str, str], results: dict[int, Result], reference: dict[int, Result], errors: Sequence[str]
) -> Row:
    def figure(value: Callable[[Result], float | None]) -> Figure | None:
        return Figure.of(value(result) for result in results.values())

    def ratio(value: Callable[[Result], float | None]) -> Figure | None:
        pairs = (
            (value(result), value(reference[number]))
            for number, result in results.items()
            if number in reference
        )
        return Figure.of(ours / theirs for ours, theirs in pairs if ours is not None and theirs)

    return Row(
        scenario=key[0],
        target=key[1],
        rounds=len(results),
        errors=errors,
        rate=figure(lambda result: result.rate),
        latency_ms=figure(lambda result: result.latency_ms),
        p99_ms=figure(lambda result: result.p99_ms),
        cpu_us=figure(lambda result: result.cpu_us),
        bytes_per_client=figure(lambda result: result.bytes_per_client),
        growth=figure(_growth),
        rate_ratio=ratio(lambda result: result.rate),
        latency_ratio=ratio(lambda result: result.latency_ms),
        cpu_ratio=ratio(lambda result: result.cpu_us),
    )


def _growth(result: Result) -> float | None:
    if not result.memory:
        return None
    resident = [size for _, size in result.memory]
    return max(resident) - resident[0]
