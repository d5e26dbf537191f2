"""What the result cache answers is what PostgreSQL would have answered at that moment.

Random clients in random schemas (`tests.support.cacheworld`) do everything twice (`tests.support.cachetwins`). All
writes pass the pooler, so no answer may be older than the last of them, whoever has written.

``HYPERPOOL_CACHE_HOURS`` makes the first tests go on for so many hours together, with new worlds all the time;
``HYPERPOOL_CACHE_SEED`` is where they begin to be drawn.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import os
import time
from random import Random
from typing import TYPE_CHECKING, Final

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.support import rawclient as raw
from tests.support.cachetwins import DifferenceError, Differential, Twin
from tests.support.cacheworld import TEAM
from tests.support.network import free_port
from tests.support.postgres import ANN, BOB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.targets import Config

_HOURS: Final = float(os.environ.get("HYPERPOOL_CACHE_HOURS", "0"))
_SEED: Final = int(os.environ.get("HYPERPOOL_CACHE_SEED", "0"))
_CLIENTS: Final = 8
_STEPS: Final = 1500  # in one world
_WORLDS: Final = 5
_CACHED, _PLAIN = "cache_one", "cache_two"

pytestmark = [pytest.mark.hyperpool_only, pytest.mark.bound(600 + _HOURS * 3700)]


@pytest.fixture
def databases(pg: PostgresCluster) -> Iterator[None]:
    """Two databases that are alike, and a role that both users may take."""
    pg.sql(f"CREATE ROLE {TEAM}")
    pg.sql(f"GRANT {TEAM} TO ann, bob")
    for name in (_CACHED, _PLAIN):
        pg.sql(f"CREATE DATABASE {name}")
        pg.sql(f"GRANT CREATE ON DATABASE {name} TO ann")
        pg.sql(f"ALTER DATABASE {name} SET search_path = w1")
    yield
    for name in (_CACHED, _PLAIN):
        pg.sql(f"DROP DATABASE {name} WITH (FORCE)")
    pg.sql(f"DROP ROLE {TEAM}")


def _config(pg: PostgresCluster, **cache: object) -> Config:
    return {
        "pooler": {
            "listen_addr": "127.0.0.1",
            "listen_port": free_port(),
            "auth_type": "scram-sha-256",
            "pool_mode": "transaction",
            "default_pool_size": 4,
            "admin_users": [ANN.name],
        },
        "databases": {_CACHED: {"host": pg.host, "port": pg.port, "cache": cache}},
        "users": {role.name: {"password": role.password} for role in (ANN, BOB)},
    }


def _connect(port: int, pg: PostgresCluster) -> Callable[[int], Twin]:
    addresses = (("127.0.0.1", port), (pg.host, pg.port))
    return lambda number: Twin(
        addresses, (_CACHED if port != pg.port else _PLAIN, _PLAIN), (ANN, BOB)[number % 2]
    )


def _hits(pooler: Pooler) -> int:
    """How often it has answered from memory."""
    with psycopg.connect(
        **pooler.conninfo("pgbouncer", ANN), autocommit=True, row_factory=dict_row
    ) as console:
        return sum(row["hits"] for row in console.execute("SHOW CACHE"))


@pytest.mark.parametrize("world", range(_WORLDS))
def test_what_is_answered_is_what_postgres_would_answer(
    pg: PostgresCluster, make_pooler: PoolerFactory, databases: None, world: int
) -> None:
    """Never older than the last write that was seen, never another user's, role's, schema's or setting's."""
    faulthandler.cancel_dump_traceback_later()  # On a busy machine, or for hours, it takes longer.
    pooler = make_pooler(_config(pg))
    until = time.monotonic() + _HOURS * 3600 / _WORLDS
    for seed in itertools.count(_SEED + world, _WORLDS):
        with Differential(Random(seed), _connect(pooler.port, pg), _CLIENTS) as one:
            try:
                one.run(_STEPS)
            except DifferenceError as error:
                raise AssertionError(f"in world {seed}: {error}") from None
            one.finish()
        if time.monotonic() >= until:
            break
    assert _hits(pooler) > 100, "the cache has not answered much"


def test_an_answer_that_is_too_old_is_noticed(
    pg: PostgresCluster, make_pooler: PoolerFactory, databases: None
) -> None:
    """What is written behind the pooler's back makes a difference, as long as the answer is in the cache."""
    pooler = make_pooler(_config(pg))
    connect = _connect(pooler.port, pg)

    def differ(twin: Twin) -> None:
        for number in range(100):
            twin.exchange(raw.query("SELECT max(name) FROM w1.a"))
            for database in (_CACHED, _PLAIN):
                pg.sql(f"INSERT INTO w1.a VALUES (-{number + 1}, 'z{number:03}')", dbname=database)

    with Differential(Random(0), connect, 2) as one:
        one.run(200)
        with contextlib.closing(connect(0)) as twin, pytest.raises(DifferenceError):
            differ(twin)
