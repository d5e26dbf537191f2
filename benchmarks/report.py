"""The tables on the terminal and the JSON file."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import attrs
from rich import box
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.console import Console

    from benchmarks.run import Cell
    from benchmarks.summary import Figure, Row

_MEBIBYTE = 1 << 20
_STYLES = {"direct": "dim", "hyperpool": "bold"}


def number(value: float) -> str:
    """A figure with about three digits, as many as one reads at a glance."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _plain(figure: Figure | None) -> str:
    return "-" if figure is None else number(figure.median)


def _deviation(figure: Figure | None) -> str:
    """Half the range of the rounds in percent of their median."""
    if figure is None or figure.low == figure.high:
        return ""
    return f"±{(figure.high - figure.low) / 2 / figure.median:.0%}"


def _ratio(figure: Figure | None) -> str:
    return "-" if figure is None else f"{figure.median:.2f}x"


def _ratio_range(figure: Figure | None) -> str:
    return "" if figure is None or figure.low == figure.high else f"{figure.low:.2f}-{figure.high:.2f}"


def cell_line(cell: Cell) -> str:
    """One line about a measurement that has just ended."""
    head = f"round {cell.round}  {cell.scenario:<22} {cell.target:<10}"
    result = cell.result
    if result is None:
        return f"[red]{head} failed[/red]\n{escape(cell.error or '')}"
    unit = "MB/s" if cell.scenario.startswith("copy-") else "/s"
    parts = [f"{number(result.rate):>9} {unit}"]
    if result.latency_ms is not None:
        parts.append(f"{number(result.latency_ms):>8} ms")
    if result.cpu_us is not None:
        parts.append(f"CPU {number(result.cpu_us):>6} µs")
    if result.bytes_per_client is not None:
        parts.append(f"{result.bytes_per_client / 1000:.2f} kB per client")
    return f"{head} {'  '.join(parts)}"


def print_tables(console: Console, rows: Sequence[Row]) -> None:
    """Print a table for each kind of measurement that was made, and the errors under them."""
    idle = [row for row in rows if row.bytes_per_client is not None or row.scenario.startswith("idle-")]
    copy = [row for row in rows if row.scenario.startswith("copy-")]
    transactions = [row for row in rows if row not in idle and row not in copy]
    if transactions:
        console.print(_transactions(transactions))
    if copy:
        console.print(_copy(copy))
    if idle:
        console.print(_idle(idle))
    for row in rows:
        # The whole of an error, with the log, stands above, where it happened, and in the JSON file.
        for reason, times in Counter(error.partition("\n")[0] for error in row.errors).items():
            console.print(f"[red]{row.scenario}, {row.target} failed {times}x:[/red] {escape(reason)}")


def _table(
    title: str, caption: str, rows: Sequence[Row], columns: Sequence[tuple[str, Callable[[Row], str]]]
) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("scenario", no_wrap=True)
    table.add_column("target", no_wrap=True)
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    previous = ""
    for row in rows:
        first = row.scenario != previous
        if first and previous:
            table.add_section()
        target = f"{row.target} [red]({len(row.errors)} failed)[/red]" if row.errors else row.target
        values = [value(row) for _, value in columns]
        table.add_row(row.scenario if first else "", target, *values, style=_STYLES.get(row.target))
        previous = row.scenario
    return table


def _transactions(rows: Sequence[Row]) -> Table:
    return _table(
        "Transactions",
        "Medians over the rounds; ratios are to pgbouncer within each round, with lowest and highest.",
        rows,
        [
            ("tps", lambda row: _plain(row.rate)),
            ("", lambda row: _deviation(row.rate)),
            ("median\nms", lambda row: _plain(row.latency_ms)),
            ("p99\nms", lambda row: _plain(row.p99_ms)),
            ("CPU µs\nper query", lambda row: _plain(row.cpu_us)),
            ("tps\nratio", lambda row: _ratio(row.rate_ratio)),
            ("range", lambda row: _ratio_range(row.rate_ratio)),
            ("latency\nratio", lambda row: _ratio(row.latency_ratio)),
            ("CPU\nratio", lambda row: _ratio(row.cpu_ratio)),
            ("range", lambda row: _ratio_range(row.cpu_ratio)),
        ],
    )


def _copy(rows: Sequence[Row]) -> Table:
    return _table(
        "Bulk COPY out",
        "Memory growth: the pooler's largest resident memory during any of the COPYs over that at its start.",
        rows,
        [
            ("MB/s", lambda row: _plain(row.rate)),
            ("", lambda row: _deviation(row.rate)),
            ("CPU µs\nper MB", lambda row: _plain(row.cpu_us)),
            ("memory growth\nMiB", _growth),
            ("speed\nratio", lambda row: _ratio(row.rate_ratio)),
            ("range", lambda row: _ratio_range(row.rate_ratio)),
            ("CPU\nratio", lambda row: _ratio(row.cpu_ratio)),
            ("range", lambda row: _ratio_range(row.cpu_ratio)),
        ],
    )


def _growth(row: Row) -> str:
    return "-" if row.growth is None else f"{row.growth.high / _MEBIBYTE:.1f}"


def _idle(rows: Sequence[Row]) -> Table:
    return _table(
        "Idle clients",
        "Each has logged in and run one query. kB are 1000 bytes of the pooler's resident memory.",
        rows,
        [
            ("kB per\nclient", _kilobytes),
            ("", lambda row: _deviation(row.bytes_per_client)),
            ("logins/s\none by one", lambda row: _plain(row.rate)),
            ("CPU µs\nper login", lambda row: _plain(row.cpu_us)),
        ],
    )


def _kilobytes(row: Row) -> str:
    return "-" if row.bytes_per_client is None else f"{row.bytes_per_client.median / 1000:.2f}"


def write_json(path: Path, machine: dict[str, object], rows: Sequence[Row], cells: Sequence[Cell]) -> None:
    """Write everything that was measured, with the machine and the versions that it was measured with.

    Args:
        path: the file.
        machine: what describes the run.
        rows: the summary.
        cells: every single measurement.
    """
    document = {
        "run": machine,
        "summary": [attrs.asdict(row) for row in rows],
        "cells": [attrs.asdict(cell) for cell in cells],
    }
    path.write_text(json.dumps(document, indent=1, default=str) + "\n")
