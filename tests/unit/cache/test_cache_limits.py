"""How old an answer may be: settings, rules, hints, and jitter that never makes it older than promised."""

from __future__ import annotations

import attrs
import pytest

from hyperpool.cache.ages import LONGEST, Ages, ages, find_rule
from hyperpool.config.cache import CacheRule, CacheSettings
from hyperpool.sql.reading import Hint

_SETTINGS = CacheSettings(max_age=60.0, stale_while_revalidate=15.0)


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_jitter_makes_an_answer_stale_earlier_never_later(chance: float) -> None:
    """And the end of all is not moved."""
    fresh, dead = Ages(60.0, 15.0, 60.0).limits(1000.0, 1, lambda: chance)
    assert 1054.0 < fresh <= 1060.0
    assert dead == 1075.0


def test_no_rows_have_their_own_age_but_no_longer_one() -> None:
    """What is not there may come at any time."""
    assert Ages(60.0, 15.0, 2.0).limits(0.0, 0, lambda: 0.0) == (2.0, 17.0)
    assert Ages(60.0, 15.0, 2.0).limits(0.0, 1, lambda: 0.0) == (60.0, 75.0)
    assert Ages(1.0, 15.0, 2.0).limits(0.0, 0, lambda: 0.0) == (1.0, 16.0)


def test_a_hint_goes_before_a_rule_and_a_rule_before_the_settings() -> None:
    """Each says what it says; the rest is as it was."""
    rule = CacheRule(table="x", max_age=30.0)
    assert ages(_SETTINGS, None, None) == Ages(60.0, 15.0, 60.0)
    assert ages(_SETTINGS, rule, None) == Ages(30.0, 15.0, 30.0)
    assert ages(_SETTINGS, rule, Hint(stale_while_revalidate=1.0)) == Ages(30.0, 1.0, 30.0)
    assert ages(_SETTINGS, rule, Hint(max_age=5.0)) == Ages(5.0, 15.0, 5.0)
    assert ages(attrs.evolve(_SETTINGS, max_age_empty=3.0), rule, None) == Ages(30.0, 15.0, 3.0)
    assert ages(_SETTINGS, None, Hint(max_age=1e9)).fresh == LONGEST
    assert ages(_SETTINGS, None, Hint(max_age=0.0, stale_while_revalidate=0.0)).never


def test_other_ages_are_another_key() -> None:
    """Who wants it fresher must not get what others take."""
    assert Ages(60.0, 15.0, 60.0).key != Ages(5.0, 15.0, 5.0).key


def test_the_first_rule_that_fits() -> None:
    """By fingerprint, by table with its schema, or by table alone."""
    by_print = CacheRule(fingerprint="f", never=True)
    by_name = CacheRule(table="sessions", never=True)
    by_schema = CacheRule(table="audit.log", max_age=1.0)
    rules = (by_print, by_schema, by_name)
    assert find_rule(rules, "f", ("public.sessions",)) is by_print
    assert find_rule(rules, "g", ("public.items", "public.sessions")) is by_name
    assert find_rule(rules, "g", ("audit.log", "public.sessions")) is by_schema
    assert find_rule(rules, "g", ("public.log", "sessions.items")) is None
