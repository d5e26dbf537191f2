"""The pools of replication clients: one for each, and gone with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest

from hyperpool.config import DatabaseSettings, PoolerSettings, PoolMode, Secret, SessionState, Settings
from hyperpool.errors import ClientRefused
from hyperpool.pool.pools import Pools
from hyperpool.pool.replication import refuse_crowd, replication_settings
from tests.support.relayworld import POOL

if TYPE_CHECKING:
    from hyperpool.pool.state import Pool

OWN = {"application_name": "walreceiver", "options": "-c datestyle=ISO"}


@attrs.define(eq=False)
class _Server:
    """A server connection as far as the policy cares."""

    idle_since: float = 0.0
    outdated: bool = False

    def becomes_cached(self) -> None:
        """It has written nothing."""


def _pools(*, pool_size: int = 2, **database: Any) -> Pools[_Server, object]:
    databases = {"app": DatabaseSettings(**database), "other": DatabaseSettings(user="web")}
    return Pools(
        Settings(pooler=PoolerSettings(default_pool_size=pool_size), databases=databases), lambda: 0.5
    )


def _private(
    pools: Pools[_Server, object], database: str = "app", user: str = "ann"
) -> Pool[_Server, object]:
    pool = pools.private(database, user, "database", OWN)
    assert pool is not None
    pool.clients = 1
    return pool


def test_settings() -> None:
    """The server is the pool's own, and opened as the client asks; nothing is asked of it, and nothing limits it."""
    before = attrs.evolve(
        POOL,
        parameters={"TimeZone": "UTC", "application_name": "pooled"},
        connect_query="select 1",
        pool_mode=PoolMode.TRANSACTION,
        min_pool_size=3,
        reserve_pool_size=2,
        query_timeout=1.0,
        idle_transaction_timeout=1.0,
        transaction_timeout=1.0,
        client_idle_timeout=1.0,
        session_state=SessionState.FOLLOW,
    )
    after = replication_settings(before, "yes", OWN)
    assert after.replication == "yes"
    assert after.parameters == {"TimeZone": "UTC", **OWN}
    assert (after.pool_mode, after.session_state) == (PoolMode.SESSION, SessionState.KEEP)
    assert (after.pool_size, after.min_pool_size, after.reserve_pool_size) == (1, 0, 0)
    assert (after.server_lifetime, after.server_idle_timeout) == (0.0, 0.0)
    assert (after.connect_query, after.server_check_query, after.server_reset_query) == ("", "", "")
    limits = (after.query_timeout, after.transaction_timeout, after.client_idle_timeout)
    assert (*limits, after.idle_transaction_timeout) == (0.0, 0.0, 0.0, 0.0)
    for name in ("database", "user", "dbname", "host", "port", "password", "server_connect_timeout"):
        assert getattr(after, name) == getattr(before, name)


def test_each_client_has_a_pool_of_its_own() -> None:
    """Which nobody finds who asks for an ordinary connection; sweeps see it."""
    pools = _pools()
    one, two = _private(pools), _private(pools)
    assert one is not two
    assert list(pools) == [one, two]
    ordinary = pools.find("app", "ann")
    assert ordinary not in (one, two)
    assert pools.private("nowhere", "ann", "true", {}) is None
    assert _private(pools, "other", "bob").settings.user == "web"
    assert len(list(pools)) == 4


def test_a_pool_wants_one_server_and_no_more() -> None:
    """For the login; when that is there, for whoever waits."""
    pool = _private(_pools())
    assert pool.missing(0.0) == 0
    pool.logins = 1
    assert pool.missing(0.0) == 1
    pool.dialing = 1
    assert pool.missing(0.0) == 0
    pool.dialing = pool.logins = 0
    pool.servers.add(_Server())
    pool.waiting[object()] = 0.0
    assert pool.missing(0.0) == 0


