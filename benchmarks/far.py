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
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import psycopg
import yaml
from attrs import define, field
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.delay import seconds
from benchmarks.peers import ROOT, SCRAM, Peers, PostgresTools
from benchmarks.processes import BenchError, Workspace, clean_environment, free_port, interrupt_on_signals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.client import Endpoint

_RESULTS: Final = Path(__file__).resolve().parent / "results"
_PATIENCE: Final = 30.0
_WARM: Final = 4
_TOKEN: Final = {"id": "bench", "secret": "a-token-of-the-benchmark"}


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


class Ways:
    """Starts what is at both ends of the path.

    Args:
        peers: PostgreSQL runs.
        round_trip: seconds.
    """

    def __init__(self, peers: Peers, round_trip: float) -> None:
        self._peers = peers
        self._workspace = peers.workspace
        self._round_trip = round_trip
        self._postgres = peers.postgres.endpoint.port

    def all(self) -> list[Way]:
        """Every way; without websockify, one less."""
        ways = [
            Way("direct", self._delayed(self._postgres)),
            Way("hyperpool, TCP", self._near([_tcp(self._delayed(self._postgres))])),
        ]
        websockify = shutil.which("websockify")
        if websockify:
            port = free_port()
            self._spawn("websockify", [websockify, _address(port), _address(self._postgres)])
            ways.append(Way("hyperpool, websockify", self._near(_websocket(self._delayed(port)))))
        ways.append(Way("hyperpool, ingress", self._near(_websocket(self._delayed(self._ingress())))))
        ways.append(Way("hyperpool, agent", self._agent()))
        return ways

    def _spawn(self, name: str, command: Sequence[str | Path]) -> None:
        self._workspace.spawn(name, command, environment=clean_environment(PYTHONPATH=str(ROOT)))

    def _delayed(self, target: int) -> int:
        """The port that leads to another one, later."""
        port = free_port()
        words = ["--round-trip", f"{self._round_trip * 1e3:g}ms", _address(port), _address(target)]
        self._spawn("delay", [sys.executable, "-m", "benchmarks.delay", *words])
        return port

    def _ingress(self) -> int:
        port = free_port()
        listens = {"listen_addr": "127.0.0.1", "listen_port": port, "tokens": {"bench": _TOKEN}}
        self._tunnel({"ingress": listens})
        return port

    def _agent(self) -> int:
        """A pooler that an agent connects to, over the path."""
        port = free_port()
        way = _websocket(self._delayed(port))
        self._tunnel({"poolers": {"near": {"transport": way, "ready": _WARM, "retry_max": 1}}})
        agents = {"listen_addr": "127.0.0.1", "listen_port": port, "tokens": {"site": _TOKEN}}
        return self._near([{"agent": {"name": "site"}}], agents=agents)

    def _tunnel(self, settings: Mapping[str, object]) -> None:
        file = self._workspace.directory / f"tunnel-{free_port()}.yaml"
        targets = {"bench": {"host": "127.0.0.1", "port": self._postgres}}
        file.write_text(yaml.safe_dump({"targets": targets, **settings}))
        self._spawn("tunnel", [sys.executable, "-m", "hyperpool", "tunnel", file])

    def _near(self, transport: Sequence[Mapping[str, Any]], **sections: object) -> int:
        """A pooler with warm server connections; the port where it listens."""
        port = free_port()
        pooler = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "auth_type": SCRAM,
            "auth_file": str(self._peers.auth_file),
            "pool_mode": "transaction",
            "min_pool_size": _WARM,
            "server_login_retry": "200ms",
        }
        database = {"dbname": "bench", "user": "bench", "sslmode": "disable", "transport": list(transport)}
        file = self._workspace.directory / f"near-{port}.yaml"
        file.write_text(yaml.safe_dump({"pooler": pooler, "databases": {"bench": database}, **sections}))
        self._spawn("hyperpool", [sys.executable, "-m", "hyperpool", "serve", file])
        return port


def _address(port: int) -> str:
    return f"127.0.0.1:{port}"


def _tcp(port: int) -> dict[str, Any]:
    return {"tcp": {"host": "127.0.0.1", "port": port}}


def _websocket(port: int) -> list[dict[str, Any]]:
    return [_tcp(port), {"websocket": {"token_id": _TOKEN["id"], "token_secret": _TOKEN["secret"]}}]


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
        title=f"A database that is {round_trip * 1e3:g} ms away: what a new client waits for, medians"
    )
    table.add_column("way")
    for heading in ("connect and first query, ms", "round trips", "next query, ms"):
        table.add_column(heading, justify="right")
    for way in ways:
        trips = f"{way.first_ms / 1e3 / round_trip:.1f}" if round_trip else ""
        table.add_row(way.name, f"{way.first_ms:.1f}", trips, f"{way.again_ms:.1f}")
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
        ways = Ways(peers, round_trip).all()
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
