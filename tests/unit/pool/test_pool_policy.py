"""The policy of one pool: how many server connections it has, and who gets them."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hyperpool.config import PoolMode
from hyperpool.errors import ConnectFailed
from hyperpool.pool.state import Pool
from tests.support.relayworld import POOL

_NOW = 1000.0
_DOWN = ConnectFailed("nothing there")


@attrs.define(eq=False)
class _Server:
    """A server connection as far as the policy cares."""

    idle_since: float = _NOW
    outdated: bool = False

    def becomes_cached(self) -> None:
        """It has written nothing."""


def _pool(
    *,
    idle: int = 0,
    linked: int = 0,
    conditioning: int = 0,
    dialing: int = 0,
    void: int = 0,
    waiting: tuple[float, ...] = (),
    **settings: Any,
) -> Pool[_Server, int]:
    """A pool in some state; `waiting` tells for how long each client has waited, the longest first."""
    pool: Pool[_Server, int] = Pool(attrs.evolve(POOL, **settings), lambda: 0.5)
    pool.idle = [_Server() for _ in range(idle)]
    pool.conditioning = {_Server(): _NOW + 15 for _ in range(conditioning)}
    pool.servers = {*pool.idle, *pool.conditioning, *(_Server() for _ in range(linked))}
    pool.dialing, pool.void = dialing, void
    pool.waiting.update((number, _NOW - waited) for number, waited in enumerate(waiting))
    return pool


def test_a_quiet_pool_opens_nothing() -> None:
    """Connections are opened on demand."""
    assert _pool(pool_size=5).missing(_NOW) == 0


def test_one_connection_for_each_client_that_waits() -> None:
    """Those that are being opened, or will be free soon, count."""
    assert _pool(pool_size=9, waiting=(0, 0, 0)).missing(_NOW) == 3
    assert _pool(pool_size=9, waiting=(0, 0, 0), dialing=1).missing(_NOW) == 2
    assert _pool(pool_size=9, waiting=(0, 0, 0), dialing=1, conditioning=1).missing(_NOW) == 1
    assert _pool(pool_size=9, waiting=(0,), dialing=2).missing(_NOW) == 0
    assert _pool(pool_size=9, waiting=(0, 0, 0), void=1).missing(_NOW) == 3


def test_pool_size_is_the_limit() -> None:
    """Every connection counts, whatever it does."""
    assert _pool(pool_size=4, linked=1, dialing=1, waiting=(0,) * 8).missing(_NOW) == 2
    assert _pool(pool_size=4, linked=4, waiting=(0,) * 8).missing(_NOW) == 0
    assert _pool(pool_size=4, linked=6, waiting=(0,) * 8).missing(_NOW) == 0
    assert _pool(pool_size=4, void=3, waiting=(0,) * 8).missing(_NOW) == 1


def test_pool_size_zero_is_no_limit() -> None:
    """As in pgbouncer."""
    assert _pool(pool_size=0, linked=500, waiting=(0,) * 100).missing(_NOW) == 100


def test_the_reserve_is_for_those_who_have_waited() -> None:
    """It opens up when the first client in the queue has waited ``reserve_pool_timeout``, and not before."""
    reserve: dict[str, Any] = {
        "pool_size": 2,
        "reserve_pool_size": 3,
        "reserve_pool_timeout": 5.0,
        "linked": 2,
    }
    assert _pool(**reserve, waiting=(4.9, 4.9)).missing(_NOW) == 0
    assert _pool(**reserve, waiting=(5.0, 0.0)).missing(_NOW) == 2
    assert _pool(**reserve, waiting=(5.0,) * 9).missing(_NOW) == 3


def test_min_pool_size_is_kept_while_there_are_clients_or_the_user_is_forced() -> None:
    """As in pgbouncer: a pool that nobody uses may shrink to nothing, unless it is to be warm before clients come."""
    pool = _pool(pool_size=9, min_pool_size=3, linked=1)
    assert pool.missing(_NOW) == 0
    pool.clients = 1
    assert pool.missing(_NOW) == 2
    pool.clients, pool.kept = 0, True
    assert pool.missing(_NOW) == 2
    assert pool.minimum == 3


def test_min_pool_size_does_not_go_beyond_pool_size() -> None:
    """The limit wins."""
    pool = _pool(pool_size=2, min_pool_size=5)
    pool.kept = True
    assert pool.missing(_NOW) == 2


def test_a_login_that_waits_for_parameters_gets_one_connection() -> None:
    """However many logins wait, one new server tells what they want to know."""
    pool = _pool(pool_size=9)
    pool.logins = 7
    assert pool.missing(_NOW) == 1
    pool.dialing = 1
    assert pool.missing(_NOW) == 0
    pool = _pool(pool_size=9, idle=2)
    pool.logins = 1
    assert pool.missing(_NOW) == 1


def test_a_login_waits_for_the_server_that_has_come_and_has_not_told_yet() -> None:
    """Not for another one, unless that is lost, or is one of the past."""
    pool = _pool(pool_size=9, conditioning=1)
    (server,) = pool.servers
    pool.logins = 1
    pool.starting.add(server)
    assert pool.missing(_NOW) == 0
    pool.forget(server)
    assert pool.missing(_NOW) == 1
    pool.starting.add(server)
    pool.renew()
    assert pool.missing(_NOW) == 1


def test_nothing_is_opened_while_paused_or_backing_off() -> None:
    """Not for anybody."""
    pool = _pool(pool_size=9, waiting=(0, 0))
    pool.paused = True
    assert pool.missing(_NOW) == 0
    pool.paused = False
    pool.backoff.failed(_DOWN, _NOW)
    assert pool.missing(_NOW) == 0
    assert pool.missing(_NOW + 2) == 2


def test_waiting_is_hopeless_only_without_any_server_and_within_the_backoff() -> None:
    """Then clients are told at once; else a server may still become free or arrive, or be asked for again."""
    pool = _pool(pool_size=9)
    assert pool.hopeless(_NOW) is None
    pool.backoff.failed(_DOWN, _NOW)
    assert pool.hopeless(_NOW) is _DOWN
    assert pool.hopeless(_NOW + 2) is None
    pool.dialing = 1
    assert pool.hopeless(_NOW) is None
    pool = _pool(pool_size=9, linked=1)
    pool.backoff.failed(_DOWN, _NOW)
    assert pool.hopeless(_NOW) is None


def _idle_for(*ages: float, **settings: Any) -> Pool[_Server, int]:
    pool = _pool(**settings)
    pool.idle = [_Server(_NOW - age) for age in ages]
    pool.servers.update(pool.idle)
    return pool


def test_servers_idle_for_too_long_are_stale() -> None:
    """The longest idle ones are at the beginning of `idle`: they are the first to go."""
    pool = _idle_for(700, 601, 600, 599, 0, server_idle_timeout=600.0)
    assert [_NOW - server.idle_since for server in pool.stale(_NOW)] == [700, 601, 600]


def test_stale_servers_may_be_closed_while_they_are_listed() -> None:
    """The caller forgets each one as it gets it."""
    pool = _idle_for(700, 650, 620, 0, server_idle_timeout=600.0)
    for server in pool.stale(_NOW):
        pool.forget(server)
    assert len(pool.idle) == len(pool.servers) == 1


def test_stale_servers_are_kept_down_to_the_minimum() -> None:
    """Linked ones count."""
    pool = _idle_for(900, 800, 700, linked=1, min_pool_size=2)
    pool.kept = True
    assert [_NOW - server.idle_since for server in pool.stale(_NOW)] == [900, 800]
    pool = _idle_for(900, 800, min_pool_size=5)
    pool.kept = True
    assert list(pool.stale(_NOW)) == []


def test_idle_timeout_zero_is_off() -> None:
    """As in pgbouncer."""
    assert list(_idle_for(1e9, server_idle_timeout=0.0).stale(_NOW)) == []


@pytest.mark.parametrize("place", ["idle", "conditioning", "linked"])
def test_a_forgotten_server_is_nowhere(place: str) -> None:
    """Wherever it was; a second time does no harm."""
    pool = _pool(idle=2, conditioning=2, linked=2)
    linked = next(iter(pool.servers - {*pool.idle, *pool.conditioning}))
    server = {"idle": pool.idle[0], "conditioning": next(iter(pool.conditioning)), "linked": linked}[place]
    before = (pool.active, len(pool.idle), len(pool.conditioning))
    for _ in range(2):
        pool.forget(server)
        assert server not in pool.servers
        assert server not in pool.idle
        assert server not in pool.conditioning
    after = (pool.active, len(pool.idle), len(pool.conditioning))
    assert sum(before) - sum(after) == 1


def test_settings_are_resolved_for_the_hot_path() -> None:
    """What is asked for each query is computed once, and again on reload."""
    pool = _pool(pool_size=0, pool_mode=PoolMode.SESSION, server_check_query="", server_login_retry=7.0)
    assert (pool.size, pool.session, pool.check_after) == (float("inf"), True, float("inf"))
    assert pool.backoff.limit == 7.0
    pool.configure(attrs.evolve(POOL, pool_size=3, server_check_delay=30.0, server_login_retry=9.0))
    assert (pool.size, pool.session, pool.check_after) == (3, False, 30.0)
    assert pool.backoff.limit == 9.0


def test_names_and_numbers_for_people() -> None:
    """The repr shows every place of the pool."""
    pool = _pool(idle=1, linked=2, conditioning=3, dialing=4, waiting=(0,) * 5)
    assert repr(pool) == "<Pool db/u: 1 idle, 2 active, 3 conditioning, 4 dialing, 5 waiting>"


@given(
    size=st.integers(0, 6),
    reserve=st.integers(0, 3),
    least=st.integers(0, 8),
    counts=st.tuples(*[st.integers(0, 4)] * 5),
    starts=st.booleans(),
    waiting=st.lists(st.sampled_from((0.0, 4.0, 5.0, 90.0)), max_size=9),
    logins=st.integers(0, 2),
    kept=st.booleans(),
)
def test_what_is_missing_is_enough_and_not_more(
    size: int,
    reserve: int,
    least: int,
    counts: tuple[int, int, int, int, int],
    starts: bool,
    waiting: list[float],
    logins: int,
    kept: bool,
) -> None:
    """In any state: everybody who waits is provided for, the limits hold, and one connection less would not do."""
    idle, linked, conditioning, dialing, void = counts
    ages = tuple(sorted(waiting, reverse=True))
    assume(not (idle and waiting))
    pool = _pool(
        idle=idle,
        linked=linked,
        conditioning=conditioning,
        dialing=dialing,
        void=void,
        waiting=ages,
        pool_size=size,
        reserve_pool_size=reserve,
        min_pool_size=least,
    )
    pool.logins, pool.kept = logins, kept
    pool.starting.update(pool.conditioning if starts else ())

    def provided(more: int) -> bool:
        soon = dialing + conditioning + more
        have = idle + linked + conditioning + dialing + void + more
        told = not logins or dialing + more + len(pool.starting) > 0
        return len(ages) <= soon and have >= pool.minimum and told

    missing = pool.missing(_NOW)
    have = idle + linked + conditioning + dialing + void
    patient = not ages or ages[0] < 5.0
    limit = size + (0 if patient else reserve) if size else float("inf")
    assert missing >= 0
    assert missing == 0 or have + missing <= limit
    assert provided(missing) or have + missing >= limit
    assert missing == 0 or not provided(missing - 1)
