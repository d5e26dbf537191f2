"""Large answers, and many small ones beside them."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from attrs import define, evolve, field, frozen

from benchmarks.measure import Trace, cpu_seconds, resident_bytes
from benchmarks.processes import BenchError
from benchmarks.results import Result
from benchmarks.scenarios.base import Scenario
from benchmarks.scenarios.transactions import saturate, timed

if TYPE_CHECKING:
    from benchmarks.client import Client
    from benchmarks.pgbench import Load
    from benchmarks.stage import Server, Stage

_MEGABYTE: Final = 1e6
_MEBIBYTE: Final = 1 << 20
_ENDURANCE: Final = 30.0
"""Seconds that the bulk reader may take to notice that it is over."""


@frozen(kw_only=True)
class BulkRead(Scenario):
    """One large answer, read by a socket that drops it, with the pooler's memory over time.

    Attributes:
        table: a script of ``load/tables``, and the table that it makes.
        sql: what is asked.
        tag: how its CommandComplete begins.
    """

    table: str
    sql: str
    tag: bytes

    def prepare(self, stage: Stage) -> None:
        """Make the table."""
        stage.make_tables(self.table)

    def measure(self, stage: Stage, server: Server, seconds: float) -> Result:  # noqa: ARG002 - see Scenario
        """Read it all."""
        pid = server.child.pid
        with server.client() as client:
            client.execute("select 1")
            before, served = cpu_seconds(pid), cpu_seconds(stage.postgres.child.pid)
            with Trace(pid, resident_bytes) if server.is_pooler else nullcontext() as trace:
                received, taken = client.drain(self.sql, self.tag)
            megabytes = received / _MEGABYTE
            # While the client is there: PostgreSQL's processes are still the same.
            served = cpu_seconds(stage.postgres.child.pid) - served
        figures = {"rate": megabytes / taken, "server_cpu_us": served / megabytes * 1e6}
        if trace is None:
            return Result(figures)
        resident = [size for _, size in trace.points]
        figures["cpu_us"] = (cpu_seconds(pid) - before) / megabytes * 1e6
        figures["growth_mib"] = (max(resident) - resident[0]) / _MEBIBYTE
        return Result(figures, memory=trace.since_start())


@frozen(kw_only=True)
class Fairness(Scenario):
    """Small queries at a given rate, and one client beside them that reads large answers without a pause.

    Attributes:
        load: the small queries.
        fraction: their rate, as a part of what is possible without the large ones.
        bulk: whether there is a client with large answers; without one, one sees what it changes.
    """

    load: Load
    fraction: float
    bulk: bool

    def prepare(self, stage: Stage) -> None:
        """Make the table, and find out how much is possible."""
        stage.make_tables("bulk_wide")
        saturate(stage, self.load, self.variant)

    def measure(self, stage: Stage, server: Server, seconds: float) -> Result:
        """Run both at once."""
        load = evolve(self.load, rate=saturate(stage, self.load, self.variant) * self.fraction)
        if not self.bulk:
            outcome, figures = timed(stage, server, load, seconds)
            return Result(figures, outcome.quantiles)
        with server.client() as client:
            client.execute("select 1")
            reader = _Reader(client)
            reader.thread.start()
            outcome, figures = timed(stage, server, load, seconds)
            megabytes = reader.stop()
        figures["bulk_rate"] = megabytes / (outcome.end - outcome.start)
        del figures["cpu_us" if server.is_pooler else "server_cpu_us"]  # It is not that of the small queries.
        return Result(figures, outcome.quantiles)


@define(eq=False)
class _Reader:
    """A client that reads large answers, one after the other, in a thread."""

    client: Client
    thread: threading.Thread = field(init=False)
    _over: bool = field(default=False, init=False)
    _received: int = field(default=0, init=False)
    _error: BenchError | OSError | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.thread = threading.Thread(target=self._read, daemon=True)

    def stop(self) -> float:
        """End it; returns the megabytes that have come.

        Raises:
            BenchError: it did not end, or was cut off.
        """
        received = self._received
        self._over = True
        self.thread.join(_ENDURANCE)
        if self.thread.is_alive() or self._error is not None:
            raise BenchError(f"the bulk reader failed: {self._error or 'it waits for an answer'}")
        return received / _MEGABYTE

    def _read(self) -> None:
        try:
            while not self._over:
                for count, _ in self.client.pieces("copy bulk_wide to stdout"):
                    self._received += count
        except (BenchError, OSError) as error:
            self._error = error
