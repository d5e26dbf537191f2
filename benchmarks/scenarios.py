"""What is measured: one object per scenario, each knows how to measure one target once.

A new scenario is one entry in `catalogue`; a new kind of measurement is one class with the attributes and
methods of `Scenario`.
"""

from __future__ import annotations

import contextlib
import time
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

from benchmarks import pgbench
from benchmarks.client import Client
from benchmarks.measure import MemoryTrace, cpu_seconds, settled_resident_bytes
from benchmarks.peers import SCRAM, TRUST
from benchmarks.pgbench import Load
from benchmarks.processes import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.peers import Peers, Server

_MEGABYTE = 1e6


@frozen
class Result:
    """The figures of one measurement of one target.

    Attributes:
        rate: transactions per second; megabytes (10^6 bytes) per second for the bulk COPY; logins per second
            for idle clients.
        latency_ms: the median time of a transaction.
        p99_ms: the time that 99 % of the transactions stayed below.
        cpu_us: CPU time of the pooler in microseconds, user and system, per query; per megabyte for the bulk
            COPY; per login for idle clients. None for PostgreSQL itself.
        memory: resident bytes of the pooler over time, as (seconds, bytes).
        bytes_per_client: resident bytes of the pooler per idle client.
        count: transactions, bytes or clients that the figures are made of.
    """

    rate: float
    count: int
    latency_ms: float | None = None
    p99_ms: float | None = None
    cpu_us: float | None = None
    memory: Sequence[tuple[float, int]] = ()
    bytes_per_client: float | None = None


class Scenario(Protocol):
    """One thing to measure."""

    @property
    def name(self) -> str:
        """How tables and ``--only`` call it."""

    @property
    def auth(self) -> str:
        """How the clients log in."""

    @property
    def fresh(self) -> bool:
        """Whether each measurement needs a pooler that has served nobody before."""

    @property
    def for_direct(self) -> bool:
        """Whether PostgreSQL itself can be measured with it."""

    def prepare(self, peers: Peers) -> None:
        """Bring the database into the state that each measurement starts from."""

    def measure(self, peers: Peers, server: Server, seconds: float) -> Result:
        """Measure one target once.

        Args:
            peers: the tools.
            server: the target.
            seconds: how long to measure, where the time is free to choose.

        Raises:
            BenchError: anything went wrong; the figures would be worth nothing.
            OSError: the same, from a socket.
        """


@frozen
class Transactions:
    """Transactions of pgbench."""

    name: str
    load: Load
    auth: str = TRUST
    fresh: bool = False
    for_direct: bool = True

    def prepare(self, peers: Peers) -> None:
        """Before tpcb: remove what the run before left, so that each one starts from the same tables."""
        if self.load.script == "tpcb.sql":
            with Client(peers.postgres.endpoint) as client:
                client.execute("vacuum pgbench_branches")
                client.execute("vacuum pgbench_tellers")
                client.execute("truncate pgbench_history")

    def measure(self, peers: Peers, server: Server, seconds: float) -> Result:
        """Run pgbench; the pooler's CPU time before and after it holds the logins of the run, too."""
        before = cpu_seconds(server.child.pid) if server.is_pooler else 0.0
        outcome = pgbench.run(
            peers.workspace, peers.tools.pgbench, self.load, server.endpoint, seconds=seconds
        )
        cpu_us = None
        if server.is_pooler:
            spent = cpu_seconds(server.child.pid) - before
            cpu_us = spent / (outcome.transactions * self.load.queries) * 1e6
        return Result(
            rate=outcome.tps,
            count=outcome.transactions,
            latency_ms=outcome.median_ms,
            p99_ms=outcome.p99_ms,
            cpu_us=cpu_us,
        )


