"""Settings of the result cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.unit.config.conftest import Loader, Problems

_TRANSACTION = {"pool_mode": "transaction"}
_HERE = "databases.app.cache"


def test_nothing_is_cached_unless_asked_for(load_with: Loader) -> None:
    """Neither by default nor by false."""
    settings = load_with(pooler=_TRANSACTION, databases={"app": {}, "off": {"cache": False}})
    for name in ("app", "off"):
        pool = settings.pool_for(name, "ann")
        assert pool is not None
        assert pool.cache is None


@pytest.mark.parametrize("cache", [True, {}, None])
def test_true_or_an_empty_mapping_stands_for_the_defaults(load_with: Loader, cache: object) -> None:
    """Sixty seconds, and fifteen more, as in Hyperdrive."""
    pool = load_with(pooler=_TRANSACTION, databases={"app": {"cache": cache}}).pool_for("app", "ann")
    assert pool is not None
    assert pool.cache is not None
    assert (pool.cache.max_age, pool.cache.stale_while_revalidate, pool.cache.max_entry) == (
        60.0,
        15.0,
        1 << 20,
    )


def test_a_user_may_have_other_ages_or_no_cache(load_with: Loader) -> None:
    """The user's settings go before the database's."""
    settings = load_with(
        pooler=_TRANSACTION,
        databases={"app": {"cache": {"max_age": "5s", "wait": "1s"}}},
        users={
            "ann": {"password": "x", "cache": {"max_age": "2s"}},
            "bob": {"password": "x", "cache": False},
        },
    )
    ann, bob, other = (settings.pool_for("app", user) for user in ("ann", "bob", "other"))
    assert ann is not None
    assert ann.cache is not None
    assert (ann.cache.max_age, ann.cache.stale_while_revalidate, ann.cache.wait) == (2.0, 15.0, 1.0)
    assert bob is not None
    assert bob.cache is not None
    assert bob.cache.off
    assert other is not None
    assert other.cache is not None
    assert other.cache.max_age == 5.0


@pytest.mark.parametrize(
    ("pooler", "database", "problem"),
    [
        (
            {},
            {"cache": True},
            f"{_HERE}: found with pool_mode session, in which nothing is cached; set transaction or statement",
        ),
        (
            _TRANSACTION,
            {"cache": True, "session_state": "keep"},
            f"{_HERE}: found with session_state keep, in which nobody knows a client's settings; set follow",
        ),
        (
            {**_TRANSACTION, "max_prepared_statements": 0},
            {"cache": True},
            (
                f"{_HERE}: found with max_prepared_statements 0, so that nobody knows what prepared statements write; "
                "raise that"
            ),
        ),
        (
            {**_TRANSACTION, "cache_size": "1MiB"},
            {"cache": True},
            f"{_HERE}.max_entry: found more than 1/8 of pooler.cache_size; make that larger, or this smaller",
        ),
        (
            _TRANSACTION,
            {"cache": 7},
            f"{_HERE}: found 7, expected true, false, or a mapping with settings of the cache",
        ),
        (
            _TRANSACTION,
            {"cache": {"rules": {"table": "x"}}},
            (
                f"{_HERE}.rules: found a mapping, expected a list of mappings, each with a fingerprint or a "
                "table, and with what holds for it"
            ),
        ),
        (
            _TRANSACTION,
            {"cache": {"rules": [{"table": "x", "fingerprint": "y", "never": True}]}},
            f"{_HERE}.rules.1: found both or neither of fingerprint and table, expected one of them",
        ),
        (
            _TRANSACTION,
            {"cache": {"rules": [{"table": "x", "never": True, "max_age": 1}]}},
            f"{_HERE}.rules.1.never: found together with what is for cached queries; remove one",
        ),
        (
            _TRANSACTION,
            {"cache": {"rules": [{"table": "x"}]}},
            f"{_HERE}.rules.1: found nothing that holds for its queries; add never, max_age or always",
        ),
        (
            _TRANSACTION,
            {"cache": {"rules": ["x"]}},
            (
                f"{_HERE}.rules.1: found a text, expected a mapping; each setting or name on a line of its own, with a "
                "colon and a space behind it"
            ),
        ),
    ],
)
def test_what_makes_no_sense_is_a_problem(
    problems_with: Problems, pooler: dict[str, Any], database: dict[str, Any], problem: str
) -> None:
    """With its path, and what to do."""
    assert problems_with(pooler=pooler, databases={"app": database}) == [problem]
