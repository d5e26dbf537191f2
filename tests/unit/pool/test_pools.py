"""All pools: found by database and user, warmed, reloaded and pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from hyperpool.config import DatabaseSettings, PoolerSettings, PoolMode, Secret, Settings
from hyperpool.errors import ConnectFailed
from hyperpool.pool.pools import Pools

if TYPE_CHECKING:
    from hyperpool.pool.state import Pool


def _settings(pooler: PoolerSettings | None = None, **databases: DatabaseSettings) -> Settings:
    return Settings(pooler=pooler or PoolerSettings(), databases=databases)


def _pools(settings: Settings) -> Pools[Any, Any]:
    return Pools(settings, lambda: 0.5)


def _found(pools: Pools[Any, Any], database: str, user: str) -> Pool[Any, Any]:
    pool = pools.find(database, user)
    assert pool is not None
    return pool


def test_each_database_and_user_has_one_pool() -> None:
    """The same pair, the same pool; none for a database that is not there."""
    pools = _pools(_settings(app=DatabaseSettings(), other=DatabaseSettings()))
    pool = _found(pools, "app", "ann")
    assert pools.find("app", "ann") is pool
    assert _found(pools, "app", "bob") is not pool
    assert _found(pools, "other", "ann") is not pool
    assert pools.find("nowhere", "ann") is None
    assert len(list(pools)) == 3
    assert pool.name == "app/ann"


def test_clients_of_a_database_with_a_forced_user_share_a_pool() -> None:
    """Whoever they are, the server sees one user."""
    pools = _pools(_settings(app=DatabaseSettings(user="web")))
    assert pools.find("app", "ann") is pools.find("app", "bob")
    assert _found(pools, "app", "ann").name == "app/web"


def test_warm_pools_are_kept() -> None:
    """They exist before any client, and after the last one; a reload may end that."""
    warm = _settings(app=DatabaseSettings(user="web", min_pool_size=2), other=DatabaseSettings())
    pools = _pools(warm)
    (pool,) = pools.warm()
    assert (pool.kept, pool.minimum, pool.missing(0.0)) == (True, 2, 2)
    assert not _found(pools, "other", "ann").kept
    pools.reload(_settings(app=DatabaseSettings(user="web"), other=DatabaseSettings()))
    assert pools.warm() == []
    assert not pool.kept


def test_a_reload_that_changes_numbers_keeps_the_servers() -> None:
    """The pool goes on with its new settings."""
    pools = _pools(_settings(app=DatabaseSettings()))
    pool = _found(pools, "app", "ann")
    pool.parameters = {"TimeZone": "UTC"}
    pool.dialing = 1
    assert pools.reload(_settings(app=DatabaseSettings(pool_size=3))) == ([], [])
    assert pools.find("app", "ann") is pool
    assert (pool.size, pool.dialing, pool.parameters) == (3, 1, {"TimeZone": "UTC"})


@pytest.mark.parametrize(
    "changed",
    [
        DatabaseSettings(host="db.example"),
        DatabaseSettings(port=5433),
        DatabaseSettings(dbname="renamed"),
        DatabaseSettings(password=Secret("new")),
        DatabaseSettings(connect_query="set role app"),
        DatabaseSettings(timezone="Asia/Tokyo"),
        DatabaseSettings(pool_mode=PoolMode.STATEMENT),
    ],
)
def test_a_reload_that_changes_what_servers_are_replaces_them(changed: DatabaseSettings) -> None:
    """What was dialed with the old settings is void, and the old server's failures do not count for the new one."""
    pools = _pools(_settings(app=DatabaseSettings(), other=DatabaseSettings()))
    pool = _found(pools, "app", "ann")
    pools.find("other", "ann")
    pool.parameters = {"TimeZone": "UTC"}
    pool.dialing = 2
    attempt = trio.CancelScope()
    pool.attempts.add(attempt)
    pool.backoff.failed(ConnectFailed("nothing there"), 0.0)
    generation = pool.generation
    assert pools.reload(_settings(app=changed, other=DatabaseSettings())) == ([pool], [])
    assert pools.find("app", "ann") is pool
    assert (pool.dialing, pool.void, pool.connections) == (0, 2, 2)
    assert attempt.cancel_called
    assert pool.attempts == set()
    assert pool.parameters != {"TimeZone": "UTC"}
    assert not pool.backoff.holds(0.0)
    assert pool.generation > generation


