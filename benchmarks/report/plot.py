"""The pictures of a run. Needs matplotlib (hyperpool's extra `bench`)."""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from attrs import frozen
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from benchmarks.groups import Group, Plot
    from benchmarks.summary import Row, Spread

_COLOURS: Final = {
    "direct": "#9aa0a6",
    "pgbouncer": "#3b6fb6",
    "pgpool": "#b39ddb",
    "pgpool-cache": "#7e57c2",
    "hyperpool-pure": "#f2c894",
    "hyperpool": "#d9822b",
    "hyperpool-cache": "#2e8b57",
    "hyperpool-workers": "#a8461a",
    "tcp": "#d9822b",
    "tcp-cache": "#2e8b57",
    "gateway": "#9aa0a6",
}
_OTHER: Final = "#c9a227"
_WIDTH: Final = 6.4
_PIXELS: Final = 96
"""Of a page, for an inch."""

_TICKS: Final = (50.0, 90.0, 99.0, 99.9)
_SETTINGS: Final[dict[Any, Any]] = {"svg.fonttype": "none", "font.size": 9, "svg.hashsalt": "hyperpool"}

_FEW: Final = ("select-simple-16", "select-simple-100", "select-prepared-16", "select-prepared-100")
_HITS: Final = ("hot-simple-16", "hot-simple-100", "hot-prepared-16", "hot-prepared-100")


@frozen
class Panel:
    """A part of the picture of all: bars of some scenarios of a group."""

    group: str
    scenarios: tuple[str, ...]
    quantity: str
    title: str
    ratios: bool = False


OVERVIEW: Final = (
    Panel("select", _FEW, "rate", "pass-through: transactions/s, multiple of pgbouncer's", ratios=True),
    Panel("select", _FEW, "cpu_us", "pass-through: pooler's CPU, us per query"),
    Panel("hot", _HITS, "rate", "a thousand hot rows: queries/s"),
    Panel("far-reads", ("far-reads",), "p50_ms", "repeated reads, database 40 ms away: median, ms"),
)


def svg_of_group(group: Group, rows: Sequence[Row]) -> str:
    """The pictures of a group as one SVG element; empty where there is nothing to draw."""
    picture = _group(group, rows)
    if picture is None:
        return ""
    with mpl.rc_context(_SETTINGS), io.StringIO() as file:
        picture.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        text = file.getvalue()
    # Within a page of HTML, it is an element without a prologue, as wide as there is room.
    text = text[text.index("<svg") :]
    width = f'style="max-width: {picture.get_figwidth() * _PIXELS:.0f}px"'
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', width, text, count=1)


def png_of_group(path: Path, group: Group, rows: Sequence[Row]) -> bool:
    """Write the pictures of a group as PNG; returns whether there was anything to draw."""
    picture = _group(group, rows)
    if picture is not None:
        with mpl.rc_context(_SETTINGS):
            picture.savefig(path, dpi=110, metadata={"Software": None})
    return picture is not None


def png_of_all(path: Path, rows: Sequence[Row]) -> bool:
    """Write one picture of what matters most; returns whether there was anything to draw."""
    panels: list[Callable[[Axes], None]] = []
    for part in OVERVIEW:
        shown = [row for row in rows if row.group == part.group and row.scenario in part.scenarios]
        if shown:
            panels.append(_bars(shown, part.quantity, part.title, ratios=part.ratios))
    if not panels:
        return False
    with mpl.rc_context(_SETTINGS):
        lines = math.ceil(len(panels) / 2)
        picture = Figure(figsize=(2 * _WIDTH, 3.4 * lines), layout="constrained")
        for place, panel in enumerate(panels):
            panel(picture.add_subplot(lines, 2, place + 1))
        _legend(picture)
        picture.savefig(path, dpi=110, metadata={"Software": None})
    return True


