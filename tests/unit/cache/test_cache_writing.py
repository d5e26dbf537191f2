"""What a text may write, when the settings of its session, or the database's catalog, are not known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from hyperpool.cache.catalog import Catalog
from hyperpool.cache.database import Writing
from hyperpool.cache.results import ResultCache
from hyperpool.config import DatabaseSettings, PoolerSettings, PoolMode, SessionState, Settings
from hyperpool.config.cache import CacheSettings
from hyperpool.pool.pools import Pools
from hyperpool.relay.parameters import ParameterTracker
from tests.support.relayworld import POOL

if TYPE_CHECKING:
    from hyperpool.cache.lane import Lane

_CACHED = attrs.evolve(POOL, session_state=SessionState.FOLLOW, cache=CacheSettings())
_SETTINGS = {"client_encoding": "UTF8", "standard_conforming_strings": "on"}

_CATALOG = (
    ("v", "1", "150000"),
    ("r", "20000", "s", "plain", "vp", "0", "[]", json.dumps({"view": "{:relid 20002}"})),
    ("r", "20001", "s", "writing", "vp", "0", "[]", json.dumps({"view": "{:funcid 99999}"})),
    ("r", "20002", "s", "t", "rp", "0", "[]", None),
)
"""Two views, of which one calls a function."""


def _lane(*, known: bool) -> Lane[Any, Any, Any]:
    """Of a pool whose sessions are its clients'; another pool caches the same database."""
    results: ResultCache[Any, Any, Any] = ResultCache(1 << 20, lambda: 0.5)
    assert results.lane(_CACHED) is not None
    lane = results.lane(attrs.evolve(POOL, pool_mode=PoolMode.SESSION))
    assert lane is not None
    if known:
        lane.database.catalog = Catalog(_CATALOG)
        lane.database.pending = False
    return lane


@pytest.mark.parametrize(
    ("text", "known", "pending"),
    [
        (b"SELECT * FROM writing", True, True),
        (b"SELECT * FROM s.writing", True, True),
        (b"SELECT * FROM plain", False, True),
        (b"SELECT 1", False, False),
        (b"SELECT 1 + 2", False, True),
        (b"SELECT 'x'::anything", False, True),
        (b"BEGIN", False, False),
        (b"DELETE FROM t", True, True),
    ],
)
def test_a_query_that_reads_what_calls_functions_may_write(text: bytes, known: bool, pending: bool) -> None:
    """In whatever schema that is; and as long as the catalog is not known, nobody knows what is harmless."""
    for catalog, anything in ((True, known), (False, pending)):
        lane = _lane(known=catalog)
        writing = Writing()
        lane.note(writing, lane.session(ParameterTracker().intern(_SETTINGS)), text, resolved=False)
        assert writing.anything is anything
        assert not writing.tables


def test_all_pools_tell_of_writes_when_a_reload_turns_the_cache_on() -> None:
    """Also those that were there before the one that is cached."""
    old = DatabaseSettings(host="none", dbname="app", pool_mode=PoolMode.SESSION)
    app = DatabaseSettings(host="none")
    pooler = PoolerSettings(pool_mode=PoolMode.TRANSACTION)
    results: ResultCache[Any, Any, Any] = ResultCache(1 << 20, lambda: 0.5)
    before = Settings(pooler=pooler, databases={"old": old, "app": app})
    pools: Pools[Any, Any] = Pools(before, lambda: 0.5, results)
    first, second = pools.find("old", "ann"), pools.find("app", "ann")
    assert first is not None
    assert second is not None
    cached = attrs.evolve(app, cache=CacheSettings())
    pools.reload(attrs.evolve(before, databases={"old": old, "app": cached}))
    assert second.cache is not None
    assert first.cache is not None
    assert first.cache.database is second.cache.database


def test_what_a_pool_has_prepared_is_out_of_date_when_another_one_changes_the_schema() -> None:
    """Otherwise a client would be told that its statement is fine, and hear of the error later."""
    database = DatabaseSettings(host="none", cache=CacheSettings())
    settings = Settings(pooler=PoolerSettings(pool_mode=PoolMode.TRANSACTION), databases={"app": database})
    results: ResultCache[Any, Any, Any] = ResultCache(1 << 20, lambda: 0.5)
    pools: Pools[Any, Any] = Pools(settings, lambda: 0.5, results)
    first, second = pools.find("app", "ann"), pools.find("app", "bob")
    assert first is not None
    assert second is not None
    assert first.cache is not None
    before = second.statements.version
    first.cache.database.changed("schema")
    assert second.statements.version == before + 1
    pools.reload(attrs.evolve(settings, databases={}))
    first.cache.database.changed("schema")
    assert second.statements.version == before + 1


def test_nothing_from_before_is_answered_when_the_cache_is_no_longer_held() -> None:
    """Meanwhile another process has written what nobody here has seen, and some of it may still be committed."""
    database = DatabaseSettings(host="none", cache=CacheSettings())
    settings = Settings(pooler=PoolerSettings(pool_mode=PoolMode.TRANSACTION), databases={"app": database})
    results: ResultCache[Any, Any, Any] = ResultCache(1 << 20, lambda: 0.5)
    pools: Pools[Any, Any] = Pools(settings, lambda: 0.5, results)
    pool = pools.find("app", "ann")
    assert pool is not None
    assert pool.cache is not None
    cached = pool.cache.database
    version, mark = cached.version, cached.mark()
    pools.hold_cache(held=False)
    assert cached.holds(mark, [1])
    pools.hold_cache(held=True)
    pools.hold_cache(held=False)
    assert not cached.holds(mark, [1])
    assert cached.version == version + 1
    mark = cached.mark()
    cached.recall(1.0)
    assert not cached.holds(mark, [1])
