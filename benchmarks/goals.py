"""What hyperpool wants to reach, and whether a run shows it. A goal that is missed is shown as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.summary import Row, Spread


@frozen
class Goal:
    """A bound for one figure of one scenario.

    Attributes:
        text: what it is, for the table.
        scenario: its name.
        quantity: which figure.
        bound: the least or the most that is wanted.
        kind: whether the bound is the least or the most.
        target: whose figure.
        absolute: whether it is the figure itself that is bounded, in place of its ratio to pgbouncer's.
    """

    text: str
    scenario: str
    quantity: str
    kind: Literal["least", "most"]
    bound: float
    target: str = "hyperpool"
    absolute: bool = False

    def holds(self, value: float) -> bool:
        """Whether a figure is good enough."""
        return value >= self.bound if self.kind == "least" else value <= self.bound


@frozen
class Verdict:
    """What a run says about a goal.

    Attributes:
        goal: which.
        measured: the ratio or the figure, over the rounds; None where it was not measured.
    """

    goal: Goal
    measured: Spread | None

    @property
    def reached(self) -> bool | None:
        """Whether the median is good enough; None where it was not measured."""
        return None if self.measured is None else self.goal.holds(self.measured.median)

    @property
    def certain(self) -> bool:
        """Whether all rounds say the same."""
        found = self.measured
        return found is not None and self.goal.holds(found.low) == self.goal.holds(found.high)


def _pass_through() -> Iterator[Goal]:
    for mode in ("simple", "extended", "prepared"):
        for clients, least, most in ((16, 1.0, 1.0), (100, 1.05, 0.9), (1000, 1.05, 0.9)):
            name = f"select-{mode}-{clients}"
            yield Goal(f"pass-through, {mode}, {clients:,} clients: throughput", name, "rate", "least", least)
            yield Goal(
                f"pass-through, {mode}, {clients:,} clients: CPU per query", name, "cpu_us", "most", most
            )
        yield Goal(f"pass-through, {mode}, 1 client: latency", f"select-{mode}-1", "p50_ms", "most", 1.1)


def _cache() -> Iterator[Goal]:
    for mode in ("simple", "extended", "prepared"):
        for clients, least in ((16, 5.0), (100, 7.0)):
            name, what = f"hot-{mode}-{clients}", f"cache hits, {mode}, {clients} clients"
            yield Goal(f"{what}: throughput", name, "rate", "least", least, "hyperpool-cache")
            yield Goal(f"{what}: CPU per hit", name, "cpu_us", "most", 0.4, "hyperpool-cache")


GOALS: Final = (
    *_pass_through(),
    *_cache(),
    Goal("COPY of 1 GB, rows of 1 kB", "copy-wide", "rate", "least", 1.1),
    Goal("COPY of 1 GB, rows of 100 bytes", "copy-narrow", "rate", "least", 1.1),
    Goal("SELECT of 1 GB, rows of 1 kB", "rows-wide", "rate", "least", 1.1),
    Goal("logins, trust", "login-trust-16", "rate", "least", 1.0),
    Goal("logins, SCRAM", "login-scram-16", "rate", "least", 1.0),
    Goal(
        "10,000 idle clients, bytes for each", "idle-10000", "bytes_per_client", "most", 2048, absolute=True
    ),
    Goal("p99 at 50 % of saturation", "latency-50", "p99_ms", "most", 1.1),
)


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """What a run says about every goal that it has measured."""
    by_name = {(row.scenario, row.target): row for row in rows}
    verdicts = []
    for goal in GOALS:
        row = by_name.get((goal.scenario, goal.target))
        if row is not None:
            verdicts.append(Verdict(goal, (row.figures if goal.absolute else row.ratios).get(goal.quantity)))
    return verdicts
