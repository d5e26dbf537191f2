"""What applies to one pool."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from hyperpool.config import (
    DatabaseSettings,
    PoolerSettings,
    PoolMode,
    PoolSettings,
    Secret,
    SessionState,
    Settings,
    UserSettings,
)


def _pool(settings: Settings, database: str = "app", user: str = "ann") -> PoolSettings:
    pool = settings.pool_for(database, user)
    assert pool is not None
    return pool


def test_there_is_no_pool_without_a_database() -> None:
    """A name without an entry has none, unless there is a fallback."""
    assert Settings(databases={"app": DatabaseSettings()}).pool_for("other", "ann") is None


def test_the_fallback_serves_every_other_name() -> None:
    """The server's database is the one that the client asks for, unless the entry names one."""
    settings = Settings(databases={"app": DatabaseSettings(port=1), "*": DatabaseSettings(port=2)})
    assert (_pool(settings).port, _pool(settings).dbname) == (1, "app")
    other = _pool(settings, "other")
    assert (other.port, other.database, other.dbname) == (2, "other", "other")
    fixed = Settings(databases={"*": DatabaseSettings(dbname="main")})
    assert (_pool(fixed, "other").database, _pool(fixed, "other").dbname) == ("other", "main")


def test_each_client_has_its_users_pool() -> None:
    """The login to the server is the client's, with what is stored about it."""
    settings = Settings(
        databases={"app": DatabaseSettings(dbname="main")},
        users={"ann": UserSettings(password=Secret("a"))},
        userlist={"ann": Secret("old"), "bob": Secret("b"), "clara": Secret("")},
    )
    assert (_pool(settings).user, _pool(settings).dbname) == ("ann", "main")
    passwords = [_pool(settings, user=user).password for user in ("ann", "bob", "clara", "dora")]
    assert passwords == [Secret("a"), Secret("b"), None, None]


def test_a_forced_user_has_one_pool_for_all_clients() -> None:
    """Its login is the database's, with the database's password, else with what is stored about that user."""
    users = {"ann": UserSettings(password=Secret("a")), "bob": UserSettings(password=Secret("b"))}
    settings = Settings(databases={"app": DatabaseSettings(user="bob")}, users=users)
    assert _pool(settings, user="ann") == _pool(settings, user="dora") == _pool(settings, user="bob")
    assert (_pool(settings).user, _pool(settings).password) == ("bob", Secret("b"))
    own = Settings(databases={"app": DatabaseSettings(user="bob", password=Secret("own"))}, users=users)
    assert _pool(own).password == Secret("own")


@pytest.mark.parametrize(
    ("name", "pooler", "database", "user"),
    [
        ("pool_mode", PoolMode.SESSION, PoolMode.TRANSACTION, PoolMode.STATEMENT),
        ("pool_size", 1, 2, 3),
        ("reserve_pool_size", 1, 2, 3),
        ("query_wait_timeout", 1.0, 2.0, 3.0),
        ("query_timeout", 1.0, 2.0, 3.0),
        ("idle_transaction_timeout", 1.0, 2.0, 3.0),
        ("transaction_timeout", 1.0, 2.0, 3.0),
        ("client_idle_timeout", 1.0, 2.0, 3.0),
        ("pool_size", 1, 0, 3),
        ("query_wait_timeout", 1.0, 0.0, 0.0),
        ("client_idle_timeout", 1.0, 0.0, 2.0),
    ],
)
def test_the_user_goes_before_the_database_and_that_before_the_pooler(
    name: str, pooler: Any, database: Any, user: Any
) -> None:
    """As in pgbouncer; 0 is a value of its own."""
    general = {"pool_size": "default_pool_size"}.get(name, name)
    settings = Settings(
        pooler=attrs.evolve(PoolerSettings(), **{general: pooler}),
        databases={
            "app": attrs.evolve(DatabaseSettings(), **{name: database}),
            "plain": DatabaseSettings(),
        },
        users={"ann": attrs.evolve(UserSettings(), **{name: user}), "bob": UserSettings()},
    )
    assert getattr(_pool(settings, "plain", "bob"), name) == pooler
    assert getattr(_pool(settings, "app", "bob"), name) == database
    assert getattr(_pool(settings, "app", "ann"), name) == user
    assert getattr(_pool(settings, "plain", "ann"), name) == user


