"""Tables of several processes made into one: who is who, and what is summed up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hyperpool.admin import caching, inventory, latencies, sockets
from hyperpool.admin.merging import PLANS, concatenated, merged
from hyperpool.admin.tables import columns
from hyperpool.admin.views import Register
from hyperpool.stats import Histogram
from tests.support.desk import Desk
from tests.support.fronthouse import open_houses

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A process with what there is to see."""
    with open_houses() as make:
        yield Desk(make(), tmp_path / "pooler.yaml")


_SHAPE = columns("name many:int4 longest:int4 rest")

_SAME = {"peers", "dns_zones", "config", "state", "version", "tunnels"}
"""What every process says alike: the settings, and what there is nothing of with several workers."""


def test_rows_with_the_same_key_become_one() -> None:
    """Sums, largest values, and the first one of all else."""
    tables = [[("a", 1, 5, "x"), ("b", 2, 0, "y")], [], [("a", 10, 3, "z"), ("c", 7, 7, "w")]]
    assert merged(_SHAPE, tables, keys="name", sums="many", most="longest") == [
        ("a", 11, 5, "x"),
        ("b", 2, 0, "y"),
        ("c", 7, 7, "w"),
    ]
    assert concatenated(tables) == [row for table in tables for row in table]


def test_every_view_has_a_plan_or_is_the_same_everywhere() -> None:
    """A view that is added must say how it is put together."""
    assert set(PLANS) | _SAME == set(Register()._views)
    assert not set(PLANS) & _SAME


def _shown(desk: Desk, name: str, *parts: list[list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    return list(PLANS[name].merge(desk.consoles.around, parts))


def test_pools(desk: Desk) -> None:
    """Numbers of clients and servers are summed up; the wait is the longest one."""
    names = [column.name for column in inventory.POOLS]

    def row(**found: object) -> tuple[Any, ...]:
        return tuple(found.get(name, 0) for name in names)

    one = row(database="app", user="ann", cl_active=1, maxwait=0, maxwait_us=9, pool_mode="session")
    two = row(database="app", user="ann", cl_active=2, maxwait=3, maxwait_us=1, pool_mode="session")
    (pool,) = _shown(desk, "pools", [[one], [two]])
    found = dict(zip(names, pool, strict=True))
    assert (found["cl_active"], found["maxwait"], found["maxwait_us"]) == (3, 3, 1)
    assert found["pool_mode"] == "session"


def test_latencies(desk: Desk) -> None:
    """Quantiles are those of all times together."""
    slow, fast = Histogram(), Histogram()
    for _ in range(90):
        fast.observe(0.001)
    for _ in range(10):
        slow.observe(1.0)
    tables = [[("app", "ann", "query", *times.packed())] for times in (fast, slow)]
    ((_, _, _, *numbers),) = _shown(desk, "latencies", tables)
    names = [column.name for column in latencies.LATENCIES][3:]
    found = dict(zip(names, numbers, strict=True))
    assert found["count"] == 100
    assert 90_000 < found["avg_time"] < 110_000
    assert found["p50_time"] < 3_000
    assert found["p99_time"] > 400_000


def test_busy_shows_those_that_have_been_at_it_for_longest(desk: Desk) -> None:
    """Of all processes, and not more than one shows."""
    at = [column.name for column in sockets.BUSY].index("time")

    def rows(start: int) -> list[tuple[Any, ...]]:
        return [
            tuple(start + 2 * i if place == at else None for place in range(len(sockets.BUSY)))
            for i in range(40)
        ]

    found = [row[at] for row in _shown(desk, "busy", [rows(0), rows(1)])]
    assert found == sorted(range(80), reverse=True)[: sockets.BUSIEST]


def test_cache_counts_by_source(desk: Desk) -> None:
    """A database has one row, though each process knows its own names of it."""
    names = [column.name for column in caching.CACHE]

    def row(database: str, hits: int, invalidations: str) -> tuple[Any, ...]:
        known: dict[str, Any] = {
            "database": database,
            "hits": hits,
            "invalidations": invalidations,
            "catalog": "",
        }
        return tuple(known.get(name, 0) for name in names)

    tables = [[row("app, plain", 1, "writes=2, workers=1")], [row("app", 2, "writes=3")]]
    (found,) = [dict(zip(names, one, strict=True)) for one in _shown(desk, "cache", tables)]
    assert found["database"] == "app, plain"
    assert found["hits"] == 3
    assert found["invalidations"] == "workers=1, writes=5"


def test_lists_count_names_once(desk: Desk) -> None:
    """What has a name is one thing, wherever it is."""
    own = [[("databases", 2), ("users", 1), ("used_clients", 3)], [("databases", 2), ("used_clients", 4)]]
    databases = [[_row(inventory.DATABASES, name=name) for name in ("app", "pgbouncer")]] * 2
    users = [[_row(inventory.USERS, name="ann")]] * 2
    pools = [[_row(inventory.POOLS, database="app", user="ann")]] * 2
    found = dict(_shown(desk, "lists", own, databases, users, pools, [[], []], [[], []]))
    assert (found["databases"], found["users"], found["pools"]) == (2, 1, 1)
    assert found["used_clients"] == 7


def _row(shape: Any, **known: object) -> tuple[Any, ...]:
    return tuple(known.get(column.name, 0) for column in shape)
