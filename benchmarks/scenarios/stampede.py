"""Many clients ask the same thing at the same moment, which nobody has asked before, and which takes a while."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from attrs import frozen

from benchmarks.client import Client
from benchmarks.processes import BenchError
from benchmarks.results import Result
from benchmarks.scenarios.base import Scenario

if TYPE_CHECKING:
    from benchmarks.client import Endpoint
    from benchmarks.stage import Server, Stage

_COLD: Final = "select count(*) from bench_hot where abs(aid) % 7 = 3"
"""It reads a hundred thousand rows."""

_SCANS: Final = "select seq_scan from pg_stat_user_tables where relname = 'bench_hot'"

_TOLD: Final = 11.0
"""Seconds after which an idle backend has told what it has counted (PGSTAT_IDLE_INTERVAL of PostgreSQL's ``pgstat.c``,
and one more)."""

_KNOWN_WITHIN: Final = 20.0
_FROM_MEMORY: Final = 0.005


@frozen(kw_only=True)
class Stampede(Scenario):
    """All ask at once; how often is the table read, and after what time does the last one have its answer?

    Attributes:
        clients: how many.
    """

    clients: int

    def prepare(self, stage: Stage) -> None:
        """Make the table."""
        stage.make_tables("bench_hot")

    def measure(self, stage: Stage, server: Server, seconds: float) -> Result:  # noqa: ARG002 - see Scenario
        """Ask."""
        if server.is_caching:
            _wait_until_cached(server.endpoint)
        with contextlib.ExitStack() as stack:
            asking = [stack.enter_context(Client(server.endpoint)) for _ in range(self.clients)]
            before = _settled_scans(stage)
            began = time.perf_counter()
            for client in asking:
                client.ask(_COLD)
            for client in asking:
                client.answered(timeout=120)
            taken = time.perf_counter() - began
            return Result({"answers": _settled_scans(stage) - before, "seconds": taken})


def _wait_until_cached(endpoint: Endpoint) -> None:
    """Wait until the pooler knows what the catalog says: then a query that is asked again is fast."""
    deadline = time.monotonic() + _KNOWN_WITHIN
    slow = _COLD.replace("= 3", "= 4")
    with Client(endpoint) as client:
        while True:
            began = time.perf_counter()
            client.execute(slow)
            if time.perf_counter() - began < _FROM_MEMORY:
                return
            if time.monotonic() > deadline:
                raise BenchError("nothing is answered from the cache")


def _settled_scans(stage: Stage) -> int:
    """How often the table has been read, once all backends have told theirs."""
    with Client(stage.postgres.endpoint) as client:
        found, since = -1, time.monotonic()
        while time.monotonic() - since < _TOLD:
            client.execute("select pg_stat_force_next_flush()")
            now = int(client.value(_SCANS))
            if now != found:
                found, since = now, time.monotonic()
            time.sleep(0.25)
    return found
