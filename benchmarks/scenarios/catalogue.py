"""All scenarios, in the order of the tables.

A new one is one entry here; a new kind is one class in a module beside.
"""

from __future__ import annotations

from fnmatch import fnmatch
from typing import TYPE_CHECKING, Final

from benchmarks.pgbench import Load
from benchmarks.scenarios.bulk import BulkRead, Fairness
from benchmarks.scenarios.clients import IdleClients, LoginStorm
from benchmarks.scenarios.far import FarConnect, FarReads
from benchmarks.scenarios.stampede import Stampede
from benchmarks.scenarios.transactions import OpenLoop, Transactions
from benchmarks.scenarios.tunnels import TunnelBulk
from benchmarks.stage import SCRAM, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.scenarios.base import Scenario
    from benchmarks.scenarios.tunnels import Kind

_PROXIES: Final = ("pgbouncer", "hyperpool", "hyperpool-workers")
_MAIN: Final = ("direct", *_PROXIES)
_ALL: Final = ("direct", "pgbouncer", "pgpool", "hyperpool-pure", "hyperpool", "hyperpool-workers")
_CACHES: Final = ("direct", "pgbouncer", "pgpool-cache", "hyperpool", "hyperpool-cache")
_TUNNELS: Final = ("websockify", "nginx", "ingress", "ingress-tls", "agent")

_MODES: Final = ("simple", "extended", "prepared")
_FAR: Final = Variant(round_trip=0.04)
_FAR_SCRAM: Final = Variant(round_trip=0.04, auth=SCRAM)
_CROWD: Final = 2000
_CROWD_SERVERS: Final = 50


def catalogue() -> list[Scenario]:
    """Everything."""
    return [
        *_queries(),
        *_cached(),
        *_latencies(),
        *_logins(),
        *_bulk(),
        IdleClients(name="idle-1000", group="idle", targets=_PROXIES, clients=1000, fresh=True, quick=True),
        IdleClients(
            name="idle-10000", group="idle", targets=_PROXIES, clients=10_000, fresh=True, most_rounds=3
        ),
        *_far(),
        *_tunnels(),
    ]


def chosen(only: Sequence[str], *, quick: bool = False) -> list[Scenario]:
    """Those of some names.

    Args:
        only: names, beginnings of names up to a hyphen, groups, or patterns; empty for all.
        quick: only those of the short run, unless names are given.
    """
    return [
        scenario
        for scenario in catalogue()
        if (any(_fits(scenario, pattern) for pattern in only) if only else scenario.quick or not quick)
    ]


def _fits(scenario: Scenario, pattern: str) -> bool:
    return (
        pattern == scenario.group
        or fnmatch(scenario.name, pattern)
        or scenario.name.startswith(f"{pattern}-")
    )


def _queries() -> Iterator[Scenario]:
    for mode in _MODES:
        for clients in (1, 16, 100, 1000):
            few = _ALL if mode == "simple" else _MAIN
            yield Transactions(
                name=f"select-{mode}-{clients}",
                group="select",
                # A thousand clients are more than PostgreSQL and pgpool-II are set up for.
                targets=_PROXIES if clients > 100 else few,
                quick=(mode, clients) in {("simple", 16), ("prepared", 16), ("simple", 100)},
                load=Load("select.sql", clients, mode),
            )
    yield Transactions(
        name=f"crowd-{_CROWD}",
        group="select",
        targets=_PROXIES,
        variant=Variant(pool_size=_CROWD_SERVERS),
        fresh=True,
        load=Load("select.sql", _CROWD),
    )
    for script, queries in (("tpcb", 7), ("range", 1)):
        for clients in (16, 100):
            yield Transactions(
                name=f"{script}-simple-{clients}",
                group="select",
                targets=_MAIN,
                load=Load(f"{script}.sql", clients, queries=queries),
            )


def _cached() -> Iterator[Scenario]:
    for mode in _MODES:
        for clients in (16, 100):
            yield Transactions(
                name=f"hot-{mode}-{clients}",
                group="hot",
                targets=_CACHES,
                quick=mode == "simple" and clients == 16,
                load=Load("hot.sql", clients, mode),
                warm=1.0,
                table="bench_hot",
            )
    yield Stampede(
        name="stampede-1000",
        group="stampede",
        targets=("pgbouncer", "hyperpool", "hyperpool-cache"),
        fresh=True,
        most_rounds=1,
        clients=1000,
    )


def _latencies() -> Iterator[Scenario]:
    for percent in (25, 50, 75, 90):
        yield OpenLoop(
            name=f"latency-{percent}",
            group="latency",
            targets=("direct", "pgbouncer", "hyperpool-pure", "hyperpool", "hyperpool-workers"),
            quick=percent == 50,
            load=Load("select.sql", 64),
            fraction=percent / 100,
        )
    for name, bulk in (("alone", False), ("beside-bulk", True)):
        yield Fairness(
            name=f"fairness-{name}",
            group="fairness",
            targets=_MAIN,
            load=Load("select.sql", 16),
            fraction=0.1,
            bulk=bulk,
        )


def _logins() -> Iterator[Scenario]:
    for name, variant in (("trust", Variant()), ("scram", Variant(auth=SCRAM))):
        yield Transactions(
            name=f"login-{name}-16",
            group="login",
            targets=_MAIN if variant.auth == SCRAM else _ALL,
            variant=variant,
            quick=True,
            load=Load("login.sql", 16, reconnect=True),
        )
    yield Transactions(
        name="connect-16", group="login", targets=_ALL, load=Load("connect.sql", 16, reconnect=True)
    )
    yield LoginStorm(name="storm-5000", group="storm", targets=_PROXIES, fresh=True, clients=5000)


def _bulk() -> Iterator[Scenario]:
    for name, table, copy in (
        ("copy-wide", "bulk_wide", True),
        ("copy-narrow", "bulk_narrow", True),
        ("rows-wide", "bulk_wide", False),
    ):
        yield BulkRead(
            name=name,
            group="bulk",
            targets=_MAIN,
            fresh=True,
            quick=name == "copy-wide",
            table=table,
            sql=f"copy {table} to stdout" if copy else f"select * from {table}",
            tag=b"COPY " if copy else b"SELECT ",
        )


def _far() -> Iterator[Scenario]:
    yield FarConnect(
        name="far-connect", group="far", targets=("direct", "tcp", *_TUNNELS), variant=_FAR_SCRAM, fresh=True
    )
    yield FarReads(
        name="far-reads",
        group="far-reads",
        targets=("direct", "tcp", "tcp-cache"),
        variant=_FAR,
        fresh=True,
        quick=True,
    )


def _tunnels() -> Iterator[Scenario]:
    ways = ("tcp", "passed-on", *_TUNNELS)
    kinds: dict[Kind, str] = {"out": "copy-out", "in": "copy-in", "rows": "large-rows"}
    for kind, name in kinds.items():
        yield TunnelBulk(
            name=f"tunnel-{name}",
            group="tunnel-bulk",
            targets=(*ways, "gateway"),
            fresh=True,
            most_rounds=3,
            kind=kind,
        )
    yield Transactions(
        name="tunnel-select-16",
        group="tunnel-queries",
        targets=ways,
        fresh=True,
        most_rounds=3,
        load=Load("select.sql", 16),
    )
