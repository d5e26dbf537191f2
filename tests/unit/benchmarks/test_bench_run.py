"""What is measured in which order."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.groups import GROUPS
from benchmarks.pgbench import SCRIPTS
from benchmarks.run import in_turn, plan
from benchmarks.scenarios.catalogue import catalogue, chosen
from benchmarks.scenarios.transactions import OpenLoop, Transactions
from benchmarks.targets import TARGETS

_ROUNDS = 5


def test_names() -> None:
    """Scenarios have names of their own, known groups and known targets."""
    scenarios = catalogue()
    assert max(Counter(scenario.name for scenario in scenarios).values()) == 1
    assert {scenario.group for scenario in scenarios} == set(GROUPS)
    for scenario in scenarios:
        assert set(scenario.targets) <= set(TARGETS)
        reference = GROUPS[scenario.group].reference
        assert reference in scenario.targets


def test_scripts() -> None:
    """Each one is used, and begins by saying what it models."""
    used = {scenario.load.script for scenario in catalogue() if isinstance(scenario, Transactions | OpenLoop)}
    assert {path.name for path in SCRIPTS.glob("*.sql")} == used
    for path in SCRIPTS.rglob("*.sql"):
        assert path.read_text("utf-8").startswith("-- ")


def test_every_round_has_everything() -> None:
    """Each target of each scenario once a round, at most as often as the scenario wants."""
    scenarios = catalogue()
    steps = plan(scenarios, TARGETS, _ROUNDS)
    counted = Counter((step.scenario.name, step.target) for step in steps)
    for scenario in scenarios:
        for target in scenario.targets:
            assert counted[scenario.name, target] == min(_ROUNDS, scenario.most_rounds or _ROUNDS)
    assert [step.round for step in steps] == sorted(step.round for step in steps)


def test_targets_that_are_not_there() -> None:
    """They are left out."""
    steps = plan(chosen(["select-simple-16"]), ["direct", "hyperpool"], 1)
    assert {step.target for step in steps} == {"direct", "hyperpool"}


def test_the_order_changes() -> None:
    """In each round, another one is the first, and everybody has been last."""
    orders = [in_turn("abc", number) for number in range(6)]
    assert {order[0] for order in orders} == {order[-1] for order in orders} == set("abc")
    assert all(sorted(order) == list("abc") for order in orders)
    assert in_turn([], 3) == []


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("select-simple-16", 1), ("select-simple", 4), ("hot", 6), ("*-16", 12), ("latency", 4)],
)
def test_only(pattern: str, count: int) -> None:
    """By name, beginning, group or pattern."""
    found = chosen([pattern])
    assert len(found) == count, [scenario.name for scenario in found]


def test_the_short_run() -> None:
    """It has scenarios of its own, unless names are given; nothing else is left out of all."""
    quick = chosen((), quick=True)
    assert 5 < len(quick) < len(chosen(()))
    assert [scenario.name for scenario in chosen(["crowd"], quick=True)] == ["crowd-2000"]
    assert not chosen(["nothing"])
