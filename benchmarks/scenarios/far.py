"""A database that is far away: what a client waits for, directly and at a pooler near to it."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Final

import psycopg
from attrs import frozen

from benchmarks import pgbench
from benchmarks.processes import BenchError
from benchmarks.results import Result
from benchmarks.scenarios.base import Scenario
from benchmarks.scenarios.transactions import named_quantiles

if TYPE_CHECKING:
    from benchmarks.client import Client
    from benchmarks.stage import Server, Stage

_PATIENCE: Final = 30.0
_NEWCOMERS: Final = 5
_ASKED: Final = 100
_HOT: Final = "select abalance from bench_hot where aid = 1"


@frozen(kw_only=True)
class FarConnect(Scenario):
    """A new client of libpq that logs in with SCRAM and runs one query, and another one."""

    def measure(self, stage: Stage, server: Server, seconds: float) -> Result:  # noqa: ARG002 - see Scenario
        """Be some new clients, one after the other."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                _newcomer(server)
                break
            except (psycopg.Error, OSError) as error:
                if time.monotonic() > deadline:
                    raise BenchError(f"nobody gets in: {error}") from error
                time.sleep(0.1)
        times = [_newcomer(server) for _ in range(_NEWCOMERS)]
        return Result(
            {
                "first_ms": statistics.median(first for first, _ in times) * 1e3,
                "next_ms": statistics.median(following for _, following in times) * 1e3,
            }
        )


def _newcomer(server: Server) -> tuple[float, float]:
    """Connect and ask, and ask again. Returns the seconds that each took."""
    endpoint = server.endpoint
    began = time.perf_counter()
    with psycopg.connect(
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        password=endpoint.password,
        dbname=endpoint.database,
        autocommit=True,
        gssencmode="disable",
        connect_timeout=10,
    ) as connection:
        connection.execute("select 1").fetchone()
        asked = time.perf_counter()
        connection.execute("select 1").fetchone()
        return asked - began, time.perf_counter() - asked


@frozen(kw_only=True)
class FarReads(Scenario):
    """A client that asks for the same again and again."""

    def prepare(self, stage: Stage) -> None:
        """Make the table."""
        stage.make_tables("bench_hot")

    def measure(self, stage: Stage, server: Server, seconds: float) -> Result:  # noqa: ARG002 - see Scenario
        """Ask often enough; a cache first has to know what the catalog says."""
        with server.client() as client:
            deadline = time.monotonic() + _PATIENCE
            while (
                server.is_caching and statistics.median(_ask(client, 5)) > self.variant.round_trip / 2 * 1e3
            ):
                if time.monotonic() > deadline:
                    raise BenchError("nothing is answered from the cache")
            quantiles = pgbench.quantiles(_ask(client, _ASKED))
        return Result(named_quantiles(quantiles), quantiles)


def _ask(client: Client, count: int) -> list[float]:
    """The milliseconds that each answer took."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        client.execute(_HOT)
        found.append((time.perf_counter() - began) * 1e3)
    return found