@frozen
class BulkCopy:
    """One COPY out of about 300 MB, with the pooler's memory over time."""

    name: str
    table: str
    auth: str = TRUST
    fresh: bool = True
    for_direct: bool = True

    def prepare(self, peers: Peers) -> None:
        """Create the tables, once."""
        with Client(peers.postgres.endpoint) as client:
            try:
                client.execute(f"select from {self.table} limit 1")
            except BenchError:
                client.execute((pgbench.SCRIPTS / "bulk.sql").read_text())
                client.execute("vacuum bulk_wide")
                client.execute("vacuum bulk_narrow")

    def measure(self, peers: Peers, server: Server, seconds: float) -> Result:  # noqa: ARG002 - see Scenario
        """Copy the table to nowhere."""
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(Client(server.endpoint))
            client.execute("select 1")
            before = cpu_seconds(server.child.pid) if server.is_pooler else 0.0
            trace = stack.enter_context(MemoryTrace(server.child.pid)) if server.is_pooler else None
            received, taken = client.copy_out(f"copy {self.table} to stdout")
        megabytes = received / _MEGABYTE
        if trace is None:
            return Result(rate=megabytes / taken, count=received)
        cpu_us = (cpu_seconds(server.child.pid) - before) / megabytes * 1e6
        return Result(rate=megabytes / taken, count=received, cpu_us=cpu_us, memory=trace.points)


@frozen
class IdleClients:
    """Resident memory of a pooler per client that is logged in, has run a query, and now does nothing."""

    name: str
    clients: int
    auth: str = TRUST
    fresh: bool = True
    for_direct: bool = False

    def prepare(self, peers: Peers) -> None:
        """Nothing to do."""

    def measure(self, peers: Peers, server: Server, seconds: float) -> Result:  # noqa: ARG002 - see Scenario
        """Open the connections one after the other and look at the pooler's memory before and after."""
        pgbench.warm_up(peers.workspace, peers.tools.pgbench, server.endpoint)
        pid = server.child.pid
        memory_before, cpu_before = settled_resident_bytes(pid), cpu_seconds(pid)
        with contextlib.ExitStack() as stack:
            started = time.monotonic()
            clients = [stack.enter_context(Client(server.endpoint)) for _ in range(self.clients)]
            taken = time.monotonic() - started
            cpu = cpu_seconds(pid) - cpu_before
            for client in clients:
                client.execute("select 1")
            memory_after = settled_resident_bytes(pid)
        return Result(
            rate=self.clients / taken,
            count=self.clients,
            cpu_us=cpu / self.clients * 1e6,
            memory=[(0.0, memory_before), (taken, memory_after)],
            bytes_per_client=(memory_after - memory_before) / self.clients,
        )


@frozen
class Choice:
    """Which scenarios to make.

    Attributes:
        modes: pgbench's query modes.
        clients: numbers of clients at once.
        idle_clients: number of idle clients.
        only: patterns of names, or their beginnings; empty for all.
    """

    modes: Sequence[str] = ("simple", "extended", "prepared")
    clients: Sequence[int] = (1, 16, 100)
    idle_clients: int = 5000
    only: Sequence[str] = field(default=())


def catalogue(choice: Choice) -> list[Scenario]:
    """The scenarios to run, in the order of the tables."""
    scenarios: list[Scenario] = []
    for script, queries in (("select", 1), ("tpcb", 7)):
        for mode in choice.modes:
            for clients in choice.clients:
                load = Load(f"{script}.sql", clients, mode, queries=queries)
                scenarios.append(Transactions(f"{script}-{mode}-{clients}", load))
    scenarios += [
        Transactions(f"connect-{clients}", Load("connect.sql", clients, reconnect=True))
        for clients in choice.clients
    ]
    scenarios += [
        Transactions("login-16", Load("login.sql", 16, reconnect=True)),
        Transactions("login-scram-16", Load("login.sql", 16, reconnect=True), auth=SCRAM),
        BulkCopy("copy-wide", "bulk_wide"),
        BulkCopy("copy-narrow", "bulk_narrow"),
        IdleClients(f"idle-{choice.idle_clients}", choice.idle_clients),
    ]
    return [scenario for scenario in scenarios if _chosen(scenario.name, choice.only)]


def _chosen(name: str, only: Iterable[str]) -> bool:
    patterns = list(only)
    return not patterns or any(fnmatch(name, p) or name == p or name.startswith(f"{p}-") for p in patterns)
