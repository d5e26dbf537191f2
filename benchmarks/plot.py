"""The picture of a run. Needs matplotlib (hyperpool's extra `bench`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure as Picture

from benchmarks.summary import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.run import Cell
    from benchmarks.summary import Figure, Row

_COLOURS = {"direct": "#9aa0a6", "pgbouncer": "#3b6fb6", "hyperpool": "#d9822b"}
_TARGETS = tuple(_COLOURS)
_MEBIBYTE = 1 << 20


def draw(path: Path, rows: Sequence[Row], cells: Sequence[Cell], subtitle: str) -> bool:
    """Draw throughput, CPU time per query, COPY and the memory of idle clients, and write them as PNG.

    Args:
        path: the file.
        rows: the summary.
        cells: every single measurement.
        subtitle: what the run was: versions and machine.

    Returns:
        Whether there was anything to draw.
    """
    columns = _columns(rows, cells)
    if not columns:
        return False
    scenarios = len({row.scenario for row in rows if row.latency_ms is not None})
    picture = Picture(figsize=(6 * len(columns), max(3.2 * len(columns[-1]), 0.42 * scenarios + 1.5)))
    picture.set_layout_engine("constrained")
    picture.suptitle(subtitle, fontsize=8)
    grid = picture.add_gridspec(1, len(columns))
    for index, panels in enumerate(columns):
        cells_of_column = grid[0, index].subgridspec(len(panels), 1)
        for place, panel in enumerate(panels):
            panel(picture.add_subplot(cells_of_column[place, 0]))
    picture.savefig(path, dpi=110)
    return True


def _columns(rows: Sequence[Row], cells: Sequence[Cell]) -> list[list[Callable[[Axes], None]]]:
    """The panels of the picture from left to right, and within a column from top to bottom."""
    timed = [row for row in rows if row.latency_ms is not None]
    copies = [row for row in rows if row.scenario.startswith("copy-") and row.rate is not None]
    traces = [
        cell for cell in cells if cell.scenario.startswith("copy-") and cell.result and cell.result.memory
    ]
    idle = [row for row in rows if row.bytes_per_client is not None]
    columns: list[list[Callable[[Axes], None]]] = []
    if timed:
        columns.append([lambda axes: _throughput(axes, timed)])
        columns.append([lambda axes: _bars(axes, timed, lambda row: row.cpu_us, "pooler CPU, µs per query")])
    last: list[Callable[[Axes], None]] = []
    if copies:
        last.append(lambda axes: _bars(axes, copies, lambda row: row.rate, "COPY out, MB/s"))
    if traces:
        last.append(lambda axes: _memory(axes, traces))
    if idle:
        last.append(lambda axes: _idle(axes, idle))
    return [*columns, last] if last else columns


def _throughput(axes: Axes, rows: Sequence[Row]) -> None:
    """As multiples of pgbouncer's where it was measured: absolute figures differ too much for one axis."""
    if any(row.target == REFERENCE for row in rows):
        _bars(axes, rows, lambda row: row.rate_ratio, f"transactions per second, multiple of {REFERENCE}'s")
        axes.axvline(1, color="black", linewidth=0.8)
    else:
        _bars(axes, rows, lambda row: row.rate, "transactions per second")


def _bars(axes: Axes, rows: Sequence[Row], value: Callable[[Row], Figure | None], title: str) -> None:
    scenarios = list(dict.fromkeys(row.scenario for row in rows))
    height = 0.8 / len(_TARGETS)
    for place, target in enumerate(_TARGETS):
        shown = [
            (scenarios.index(row.scenario), found)
            for row in rows
            if row.target == target and (found := value(row)) is not None
        ]
        if not shown:
            continue
        medians = [figure.median for _, figure in shown]
        below = [figure.median - figure.low for _, figure in shown]
        above = [figure.high - figure.median for _, figure in shown]
        places = [index + (place - 1) * height for index, _ in shown]
        axes.barh(
            places,
            medians,
            height,
            xerr=(below, above),
            label=target,
            color=_COLOURS[target],
            ecolor="#444444",
        )
    axes.set_yticks(range(len(scenarios)), scenarios, fontsize=8)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)


def _memory(axes: Axes, cells: Sequence[Cell]) -> None:
    styles = {"copy-wide": "-", "copy-narrow": "--"}
    named = set()
    for cell in cells:
        if cell.result is None or not cell.result.memory:
            continue
        label = f"{cell.target}, {cell.scenario}"
        axes.plot(
            [seconds for seconds, _ in cell.result.memory],
            [size / _MEBIBYTE for _, size in cell.result.memory],
            styles.get(cell.scenario, ":"),
            color=_COLOURS[cell.target],
            label=None if label in named else label,
        )
        named.add(label)
    axes.set_title("pooler's resident memory during COPY out, MiB", fontsize=10)
    axes.set_xlabel("seconds", fontsize=8)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _idle(axes: Axes, rows: Sequence[Row]) -> None:
    figures = [row.bytes_per_client for row in rows]
    medians = [figure.median / 1000 for figure in figures if figure is not None]
    labels = [f"{row.target}, {row.scenario}" for row in rows]
    axes.barh(labels, medians, 0.5, color=[_COLOURS[row.target] for row in rows])
    axes.set_title("pooler's memory per idle client, kB", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
