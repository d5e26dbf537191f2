"""Writes that pass through the relay: nothing that was kept before them is served behind them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from hyperpool.cache.results import ResultCache
from hyperpool.config import DatabaseSettings, PoolerSettings, PoolMode, SessionState, Settings
from hyperpool.config.cache import CacheSettings
from hyperpool.pool.pools import Pools
from tests.support.relaystage import Stage, cut_at
from tests.support.relayworld import POOL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.cache.database import DatabaseCache

_CACHED = attrs.evolve(POOL, session_state=SessionState.FOLLOW, cache=CacheSettings())


@contextmanager
def _stage(**pool: Any) -> Iterator[tuple[Stage, DatabaseCache]]:
    """A stage whose database another pool caches."""
    with Stage(**pool) as stage:
        results: ResultCache[Any, Any, Any] = ResultCache(1 << 20, lambda: 0.5)
        caching = results.lane(_CACHED)
        assert caching is not None
        stage.pool.cache = results.lane(stage.pool.settings)
        yield stage, caching.database


def test_a_statement_that_came_in_pieces_writes_whenever_it_is_executed() -> None:
    """Where names are the client's alone, nobody has seen all of its text."""
    with _stage(pool_mode=PoolMode.SESSION) as (stage, database):
        stage.split = cut_at(30)
        stage.play(
            """
            c1 > Pa:insert into some_table values (1)|S
            s1 < Pa:insert into some_table values (1)|S
            s1 > 1|Z
            c1 < 1|Z
            """
        )
        mark = database.mark()
        stage.play(
            """
            c1 > Ba|E|S
            s1 < Ba|E|S
            s1 > 2|CINSERT 0 1|Z
            c1 < 2|CINSERT 0 1|Z
            """
        )
        assert not database.holds(mark, {1})


def test_a_commit_that_is_told_within_an_answer_drops_first() -> None:
    """A text that goes on behind it, and a pipeline with a Flush: both come out of a transaction block."""
    with _stage() as (stage, database):
        stage.play(
            """
            c1 > Qbegin
            s1 < Qbegin
            s1 > CBEGIN|ZT
            c1 < CBEGIN|ZT
            c1 > Qupdate t set i = 1
            s1 < Qupdate t set i = 1
            s1 > CUPDATE 1|ZT
            c1 < CUPDATE 1|ZT
            """
        )
        mark = database.mark()
        stage.play("c1 > Qcommit; select 1\ns1 < Qcommit; select 1")
        assert database.holds(mark, {1})
        stage.play("s1 > CCOMMIT\nc1 < CCOMMIT")
        assert not database.holds(mark, {1})
        stage.play("s1 > T|D1|CSELECT 1|Z\nc1 < T|D1|CSELECT 1|Z")


def test_a_commit_in_a_pipeline_without_sync_drops_first() -> None:
    """All has been answered that the server owes, but ReadyForQuery has not come."""
    for mode in (PoolMode.TRANSACTION, PoolMode.SESSION):
        with _stage(pool_mode=mode) as (stage, database):
            stage.play(
                """
                c1 > Qbegin
                s1 < Qbegin
                s1 > CBEGIN|ZT
                c1 < CBEGIN|ZT
                c1 > P:update t set i = 1|B|E|S
                s1 < P:update t set i = 1|B|E|S
                s1 > 1|2|CUPDATE 1|ZT
                c1 < 1|2|CUPDATE 1|ZT
                """
            )
            mark = database.mark()
            stage.play(
                """
                c1 > P:commit|B|E|H
                s1 < P:commit|B|E|H
                s1 > 1|2|CCOMMIT
                c1 < 1|2|CCOMMIT
                """
            )
            assert not database.holds(mark, {1})
            stage.play("c1 > S\ns1 < S\ns1 > Z\nc1 < Z")


def test_what_was_written_before_the_database_was_cached_is_unknown() -> None:
    """It is cached as soon as a pool wants that; others have open transactions and prepared statements then."""
    databases = {
        "app": DatabaseSettings(host="none", cache=CacheSettings()),
        "old": DatabaseSettings(host="none", dbname="app", pool_mode=PoolMode.SESSION),
    }
    pooler = PoolerSettings(pool_mode=PoolMode.TRANSACTION)
    results: ResultCache[Any, Any, Any] = ResultCache(1 << 20, lambda: 0.5)
    pools: Pools[Any, Any] = Pools(Settings(pooler=pooler, databases=databases), lambda: 0.5, results)
    old = pools.find("old", "ann")
    assert old is not None
    with Stage() as stage:
        stage.pool.settings = old.settings
        stage.play("c1 > Qinsert into t values (1)\ns1 < Qinsert into t values (1)")
        server = stage.server("s1")
        old.servers.add(server)
        pools.find("app", "ann")
        stage.pool.cache = old.cache
        assert old.cache is not None
        mark = old.cache.database.mark()
        stage.play("s1 > CINSERT 0 1|Z\nc1 < CINSERT 0 1|Z")
        assert not old.cache.database.holds(mark, {1})
        assert server.writes is None
        assert server.prepared.meant(b"known") == (None,), "nobody has seen what it stands for"


def test_a_server_that_is_at_nothing_has_written_nothing_when_its_database_becomes_cached() -> None:
    """Otherwise the catalog would be read anew for each server, behind its first answer."""
    with _stage() as (stage, database):
        stage.play(
            """
            c1 > Qselect 1
            s1 < Qselect 1
            s1 > T|D1|CSELECT 1|Z
            c1 < T|D1|CSELECT 1|Z
            c1 > Qselect 2
            s1 < Qselect 2
            """
        )
        server = stage.server("s1")
        server.becomes_cached()
        assert server.writes is not None
        assert server.writes.schema
        mark = database.mark()
        stage.play("s1 > T|D2|CSELECT 1|Z\nc1 < T|D2|CSELECT 1|Z")
        assert not database.holds(mark, {1})
        server.becomes_cached()
        assert server.writes is None
