"""Limits that several pools share, and who has to go when somebody else waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from hyperpool.config import DatabaseSettings, PoolerSettings, Settings, UserSettings
from hyperpool.pool.pools import Pools

if TYPE_CHECKING:
    from hyperpool.pool.state import Pool

_NOW = 1000.0


@attrs.define(eq=False)
class _Server:
    """A server connection as far as the policy cares."""

    idle_since: float = _NOW


def _pools(**pooler: Any) -> Pools[Any, Any]:
    databases = {
        "app": DatabaseSettings(),
        "other": DatabaseSettings(max_db_connections=4),
        "forced": DatabaseSettings(user="ann", min_pool_size=2),
    }
    users = {"bob": UserSettings(max_user_connections=2)}
    return Pools(Settings(pooler=PoolerSettings(**pooler), databases=databases, users=users), lambda: 0.5)


def _pool(
    pools: Pools[Any, Any],
    database: str,
    user: str,
    *,
    idle: tuple[float, ...] = (),
    linked: int = 0,
    waiting: int = 0,
) -> Pool[Any, Any]:
    """A pool in some state; `idle` tells since when each of its idle servers has been that."""
    pool = pools.find(database, user)
    assert pool is not None
    for since in sorted(idle):
        pool.idle.append(_Server(since))
    pool.servers.update(pool.idle, (_Server() for _ in range(linked)))
    pool.waiting.update((object(), _NOW) for _ in range(waiting))
    return pool


def test_a_database_has_a_limit_for_all_its_users() -> None:
    """What is being opened counts, and the pools of other databases do not."""
    pools = _pools(max_db_connections=5)
    ann = _pool(pools, "app", "ann", linked=2, waiting=9)
    bob = _pool(pools, "app", "carol", linked=1, waiting=9)
    _pool(pools, "other", "ann", linked=3)
    assert (ann.missing(_NOW), bob.missing(_NOW)) == (2, 2)
    ann.dialing += 1
    assert (ann.missing(_NOW), bob.missing(_NOW)) == (1, 1)
    bob.dialing += 1
    assert (ann.missing(_NOW), bob.missing(_NOW)) == (0, 0)
    bob.give_up()
    assert (ann.missing(_NOW), bob.missing(_NOW)) == (0, 0)
    assert not bob.arrived(0)
    assert (ann.missing(_NOW), bob.missing(_NOW)) == (1, 1)


def test_a_user_has_a_limit_for_all_databases() -> None:
    """It is the pool's user that counts: a forced one, too."""
    pools = _pools(max_user_connections=3)
    _pool(pools, "forced", "bob", linked=2)
    ann = _pool(pools, "app", "ann", waiting=9)
    assert ann.missing(_NOW) == 1
    assert _pool(pools, "app", "carol", waiting=9).missing(_NOW) == 3


def test_entries_go_before_the_poolers_limits() -> None:
    """One of a database, one of a user; the smaller of both counts."""
    pools = _pools(max_db_connections=1, max_user_connections=9)
    assert _pool(pools, "other", "carol", waiting=9).missing(_NOW) == 4
    assert _pool(pools, "other", "bob", waiting=9).missing(_NOW) == 2
    assert _pool(pools, "app", "bob", waiting=9).missing(_NOW) == 1


def test_the_size_of_a_pool_counts_as_well() -> None:
    """A limit for several pools gives none of them more than its own."""
    assert (
        _pool(_pools(max_db_connections=9, default_pool_size=2), "app", "ann", waiting=9).missing(_NOW) == 2
    )


def test_who_has_been_idle_for_longest_has_to_go() -> None:
    """Whichever pool of the database it is in."""
    pools = _pools(max_db_connections=3)
    old = _pool(pools, "app", "ann", idle=(_NOW - 9, _NOW - 1))
    _pool(pools, "app", "bob", idle=(_NOW - 5,))
    _pool(pools, "other", "carol", idle=(_NOW - 99,))
    waiting = _pool(pools, "app", "carol", waiting=1)
    assert (waiting.missing(_NOW), waiting.victim(_NOW)) == (0, old.idle[0])
    old.forget(old.idle[0])
    assert (waiting.missing(_NOW), waiting.victim(_NOW)) == (1, None)


def test_nobody_has_to_go_in_vain() -> None:
    """Not while there is room, nobody waits, a limit of its own is reached, or another quota cannot be met."""
    pools = _pools(max_db_connections=2, max_user_connections=1)
    _pool(pools, "app", "ann", idle=(_NOW,))
    assert _pool(pools, "app", "dora", waiting=1).victim(_NOW) is None
    _pool(pools, "app", "eve", idle=(_NOW,))
    assert _pool(pools, "app", "fred").victim(_NOW) is None
    assert _pool(pools, "app", "carol", waiting=1).victim(_NOW) is not None
    _pool(pools, "forced", "x", linked=1)
    pool = pools.find("app", "ann")
    assert pool is not None
    pool.idle.clear()
    pool.waiting[object()] = _NOW
    assert pool.victim(_NOW) is None


def test_no_quota_is_no_limit() -> None:
    """Then nobody ever has to go."""
    pools = _pools()
    _pool(pools, "app", "bob", idle=(_NOW,))
    pool = _pool(pools, "app", "ann", waiting=50)
    assert (pool.missing(_NOW), pool.victim(_NOW)) == (20, None)


def test_reserves_give_way_to_those_who_wait() -> None:
    """A pool is not filled to its minimum while somebody else waits for the same room."""
    pools = _pools(max_user_connections=3)
    (warm,) = pools.warm()
    assert warm.missing(_NOW) == 2
    other = _pool(pools, "app", "ann", waiting=1)
    assert (warm.missing(_NOW), other.missing(_NOW)) == (0, 1)


def test_a_reload_changes_limits() -> None:
    """Also when there are more connections than they allow now."""
    pools = _pools()
    pool = _pool(pools, "app", "ann", linked=3, waiting=1)
    pools.reload(Settings(pooler=PoolerSettings(max_db_connections=2), databases={"app": DatabaseSettings()}))
    assert pool.missing(_NOW) == 0


def test_pools_that_are_gone_leave_their_room() -> None:
    """Nothing of them is counted, and nothing is kept for them."""
    pools = _pools(max_db_connections=2)
    gone = _pool(pools, "app", "ann", linked=2)
    gone.servers.clear()
    pools.prune(_NOW)
    pool = _pool(pools, "app", "carol", waiting=5)
    assert gone not in pool.quotas[0].pools
    assert pool.missing(_NOW) == 2


def test_round_robin() -> None:
    """The next one is the one that has been idle for longest; the others become stale all the same."""
    pools = _pools(server_round_robin=True, server_idle_timeout=10)
    pool = _pool(pools, "app", "ann")
    first, second, third = (_Server(_NOW - 20), _Server(_NOW - 15), _Server(_NOW - 5))
    for server in (first, second, third):
        pool.servers.add(server)
        pool.rest(server)
    assert list(pool.stale(_NOW)) == [first, second]
    assert pool.idle.pop() is first
    pools.reload(Settings(databases={"app": DatabaseSettings()}))
    assert pool.idle == [second, third]
