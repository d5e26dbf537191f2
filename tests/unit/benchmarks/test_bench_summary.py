"""Medians, spreads, ratios and goals."""

from __future__ import annotations

import pytest

from benchmarks.goals import GOALS, Goal, Verdict, judge
from benchmarks.groups import GROUPS
from benchmarks.quantities import QUANTITIES
from benchmarks.results import Cell, Result
from benchmarks.scenarios.catalogue import catalogue
from benchmarks.summary import Spread, summarise


def cell(target: str, number: int, rate: float, **figures: float) -> Cell:
    """A measurement of one scenario."""
    return Cell(
        "select", "select-simple-16", target, number, Result({"rate": rate, **figures}, {"50": rate / 10})
    )


def test_a_spread() -> None:
    """Median, lowest and highest."""
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([]) is None
    assert Spread(2.0, 1.0, 3.0).deviation == 0.5
    assert Spread(0.0, 0.0, 0.0).deviation == 0


def test_ratios_are_taken_within_a_round() -> None:
    """A round in which the machine was slow weighs on both sides, and one without its reference is left out."""
    cells = [
        cell("pgbouncer", 1, 100.0),
        cell("hyperpool", 1, 110.0),
        cell("hyperpool", 2, 60.0),
        cell("pgbouncer", 2, 50.0),
        cell("hyperpool", 3, 900.0),
    ]
    rows = {row.target: row for row in summarise(cells)}
    assert rows["hyperpool"].figures["rate"] == Spread(110.0, 60.0, 900.0)
    assert rows["hyperpool"].ratios["rate"].low == pytest.approx(1.1)
    assert rows["hyperpool"].ratios["rate"].high == pytest.approx(1.2)
    assert rows["hyperpool"].quantiles == {50.0: 11.0}
    assert rows["pgbouncer"].ratios["rate"] == Spread(1.0, 1.0, 1.0)


def test_order_errors_and_notes() -> None:
    """Targets have their usual order; failures and notes are kept, notes once."""
    noted = Result({"rate": 1.0}, notes=["busy"])
    cells = [
        Cell("select", "select-simple-16", "hyperpool", 1, noted),
        Cell("select", "select-simple-16", "hyperpool", 2, noted),
        Cell("select", "select-simple-16", "hyperpool", 3, error="it ended"),
        cell("direct", 1, 5.0),
        cell("a target of another time", 1, 5.0),
    ]
    rows = summarise(cells)
    assert [row.target for row in rows] == ["direct", "hyperpool", "a target of another time"]
    assert rows[1].rounds == 2
    assert rows[1].errors == ["it ended"]
    assert rows[1].notes == ["busy"]
    assert not rows[1].ratios


def test_a_goal_by_ratio() -> None:
    """The median decides; rounds may disagree."""
    cells = [cell("pgbouncer", number, 100.0, cpu_us=10.0) for number in (1, 2, 3)]
    cells += [
        cell("hyperpool", number, rate, cpu_us=9.0) for number, rate in ((1, 90.0), (2, 104.0), (3, 120.0))
    ]
    verdicts = {verdict.goal.quantity: verdict for verdict in judge(summarise(cells))}
    assert verdicts["rate"].reached is True
    assert not verdicts["rate"].certain
    assert verdicts["cpu_us"].reached is True
    assert verdicts["cpu_us"].certain


def test_a_goal_without_a_reference() -> None:
    """It is not measured, and so neither reached nor missed."""
    verdicts = judge(summarise([cell("hyperpool", 1, 90.0)]))
    assert [verdict.reached for verdict in verdicts] == [None, None]


def test_an_absolute_goal() -> None:
    """The figure itself is bounded."""
    result = Result({"bytes_per_client": 3000.0})
    (verdict,) = judge(summarise([Cell("idle", "idle-10000", "hyperpool", 1, result)]))
    assert verdict.reached is False


def test_bounds() -> None:
    """A bound is good enough."""
    assert Goal("", "", "", "least", 1.0).holds(1.0)
    assert Goal("", "", "", "most", 1.0).holds(1.0)
    assert not Goal("", "", "", "most", 1.0).holds(1.01)
    assert Verdict(GOALS[0], None).certain is False


def test_goals_are_of_scenarios() -> None:
    """Each goal is measured by a scenario, with its target and its quantity."""
    known = {scenario.name: scenario for scenario in catalogue()}
    for goal in GOALS:
        scenario = known[goal.scenario]
        assert goal.target in scenario.targets
        group = GROUPS[scenario.group]
        assert goal.quantity in group.columns[: None if goal.absolute else group.compared]


def test_columns_are_of_quantities() -> None:
    """Tables and pictures show what there is."""
    for group in GROUPS.values():
        assert set(group.columns) <= set(QUANTITIES)
        assert {plot.quantity for plot in group.plots if plot.quantity} <= set(group.columns)
