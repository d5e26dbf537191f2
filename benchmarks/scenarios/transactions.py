"""Transactions of pgbench: as many as possible, or at a given rate."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from attrs import evolve, frozen

from benchmarks import pgbench
from benchmarks.client import Client
from benchmarks.measure import Trace, cpu_seconds
from benchmarks.results import Result
from benchmarks.scenarios.base import Scenario
from benchmarks.targets import TARGETS
from hyperpool.admin.caching import CACHE

if TYPE_CHECKING:
    from benchmarks.pgbench import Load, Outcome
    from benchmarks.stage import Server, Stage, Variant

_NAMED: Final = {"p50_ms": "50", "p99_ms": "99", "p999_ms": "99.9"}
_DELIVERED: Final = 0.97
"""The share of the transactions asked for below which a target counts as saturated."""

_SATURATING: Final = 32
"""Clients that ask as fast as they can, to see how much is possible."""

_LONG: Final = 5.0
"""Seconds that this takes."""

LOAD_IS_BOUND: Final = "the load generator was at its limit: the target might do more"


def named_quantiles(quantiles: dict[str, float]) -> dict[str, float]:
    """The quantiles that have columns of their own."""
    return {name: quantiles[percent] for name, percent in _NAMED.items() if percent in quantiles}


@frozen(kw_only=True)
class Transactions(Scenario):
    """As many transactions as possible (a closed loop: each client waits for its answer, then asks again).

    Attributes:
        load: what pgbench does.
        warm: seconds of the same load that come before what is measured.
        table: a script of ``load/tables`` that must have run.
    """

    load: Load
    warm: float = 0.0
    table: str | None = None

    def prepare(self, stage: Stage) -> None:
        """Make the tables; remove what the run before left, so that each one starts from the same."""
        if self.table is not None:
            stage.make_tables(self.table)
        if self.load.script == "tpcb.sql":
            with Client(stage.postgres.endpoint) as client:
                for statement in (
                    "vacuum pgbench_branches",
                    "vacuum pgbench_tellers",
                    "truncate pgbench_history",
                ):
                    client.execute(statement)

    def measure(self, stage: Stage, server: Server, seconds: float) -> Result:
        """Run pgbench."""
        if self.warm:
            pgbench.run(stage.workspace, stage.tools.pgbench, self.load, server.endpoint, seconds=self.warm)
        before = asked_and_hit(server) if server.is_caching else (0, 0)
        outcome, figures = timed(stage, server, self.load, seconds)
        if server.is_caching:
            asked, hit = (now - then for now, then in zip(asked_and_hit(server), before, strict=True))
            figures["hit_share"] = hit / max(asked, 1)
        notes = [LOAD_IS_BOUND] if outcome.is_bound_by_load else []
        return Result(figures, outcome.quantiles, notes=notes)


@frozen(kw_only=True)
class OpenLoop(Scenario):
    """Transactions that begin at given moments, whether those before have been answered or not.

    The rate is a part of what pgbouncer takes at most (hyperpool, where there is no pgbouncer), found out once, and the
    same for all targets. Latency runs from the moment at which a transaction should have begun.

    Attributes:
        load: what pgbench does.
        fraction: of what is possible.
    """

    load: Load
    fraction: float

    def prepare(self, stage: Stage) -> None:
        """Find out how much is possible, the first time."""
        saturate(stage, self.load, self.variant)

    def measure(self, stage: Stage, server: Server, seconds: float) -> Result:
        """Run pgbench with its rate."""
        rate = saturate(stage, self.load, self.variant) * self.fraction
        outcome, figures = timed(stage, server, evolve(self.load, rate=rate), seconds)
        figures["offered"] = rate
        notes = []
        if outcome.tps < rate * _DELIVERED:
            notes.append(f"saturated: {outcome.tps / rate:.0%} of what was asked for")
        return Result(figures, outcome.quantiles, notes=notes)


def saturate(stage: Stage, load: Load, variant: Variant) -> float:
    """The transactions per second that pgbouncer takes at most, or hyperpool where there is no pgbouncer.

    It is measured once, and then known.
    """
    if load.mode not in stage.rates:
        reference = TARGETS["pgbouncer" if stage.pgbouncer else "hyperpool"]
        most = evolve(load, clients=_SATURATING, rate=None)
        with stage.running(reference, variant) as server:
            pgbench.warm_up(stage.workspace, stage.tools.pgbench, server.endpoint)
            outcome = pgbench.run(stage.workspace, stage.tools.pgbench, most, server.endpoint, seconds=_LONG)
        stage.rates[load.mode] = outcome.tps
    return stage.rates[load.mode]


def timed(stage: Stage, server: Server, load: Load, seconds: float) -> tuple[Outcome, dict[str, float]]:
    """Run pgbench, and take the processor time of the pooler and of PostgreSQL meanwhile.

    The pooler's is that of the queries, without the logins before them, unless each query has its login. PostgreSQL's
    is that of the whole run.
    """
    before = cpu_seconds(stage.postgres.child.pid)
    # Rarely: some poolers have a hundred processes to look at.
    with Trace(server.child.pid, cpu_seconds, interval=0.2) if server.is_pooler else nullcontext() as trace:
        outcome = pgbench.run(stage.workspace, stage.tools.pgbench, load, server.endpoint, seconds=seconds)
    queries = outcome.transactions * load.queries
    figures = {
        "rate": outcome.tps,
        "server_cpu_us": (cpu_seconds(stage.postgres.child.pid) - before) / queries * 1e6,
        "load_share": outcome.load_share,
        **named_quantiles(outcome.quantiles),
    }
    if trace is not None:
        figures["cpu_us"] = trace.between(outcome.start, outcome.end) / queries * 1e6
    if load.reconnect:
        figures["p50_ms"] = load.clients / outcome.tps * 1e3  # The mean: pgbench's log leaves the logins out.
    return outcome, figures


def asked_and_hit(server: Server) -> tuple[int, int]:
    """How many queries the cache has been asked for so far, and how many of them it has answered from memory."""
    with Client(evolve(server.endpoint, database="pgbouncer")) as client:
        row = dict(zip((column.name for column in CACHE), client.row("SHOW CACHE"), strict=True))
    hit = int(row["hits"]) + int(row["stale_hits"])
    return hit + int(row["misses"]), hit
