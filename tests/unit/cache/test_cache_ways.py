"""Several ways to one database, and one way to several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from hyperpool.cache.results import ResultCache
from hyperpool.config import PoolMode, SessionState
from hyperpool.config.cache import CacheSettings
from hyperpool.relay.parameters import ParameterSet
from hyperpool.sql.reasons import Reason
from tests.support.relayworld import POOL

if TYPE_CHECKING:
    from hyperpool.config import PoolSettings

_CACHED = attrs.evolve(POOL, session_state=SessionState.FOLLOW, cache=CacheSettings())
_OTHER = attrs.evolve(_CACHED, database="other", host="elsewhere")
_PLAIN = attrs.evolve(POOL, database="plain", host="by another way", pool_mode=PoolMode.SESSION)


class _Results(ResultCache[Any, Any, Any]):
    def __init__(self) -> None:
        super().__init__(1 << 20, lambda: 0.5)

    def database(self, settings: PoolSettings) -> object:
        lane = self.lane(settings)
        return None if lane is None else lane.database


def test_all_ways_to_one_database_share_what_is_known_of_it() -> None:
    """Also those of pools that are not cached, and those that are found out later."""
    results = _Results()
    assert not results.identified(_PLAIN, "x")
    assert results.database(_PLAIN) is None
    database = results.database(_CACHED)
    assert results.in_use
    assert results.database(_PLAIN) is None
    assert results.identified(_CACHED, "x")
    assert not results.identified(_CACHED, "x")
    assert results.database(_PLAIN) is database
    assert results.database(_OTHER) is not database
    assert results.identified(_OTHER, "x")
    assert results.database(_OTHER) is results.database(_PLAIN) is results.database(_CACHED)


def test_what_is_cached_later_shares_what_is_known_already() -> None:
    """Its name has been used before."""
    results = _Results()
    results.database(_CACHED)
    results.identified(_CACHED, "x")
    uncached = attrs.evolve(_OTHER, cache=None)
    assert results.identified(uncached, "x")
    assert results.database(_OTHER) is results.database(_CACHED) is not None


def test_a_way_that_leads_elsewhere_parts_from_others() -> None:
    """A failover: what was known of where it led is no longer known of it."""
    results = _Results()
    for settings in (_CACHED, _OTHER):
        results.database(settings)
        results.identified(settings, "x")
    database = results.database(_OTHER)
    lane = results.lane(_OTHER)
    assert lane is not None
    before = lane.database.generation
    assert results.identified(_CACHED, "y")
    assert results.database(_CACHED) is not database
    assert results.database(_OTHER) is database
    assert lane.database.generation == before + 1
    assert results.identified(_OTHER, "y")
    assert results.database(_CACHED) is results.database(_OTHER)


def test_a_way_to_several_databases_in_turn_is_none_of_them() -> None:
    """A name with several addresses: nothing is dropped any more when the next one comes."""
    results = _Results()
    results.database(_CACHED)
    results.database(_OTHER)
    results.identified(_OTHER, "x")
    for identity in ("x", "y", "x"):
        results.identified(_CACHED, identity)
    assert results.database(_CACHED) is not results.database(_OTHER)
    for identity in ("x", "y", "z"):
        assert not results.identified(_CACHED, identity)


def test_another_server_is_another_database() -> None:
    """Where one of several is used at a time."""
    lane = _Results().lane(_CACHED)
    assert lane is not None
    for server, generation in (("a", 0), ("a", 0), ("b", 1)):
        lane.reached(server)
        assert lane.database.generation == generation


def test_sessions_that_begin_with_something_else_are_told() -> None:
    """The first one is no change."""
    lane = _Results().lane(_CACHED)
    assert lane is not None
    assert not lane.begins_with("public", "1")
    assert not lane.begins_with("public", "1")
    assert lane.begins_with("public", "2")
    assert lane.path == "public"


def test_a_pool_s_first_query_is_not_said_to_have_unknown_settings() -> None:
    """No server has told yet what sessions begin with, which is over within moments, and nothing to be changed."""
    lane = _Results().lane(_CACHED)
    assert lane is not None
    lane.configure(_CACHED.cache)
    tracked = ParameterSet({})
    plan = lane.plan(lane.session(tracked), b"Q", b"SELECT 1", b"", b"")
    assert plan.reason is Reason.CATALOG_PENDING
    assert Reason.SETTINGS_UNKNOWN not in lane.database.stats.refused
