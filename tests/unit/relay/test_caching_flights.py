"""Clients that wait for another one's answer."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from hyperpool.cache.catalog_writes import Touched
from hyperpool.cache.results import ResultCache
from hyperpool.cache.verdict import Verdict
from hyperpool.config import SessionState
from hyperpool.config.cache import CacheSettings
from tests.support.relaystage import Stage
from tests.support.relayworld import POOL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.relay.handover import RelayLane

_CACHED = attrs.evolve(POOL, session_state=SessionState.FOLLOW, cache=CacheSettings())


class _Catalog:
    """It allows everything, and all of it reads the table 1."""

    version = ""

    def judge(self, *_about: object) -> Verdict:
        return Verdict(tables=frozenset({1}))

    def touched(self, *_about: object) -> Touched:
        return Touched(frozenset())


def _known(lane: RelayLane) -> None:
    """The database has told all that must be known."""
    lane.begins_with("public", "")
    database: Any = lane.database
    database.catalog = _Catalog()
    database.pending = False
    database.catalog_due = float("inf")


@contextmanager
def _stage() -> Iterator[tuple[Stage, ResultCache[Any, Any, Any], RelayLane]]:
    """A stage whose pool is cached."""
    cached = CacheSettings()
    with Stage(pool_size=3, session_state=SessionState.FOLLOW, cache=cached, max_pinned=3) as stage:
        results: ResultCache[Any, Any, Any] = ResultCache(1 << 20, lambda: 0.5)
        lane = results.lane(stage.pool.settings)
        assert lane is not None
        stage.pool.attach(lane)
        _known(lane)
        yield stage, results, lane


def test_who_waits_for_an_answer_from_before_a_write_waits_for_the_next_one() -> None:
    """When somebody asks for that; and not for longer than is meant."""
    with _stage() as (stage, _, lane):
        stage.play(
            """
            c1 > Qselect 1 from t
            s1 < Qselect 1 from t
            c2 > Qselect 1 from t
            """
        )
        lane.database.drop({1}, "writes")
        stage.play(
            """
            c3 > Qselect 1 from t
            s2 < Qselect 1 from t
            s2 > T|D2|CSELECT 1|Z
            c3 < T|D2|CSELECT 1|Z
            c2 < T|D2|CSELECT 1|Z
            s1 > T|D1|CSELECT 1|Z
            c1 < T|D1|CSELECT 1|Z
            c1 > Qselect 1 from t
            c1 < T|D2|CSELECT 1|Z
            """
        )


def test_an_answer_that_was_on_its_way_when_its_query_was_purged_is_not_kept() -> None:
    """By its fingerprint; and who asks afterwards does not wait for it."""
    with _stage() as (stage, results, lane):
        stage.play("c1 > Qselect 1 from t\ns1 < Qselect 1 from t")
        (query,) = lane.database.queries
        assert results.purge_fingerprint(query.fingerprint) == 0
        stage.play(
            """
            c2 > Qselect 1 from t
            s2 < Qselect 1 from t
            s1 > T|D1|CSELECT 1|Z
            c1 < T|D1|CSELECT 1|Z
            """
        )
        assert len(results.store) == 0
        stage.play("s2 > T|D2|CSELECT 1|Z\nc2 < T|D2|CSELECT 1|Z")
        assert len(results.store) == 1
        assert results.purge_fingerprint(query.fingerprint) == 1


def test_an_answer_of_where_the_pool_led_before_is_not_kept() -> None:
    """The settings have been reloaded while it was on its way, and lead back later."""
    with _stage() as (stage, results, lane):
        stage.play("c1 > Qselect 1 from t\ns1 < Qselect 1 from t")
        elsewhere = results.lane(attrs.evolve(stage.pool.settings, dbname="elsewhere"), lane)
        assert elsewhere is not None
        assert elsewhere is not lane
        stage.pool.attach(elsewhere)
        stage.play("s1 > T|D1|CSELECT 1|Z\nc1 < T|D1|CSELECT 1|Z")
        assert len(results.store) == 0
        assert elsewhere.refreshes == 0


def test_who_has_waited_in_vain_waits_for_the_next_answer_again() -> None:
    """Patience is for one request, whether it ends with a server's answer or a cancel request."""
    with _stage() as (stage, _, _lane):
        stage.play(
            """
            c1 > Qselect 1 from t
            s1 < Qselect 1 from t
            c2 > Qselect 1 from t
            wait 5
            s2 < Qselect 1 from t
            s2 > T|D1|CSELECT 1|Z
            c2 < T|D1|CSELECT 1|Z
            c3 > Qselect 2 from t
            s2 < Qselect 2 from t
            c2 > Qselect 2 from t
            """
        )
        waiting = stage.client("c2")
        assert waiting.flight is not None
        stage.relay.cancel_target(waiting.pid, waiting.secret)
        stage.play("c2 < E57014 canceling statement due to user request|Z")
        stage.wait(5)
        stage.play(
            """
            c2 > Qselect 2 from t
            s2 > T|D2|CSELECT 1|Z
            c3 < T|D2|CSELECT 1|Z
            c2 < T|D2|CSELECT 1|Z
            s1 > T|D1|CSELECT 1|Z
            c1 < T|D1|CSELECT 1|Z
            """
        )


@pytest.mark.parametrize("cached", [True, False])
def test_who_waits_does_not_wait_for_an_answer_of_where_the_pool_led_before(cached: bool) -> None:
    """Nor does anybody wait for ever, if the answer does not come and nothing is cached any more."""
    with _stage() as (stage, results, lane):
        stage.play(
            """
            c1 > Qselect 1 from t
            s1 < Qselect 1 from t
            c2 > Qselect 1 from t
            """
        )
        settings = attrs.evolve(stage.pool.settings, dbname="elsewhere")
        if not cached:
            settings = attrs.evolve(settings, cache=None)
        stage.pool.attach(results.lane(settings, lane))
        assert (stage.pool.cache is not None) == cached
        if stage.pool.cache is not None:
            _known(stage.pool.cache)
        stage.relay.scatter(stage.pool)
        stage.play("wait 0.1\ns2 < Qselect 1 from t")
        stage.client("c1").close("it leaves")
        stage.play("c1 < END\ns1 < END\ns2 > T|D2|CSELECT 1|Z\nc2 < T|D2|CSELECT 1|Z")
        assert lane.flights == {}
