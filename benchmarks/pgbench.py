"""Runs of pgbench and what they report (PostgreSQL docs, pgbench: options, and "Per-Transaction Logging")."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from benchmarks.measure import reaped_cpu_seconds
from benchmarks.postgres import SCALE, connection_options
from benchmarks.processes import BenchError, Workspace, clean_environment
from benchmarks.quantities import QUANTILES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.client import Endpoint

SCRIPTS: Final = Path(__file__).resolve().parent / "load"

THREADS: Final = max(1, len(os.sched_getaffinity(0)) // 4)
"""Of pgbench: on a small machine one, which leaves the rest to what is measured."""

_PATIENCE: Final = 60.0
"""Seconds that pgbench may need beyond the length of a run for its logins and for the last transactions."""

_LOGINS_PER_SECOND: Final = 500
"""pgbench's time starts before its logins; a run is longer by what they take at this pace."""

_SAMPLING_RATE: Final = 0.2
"""Writing every transaction down would slow pgbench; a part of them tells the quantiles as well."""

_BUSY: Final = 0.93
"""The share of its cores from which pgbench counts as the bottleneck."""


@frozen
class Load:
    """What pgbench does.

    Attributes:
        script: a file in ``benchmarks/load``.
        clients: how many at once.
        mode: query mode: simple, extended or prepared.
        reconnect: a new connection for each transaction (-C).
        queries: statements per transaction, to tell the CPU time per query.
        rate: transactions that are begun per second, at random moments (-R); None for as many as possible. With a rate,
            a transaction's latency runs from the moment at which it should have begun, so that one that had to wait for
            a slow one before it counts as slow, too.
    """

    script: str
    clients: int
    mode: str = "simple"
    reconnect: bool = False
    queries: int = 1
    rate: float | None = None


@frozen
class Outcome:
    """What came of a run.

    Attributes:
        transactions: how many.
        tps: transactions per second, logins included where each transaction has its own.
        start: the monotonic time when the first transaction began, after all logins.
        end: the monotonic time when the run was over.
        quantiles: milliseconds by percentage, as text; empty with `Load.reconnect`.
        load_share: processor time of pgbench per second of the run, logins included.
    """

    transactions: int
    tps: float
    start: float
    end: float
    quantiles: dict[str, float]
    load_share: float

    @property
    def is_bound_by_load(self) -> bool:
        """Whether pgbench had no time to spare, so that its target might have done more."""
        return self.load_share > _BUSY * THREADS


def run(workspace: Workspace, pgbench: Path, load: Load, endpoint: Endpoint, *, seconds: float) -> Outcome:
    """Run pgbench against an endpoint.

    Args:
        workspace: where it runs.
        pgbench: the program.
        load: what it does.
        endpoint: where to.
        seconds: for how long beyond the logins; whole seconds, at least 1.

    Raises:
        BenchError: pgbench fails, or reports errors, failed transactions or aborted clients.
    """
    duration = max(1, round(seconds)) + (0 if load.reconnect else load.clients // _LOGINS_PER_SECOND)
    command: list[str | Path] = [
        pgbench,
        "-n",
        "-j",
        str(min(THREADS, load.clients)),
        "-c",
        str(load.clients),
    ]
    command += ["-T", str(duration), "-M", load.mode, "-D", f"scale={SCALE}", "-f", SCRIPTS / load.script]
    prefix = workspace.directory / "transactions"
    # A run that failed may have left its log.
    for leftover in workspace.directory.glob(f"{prefix.name}.*"):
        leftover.unlink()
    if load.reconnect:
        command.append("-C")  # The times in the log would leave the logins out.
    else:
        command += ["-l", f"--log-prefix={prefix}"]
        command += [f"--sampling-rate={_SAMPLING_RATE}"] if load.rate is None else []
    if load.rate is not None:
        command += ["-R", f"{load.rate:.1f}"]
    used, began = reaped_cpu_seconds(), time.monotonic()
    output = _execute(workspace, [*command, *connection_options(endpoint)], endpoint, duration + _PATIENCE)
    end = time.monotonic()
    transactions = int(figure(r"number of transactions actually processed: (\d+)", output))
    tps = figure(r"tps = ([\d.]+)", output)
    return Outcome(
        transactions=transactions,
        tps=tps,
        start=max(began, end - transactions / tps),
        end=end,
        quantiles={} if load.reconnect else quantiles(_logged(workspace.directory, prefix.name)),
        load_share=(reaped_cpu_seconds() - used) / (end - began),
    )


def warm_up(workspace: Workspace, pgbench: Path, endpoint: Endpoint, *, clients: int = 40) -> None:
    """Run a few queries of several clients at once, so that a pool is full before anything is measured.

    Raises:
        BenchError: as `run`.
    """
    command: list[str | Path] = [pgbench, "-n", "-c", str(clients), "-t", "20", "-D", f"scale={SCALE}"]
    command += ["-f", SCRIPTS / "select.sql", *connection_options(endpoint)]
    _execute(workspace, command, endpoint, _PATIENCE)


def _execute(workspace: Workspace, command: list[str | Path], endpoint: Endpoint, timeout: float) -> str:
    environment = clean_environment(PGSSLMODE="disable", PGGSSENCMODE="disable", PGPASSWORD=endpoint.password)
    output = workspace.run("pgbench", command, timeout=timeout, environment=environment)
    refuse_errors(output)
    return output


def refuse_errors(output: str) -> None:
    """See to it that pgbench reports nothing but success.

    Raises:
        BenchError: it reports errors, failed transactions or aborted clients.
    """
    if re.search(r"\b(error|aborted|fatal)\b", output, re.IGNORECASE):
        raise BenchError(f"pgbench reports errors:\n{output.strip()}")
    if re.search(r"number of failed transactions: [1-9]", output):
        raise BenchError(f"pgbench reports failed transactions:\n{output.strip()}")


def figure(pattern: str, output: str) -> float:
    """A figure in what pgbench has written.

    Raises:
        BenchError: it is not there, or zero: everything is divided by it.
    """
    found = re.search(pattern, output)
    if found is None or float(found[1]) == 0:
        raise BenchError(f"pgbench finished no transaction:\n{output.strip()}")
    return float(found[1])


def logged_times(lines: Iterable[str]) -> list[float]:
    """The times of transactions in a log of pgbench, in milliseconds."""
    # client_id transaction_no time script_no time_epoch time_us [schedule_lag]; time is in microseconds, and with -R it
    # runs from the moment at which the transaction should have begun.
    return [int(line.split()[2]) / 1000 for line in lines]


def quantiles(times: Sequence[float]) -> dict[str, float]:
    """The times that so many per cent of all stayed within, by percentage as text.

    Raises:
        BenchError: there are no times.
    """
    if not times:
        raise BenchError("pgbench logged no transaction: the run was too short")
    ordered, last = sorted(times), len(times) - 1
    return {f"{percent:g}": ordered[min(last, int(len(times) * percent / 100))] for percent in QUANTILES}


def _logged(directory: Path, prefix: str) -> list[float]:
    """All that the log files have; removes them."""
    times: list[float] = []
    for file in directory.glob(f"{prefix}.*"):
        times.extend(logged_times(file.read_text().splitlines()))
        file.unlink()
    return times