def test_a_reload_removes_pools_whose_database_is_gone() -> None:
    """They are handed back to be dissolved; their counters stay in the totals."""
    pools = _pools(_settings(app=DatabaseSettings(), other=DatabaseSettings()))
    pool = _found(pools, "app", "ann")
    kept = _found(pools, "other", "ann")
    pool.stats.queries = 7
    generation = pool.generation
    assert pools.reload(_settings(other=DatabaseSettings())) == ([], [pool])
    assert list(pools) == [kept]
    assert pools.find("app", "ann") is None
    assert pools.past["*"].queries == 7
    assert pools.totals()["*"].queries == 7
    assert pool.generation > generation


def test_only_pools_that_nobody_uses_are_pruned() -> None:
    """Anything that somebody holds or waits for keeps a pool; counters of pruned pools stay in the totals."""
    pools = _pools(_settings(PoolerSettings(pool_idle_timeout=10), app=DatabaseSettings()))
    for number, name in enumerate(("clients", "logins", "dialing", "kept")):
        setattr(_found(pools, "app", f"user{number}"), name, 1)
    _found(pools, "app", "server").servers.add(object())
    _found(pools, "app", "waiting").waiting[object()] = 0.0
    unused = _found(pools, "app", "unused")
    unused.stats.transactions = 3
    assert unused.unused
    unused.parameters = {}
    pools.prune(0.0)
    assert len(list(pools)) == 7
    pools.prune(10.0)
    assert len(list(pools)) == 6
    assert unused not in list(pools)
    assert pools.past["app"].transactions == 3
    assert pools.find("app", "unused") is not unused


def _prunable(**pooler: float) -> tuple[Pools[Any, Any], Pool[Any, Any], Pool[Any, Any]]:
    """Pools; an unused one of a database with a name, and one of a database that `*` stands for."""
    settings = _settings(PoolerSettings(**pooler), app=DatabaseSettings(), **{"*": DatabaseSettings()})  # type: ignore[arg-type]
    pools = _pools(settings)
    named, automatic = _found(pools, "app", "ann"), _found(pools, "any", "ann")
    named.parameters = automatic.parameters = {"server_version": "16"}
    return pools, named, automatic


def test_unused_pools_are_kept_for_a_while() -> None:
    """Those of automatic databases, and the others, each for a time of their own; 0 is for ever."""
    pools, named, automatic = _prunable(autodb_idle_timeout=60)
    pools.prune(1000.0)
    pools.prune(1059.0)
    assert list(pools) == [named, automatic]
    pools.prune(1060.0)
    assert list(pools) == [named]
    pools.prune(1e9)
    assert list(pools) == [named]


def test_a_pool_that_is_used_again_begins_anew() -> None:
    """Its time counts from when it was last used; what servers of the past have said is forgotten."""
    pools, _, automatic = _prunable(autodb_idle_timeout=60)
    pools.prune(1000.0)
    assert automatic.parameters is None
    automatic.clients = 1
    pools.prune(1059.0)
    automatic.parameters, automatic.clients = {}, 0
    pools.prune(1061.0)
    pools.prune(1120.0)
    assert automatic in list(pools)
    pools.prune(1121.0)
    assert automatic not in list(pools)


def test_a_pool_that_no_server_was_ever_in_is_forgotten_at_once() -> None:
    """Whoever asks for names that are not there leaves nothing behind."""
    pools, named, automatic = _prunable()
    automatic.parameters = None
    pools.prune(1000.0)
    assert list(pools) == [named]


def test_names_that_the_fallback_stands_for_are_not_remembered() -> None:
    """Clients can think of any number of them; what they have counted stays in one sum."""
    pools = _pools(Settings(databases={"*": DatabaseSettings()}))
    for number in range(100):
        _found(pools, f"name{number}", "ann").stats.queries = 1
    pools.prune(0.0)
    pools.prune(1e6)
    assert list(pools) == []
    assert list(pools.past) == ["*"]
    assert pools.totals()["*"].queries == 100
