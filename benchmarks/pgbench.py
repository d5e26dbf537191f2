"""Runs of pgbench and what they report (PostgreSQL docs, pgbench: options, and "Per-Transaction Logging")."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from benchmarks.peers import SCALE, connection_options
from benchmarks.processes import BenchError, Workspace, clean_environment

if TYPE_CHECKING:
    from benchmarks.client import Endpoint

SCRIPTS = Path(__file__).resolve().parent / "load"
# Beyond the length of a run, pgbench may need this long for its logins and for the last transactions.
_PATIENCE = 30.0
# Writing every transaction down would slow pgbench; a part of them tells the median as well.
_SAMPLING_RATE = 0.2


@frozen
class Load:
    """What pgbench does.

    Attributes:
        script: a file in ``benchmarks/load``.
        clients: how many at once.
        mode: query mode: simple, extended or prepared.
        reconnect: a new connection for each transaction (-C).
        queries: statements per transaction, to tell the CPU time per query.
    """

    script: str
    clients: int
    mode: str = "simple"
    reconnect: bool = False
    queries: int = 1


@frozen
class Outcome:
    """What came of a run.

    Attributes:
        transactions: how many.
        tps: transactions per second, logins included where each transaction has its own.
        median_ms: median time of a transaction; with `Load.reconnect` the mean, the login included.
        p99_ms: the time that 99 % of the transactions stayed below; None with `Load.reconnect`.
    """

    transactions: int
    tps: float
    median_ms: float
    p99_ms: float | None


def run(workspace: Workspace, pgbench: Path, load: Load, endpoint: Endpoint, *, seconds: float) -> Outcome:
    """Run pgbench against an endpoint.

    Args:
        workspace: where it runs.
        pgbench: the program.
        load: what it does.
        endpoint: where to.
        seconds: for how long; whole seconds, at least 1.

    Raises:
        BenchError: pgbench fails, or reports errors, failed transactions or aborted clients.
    """
    duration = max(1, round(seconds))
    command: list[str | Path] = [pgbench, "-n", "-j", "1", "-c", str(load.clients), "-T", str(duration)]
    command += ["-M", load.mode, "-D", f"scale={SCALE}", "-f", SCRIPTS / load.script]
    log_prefix = workspace.directory / "transactions"
    if load.reconnect:
        command.append("-C")
    else:
        # A run that failed may have left its log.
        for leftover in workspace.directory.glob(f"{log_prefix.name}.*"):
            leftover.unlink()
        # The times in the log leave the login out, which is why it is of no use with -C.
        command += ["-l", f"--log-prefix={log_prefix}", f"--sampling-rate={_SAMPLING_RATE}"]
    output = _execute(workspace, [*command, *connection_options(endpoint)], endpoint, duration + _PATIENCE)
    transactions = int(_figure(r"number of transactions actually processed: (\d+)", output))
    tps = _figure(r"tps = ([\d.]+)", output)
    if load.reconnect:
        return Outcome(transactions, tps, load.clients / tps * 1000, None)
    times = _logged_times(workspace.directory, log_prefix.name)
    return Outcome(transactions, tps, statistics.median(times), times[int(len(times) * 0.99)])


def warm_up(workspace: Workspace, pgbench: Path, endpoint: Endpoint, *, clients: int = 40) -> None:
    """Run a few queries of several clients at once, so that a pool is full before anything is measured.

    Raises:
        BenchError: as `run`.
    """
    command: list[str | Path] = [
        pgbench,
        "-n",
        "-j",
        "1",
        "-c",
        str(clients),
        "-t",
        "20",
        "-D",
        f"scale={SCALE}",
    ]
    command += ["-f", SCRIPTS / "select.sql", *connection_options(endpoint)]
    _execute(workspace, command, endpoint, _PATIENCE)


def _execute(workspace: Workspace, command: list[str | Path], endpoint: Endpoint, timeout: float) -> str:
    environment = clean_environment(PGSSLMODE="disable", PGGSSENCMODE="disable", PGPASSWORD=endpoint.password)
    output = workspace.run("pgbench", command, timeout=timeout, environment=environment)
    if re.search(r"\b(error|aborted|fatal)\b", output, re.IGNORECASE):
        raise BenchError(f"pgbench reports errors:\n{output.strip()}")
    if re.search(r"number of failed transactions: [1-9]", output):
        raise BenchError(f"pgbench reports failed transactions:\n{output.strip()}")
    return output


def _figure(pattern: str, output: str) -> float:
    found = re.search(pattern, output)
    # No transaction at all is a failure too: everything is divided by them.
    if found is None or float(found[1]) == 0:
        raise BenchError(f"pgbench finished no transaction:\n{output.strip()}")
    return float(found[1])


def _logged_times(directory: Path, prefix: str) -> list[float]:
    """The sampled times of transactions in milliseconds, sorted; removes the log files."""
    times: list[float] = []
    for file in directory.glob(f"{prefix}.*"):
        # client_id transaction_no time script_no time_epoch time_us; time is in microseconds.
        times.extend(int(line.split()[2]) / 1000 for line in file.read_text().splitlines())
        file.unlink()
    if not times:
        raise BenchError("pgbench logged no transaction: the run was too short")
    return sorted(times)
