"""What cannot follow a client to another server: the client keeps its server, for as long as there is such state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.support import rawclient as raw
from tests.support.postgres import SUPERUSER
from tests.support.sharing import (
    DATABASE,
    STATE,
    WAYS,
    Sharing,
    answers,
    config_for,
    differences,
    direct,
    in_turn,
    leave,
    pid_of,
    schema,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_TABLE: Final = "temporary objects"
_LOCK: Final = "session advisory locks"
_CURSOR: Final = "WITH HOLD cursors"
_PREPARE: Final = "SQL-level PREPARE"


@pytest.fixture(scope="module")
def sharing_pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Iterator[Pooler]:
    """Functions that the pooler cannot know pin, too."""
    with schema(_pg, DATABASE):
        yield make_module_pooler(config_for(_pg, DATABASE, pin_functions=["state.hidden", *SLOTS]))


PINS: Final = {
    "a temporary table": (["CREATE TEMP TABLE t (n int)"], _TABLE, ["DROP TABLE t"]),
    "a temporary table, discarded": (["CREATE TEMPORARY TABLE t (n int)"], _TABLE, ["DISCARD TEMP"]),
    "CREATE TEMP TABLE AS": (["CREATE TEMP TABLE t AS SELECT 1"], _TABLE, ["DROP TABLE pg_temp.t"]),
    "SELECT INTO TEMP": (["SELECT 1 AS n INTO TEMP t"], _TABLE, ["DISCARD ALL"]),
    "a table in pg_temp": (["CREATE TABLE pg_temp.t (n int)"], _TABLE, ["DROP TABLE t"]),
    "pg_temp in the search_path": (
        ["SET search_path = pg_temp", "CREATE TABLE t (n int)"],
        _TABLE,
        ["RESET search_path", "DROP TABLE pg_temp.t"],
    ),
    "a temporary view": (["CREATE TEMP VIEW v AS SELECT 1"], _TABLE, ["DROP VIEW v"]),
    "a temporary sequence": (["CREATE TEMP SEQUENCE s"], _TABLE, ["DROP SEQUENCE s"]),
    "a temporary function": (
        ["CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"],
        _TABLE,
        ["DROP FUNCTION pg_temp.f()"],
    ),
    "a temporary table in DO": (
        ["DO $$ BEGIN CREATE TEMP TABLE t (n int); END $$"],
        _TABLE,
        ["DO $$ BEGIN DROP TABLE t; END $$"],
    ),
    "a temporary table by a function": (["SELECT state.make_table()"], _TABLE, ["DROP TABLE t"]),
    "one of two temporary tables": (
        ["BEGIN", "CREATE TEMP TABLE t (n int) ON COMMIT DROP", "CREATE TEMP TABLE u (n int)", "COMMIT"],
        _TABLE,
        ["DROP TABLE u"],
    ),
    "LISTEN": (["LISTEN news"], "LISTEN", ["UNLISTEN news"]),
    "LISTEN twice": (["BEGIN", "LISTEN news", 'LISTEN "Odd News"', "COMMIT"], "LISTEN", ["UNLISTEN *"]),
    "LISTEN, discarded": (["LISTEN news"], "LISTEN", ["DISCARD ALL"]),
    "an advisory lock": (["SELECT pg_advisory_lock(4711)"], _LOCK, ["SELECT pg_advisory_unlock(4711)"]),
    "a shared lock": (["SELECT pg_advisory_lock_shared(47, 11)"], _LOCK, ["SELECT pg_advisory_unlock_all()"]),
    "a lock that was tried": (
        ["SELECT pg_try_advisory_lock(4711)"],
        _LOCK,
        ["SELECT pg_catalog.pg_advisory_unlock(4711)"],
    ),
    "a lock that outlives its transaction": (
        ["BEGIN", "SELECT pg_advisory_lock(4711)", "ROLLBACK"],
        _LOCK,
        ["DISCARD ALL"],
    ),
    "a lock by a function": (["SELECT state.take_lock(4711)"], _LOCK, ["SELECT pg_advisory_unlock(4711)"]),
    "a lock in DO": (
        ["DO $$ BEGIN PERFORM pg_advisory_lock(4711); END $$"],
        _LOCK,
        ["DO $$ BEGIN PERFORM pg_advisory_unlock_all(); END $$"],
    ),
    "a cursor": (["DECLARE c CURSOR WITH HOLD FOR SELECT 1"], _CURSOR, ["CLOSE c"]),
    "a cursor in a transaction": (
        ["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "COMMIT"],
        _CURSOR,
        ["CLOSE ALL"],
    ),
    "PREPARE": (["PREPARE p AS SELECT 1"], _PREPARE, ["DEALLOCATE p"]),
    "PREPARE in a transaction": (
        ["BEGIN", "PREPARE p AS SELECT 1", "ROLLBACK"],
        _PREPARE,
        ["DEALLOCATE ALL"],
    ),
    "PREPARE, discarded": (["PREPARE p AS SELECT 1"], _PREPARE, ["DISCARD ALL"]),
}
"""What pins, how the log calls it, and what ends it."""

FREE: Final = {
    "ON COMMIT DROP": ["BEGIN", "CREATE TEMP TABLE t (n int) ON COMMIT DROP", "COMMIT"],
    "a temporary table that is rolled back": ["BEGIN", "CREATE TEMP TABLE t (n int)", "ROLLBACK"],
    "a temporary table that is dropped": ["BEGIN", "CREATE TEMP TABLE t (n int)", "DROP TABLE t", "COMMIT"],
    "a temporary table in a failed transaction": [
        "BEGIN",
        "CREATE TEMP TABLE t (n int)",
        "SELECT 1/0",
        "COMMIT",
    ],
    "LISTEN that is rolled back": ["BEGIN", "LISTEN news", "ROLLBACK"],
    "LISTEN and UNLISTEN": ["BEGIN", "LISTEN news", "UNLISTEN *", "COMMIT"],
    "NOTIFY": ["NOTIFY news, 'x'"],
    "locks of the transaction": ["SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(2)"],
    "a lock that is given up": [
        "BEGIN",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_advisory_unlock(1)",
        "COMMIT",
    ],
    "a lock that is refused": ["SELECT pg_try_advisory_lock(815)"],
    "an unlock without a lock": ["SELECT pg_advisory_unlock_all()"],
    "a cursor of the transaction": ["BEGIN", "DECLARE c CURSOR FOR SELECT 1", "FETCH c", "COMMIT"],
    "a cursor that is rolled back": ["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "ROLLBACK"],
    "a cursor that is closed": ["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE c", "COMMIT"],
    "PREPARE and DEALLOCATE": ["BEGIN", "PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE p", "COMMIT"],
}
"""What does not."""


def _compare(state: str, expected: str) -> None:
    assert state == expected, differences(state, expected)


def _pinned(sharing: Sharing, client: raw.RawClient, state: str, other: raw.RawClient, untouched: str) -> int:
    """Check that a client keeps its server, where nobody else comes. Returns the server's process id."""
    pid = sharing.stays(client)
    _compare(client.value(STATE), state)
    _compare(other.value(STATE), untouched)
    assert pid_of(other) != pid
    assert sharing.stays(client) == pid
    return pid


