"""What is read from pgbench's output and logs."""

from __future__ import annotations

import pytest

from benchmarks.pgbench import figure, logged_times, quantiles, refuse_errors
from benchmarks.processes import BenchError

_OUTPUT = """\
transaction type: select.sql
number of transactions actually processed: 4711
number of failed transactions: 0 (0.000%)
initial connection time = 12.3 ms
tps = 1570.25 (without initial connection time)
"""


def test_figures() -> None:
    """They are found by what stands before them."""
    assert figure(r"processed: (\d+)", _OUTPUT) == 4711
    assert figure(r"tps = ([\d.]+)", _OUTPUT) == 1570.25


@pytest.mark.parametrize("output", ["", "number of transactions actually processed: 0"])
def test_no_transaction(output: str) -> None:
    """Everything is divided by their number: there must be some."""
    with pytest.raises(BenchError, match="finished no transaction"):
        figure(r"processed: (\d+)", output)


def test_success_is_not_refused() -> None:
    """Nothing failed."""
    refuse_errors(_OUTPUT)


@pytest.mark.parametrize(
    "line",
    [
        "pgbench: error: client 3 script 0 aborted in command 1",
        "number of failed transactions: 2 (0.1%)",
        "FATAL:  no more connections allowed",
    ],
)
def test_failures_are_refused(line: str) -> None:
    """Figures of a run in which something failed are worth nothing."""
    with pytest.raises(BenchError, match="reports"):
        refuse_errors(_OUTPUT + line)


def test_log() -> None:
    """The third column is the time in microseconds, with and without a schedule lag at the end."""
    assert logged_times(["0 199 2241 0 1175850568 995598", "3 1 800 0 1175850569 998079 120"]) == [2.241, 0.8]


def test_quantiles() -> None:
    """So many per cent are within the time; a hundred per cent is the slowest."""
    found = quantiles([float(number) for number in range(1000, 0, -1)])
    assert (found["50"], found["99"], found["99.9"], found["100"]) == (501, 991, 1000, 1000)


def test_quantiles_of_nothing() -> None:
    """A run without a logged transaction was too short."""
    with pytest.raises(BenchError, match="too short"):
        quantiles([])
