"""What the result cache is worth: repeated reads, near and far, and a stampede.

    python -m benchmarks.cache
    python -m benchmarks.cache --rounds 5 --seconds 6 --clients 16,100

Three measurements on one PostgreSQL, side by side:

- pgbench reads one row by its primary key, of a thousand that everybody asks for: directly, through pgbouncer, through
  pgpool-II with its memory cache in shared memory (where it is installed), and through hyperpool without and with its
  result cache. The same load comes before, so that all is in memory that can be; what part of the queries hyperpool has
  answered from there is told beside what it has taken, the lowest of all rounds.
- A round trip is added to the path: how long a client waits that asks again, directly and at a hyperpool near to it.
- A thousand clients ask the same thing at the same moment, which nobody has asked before, and which takes PostgreSQL
  a while: how often does it answer?
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from attrs import define, evolve, field
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import machine
from benchmarks.client import Client, Endpoint
from benchmarks.peers import CACHING, POOL_SIZE, TRUST, Peers, PostgresTools, Server, pgbouncer_command
from benchmarks.pgbench import Load, warm_up
from benchmarks.processes import (
    BenchError,
    Workspace,
    free_port,
    interrupt_on_signals,
    raise_open_files_limit,
)
from benchmarks.scenarios import Result, Transactions
from benchmarks.ways import Ways, find_program
from hyperpool.admin.caching import CACHE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.processes import Child

_RESULTS: Final = Path(__file__).resolve().parent / "results"
_WIDTH: Final = 120
_PGPOOL: Final = "pgpool-II, cache"
_REFERENCE: Final = "pgbouncer"
_TOLD: Final = 11.0
"""Seconds after which an idle backend has told what it has counted (PGSTAT_IDLE_INTERVAL of PostgreSQL's ``pgstat.c``,
and one more)."""

_WARM: Final = 3
"""Seconds of the same load that come before what is measured."""

_ROUND_TRIP: Final = 0.04
_ASKED: Final = 200
"""Queries of the client that is far away."""

_TABLE: Final = """
create table bench_hot as select aid, abalance from pgbench_accounts where aid <= 100000;
alter table bench_hot add primary key (aid)
"""
"""The tables of pgbench are unlogged: neither cache takes those, as a crash would empty them."""

_HOT: Final = "select abalance from bench_hot where aid = 1"
_COLD: Final = "select count(*) from bench_hot where abs(aid) % 7 = 3"
"""It reads a hundred thousand rows."""

_SCANS: Final = "select seq_scan from pg_stat_user_tables where relname = 'bench_hot'"


@define
class Target:
    """Something that answers, and what was measured of it.

    Attributes:
        name: for the table.
        results: by mode and number of clients, one for each round.
        shares: by the same, what part of the queries was answered from memory; for hyperpool with its cache alone.
    """

    name: str
    results: dict[tuple[str, int], list[Result]] = field(factory=dict)
    shares: dict[tuple[str, int], list[float]] = field(factory=dict)

    def median(self, load: tuple[str, int], value: Callable[[Result], float | None]) -> float | None:
        """The median of a figure over the rounds."""
        known = [found for result in self.results.get(load, ()) if (found := value(result)) is not None]
        return statistics.median(known) if known else None


@define
class Findings:
    """All that was measured.

    Attributes:
        description: the machine and the versions.
        targets: what answered pgbench.
        direct_ms: median time of a query over the long path; far_ms is that of an answer from the cache there.
        stampede: by target, how many clients asked at once, how often the table was read, and the seconds until all had
            their answer.
    """

    description: dict[str, object] = field(factory=dict)
    targets: list[Target] = field(factory=list)
    direct_ms: float = 0.0
    far_ms: float = 0.0
    far_p99_ms: float = 0.0
    stampede: dict[str, tuple[int, int, float]] = field(factory=dict)


def _start_pgpool(peers: Peers) -> Server:
    """Start pgpool-II with its memory cache (its documentation, "In Memory Query Cache")."""
    port = free_port()
    directory = peers.workspace.owned_directory(f"pgpool-{port}")
    (directory / "oids").mkdir()
    if peers.workspace.user is not None:
        peers.workspace.run("chown", ["chown", "-R", peers.workspace.user, directory], timeout=10)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "pcp_port": free_port(),
        "pcp_socket_dir": directory,
        "backend_hostname0": peers.postgres.endpoint.host,
        "backend_port0": peers.postgres.endpoint.port,
        "backend_clustering_mode": "streaming_replication",
        "sr_check_period": 0,
        "enable_pool_hba": "off",
        "num_init_children": max(110, POOL_SIZE),
        "max_pool": 1,
        "memory_cache_enabled": "on",
        "memqcache_method": "shmem",
        "memqcache_oiddir": directory / "oids",
        "log_destination": "stderr",
        "pid_file_name": directory / "pid",
        "logdir": directory,
        "work_dir": directory,
    }
    file = directory / "pgpool.conf"
    file.write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
    command: list[str | Path] = [find_program("pgpool") or "", "-n", "-f", file]
    child: Child = peers.workspace.spawn("pgpool", command, as_service_user=True)
    server = Server(child, Endpoint(port))
    deadline = time.monotonic() + 30
    while True:
        try:
            Client(server.endpoint).close()
        except (OSError, BenchError) as error:
            # It refuses connections, and breaks some, until all its processes run.
            if not child.alive or time.monotonic() > deadline:
                raise BenchError(f"pgpool does not answer: {error}\n{child.log_tail()}") from error
            time.sleep(0.1)
        else:
            return server


def _servers(peers: Peers) -> dict[str, Server]:
    servers = {"direct": peers.start("direct", TRUST)}
    if peers.pgbouncer is not None:
        servers[_REFERENCE] = peers.start(_REFERENCE, TRUST)
    if find_program("pgpool"):
        servers[_PGPOOL] = _start_pgpool(peers)
    servers["hyperpool"] = peers.start("hyperpool", TRUST)
    servers[CACHING] = peers.start(CACHING, TRUST)
    return servers


def _repeated(
    peers: Peers, loads: Sequence[tuple[str, int]], rounds: int, pace: int, console: Console
) -> list[Target]:
    """Run pgbench against each target in each round, in an order that changes."""
    servers = _servers(peers)
    targets = {name: Target(name) for name in servers}
    for name, server in servers.items():
        if name != "direct":
            warm_up(peers.workspace, peers.tools.pgbench, server.endpoint)
    steps = [(number, load) for number in range(rounds) for load in loads]
    for number, (mode, clients) in track(steps, "repeated reads", console=console, transient=True):
        names = list(servers)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            scenario = Transactions("hot", Load("hot.sql", clients, mode))
            # What is asked for again and again is in the caches before anything is measured, and young enough.
            scenario.measure(peers, servers[name], _WARM)
            before = _asked_and_hit(servers[name]) if name == CACHING else (0, 0)
            result = scenario.measure(peers, servers[name], pace)
            targets[name].results.setdefault((mode, clients), []).append(result)
            if name == CACHING:
                asked, hit = (
                    now - then for now, then in zip(_asked_and_hit(servers[name]), before, strict=True)
                )
                targets[name].shares.setdefault((mode, clients), []).append(hit / max(asked, 1))
    for name, server in servers.items():
        if name != "direct":
            peers.workspace.stop(server.child)
    return list(targets.values())


def _asked_and_hit(server: Server) -> tuple[int, int]:
    """How many queries the cache has been asked for so far, and how many of them it has answered from memory."""
    with Client(evolve(server.endpoint, database="pgbouncer")) as client:
        row = dict(zip((column.name for column in CACHE), client.row("SHOW CACHE"), strict=True))
    hit = int(row["hits"]) + int(row["stale_hits"])
    return hit + int(row["misses"]), hit


def _times(endpoint: Endpoint) -> list[float]:
    """Milliseconds that a client waits for each of many answers to one query, sorted, without the first."""
    found = []
    with Client(endpoint) as client:
        client.execute(_HOT)
        for _ in range(_ASKED):
            began = time.perf_counter()
            client.execute(_HOT)
            found.append((time.perf_counter() - began) * 1e3)
    return sorted(found)


def _far(peers: Peers, findings: Findings) -> None:
    """A database that is far away, and a pooler near the client."""
    ways = Ways(peers, _ROUND_TRIP, auth=TRUST)
    findings.direct_ms = statistics.median(_times(Endpoint(ways.direct())))
    near = ways.tcp(cache=True)
    endpoint = Endpoint(near.port)
    deadline = time.monotonic() + 20
    # The first answers come from PostgreSQL, until the pooler knows what the catalog says.
    while statistics.median(_times(endpoint)[:5]) > _ROUND_TRIP * 1e3 / 2:
        if time.monotonic() > deadline:
            raise BenchError(f"nothing is answered from the cache\n{near.child.log_tail()}")
    times = _times(endpoint)
    findings.far_ms, findings.far_p99_ms = statistics.median(times), times[int(len(times) * 0.99)]


def _scans(peers: Peers) -> int:
    """How often the table has been read."""
    with Client(peers.postgres.endpoint) as client:
        client.execute("select pg_stat_force_next_flush()")
        return int(client.value(_SCANS))


def _stampede(peers: Peers, target: str, clients: int) -> tuple[int, int, float]:
    """Many clients ask the same at once; returns how many, the reads of the table, and the seconds that took."""
    server = peers.start(target, TRUST)
    endpoint = server.endpoint
    try:
        with contextlib.ExitStack() as stack:
            if target == CACHING:
                _until_cached(endpoint)
            asking = [stack.enter_context(Client(endpoint)) for _ in range(clients)]
            before = _settled_scans(peers)
            began = time.perf_counter()
            for client in asking:
                client.ask(_COLD)
            for client in asking:
                client.answered(timeout=120)
            taken = time.perf_counter() - began
            return clients, _settled_scans(peers) - before, taken
    finally:
        peers.workspace.stop(server.child)


def _until_cached(endpoint: Endpoint) -> None:
    """Wait until the pooler knows what the catalog says: then a query that is asked again is fast."""
    deadline = time.monotonic() + 20
    slow = _COLD.replace("= 3", "= 4")
    with Client(endpoint) as client:
        while True:
            began = time.perf_counter()
            client.execute(slow)
            if time.perf_counter() - began < 0.005:
                return
            if time.monotonic() > deadline:
                raise BenchError("nothing is answered from the cache")


def _settled_scans(peers: Peers) -> int:
    """The number of reads once all backends have told theirs."""
    found = _scans(peers)
    since = time.monotonic()
    while time.monotonic() - since < _TOLD:
        time.sleep(0.25)
        now = _scans(peers)
        if now != found:
            found, since = now, time.monotonic()
    return found


def measure(
    loads: Sequence[tuple[str, int]],
    rounds: int,
    pace: int,
    clients: int,
    pgbouncer: str | None,
    console: Console,
) -> Findings:
    """Start everything, measure everything, end everything.

    Raises:
        BenchError: something does not work.
    """
    findings = Findings()
    with Workspace() as workspace:
        console.print("starting PostgreSQL and filling its tables ...", style="dim")
        most = max(100, *(number for _, number in loads))
        peers = Peers(workspace, PostgresTools.find(workspace), pgbouncer_command(pgbouncer), most, {})
        findings.description = machine.describe(peers)
        peers.start_postgres()
        with Client(peers.postgres.endpoint) as client:
            client.execute("alter database bench set max_parallel_workers_per_gather = 0")
            client.execute(_TABLE)
        findings.targets = _repeated(peers, loads, rounds, pace, console)
        with console.status("a database that is far away"):
            _far(peers, findings)
        for target in ("hyperpool", CACHING):
            with console.status(f"stampede, {target}"):
                findings.stampede[target] = _stampede(peers, target, clients)
    return findings


# -- the report --------------------------------------------------------------------------------------------------------


def _times_of(value: float | None, other: float | None) -> str:
    return f"{value / other:.2f}" if value and other else ""


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _table(findings: Findings, load: tuple[str, int]) -> Table:
    by_name = {target.name: target for target in findings.targets}
    table = Table(
        title=f"A thousand hot rows, {load[0]} protocol, {load[1]} clients: medians",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("target")
    headings = (
        "queries/s",
        f"x {_REFERENCE}",
        "x pgpool-II",
        "median ms",
        "p99 ms",
        "CPU us/query",
        f"x {_REFERENCE}",
        "from memory",
    )
    for heading in headings:
        table.add_column(heading, justify="right")

    def figure(name: str, value: Callable[[Result], float | None]) -> float | None:
        return by_name[name].median(load, value) if name in by_name else None

    for name, target in by_name.items():
        rate, cpu = figure(name, lambda result: result.rate), figure(name, lambda result: result.cpu_us)
        table.add_row(
            name,
            _shown(rate, ",.0f"),
            _times_of(rate, figure(_REFERENCE, lambda result: result.rate)),
            _times_of(rate, figure(_PGPOOL, lambda result: result.rate)),
            _shown(figure(name, lambda result: result.latency_ms), ".3f"),
            _shown(figure(name, lambda result: result.p99_ms), ".3f"),
            _shown(cpu, ".1f"),
            _times_of(cpu, figure(_REFERENCE, lambda result: result.cpu_us)),
            _shown(_lowest(target.shares.get(load)), ".1%"),
        )
    return table


def _lowest(shares: Sequence[float] | None) -> float | None:
    return min(shares) if shares else None


def _print(findings: Findings, console: Console) -> None:
    for name, value in findings.description.items():
        console.print(f"  {name}: {value}", style="dim", highlight=False)
    for load in dict.fromkeys(load for target in findings.targets for load in target.results):
        console.print(_table(findings, load))
    console.print(
        f"A database that is {_ROUND_TRIP * 1e3:g} ms away: {findings.direct_ms:.1f} ms directly, "
        f"{findings.far_ms:.2f} ms from a cache near the client (99 %: {findings.far_p99_ms:.2f} ms)"
    )
    for target, (clients, scans, taken) in findings.stampede.items():
        console.print(
            f"{clients:,} clients ask one thing at once, {target}: PostgreSQL answers {scans:,} times, "
            f"all have their answer after {taken:.2f} s"
        )


def _document(findings: Findings) -> dict[str, object]:
    return {
        "machine": {name: str(value) for name, value in findings.description.items()},
        "repeated": [
            {
                "target": target.name,
                "mode": mode,
                "clients": clients,
                "from_memory": target.shares.get((mode, clients), []),
                "rounds": [
                    {
                        "rate": one.rate,
                        "latency_ms": one.latency_ms,
                        "p99_ms": one.p99_ms,
                        "cpu_us": one.cpu_us,
                    }
                    for one in results
                ],
            }
            for target in findings.targets
            for (mode, clients), results in target.results.items()
        ],
        "far": {
            "direct_ms": findings.direct_ms,
            "cache_ms": findings.far_ms,
            "cache_p99_ms": findings.far_p99_ms,
        },
        "stampede": {
            target: {"clients": clients, "answers": scans, "seconds": taken}
            for target, (clients, scans, taken) in findings.stampede.items()
        },
    }


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str) -> list[int]:
    words = value.replace(",", " ").split()
    if not words or not all(word.isdigit() and 0 < int(word) <= 100 for word in words):
        raise click.BadParameter("numbers from 1 to 100 are needed")
    return [int(word) for word in words]


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Runs of each kind.")
@click.option(
    "--seconds", "pace", default=4, show_default=True, type=click.IntRange(1), help="Length of each run."
)
@click.option(
    "--clients", default="16,100", show_default=True, callback=_numbers, help="Clients of pgbench at once."
)
@click.option("--modes", default="simple,prepared", show_default=True, help="pgbench's query modes.")
@click.option(
    "--stampede", default=1000, show_default=True, type=click.IntRange(1), help="Clients that ask at once."
)
@click.option("--pgbouncer", metavar="COMMAND", help="How to start pgbouncer; the ini file is appended.")
@click.option("--output", default=_RESULTS, type=click.Path(path_type=Path), help="Where the figures go.")
def main(
    rounds: int,
    pace: int,
    clients: Sequence[int],
    modes: str,
    stampede: int,
    pgbouncer: str | None,
    output: Path,
) -> None:
    """Measure what the result cache is worth."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    interrupt_on_signals()
    if raise_open_files_limit() < 2 * stampede + 200:
        raise click.UsageError("the hard limit on open files is too low for so many clients")
    loads = [(mode, number) for mode in modes.replace(",", " ").split() for number in clients]
    try:
        findings = measure(loads, rounds, pace, stampede, pgbouncer, console)
    except (BenchError, OSError) as error:
        raise click.ClickException(str(error)) from error
    _print(findings, console)
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"cache-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(_document(findings), indent=1) + "\n")
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
