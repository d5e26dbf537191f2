"""What a tunnel costs: bulk and small queries through hyperpool, over plain TCP and over each kind of tunnel.

    python -m benchmarks.tunnel
    python -m benchmarks.tunnel --rounds 5 --only websockify --only 'websockify alone'

Everything runs on this machine, without a round trip added. Each round measures all ways one after the other, in an
order that changes; ratios to plain TCP are taken within a round, then the medians over the rounds are shown. Beside
hyperpool's ways there is ``websockify alone``: a client that speaks WebSocket itself and costs next to nothing, so that
one can see what the gateway is able to do.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import click
from attrs import asdict, define, field, frozen
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import machine, pgbench
from benchmarks.client import Client, Endpoint
from benchmarks.measure import cpu_seconds
from benchmarks.peers import TRUST, Peers, PostgresTools
from benchmarks.pgbench import Load
from benchmarks.processes import BenchError, Workspace, interrupt_on_signals
from benchmarks.ways import Near, Ways, find_program
from benchmarks.webclient import WebSocketClient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_RESULTS: Final = Path(__file__).resolve().parent / "results"
_MEGABYTE: Final = 1e6
_REFERENCE: Final = "TCP"
_GATEWAY: Final = "websockify"
_ALONE: Final = "websockify alone"
_WIDTH: Final = 120
_CLIENTS: Final = 16
_ROW: Final = b"%07d\t" + b"x" * 991 + b"\n"
_ROWS: Final = 100_000
_PIECE_ROWS: Final = 16
_LARGE_ROWS: Final = "select repeat('x', 100000) from generate_series(1, 1000)"

Ratio: TypeAlias = tuple[float, float, float]


@frozen
class Task:
    """Something that is measured.

    Attributes:
        name: for the table.
        unit: of the rate.
        per: what processor time is counted for.
        run: measures it once over a way; the last argument is the seconds, where they are free to choose.
    """

    name: str
    unit: str
    per: str
    run: Callable[[Way, Peers, float], Figures]


@frozen
class Figures:
    """What came of one measurement.

    Attributes:
        rate: megabytes (10^6 bytes) per second, or queries per second.
        cpu_us: processor time of the pooler per megabyte or query, in microseconds; None where there is no pooler.
    """

    rate: float
    cpu_us: float | None


@define(eq=False)
class Way:
    """A way to the database.

    Attributes:
        name: for the table.
        port: where clients connect to.
        near: the pooler; None if there is none.
    """

    name: str
    port: int
    near: Near | None

    @property
    def endpoint(self) -> Endpoint:
        """Where and as whom to log in."""
        return Endpoint(self.port)

    def client(self) -> Client:
        """A client, logged in."""
        return Client(self.endpoint) if self.near else WebSocketClient(self.endpoint)

    def cpu_seconds(self) -> float:
        """Processor time of the pooler so far."""
        return cpu_seconds(self.near.child.pid) if self.near else 0.0

    def figures(self, count: float, seconds: float, used: float) -> Figures:
        """Of so much work."""
        return Figures(count / seconds, used / count * 1e6 if self.near else None)


def _bulk(way: Way, work: Callable[[Client], tuple[int, float]]) -> Figures:
    with way.client() as client:
        client.execute("select 1")
        before = way.cpu_seconds()
        size, seconds = work(client)
        return way.figures(size / _MEGABYTE, seconds, way.cpu_seconds() - before)


def _copy_out(way: Way, _peers: Peers, _seconds: float) -> Figures:
    return _bulk(way, lambda client: client.copy_out("copy carried_out to stdout"))


def _copy_in(way: Way, _peers: Peers, _seconds: float) -> Figures:
    piece = b"".join(_ROW % number for number in range(_PIECE_ROWS))
    count = _ROWS // _PIECE_ROWS
    figures = _bulk(way, lambda client: client.copy_in("copy carried_in from stdin", piece, count))
    with way.client() as client:
        client.execute("truncate carried_in")
    return figures


def _large_rows(way: Way, _peers: Peers, _seconds: float) -> Figures:
    return _bulk(way, lambda client: client.drain(_LARGE_ROWS, b"SELECT "))


def _queries(way: Way, peers: Peers, seconds: float) -> Figures:
    load = Load("select.sql", _CLIENTS)
    before = way.cpu_seconds()
    outcome = pgbench.run(peers.workspace, peers.tools.pgbench, load, way.endpoint, seconds=seconds)
    return way.figures(outcome.transactions, outcome.transactions / outcome.tps, way.cpu_seconds() - before)


TASKS: Final = (
    Task("COPY out", "MB/s", "per MB", _copy_out),
    Task("COPY in", "MB/s", "per MB", _copy_in),
    Task("rows of 100 kB", "MB/s", "per MB", _large_rows),
    Task(f"queries, {_CLIENTS} clients", "/s", "each", _queries),
)


@frozen
class Cell:
    """One measurement."""

    task: str
    way: str
    round: int
    figures: Figures


@define
class Row:
    """A task over one way, over all rounds.

    Attributes:
        task: which.
        way: which.
        rate: median.
        cpu_us: median.
        ratio: the rate as a multiple of that over plain TCP in the same round: median, lowest, highest.
        to_alone: likewise, of that of a client with websockify alone; None for ways without websockify.
    """

    task: Task
    way: str
    rate: float
    cpu_us: float | None
    ratio: Ratio | None
    to_alone: Ratio | None


@define
class Session:
    """One invocation.

    Attributes:
        rounds: how often everything is measured.
        seconds: of each run of pgbench.
        only: names of ways; empty for all.
        description: machine and versions.
        names: of the ways, in the order of the table.
        cells: what was measured.
    """

    rounds: int
    seconds: float
    only: Sequence[str]
    description: dict[str, object] = field(factory=dict)
    names: list[str] = field(factory=list)
    cells: list[Cell] = field(factory=list)

    def measure(self, console: Console) -> None:
        """Start everything, measure, end everything.

        Raises:
            BenchError: something does not work.
        """
        with Workspace() as workspace:
            console.print("starting PostgreSQL and what leads there ...", style="dim")
            peers = Peers(workspace, PostgresTools.find(workspace), None, 100, {})
            self.description.update(machine.describe(peers), rounds=self.rounds, seconds=self.seconds)
            peers.start_postgres()
            _fill(peers)
            ways = self._ways(peers)
            self.names += [way.name for way in ways]
            for way in ways:
                if way.near:
                    pgbench.warm_up(workspace, peers.tools.pgbench, way.endpoint, clients=_CLIENTS)
            steps = [
                (number, task, way)
                for number in range(self.rounds)
                for index, task in enumerate(TASKS)
                for way in _in_turn(ways, number + index)
                if way.near or task.run is not _queries
            ]
            for number, task, way in track(steps, "measuring", console=console, transient=True):
                self.cells.append(Cell(task.name, way.name, number, task.run(way, peers, self.seconds)))

    def _ways(self, peers: Peers) -> list[Way]:
        """The ways that are wanted, as far as this machine has the programs."""
        ways = Ways(peers, warm=_CLIENTS, auth=TRUST)
        makers: dict[str, tuple[Callable[[], Near], tuple[str, ...]]] = {
            _REFERENCE: (ways.tcp, ()),
            "websockify": (ways.websockify, ("websockify",)),
            "nginx (TLS), websockify": (ways.nginx, ("websockify", "nginx", "openssl")),
            "ingress": (lambda: ways.ingress(tls=False), ()),
            "ingress (TLS)": (lambda: ways.ingress(tls=True), ("openssl",)),
            "agent": (ways.agent, ()),
        }
        found = []
        for name, (make, programs) in makers.items():
            wanted = not self.only or name in (*self.only, _REFERENCE)
            if wanted and all(map(find_program, programs)):
                near = make()
                found.append(Way(name, near.port, near))
        if (not self.only or _ALONE in self.only) and find_program("websockify"):
            found.append(Way(_ALONE, ways.websockify_port(), None))
        return found

    def rows(self) -> list[Row]:
        """What came of it."""
        return [
            self._row(task, way)
            for task in TASKS
            for way in self.names
            if any(cell.task == task.name and cell.way == way for cell in self.cells)
        ]

    def _rates(self, task: Task, way: str) -> dict[int, float]:
        """By round."""
        cells = (cell for cell in self.cells if cell.task == task.name and cell.way == way)
        return {cell.round: cell.figures.rate for cell in cells}

    def _row(self, task: Task, way: str) -> Row:
        rates = self._rates(task, way)
        cells = [cell.figures for cell in self.cells if cell.task == task.name and cell.way == way]
        used = [figures.cpu_us for figures in cells if figures.cpu_us is not None]
        return Row(
            task,
            way,
            statistics.median(rates.values()),
            statistics.median(used) if used else None,
            _ratio(rates, self._rates(task, _REFERENCE)),
            _ratio(rates, self._rates(task, _ALONE)) if _GATEWAY in way else None,
        )


def _ratio(rates: Mapping[int, float], others: Mapping[int, float]) -> Ratio | None:
    found = [rate / others[number] for number, rate in rates.items() if number in others]
    return (statistics.median(found), min(found), max(found)) if found else None


def _in_turn(ways: Sequence[Way], number: int) -> list[Way]:
    """All ways, beginning with another one each time, and backwards every second time."""
    start = number % len(ways)
    turned = [*ways[start:], *ways[:start]]
    return turned[::-1] if number % 2 else turned


def _fill(peers: Peers) -> None:
    with Client(peers.postgres.endpoint) as client:
        client.execute("create unlogged table carried_out (n int, filler text)")
        client.execute("create unlogged table carried_in (n int, filler text)")
        client.execute(
            f"insert into carried_out select n, repeat('x', 991) from generate_series(1, {_ROWS}) n"
        )
        client.execute("vacuum carried_out")


def _table(rows: Sequence[Row]) -> Table:
    table = Table(
        title="What a tunnel costs",
        title_justify="left",
        caption="Medians over the rounds; ratios are within each round; the last ones are to websockify alone.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("task", no_wrap=True)
    table.add_column("way", no_wrap=True)
    for heading in ("rate", "pooler's\nCPU µs", "ratio\nto TCP", "range", "to web-\nsockify", "range"):
        table.add_column(heading, justify="right", no_wrap=True)
    previous = ""
    for row in rows:
        if previous and previous != row.task.name:
            table.add_section()
        cpu = "-" if row.cpu_us is None else f"{row.cpu_us:,.0f} {row.task.per}"
        name = "" if row.task.name == previous else row.task.name
        ratios = (*_shown(row.ratio), *_shown(row.to_alone))
        table.add_row(name, row.way, f"{row.rate:,.0f} {row.task.unit}", cpu, *ratios)
        previous = row.task.name
    return table


def _shown(ratio: Ratio | None) -> tuple[str, str]:
    if ratio is None:
        return "-", ""
    return f"{ratio[0]:.2f}x", "" if ratio[1] == ratio[2] else f"{ratio[1]:.2f}-{ratio[2]:.2f}"


def _draw(path: Path, rows: Sequence[Row]) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - matplotlib is optional

    picture = Figure(figsize=(4.5 * len(TASKS), 3))
    picture.set_layout_engine("constrained")
    for index, (axes, task) in enumerate(zip(picture.subplots(1, len(TASKS)), TASKS, strict=True)):
        shown = [row for row in rows if row.task is task]
        colours = ["#9aa0a6" if row.way in {_REFERENCE, _ALONE} else "#d9822b" for row in shown]
        bars = axes.barh([row.way for row in shown], [row.rate for row in shown], color=colours)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.18)
        axes.set_title(f"{task.name}, {task.unit}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        if index and len({row.way for row in rows}) == len(shown):
            axes.set_yticklabels([])
    picture.savefig(path, dpi=110)


def _write(base: Path, session: Session, rows: Sequence[Row], console: Console) -> None:
    base.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "run": session.description,
        "summary": [
            {
                "task": row.task.name,
                "way": row.way,
                "rate": row.rate,
                "cpu_us": row.cpu_us,
                "ratio": row.ratio,
            }
            for row in rows
        ],
        "cells": [asdict(cell) for cell in session.cells],
    }
    base.with_suffix(".json").write_text(json.dumps(document, indent=1, default=str) + "\n")
    console.print(f"written: {base.with_suffix('.json')}")
    if importlib.util.find_spec("matplotlib"):
        _draw(base.with_suffix(".png"), rows)
        console.print(f"written: {base.with_suffix('.png')}")


@click.command()
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often to measure all."
)
@click.option("--seconds", default=3.0, show_default=True, help="Length of each run of pgbench.")
@click.option("--only", multiple=True, metavar="WAY", help="Only this way, beside plain TCP; repeat.")
@click.option("--output", default=_RESULTS, type=click.Path(path_type=Path), help="Where the files go.")
def main(rounds: int, seconds: float, only: Sequence[str], output: Path) -> None:
    """Measure what tunnels cost: bulk, small queries, and the pooler's processor time."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    interrupt_on_signals()
    session = Session(rounds, seconds, only)
    try:
        session.measure(console)
    except (BenchError, OSError) as error:
        raise click.ClickException(str(error)) from error
    rows = session.rows()
    console.print(_table(rows))
    _write(output / f"tunnel-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}", session, rows, console)


if __name__ == "__main__":
    main()
