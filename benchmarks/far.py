"""What a client waits for when its database is far away: connecting, and the first query.

    python -m benchmarks.far
    python -m benchmarks.far --round-trip 100ms --rounds 30

A proxy (`benchmarks.delay`) adds a round trip time to the path between this side and PostgreSQL's. A client of libpq
logs in with SCRAM and runs one query: directly through that path, and at hyperpool, which is near the client and has
its server connections open already, through the same path: as plain TCP, and through tunnels. Prints the medians and
draws them.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import psycopg
from attrs import define, field
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.delay import seconds
from benchmarks.peers import SCRAM, Peers, PostgresTools
from benchmarks.processes import BenchError, Workspace, interrupt_on_signals
from benchmarks.ways import Ways, find_program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.client import Endpoint

_RESULTS: Final = Path(__file__).resolve().parent / "results"
_PATIENCE: Final = 30.0
_WIDTH: Final = 120
_CAPTION: Final = """\
The round trips of a direct client: TCP, SSLRequest, StartupMessage, two of SCRAM, the query.
Those through hyperpool: the query. All others were made before, when the pool was filled."""


@define
class Way:
    """A way from the client to the database, and what was measured on it.

    Attributes:
        name: for the table.
        port: where the client connects to.
        first: seconds for connecting and the first query, one for each round.
        again: seconds for a query on a connection that is open, one for each round.
    """

    name: str
    port: int
    first: list[float] = field(factory=list)
    again: list[float] = field(factory=list)

    @property
    def first_ms(self) -> float:
        """The median for connecting and the first query."""
        return statistics.median(self.first) * 1e3

    @property
    def again_ms(self) -> float:
        """The median for a query on an open connection."""
        return statistics.median(self.again) * 1e3


def _ways(peers: Peers, round_trip: float) -> list[Way]:
    """Every way; what this machine lacks a program for is left out."""
    ways = Ways(peers, round_trip)
    found = [Way("direct", ways.direct()), Way("hyperpool, TCP", ways.tcp().port)]
    if find_program("websockify"):
        found.append(Way("hyperpool, websockify", ways.websockify().port))
        if find_program("nginx") and find_program("openssl"):
            found.append(Way("hyperpool, nginx (TLS), websockify", ways.nginx().port))
    found.append(Way("hyperpool, ingress", ways.ingress(tls=False).port))
    if find_program("openssl"):
        found.append(Way("hyperpool, ingress (TLS)", ways.ingress(tls=True).port))
    found.append(Way("hyperpool, agent", ways.agent().port))
    return found


def _once(way: Way, user: Endpoint) -> tuple[float, float]:
    """Be a new client: connect and ask, and ask again. Returns the seconds that each took."""
    began = time.perf_counter()
    with psycopg.connect(
        host="127.0.0.1",
        port=way.port,
        user=user.user,
        password=user.password,
        dbname=user.database,
        autocommit=True,
        gssencmode="disable",
        connect_timeout=10,
    ) as connection:
        connection.execute("select 1").fetchone()
        asked = time.perf_counter()
        connection.execute("select 1").fetchone()
        return asked - began, time.perf_counter() - asked


def _wait_until_served(way: Way, user: Endpoint) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            _once(way, user)
        except (psycopg.Error, OSError) as error:
            if time.monotonic() > deadline:
                raise BenchError(f"{way.name}: {error}") from error
            time.sleep(0.1)
        else:
            return


def _table(ways: Sequence[Way], round_trip: float) -> Table:
    table = Table(
        title=f"A database that is {round_trip * 1e3:g} ms away: what a new client waits for, medians",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("way")
    for heading in ("connect and first query, ms", "round trips", "beyond one, ms", "next query, ms"):
        table.add_column(heading, justify="right")
    for way in ways:
        trips = f"{way.first_ms / 1e3 / round_trip:.1f}" if round_trip else ""
        beyond = f"{way.first_ms - round_trip * 1e3:.1f}"
        table.add_row(way.name, f"{way.first_ms:.1f}", trips, beyond, f"{way.again_ms:.1f}")
    table.caption = _CAPTION
    table.caption_justify = "left"
    return table


def _draw(path: Path, ways: Sequence[Way], round_trip: float) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - matplotlib is optional

    picture = Figure(figsize=(8, 0.5 * len(ways) + 1.2))
    picture.set_layout_engine("constrained")
    axes = picture.add_subplot()
    names = [way.name for way in ways]
    colours = ["#9aa0a6" if way.name == "direct" else "#d9822b" for way in ways]
    bars = axes.barh(names, [way.first_ms for way in ways], color=colours)
    axes.bar_label(bars, fmt="%.0f ms", padding=3)
    axes.axvline(round_trip * 1e3, color="black", linewidth=0.8, linestyle=":")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(
        f"ms for connecting and the first query; dotted: one round trip of {round_trip * 1e3:g} ms"
    )
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=110)


def measure(round_trip: float, rounds: int, console: Console) -> list[Way]:
    """Start everything, measure each way in each round, end everything.

    Raises:
        BenchError: something does not work.
    """
    with Workspace() as workspace:
        console.print("starting PostgreSQL and what leads there ...", style="dim")
        peers = Peers(workspace, PostgresTools.find(workspace), None, 100, {})
        peers.start_postgres()
        user = peers.start("direct", SCRAM).endpoint
        ways = _ways(peers, round_trip)
        for way in ways:
            _wait_until_served(way, user)
        for _ in track(range(rounds), "measuring", console=console, transient=True):
            for way in ways:
                first, again = _once(way, user)
                way.first.append(first)
                way.again.append(again)
        return ways


@click.command()
@click.option("--round-trip", default="40ms", callback=seconds, help="The time to add, as in 40ms.")
@click.option("--rounds", default=15, show_default=True, help="New clients for each way.")
@click.option("--output", default=_RESULTS, type=click.Path(path_type=Path), help="Where the picture goes.")
def main(round_trip: float, rounds: int, output: Path) -> None:
    """Measure what a new client waits for when its database is far away."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    interrupt_on_signals()
    try:
        ways = measure(round_trip, rounds, console)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    console.print(_table(ways, round_trip))
    if importlib.util.find_spec("matplotlib"):
        output.mkdir(parents=True, exist_ok=True)
        path = output / f"far-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}.png"
        _draw(path, ways, round_trip)
        console.print(f"written: {path}")


if __name__ == "__main__":
    main()