@pytest.mark.parametrize(("case", "way"), in_turn(PINS))
def test_a_client_keeps_its_server(sharing: Sharing, pg: PostgresCluster, case: str, way: str) -> None:
    """A client has its server alone while there is such state, and no longer; the log says so, once."""
    statements, reason, end = PINS[case]
    with direct(pg, DATABASE) as alone:
        answer, state = answers(alone, way, statements), alone.value(STATE)
        last_answer, last_state = answers(alone, way, end), alone.value(STATE)
    other, client = sharing.client(), sharing.client()
    untouched = sharing.everywhere(other)

    assert answers(client, way, statements) == answer
    _pinned(sharing, client, state, other, untouched)
    assert answers(client, way, end) == last_answer
    _compare(sharing.everywhere(client), last_state)
    _compare(sharing.everywhere(other), untouched)

    answers(client, way, statements)
    sharing.stays(client)
    assert sharing.reasons(client) == [reason]


@pytest.mark.parametrize("abruptly", [False, True], ids=["goodbye", "abruptly"])
@pytest.mark.parametrize(("statements", "reason"), [case[:2] for case in PINS.values()], ids=PINS)
def test_nothing_is_left_when_a_client_leaves(
    sharing: Sharing, pg: PostgresCluster, statements: list[str], reason: str, abruptly: bool
) -> None:
    """The server of a client that has left is another client's server next, and nothing is there."""
    with direct(pg, DATABASE) as alone:
        answers(alone, "simple", statements)
        state = alone.value(STATE)
    other, client = sharing.client(), sharing.client()
    untouched = sharing.everywhere(other)

    answers(client, "simple", statements)
    pid = _pinned(sharing, client, state, other, untouched)
    leave(client, abruptly=abruptly)
    sharing.settle()

    _compare(sharing.everywhere(other), untouched)
    assert pid in pg.backends(DATABASE)