def test_pool_size_bounds_replication_clients() -> None:
    """By database and user; places of clients that are gone are free at once, ordinary clients do not count."""
    pools = _pools(pool_size=2)
    ordinary = pools.find("app", "ann")
    assert ordinary is not None
    ordinary.clients = 5
    one, _ = _private(pools), _private(pools)
    _private(pools, user="bob")
    _private(pools, "other")
    with pytest.raises(ClientRefused, match="no more replication connections allowed") as caught:
        _private(pools)
    assert caught.value.sqlstate == "53300"
    assert "default_pool_size" in caught.value.hint
    one.clients = 0
    _private(pools)


def test_a_login_that_was_given_up_keeps_its_place_until_its_server_is_gone() -> None:
    """Or somebody could open any number of servers by coming and going."""
    pools = _pools(pool_size=1)
    pool = _private(pools)
    pool.clients, pool.logins, pool.dialing = 0, 0, 1
    with pytest.raises(ClientRefused):
        _private(pools)
    server = _Server()
    pool.dialing, pool.servers, pool.idle = 0, {server}, [server]
    with pytest.raises(ClientRefused):
        _private(pools)
    assert list(pool.stale(0.0)) == [server]
    pool.forget(server)
    _private(pools)


def test_pool_size_of_zero_is_no_limit() -> None:
    """As everywhere."""
    pools = _pools(pool_size=0)
    for _ in range(50):
        _private(pools)
    refuse_crowd(attrs.evolve(POOL, pool_size=0), [POOL] * 50)
    with pytest.raises(ClientRefused):
        refuse_crowd(attrs.evolve(POOL, pool_size=50), [POOL] * 50)


def test_an_unused_server_is_stale_when_its_client_is_gone() -> None:
    """Not before: the client may ask for something hours after its login."""
    pool = _private(_pools())
    server = _Server()
    pool.servers, pool.idle = {server}, [server]
    assert list(pool.stale(1e9)) == []
    pool.clients, pool.logins = 0, 1
    assert list(pool.stale(1e9)) == []
    pool.logins = 0
    assert list(pool.stale(0.0)) == [server]


def test_pruned_with_the_rest() -> None:
    """As soon as nobody uses it; what it has done stays in the totals."""
    pools = _pools()
    used, unused = _private(pools), _private(pools)
    unused.clients = 0
    unused.stats.queries = 3
    pools.prune(0.0)
    assert list(pools) == [used]
    assert pools.past["app"].queries == 3


def test_a_reload_of_numbers_changes_nothing_for_a_replication_client() -> None:
    """Its server stays, and its settings stay those of a replication client."""
    pools = _pools()
    pool = _private(pools)
    pool.parameters = {}
    new = Settings(
        databases={"app": DatabaseSettings(pool_size=9, min_pool_size=1), "other": DatabaseSettings()}
    )
    assert pools.reload(new) == ([], [])
    assert pool.settings == replication_settings(pool.settings, "database", OWN)
    assert (pool.settings.pool_size, pool.settings.min_pool_size, pool.parameters) == (1, 0, {})


def test_a_reload_that_changes_the_server() -> None:
    """What is being dialed is void, and goes to the new server; a stream is not ended by it (service/run.py)."""
    pools = _pools(password=Secret("old"))
    pool = _private(pools)
    generation, pool.dialing = pool.generation, 1
    assert pools.reload(Settings(databases={"app": DatabaseSettings(host="db.example")})) == ([pool], [])
    assert (pool.settings.host, pool.settings.replication) == ("db.example", "database")
    assert pool.settings.parameters == OWN
    assert (pool.dialing, pool.generation) == (0, generation + 1)


def test_a_reload_that_removes_the_database() -> None:
    """Its replication clients go with it."""
    pools = _pools()
    pool, kept = _private(pools), _private(pools, "other", "web")
    pool.stats.queries = 2
    assert pools.reload(Settings(databases={"other": DatabaseSettings(user="web")})) == ([], [pool])
    assert list(pools) == [kept]
    assert pools.past["*"].queries == 2
