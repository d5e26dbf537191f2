"""The language of the console."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.admin.statements import (
    Assignment,
    Command,
    Nothing,
    Statement,
    TransactionControl,
    Unintelligible,
    bind,
    parameters_of,
    parse,
)


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("SHOW POOLS", Command("show", "POOLS")),
        ("  show\n\tPools ; ", Command("show", "Pools")),
        ("SELECT version;", Command("show", "version")),
        ('pause "my ""own"" db"', Command("pause", 'my "own" db')),
        ("RELOAD", Command("reload")),
        ("KILL_CLIENT 17", Command("kill_client", "17")),
        ("KILL_CLIENT ('17'::int4)", Command("kill_client", "17")),
        ("PAUSE ('it''s')", Command("pause", "it's")),
        ("PAUSE  'my-db' ", Command("pause", "my-db")),
        ("SET pool_mode = ('session')", Assignment("pool_mode", "session")),
        ("SET a = (-1.5)", Assignment("a", "-1.5")),
        ("KILL_CLIENT $1", Command("kill_client", "$1", is_parameter=True)),
        ("shutdown wait_for_servers", Command("shutdown", "wait_for_servers")),
        ("set query_timeout = 5", Assignment("query_timeout", "5")),
        ("SET query_timeout='5s';", Assignment("query_timeout", "5s")),
        ("SET query_timeout TO 0.5", Assignment("query_timeout", "0.5")),
        ("set admin_users = 'a, b''c'", Assignment("admin_users", "a, b'c")),
        ('set "pool_mode" to "session"', Assignment("pool_mode", "session")),
        ("set x = $1", Assignment("x", "$1", is_parameter=True)),
        ("begin", TransactionControl(begins=True, commits=False)),
        ("START TRANSACTION READ ONLY", TransactionControl(begins=True, commits=False)),
        ("BEGIN ISOLATION LEVEL READ COMMITTED;", TransactionControl(begins=True, commits=False)),
        ("COMMIT", TransactionControl(begins=False, commits=True)),
        ("rollback work", TransactionControl(begins=False, commits=False)),
        ("explain CACHE select '--;' ; ", Command("explain cache", "select '--;'")),
        ("Explain\nCache /*+ hint */ (select 1)", Command("explain cache", "/*+ hint */ (select 1)")),
        ("PURGE cache;", Command("purge cache")),
        ("purge cache TABLE a.b", Command("purge cache", "TABLE a.b")),
        ("", Nothing()),
        (" ;", Nothing()),
        ("-- ping", Nothing()),
        ("/* a; b */ SHOW /* c */ STATS -- d", Command("show", "STATS")),
    ],
)
def test_what_is_understood(text: str, statement: Statement) -> None:
    """The commands of pgbouncer, and what drivers send unasked."""
    assert parse(text) == statement


@pytest.mark.parametrize(
    "text",
    [
        "SHOW a b",
        "SHOW STATS; SHOW POOLS",
        "pause my-db",
        "show 'stats'",
        "set x = 'a",
        'pause "a',
        "héllo",
    ],
)
def test_what_is_not(text: str) -> None:
    """The error quotes the text, as pgbouncer's does."""
    with pytest.raises(Unintelligible) as caught:
        parse(text)
    assert str(caught.value) == f"invalid command '{text}', use SHOW HELP;"


@given(st.text(max_size=60))
def test_any_text_is_understood_or_not(text: str) -> None:
    """Nothing else can come of it."""
    with contextlib.suppress(Unintelligible):
        parse(text)


def test_comments_without_an_end_cost_little() -> None:
    """Each could be looked at up to the end of the text; the relay would stand still meanwhile."""
    began = time.process_time()
    assert parse("SHOW POOLS" + " /* " * 16_000) == Command("show", "POOLS")
    assert time.process_time() - began < 1


def test_parameters_are_put_in() -> None:
    """Into the place that has their number; values are never parsed."""
    statement = parse("SET pool_mode = $2")
    assert parameters_of(statement) == 2
    assert bind(statement, ["x", "a'; b"]) == Assignment("pool_mode", "a'; b")
    assert bind(parse("PAUSE $1"), ["my-db"]) == Command("pause", "my-db")
    assert parameters_of(parse("PAUSE app")) == 0