@pytest.mark.parametrize(("case", "way"), in_turn(FREE))
def test_a_client_does_not_keep_its_server(
    sharing: Sharing, pg: PostgresCluster, case: str, way: str
) -> None:
    """What is gone when the transaction ends keeps no server."""
    statements = FREE[case]
    with direct(pg, DATABASE) as holder, direct(pg, DATABASE) as alone:
        holder.ask("SELECT pg_advisory_lock(815)")
        answer, state = answers(alone, way, statements), alone.value(STATE)
        alone.close()
        client = sharing.client()
        assert answers(client, way, statements) == answer
        _compare(sharing.everywhere(client), state)
        if way in {"one text", "pipeline"}:
            assert sharing.reasons(client) == []


SLOTS: Final = {
    "pg_create_logical_replication_slot": "pg_create_logical_replication_slot('left_over', 'pgoutput', true)",
    "pg_create_physical_replication_slot": "pg_create_physical_replication_slot('left_over', false, true)",
}
"""Functions that make a replication slot -> a call that makes one for the session."""

LASTING: Final = {
    "LOAD": (["LOAD 'plpgsql'"], "LOAD", ["DISCARD ALL"]),
    "LOAD that is rolled back": (["BEGIN", "LOAD 'plpgsql'", "ROLLBACK"], "LOAD", ["DISCARD ALL"]),
    "a function in pin_functions": (
        ["SELECT state.hidden()"],
        "a function in pin_functions",
        ["DISCARD ALL"],
    ),
    "such a function by another name": (
        ['SELECT * FROM "state"."hidden" ( )'],
        "a function in pin_functions",
        ["RESET ALL"],
    ),
}
"""What only the end of the session undoes."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("statements", "reason", "end"), LASTING.values(), ids=LASTING)
def test_a_server_that_nobody_else_gets(
    sharing_superuser: Sharing,
    pg: PostgresCluster,
    statements: list[str],
    reason: str,
    end: list[str],
    way: str,
) -> None:
    """What cannot be undone pins its client until it leaves; then the server is closed."""
    sharing = sharing_superuser
    with direct(pg, DATABASE, SUPERUSER) as alone:
        answer, state = answers(alone, way, statements), alone.value(STATE)
    other, client = sharing.client(), sharing.client()
    untouched = sharing.everywhere(other)

    assert answers(client, way, statements) == answer
    pid = _pinned(sharing, client, state, other, untouched)
    answers(client, way, end)
    assert sharing.stays(client) == pid
    assert sharing.reasons(client) == [reason]

    leave(client, abruptly=way == "simple")
    sharing.settle()
    _compare(sharing.everywhere(other), untouched)
    eventually(
        lambda: not pg.sql("SELECT FROM pg_stat_activity WHERE pid = %s", pid),
        what="the server has been closed",
    )


def test_settings_and_statements_of_a_client_that_kept_its_server(sharing: Sharing) -> None:
    """What a client sets and prepares while it keeps its server follows it afterwards."""
    client, other = sharing.client(), sharing.client()
    plain = sharing.everywhere(other)
    client.send(raw.parse("SELECT 'before ' || current_setting('work_mem')", "before"), raw.SYNC)
    client.receive_until()
    client.ask("LISTEN news")
    client.ask("SET work_mem = '7MB'")
    client.send(raw.parse("SELECT 'after ' || current_setting('work_mem')", "after"), raw.SYNC)
    client.receive_until()
    sharing.stays(client)
    client.ask("UNLISTEN *")
    for _ in range(2):
        assert sharing.everywhere(client, "SHOW work_mem") == "7MB"
        _compare(sharing.everywhere(other), plain)
        with sharing.crowded():
            for name in ("before", "after"):
                client.send(raw.bind(name=name), raw.execute(), raw.SYNC)
                frames = client.receive_until()
                assert [got.columns for got in frames if got.kind == b"D"] == [[f"{name} 7MB".encode()]]


def test_reasons_are_logged_once_each(sharing: Sharing) -> None:
    """A client that comes to have more such state is logged for each new reason, and for no reason twice."""
    client = sharing.client()
    for text in (
        "LISTEN a",
        "LISTEN b",
        "CREATE TEMP TABLE t (n int)",
        "UNLISTEN *",
        "DROP TABLE t",
        "LISTEN a",
    ):
        client.ask(text)
        pid_of(client)
    sharing.stays(client)
    lines = sharing.reasons(client)
    assert len(lines) == 2
    assert lines[0] == "LISTEN"
    assert set(lines[1].split(", ")) == {"LISTEN", "temporary objects"}


def test_a_lock_is_held_as_often_as_it_was_taken(sharing: Sharing) -> None:
    """A lock that was taken twice keeps its server until it has been given up twice."""
    client = sharing.client()
    client.ask("SELECT pg_advisory_lock(1), pg_advisory_lock(1)")
    client.ask("SELECT pg_advisory_unlock(1)")
    sharing.stays(client)
    client.ask("SELECT pg_advisory_unlock(1)")
    sharing.everywhere(client)


def test_the_server_of_a_client_is_lost(sharing: Sharing, pg: PostgresCluster) -> None:
    """A client whose server is gone, and its state with it, is told so; others go on."""
    client, other = sharing.client(), sharing.client()
    plain = sharing.everywhere(other)
    client.ask("CREATE TEMP TABLE t (n int)")
    pg.sql("SELECT pg_terminate_backend(%s)", sharing.stays(client))
    frames = client.receive_all()
    assert [(got.kind, got.fields["S"], got.fields["C"]) for got in frames] == [(b"E", "FATAL", "57P01")]
    sharing.settle()
    _compare(sharing.everywhere(other), plain)


@pytest.mark.parametrize("call", SLOTS.values(), ids=SLOTS)
def test_temporary_replication_slots(sharing_superuser: Sharing, pg: PostgresCluster, call: str) -> None:
    """They end with their session alone; until then, the server keeps what they have not consumed."""
    client = sharing_superuser.client()
    client.ask(f"SELECT {call}")
    pid = sharing_superuser.stays(client)
    client.ask("DISCARD ALL")
    assert sharing_superuser.stays(client) == pid
    assert pg.sql("SELECT active_pid, temporary FROM pg_replication_slots") == [(pid, True)]
    client.close()
    eventually(lambda: not pg.sql("SELECT FROM pg_replication_slots"), what="the slot has gone")