def _group(group: Group, rows: Sequence[Row]) -> Figure | None:
    panels = [panel for plot in group.plots for panel in _panels(plot, rows)]
    if not panels:
        return None
    bars = sum(len({row.target for row in rows if row.scenario == name}) for name in _scenarios(rows))
    tall = 3.4 if any(plot.kind == "quantiles" for plot in group.plots) else max(1.8, 0.16 * bars + 1.2)
    across = min(len(panels), 2)
    down = math.ceil(len(panels) / across)
    with mpl.rc_context(_SETTINGS):
        picture = Figure(figsize=(_WIDTH * across, tall * down), layout="constrained")
        for place, panel in enumerate(panels):
            panel(picture.add_subplot(down, across, place + 1))
        _legend(picture)
    return picture


def _panels(plot: Plot, rows: Sequence[Row]) -> list[Callable[[Axes], None]]:
    if plot.kind == "quantiles":
        by_scenario = (
            [row for row in rows if row.scenario == name and row.quantiles] for name in _scenarios(rows)
        )
        return [_curves(shown, f"{shown[0].scenario}: {plot.title}") for shown in by_scenario if shown]
    ratios = plot.kind == "ratios"
    if not any(plot.quantity in (row.ratios if ratios else row.figures) for row in rows):
        return []
    return [_bars(rows, plot.quantity, plot.title, ratios=ratios)]


def _scenarios(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.scenario for row in rows))


def _bars(rows: Sequence[Row], quantity: str, title: str, *, ratios: bool) -> Callable[[Axes], None]:
    """One bar for each scenario and target, as long as the median, with the range of the rounds."""

    def draw(axes: Axes) -> None:
        place, places, names = 0.0, [], []
        labelled: set[str] = set()
        for scenario in _scenarios(rows):
            start = place
            for row in rows:
                spread = (row.ratios if ratios else row.figures).get(quantity)
                if row.scenario == scenario and spread is not None:
                    _bar(axes, place, row.target, spread, label=row.target not in labelled)
                    labelled.add(row.target)
                    place += 1
            if place > start:
                places.append((start + place - 1) / 2)
                names.append(scenario)
                place += 0.7
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        axes.margins(x=0.12)
        axes.spines[["top", "right"]].set_visible(False)
        if ratios:
            axes.axvline(1, color="black", linewidth=0.8)

    return draw


def _bar(axes: Axes, place: float, target: str, spread: Spread, *, label: bool) -> None:
    axes.barh(
        place,
        spread.median,
        0.9,
        xerr=([spread.median - spread.low], [spread.high - spread.median]),
        label=target if label else None,
        color=_COLOURS.get(target, _OTHER),
        error_kw={"ecolor": "#444444", "elinewidth": 0.8},
    )
    text = f" {spread.median:,.0f}" if spread.median >= 100 else f" {spread.median:.3g}"
    axes.text(spread.high, place, text, va="center", fontsize=7)


def _curves(rows: Sequence[Row], title: str) -> Callable[[Axes], None]:
    """The latency over the percentage, so that each further nine has as much room as the one before."""

    def draw(axes: Axes) -> None:
        for row in rows:
            points = [(percent, value) for percent, value in sorted(row.quantiles.items()) if percent < 100]
            style = "--" if row.target == "direct" else "-"
            axes.plot(
                [_nines(percent) for percent, _ in points],
                [value for _, value in points],
                style,
                color=_COLOURS.get(row.target, _OTHER),
                label=row.target,
                marker="o",
                markersize=2.5,
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.set_xticks([_nines(percent) for percent in _TICKS], [f"{percent:g} %" for percent in _TICKS])
        axes.set_title(title, fontsize=9)
        axes.grid(alpha=0.3, which="both")
        axes.spines[["top", "right"]].set_visible(False)

    return draw


def _legend(picture: Figure) -> None:
    """One for all panels, below them."""
    shown: dict[str, Artist] = {}
    for axes in picture.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    order = sorted(shown, key=lambda name: list(_COLOURS).index(name) if name in _COLOURS else len(_COLOURS))
    picture.legend([shown[name] for name in order], order, loc="outside lower center", ncols=4, frameon=False)


def _nines(percent: float) -> float:
    return -math.log10(1 - percent / 100)
