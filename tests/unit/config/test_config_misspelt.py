"""What is misspelt is named, and nothing that only follows from it: it would be gone with the mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.config.conftest import Problems

_MODE = "found the text 'transactoin', expected one of session, transaction, statement"
_UNKNOWN = "found an unknown setting; did you mean {}?"
_SESSION = "databases.app.cache: found with pool_mode session, in which nothing is cached; set transaction or statement"


@pytest.mark.parametrize(
    ("pooler", "database", "problem"),
    [
        ({"pool_mode": "transactoin"}, {}, f"pooler.pool_mode: {_MODE}"),
        ({"pool_mod": "transaction"}, {}, f"pooler.pool_mod: {_UNKNOWN.format('pool_mode')}"),
        ({}, {"pool_mode": "transactoin"}, f"databases.app.pool_mode: {_MODE}"),
        ({}, {"pool_mod": "transaction"}, f"databases.app.pool_mod: {_UNKNOWN.format('pool_mode')}"),
        (
            {"pool_mode": "transaction", "session_state": "keep"},
            {"session_stat": "follow"},
            f"databases.app.session_stat: {_UNKNOWN.format('session_state')}",
        ),
        (
            {"pool_mode": "transaction", "cache_siz": "1GiB"},
            {"cache": {"max_entry": "500MiB"}},
            f"pooler.cache_siz: {_UNKNOWN.format('cache_size')}",
        ),
    ],
)
def test_a_cache_is_not_doubted_for_a_misspelt_setting(
    problems_with: Problems, pooler: dict[str, Any], database: dict[str, Any], problem: str
) -> None:
    """A word or a name, of the pooler or of the database."""
    assert problems_with(pooler=pooler, databases={"app": {"cache": True, **database}}) == [problem]


def test_a_cache_is_not_doubted_for_a_setting_in_the_wrong_place(problems_with: Problems) -> None:
    """It is meant for the pooler."""
    assert problems_with(pool_mode="transaction", databases={"app": {"cache": True}}) == [
        "pool_mode: found at the top, expected below pooler; indent it there"
    ]


def test_what_a_database_says_itself_does_not_follow_from_what_is_misspelt(problems_with: Problems) -> None:
    """Both are named."""
    assert problems_with(
        pooler={"pool_mode": "transactoin"}, databases={"app": {"pool_mode": "session", "cache": True}}
    ) == [f"pooler.pool_mode: {_MODE}", _SESSION]


def test_what_is_misspelt_elsewhere_excuses_nothing(problems_with: Problems) -> None:
    """The cache of one database, and the pool_mode of another."""
    assert problems_with(
        databases={"app": {"cache": True}, "other": {"pool_mod": "transaction"}},
    ) == [f"databases.other.pool_mod: {_UNKNOWN.format('pool_mode')}", _SESSION]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "pooler: {listen_adr: 127.0.0.1, auth_type: trust}\ndatabases: {app: {}}\nusers: {ann: {password: x}}",
            f"pooler.listen_adr: {_UNKNOWN.format('listen_addr')}",
        ),
        (
            "poler: {listen_addr: 127.0.0.1, auth_type: trust}\ndatabases: {app: {}}\nusers: {ann: {}}",
            f"poler: {_UNKNOWN.format('pooler')}",
        ),
        (
            "pooler: {listen_addr: 127.0.0.1, auth_type: trust}\ndatabses: {app: {}}\nusers: {ann: {password: x}}",
            f"databses: {_UNKNOWN.format('databases')}",
        ),
        (
            "pooler: {listen_addr: 127.0.0.1}\ndatabases: {app: {}}\nusrs: {ann: {password: x}}",
            f"usrs: {_UNKNOWN.format('users')}",
        ),
    ],
)
def test_what_is_missing_because_it_is_misspelt(problems_with: Problems, text: str, problem: str) -> None:
    """It is not missed, too."""
    assert problems_with(text) == [problem]


def test_what_stands_there_itself_is_not_what_is_meant(problems_with: Problems) -> None:
    """It does not have its default."""
    assert problems_with(databases={"app": {"cache": True}}, database={}) == [
        f"database: {_UNKNOWN.format('databases')}",
        _SESSION,
    ]


def test_a_password_that_is_perhaps_meant_is_not_a_second_one(
    problems_with: Problems, tmp_path: Path
) -> None:
    """There is one in a file."""
    (tmp_path / "secret").write_text("x")
    assert problems_with(users={"ann": {"pasword": "x", "password_file": "secret"}}) == [
        f"users.ann.pasword: {_UNKNOWN.format('password')}"
    ]