@pytest.mark.parametrize(
    ("name", "pooler", "database"),
    [
        ("min_pool_size", 1, 2),
        ("server_lifetime", 1.0, 0.0),
        ("session_state", SessionState.RESET, SessionState.KEEP),
        ("max_pinned", 1, 0),
        ("pin_functions", ("f",), ()),
    ],
)
def test_the_database_goes_before_the_pooler(name: str, pooler: Any, database: Any) -> None:
    """These settings have no form for users; an empty list is a value of its own."""
    settings = Settings(
        pooler=attrs.evolve(PoolerSettings(), **{name: pooler}),
        databases={"app": attrs.evolve(DatabaseSettings(), **{name: database}), "plain": DatabaseSettings()},
    )
    assert getattr(_pool(settings, "plain"), name) == pooler
    assert getattr(_pool(settings, "app"), name) == database


def test_the_settings_of_the_pools_user_count_whoever_the_client_is() -> None:
    """Clients with different settings of their own share the pool of a forced user."""
    settings = Settings(
        databases={"app": DatabaseSettings(user="bob")},
        users={"ann": UserSettings(pool_size=1), "bob": UserSettings(pool_size=2)},
    )
    assert _pool(settings, user="ann").pool_size == 2


def test_the_rest_is_the_poolers_and_the_databases() -> None:
    """What has one place only is taken from there."""
    pooler = PoolerSettings(
        reserve_pool_timeout=1.0,
        server_idle_timeout=2.0,
        server_connect_timeout=3.0,
        server_login_retry=4.0,
        server_reset_query="RESET ALL",
        server_reset_query_always=True,
        server_check_query="SELECT 1",
        server_check_delay=5.0,
        max_prepared_statements=6,
        query_wait_notify=7.0,
    )
    database = DatabaseSettings(host="db", port=5433, connect_query="SELECT 2", embedded=True)
    pool = _pool(Settings(pooler=pooler, databases={"app": database}))
    for field in (
        "reserve_pool_timeout",
        "server_idle_timeout",
        "server_connect_timeout",
        "server_login_retry",
    ):
        assert getattr(pool, field) == getattr(pooler, field)
    for field in (
        "server_reset_query",
        "server_reset_query_always",
        "server_check_query",
        "server_check_delay",
        "max_prepared_statements",
        "query_wait_notify",
    ):
        assert getattr(pool, field) == getattr(pooler, field)
    for field in ("host", "port", "connect_query", "embedded"):
        assert getattr(pool, field) == getattr(database, field)


def test_no_pool_of_the_settings_is_for_replication() -> None:
    """Only what is made for one client, from the settings of its pool, has the startup parameter."""
    pool = _pool(Settings(databases={"app": DatabaseSettings()}))
    assert pool.replication == ""
    assert attrs.evolve(pool, replication="database").replication == "database"


def test_forced_parameters_have_the_servers_names() -> None:
    """Only those that are set; PostgreSQL reports them by these names."""
    database = DatabaseSettings(client_encoding="UTF8", datestyle="ISO", timezone="UTC", application_name="x")
    assert _pool(Settings(databases={"app": database})).parameters == {
        "client_encoding": "UTF8",
        "DateStyle": "ISO",
        "TimeZone": "UTC",
        "application_name": "x",
    }
    assert _pool(Settings(databases={"app": DatabaseSettings(timezone="UTC")})).parameters == {
        "TimeZone": "UTC"
    }
    assert _pool(Settings(databases={"app": DatabaseSettings()})).parameters == {}


def test_pools_that_know_their_user_and_minimum_are_warm() -> None:
    """Others are opened when a client names its user, or its database."""
    settings = Settings(
        pooler=PoolerSettings(min_pool_size=1),
        databases={
            "one": DatabaseSettings(user="ann"),
            "two": DatabaseSettings(user="ann", min_pool_size=3),
            "cold": DatabaseSettings(user="ann", min_pool_size=0),
            "anyone": DatabaseSettings(min_pool_size=3),
            "*": DatabaseSettings(user="ann", min_pool_size=3),
        },
    )
    assert [(pool.database, pool.user, pool.min_pool_size) for pool in settings.warm_pools()] == [
        ("one", "ann", 1),
        ("two", "ann", 3),
    ]


def test_settings_that_are_changed_keep_their_credentials() -> None:
    """An embedded server's place is put in when it runs."""
    settings = Settings(databases={"app": DatabaseSettings()}, userlist={"ann": Secret("a")})
    moved = attrs.evolve(settings, databases={"app": DatabaseSettings(host="/run", port=1)})
    assert (_pool(moved).host, _pool(moved).port, _pool(moved).password) == ("/run", 1, Secret("a"))
