"""The result cache of two workers: what is written through one of them is read through both."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import cached
from tests.support import rawclient as raw
from tests.support.postgres import ANN, TRUDY
from tests.support.team import Team, config
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.rawclient import RawClient

pytestmark = pytest.mark.hyperpool_only

_SQL = "SELECT name FROM cached.item WHERE id = 1"


@pytest.fixture(scope="module")
def _pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Iterator[Pooler]:
    with cached.tables(_pg):
        yield make_module_pooler(config(cached.config_for(_pg), auth_type="trust"))


@pytest.fixture
def team(_pooler: Pooler, pg: PostgresCluster, watch: Callable[[Pooler], Pooler]) -> Iterator[Team]:
    """Both workers; what earlier tests have left is dropped."""
    pg.sql("TRUNCATE cached.item CASCADE", dbname=cached.DATABASE)
    pg.sql(
        "INSERT INTO cached.item SELECT i, 'item ' || i FROM generate_series(1, 20) i", dbname=cached.DATABASE
    )
    with Team(watch(_pooler)) as team:
        team.command("PURGE CACHE")
        yield team


def _is_kept(client: RawClient, pg: PostgresCluster) -> bool:
    """Whether an answer comes from memory: it is older than what has been written behind the pooler's back."""
    before = client.value(_SQL)
    pg.sql("UPDATE cached.item SET name = name || '!' WHERE id = 1", dbname=cached.DATABASE)
    return client.value(_SQL) == before


def _warm(pg: PostgresCluster, *clients: RawClient) -> None:
    for client in clients:
        eventually(lambda client=client: _is_kept(client, pg), what="the cache answers")  # type: ignore[misc]


@pytest.mark.parametrize("database", ["app", "plain", "session"])
def test_what_is_written_through_one_worker_is_read_through_the_other(
    team: Team, pg: PostgresCluster, database: str
) -> None:
    """At once, by whatever name the database was asked for; again and again."""
    readers, writers = team.clients("app", TRUDY), team.clients(database, TRUDY)
    _warm(pg, *readers)
    for number in range(20):
        for worker, writer in enumerate(writers):
            for reader in readers:
                reader.value(_SQL)
            name = f"written {number} at {worker}"
            writer.ask(f"UPDATE cached.item SET name = '{name}' WHERE id = 1")
            assert [reader.value(_SQL) for reader in readers] == [name] * 2
    assert all(row["hits"] for row in team.show("CACHE"))


def test_a_schema_that_changes(team: Team, pg: PostgresCluster) -> None:
    """A view means something else from now on, at both workers."""
    readers = team.clients("app", TRUDY)
    _warm(pg, *readers)
    writer = readers[0]
    writer.ask("CREATE OR REPLACE VIEW cached.shown AS SELECT 1 AS what")
    sql = "SELECT what FROM cached.shown"
    for number in range(2, 6):
        assert [reader.value(sql) for reader in readers] == [str(number - 1)] * 2
        writer.ask(f"CREATE OR REPLACE VIEW cached.shown AS SELECT {number} AS what")
    writer.ask("DROP VIEW cached.shown")


def test_own_writes_under_load(team: Team, pg: PostgresCluster) -> None:
    """Each of some threads writes a row of its own through one worker, and reads it through the other."""
    _warm(pg, *team.clients("app", TRUDY))
    pairs = [team.clients("app", TRUDY) for _ in range(4)]
    wrong: list[str] = []

    def work(row: int, clients: list[RawClient]) -> None:
        for number in range(60):
            writer, reader = clients[number % 2], clients[1 - number % 2]
            writer.ask(f"UPDATE cached.item SET name = 'n{number}' WHERE id = {row}")
            for _ in range(3):
                found = reader.value(f"SELECT name FROM cached.item WHERE id = {row}")
                if found != f"n{number}":
                    wrong.append(f"row {row}: {found} instead of n{number}")

    threads = [threading.Thread(target=work, args=(row, pair)) for row, pair in enumerate(pairs, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_worker_that_dies_takes_all_answers_with_it(team: Team, pg: PostgresCluster) -> None:
    """Nobody knows what it has written last."""
    lost, kept = team.clients("app", TRUDY)
    _warm(pg, kept)
    before = kept.value(_SQL)
    pids = team.pids()
    lost.send(
        raw.query("BEGIN; UPDATE cached.item SET name = 'last' WHERE id = 1; SELECT pg_sleep(2); COMMIT")
    )
    eventually(
        lambda: pg.sql(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%''last''%' AND wait_event = 'PgSleep'"
        ),
        what="it writes",
    )
    assert kept.value(_SQL) == before
    os.kill(pids[0], signal.SIGKILL)
    eventually(lambda: kept.value(_SQL) == "last", what="it is read")
    eventually(
        lambda: len(team.show("WORKERS")) == 2,
        within=30,
        what="the worker is back",
        despite=(psycopg.OperationalError,),
    )
    _warm(pg, *team.clients("app", ANN))


def test_nothing_is_answered_from_memory_while_both_drain(
    team: Team, make_pooler: PoolerFactory, pg: PostgresCluster
) -> None:
    """Another pooler may serve already, and nobody hears of what is written through that one."""
    del team  # it has the tables
    pooler = make_pooler(config(cached.config_for(pg), auth_type="trust"))
    with Team(pooler) as own:
        clients = own.clients("app", TRUDY)
        _warm(pg, *clients)
        pooler.process.send_signal(signal.SIGTERM)
        waiting = "waiting for clients to leave"
        eventually(lambda: pooler.log_text().count(waiting) == len(clients), what="both drain")
        assert not any(_is_kept(client, pg) for client in clients)
    assert pooler.wait_exit() == 0
