"""`session_state`: what `reset` and `keep` make of a session's state, and what statement pooling does."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import pytest

from tests.support import rawclient as raw
from tests.support.postgres import TRUDY
from tests.support.sharing import (
    DATABASE,
    ROOT,
    STATE,
    Sharing,
    answers,
    config_for,
    differences,
    direct,
    in_turn,
    pid_of,
    schema,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

CASES: Final = {
    "SET": ["SET work_mem = '7MB'"],
    "SET in a transaction": ["BEGIN", "SET work_mem = '7MB'", "COMMIT"],
    "a parameter that is reported": ["SET TimeZone = 'Asia/Tokyo'"],
    "an own parameter": ["SET my.setting = 'x'"],
    "SET ROLE": ["SET ROLE hat"],
    "a function": ["SELECT state.set_tenant('x')"],
    "DO": ["DO $$ BEGIN SET work_mem = '7MB'; END $$"],
    "a temporary table": ["CREATE TEMP TABLE t (n int)"],
    "LISTEN": ["LISTEN news"],
    "a lock": ["SELECT pg_advisory_lock(4711)"],
    "a lock that outlives its transaction": ["BEGIN", "SELECT pg_advisory_lock(4711)", "ROLLBACK"],
    "a lock by a function": ["SELECT state.take_lock(4711)"],
    "a cursor": ["DECLARE c CURSOR WITH HOLD FOR SELECT 1"],
    "PREPARE": ["PREPARE p AS SELECT 1"],
    "all at once": [
        "BEGIN",
        "SET work_mem = '7MB'",
        "SET my.setting = 'x'",
        "CREATE TEMP TABLE t (n int)",
        "LISTEN news",
        "SELECT pg_advisory_lock(4711)",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "COMMIT",
    ],
}

FOLLOWED: Final = ("a parameter that is reported",)
"""What servers report follows its client whatever `session_state` is, as in pgbouncer."""


@pytest.fixture(scope="module")
def sharing_pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Iterator[Pooler]:
    """A database for each way to treat a session."""
    with schema(_pg, DATABASE):
        config = config_for(_pg, DATABASE, pin_functions=["state.hidden"])
        everything = config["databases"]["*"]
        config["databases"]["reset"] = {**everything, "session_state": "reset"}
        config["databases"]["keep"] = {**everything, "session_state": "keep", "pool_size": 1}
        config["databases"]["statement"] = {**everything, "pool_mode": "statement"}
        config["databases"][ROOT]["session_state"] = "reset"
        yield make_module_pooler(config)


@pytest.fixture
def start(sharing_pooler: Pooler, watch: Callable[[Pooler], Pooler]) -> Callable[[str], Sharing]:
    """Makes clients that share two servers of a database."""
    watch(sharing_pooler)
    return lambda database: Sharing(sharing_pooler, database)


def _compare(state: str, expected: str) -> None:
    assert state == expected, differences(state, expected)


@pytest.mark.parametrize(("case", "way"), in_turn(CASES))
def test_reset(start: Callable[[str], Sharing], case: str, way: str) -> None:
    """With `reset` everything is gone when the transaction ends, for the client itself, too; nobody is pinned."""
    with start("reset") as sharing:
        client, other = sharing.client(), sharing.client()
        plain = sharing.everywhere(other)
        assert b"E" not in {got.kind for got in answers(client, way, CASES[case])}
        if case in FOLLOWED:
            assert sharing.everywhere(client, "SHOW TimeZone") == "Asia/Tokyo"
        else:
            _compare(sharing.everywhere(client), plain)
        _compare(sharing.everywhere(other), plain)
        assert sharing.reasons(client) == []


def test_reset_within_the_transaction(start: Callable[[str], Sharing], pg: PostgresCluster) -> None:
    """Within its transaction a client has all that it makes, and the servers stay the same ones."""
    with start("reset") as sharing:
        client = sharing.client()
        servers = pg.backends(DATABASE)
        for _ in range(3):
            for statement in CASES["all at once"][:-1]:
                assert client.ask(statement)[-1].body == b"T"
            assert (
                client.value("SELECT current_setting('work_mem') || current_setting('my.setting')") == "7MBx"
            )
            assert client.value("SELECT count(*) FROM t, pg_listening_channels()") == "0"
            client.ask("COMMIT")
        sharing.settle()
        assert pg.backends(DATABASE) == servers


@pytest.mark.parametrize(
    "text",
    ["LOAD 'plpgsql'", "SELECT state.hidden()"],
)
def test_reset_of_what_cannot_be_undone(
    start: Callable[[str], Sharing], pg: PostgresCluster, text: str
) -> None:
    """What only the end of a session undoes ends it; the client has another server for its next transaction."""
    with start(ROOT) as sharing:
        client = sharing.client()
        client.ask("BEGIN")
        pid = pid_of(client)
        client.ask(text)
        client.ask("COMMIT")
        eventually(
            lambda: not pg.sql("SELECT FROM pg_stat_activity WHERE pid = %s", pid),
            what="the server has been closed",
        )
        assert pid_of(client) != pid
        assert sharing.reasons(client) == []


def test_reset_keeps_what_was_prepared(start: Callable[[str], Sharing]) -> None:
    """The protocol's prepared statements are the client's, and are there again after a reset."""
    with start("reset") as sharing:
        client = sharing.client(TimeZone="Asia/Tokyo", application_name="mine")
        client.send(raw.parse("SELECT 'prepared', set_config('work_mem', '7MB', false)", "s"), raw.SYNC)
        client.receive_until()
        for _ in range(3):
            client.send(raw.bind(name="s"), raw.execute(), raw.SYNC)
            assert [got.columns for got in client.receive_until() if got.kind == b"D"] == [
                [b"prepared", b"7MB"]
            ]
            assert sharing.everywhere(client, "SHOW work_mem") == "4MB"
            assert sharing.everywhere(client, "SHOW TimeZone") == "Asia/Tokyo"
            assert sharing.everywhere(client, "SHOW application_name") == "mine"


@pytest.fixture
def pair(
    sharing_pooler: Pooler, pg: PostgresCluster, watch: Callable[[Pooler], Pooler]
) -> Iterator[Callable[[str], tuple[raw.RawClient, raw.RawClient]]]:
    """Makes two clients of a database."""
    pooler = watch(sharing_pooler)
    with contextlib.ExitStack() as stack:

        def connect(database: str) -> tuple[raw.RawClient, raw.RawClient]:
            one, two = (stack.enter_context(pooler.raw(database, TRUDY)) for _ in range(2))
            return one, two

        yield connect


@pytest.mark.parametrize("case", CASES)
def test_keep(
    pair: Callable[[str], tuple[raw.RawClient, raw.RawClient]], pg: PostgresCluster, case: str
) -> None:
    """With `keep` everything stays on its server, where the next client finds it, as in pgbouncer."""
    with direct(pg, DATABASE) as alone:
        untouched = alone.value(STATE)
        answers(alone, "simple", CASES[case])
        state = alone.value(STATE)
    client, other = pair("keep")
    _compare(other.value(STATE), untouched)
    answers(client, "simple", CASES[case])
    _compare(client.value(STATE), state)
    _compare(other.value(STATE), untouched if case in FOLLOWED else state)
    client.close()
    _compare(other.value(STATE), untouched if case in FOLLOWED else state)
    other.ask("DISCARD ALL")
    _compare(other.value(STATE), untouched)


@pytest.mark.parametrize("case", [case for case, statements in CASES.items() if "BEGIN" not in statements])
def test_statement_pooling(
    pair: Callable[[str], tuple[raw.RawClient, raw.RawClient]], pg: PostgresCluster, case: str
) -> None:
    """With `follow`, state follows its client, or pins it, in statement pooling, too."""
    with direct(pg, DATABASE) as alone:
        answers(alone, "simple", CASES[case])
        state = alone.value(STATE)
    client, other = pair("statement")
    plain = other.value(STATE)
    answers(client, "simple", CASES[case])
    for _ in range(3):
        _compare(client.value(STATE), state)
        _compare(other.value(STATE), plain)
    client.abort()
    for _ in range(3):
        _compare(other.value(STATE), plain)
