"""Session state in transaction mode: settings follow their client to every server, and nobody else sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.support.postgres import SUPERUSER
from tests.support.sharing import (
    DATABASE,
    STATE,
    Sharing,
    answers,
    differences,
    direct,
    in_turn,
    leave,
)

if TYPE_CHECKING:
    from tests.support import rawclient as raw
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only


LAST: Final = {
    "SET": ["SET work_mem = '7MB'"],
    "SET TO": ["set WORK_MEM to 7168"],
    "SET SESSION": ["SET SESSION work_mem = 7168"],
    "SET a quoted name": ["""SET "work_mem" = '7MB'"""],
    "SET a list": ["SET DateStyle = German, DMY"],
    "SET TIME ZONE": ["SET TIME ZONE 'Asia/Tokyo'"],
    "SET TIME ZONE with a number": ["SET TIME ZONE -7"],
    "SET TIME ZONE with an interval": ["SET TIME ZONE INTERVAL '-08:30' HOUR TO MINUTE"],
    "SET NAMES": ["SET NAMES 'LATIN1'"],
    "SET SCHEMA": ["SET SCHEMA 'odd name'"],
    "SET XML OPTION": ["SET XML OPTION DOCUMENT"],
    "SET SESSION CHARACTERISTICS": [
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE"
    ],
    "a custom parameter": ["SET my.setting = 'x'"],
    "a custom parameter in capitals": ["SET MY.Setting = 'x'"],
    "a custom parameter with more dots": ["SET my.deep.setting = 'x'"],
    "a search_path": ["""SET search_path = "$user", public, "odd name", "with "" and ' and \\ and ,", ÄÖ"""],
    "an empty search_path": ["SET search_path = ''"],
    "a value with quotes and backslashes": ["SET my.setting = E'o''\"$$ \\\\ \\\\'' \\n\\t é\\u20ac'"],
    "a value that looks like SQL": ["SET my.setting = '''; RESET ALL; SELECT '''"],
    "a long value": [f"SET my.setting = '{'x' * 20000}'"],
    "backslashes of old": ["SET standard_conforming_strings = off", r"SET my.setting = 'a\\b\'c'"],
    "an empty value": ["SET my.setting = 'x'", "SET my.setting = ''"],
    "set_config": ["SELECT set_config('work_mem', '7MB', false)"],
    "set_config of a search_path": ["""SELECT set_config('search_path', '"$user", "odd name"', false)"""],
    "set_config of a computed name": ["SELECT set_config('work_' || 'mem', '7' || 'MB', 1 = 2)"],
    "set_config in COPY": ["COPY (SELECT set_config('work_mem', '7MB', false)) TO STDOUT"],
    "set_config in EXPLAIN": [
        "EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT set_config('work_mem', '7MB', false)"
    ],
    "set_config behind a cursor": [
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT set_config('work_mem', '7MB', false)",
        "FETCH c",
        "COMMIT",
    ],
    "UPDATE pg_settings": ["UPDATE pg_settings SET setting = '7MB' WHERE name = 'work_mem'"],
    "SET ROLE": ["SET ROLE hat"],
    "SET SESSION ROLE": ["SET SESSION ROLE 'odd hat'"],
    "a role and settings": ["SET ROLE hat", "SET work_mem = '7MB'", "SET my.setting = 'x'"],
    "a committed transaction": ["BEGIN", "SET work_mem = '7MB'", "SET my.setting = 'x'", "COMMIT"],
    "a released savepoint": ["BEGIN", "SAVEPOINT s", "SET work_mem = '7MB'", "RELEASE s", "COMMIT"],
    "a rolled back savepoint": [
        "BEGIN",
        "SET work_mem = '7MB'",
        "SAVEPOINT s",
        "SET work_mem = '9MB'",
        "SET ROLE hat",
        "ROLLBACK TO s",
        "COMMIT",
    ],
    "SET and SET LOCAL": ["BEGIN", "SET work_mem = '7MB'", "SET LOCAL work_mem = '9MB'", "COMMIT"],
    "COMMIT AND CHAIN": [
        "BEGIN",
        "SET work_mem = '7MB'",
        "COMMIT AND CHAIN",
        "SET work_mem = '9MB'",
        "ROLLBACK",
    ],
    "DO with set_config": ["DO $$ BEGIN PERFORM set_config('work_mem', '7MB', false); END $$"],
    "DO with SET": ["DO $$ BEGIN SET work_mem = '7MB'; SET my.setting = 'x'; END $$"],
    "DO with dynamic SQL": ["DO $$ BEGIN EXECUTE 'SET work_' || 'mem = ''7MB'''; END $$"],
    "a procedure": ["CALL state.commits()"],
    "a function": ["SELECT state.set_tenant('x')"],
    "a function in SQL": ["SELECT * FROM state.sql_tenant('x')"],
    "a function that calls one": ["SELECT state.caller('x')"],
    "a function that calls one that calls one": ["SELECT state.callers_caller()"],
    "a trigger": ["INSERT INTO state.audited VALUES (1)"],
    "a prepared statement": [
        "PREPARE p AS SELECT set_config('work_mem', $1, false)",
        "EXECUTE p('7MB')",
        "DEALLOCATE p",
    ],
    "one of two settings reset": ["SET work_mem = '7MB'", "SET TimeZone = 'Asia/Tokyo'", "RESET work_mem"],
    "a setting behind RESET ALL": ["SET work_mem = '7MB'", "RESET ALL", "SET TimeZone = 'Asia/Tokyo'"],
    "RESET ALL and a role": ["SET work_mem = '7MB'", "SET ROLE hat", "RESET ALL"],
}
"""What leaves a setting."""

PASS: Final = {
    "RESET": ["SET work_mem = '7MB'", "RESET work_mem"],
    "RESET ALL": ["SET work_mem = '7MB'", "SET TimeZone = 'Asia/Tokyo'", "SET my.setting = 'x'", "RESET ALL"],
    "DISCARD ALL": ["SET work_mem = '7MB'", "SET my.setting = 'x'", "SET ROLE hat", "DISCARD ALL"],
    "SET TO DEFAULT": ["SET work_mem = '7MB'", "SET work_mem TO DEFAULT"],
    "SET TIME ZONE LOCAL": ["SET TIME ZONE 'Asia/Tokyo'", "SET TIME ZONE LOCAL"],
    "RESET ROLE": ["SET ROLE hat", "RESET ROLE"],
    "SET ROLE NONE": ["SET ROLE hat", "SET ROLE NONE"],
    "SET LOCAL": ["BEGIN", "SET LOCAL work_mem = '7MB'", "SET LOCAL ROLE hat", "COMMIT"],
    "set_config for the transaction": ["SELECT set_config('work_mem', '7MB', true)"],
    "a rolled back transaction": ["BEGIN", "SET work_mem = '7MB'", "SET ROLE hat", "ROLLBACK"],
    "a failed transaction": ["BEGIN", "SET work_mem = '7MB'", "SELECT 1/0", "COMMIT"],
    "a setting and an error": ["SET work_mem = '7MB'", "SELECT 1/0", "RESET work_mem"],
    "RESET ALL that is rolled back": ["BEGIN", "RESET ALL", "ROLLBACK"],
    "a value that is refused": ["SET work_mem = 'nonsense'"],
    "a role that is refused": ["SET ROLE postgres"],
    "a function's own setting": ["SELECT state.put_back()"],
    "a transaction's own characteristics": [
        "BEGIN",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "COMMIT",
    ],
}
"""What leaves nothing."""

_LEAVES_ABRUPTLY: Final = ("extended", "one text")


def _compare(state: str, expected: str) -> None:
    assert state == expected, differences(state, expected)


def _check(sharing: Sharing, alone: raw.RawClient, way: str, statements: list[str]) -> tuple[str, str]:
    """Compare a client with one that is alone with PostgreSQL. Returns the state before and behind."""
    other = sharing.client()
    untouched = sharing.everywhere(other)
    client = sharing.client()
    assert answers(client, way, statements) == answers(alone, way, statements)
    state = alone.value(STATE)
    _compare(sharing.everywhere(client), state)
    _compare(sharing.everywhere(other), untouched)
    _compare(sharing.everywhere(client), state)
    leave(client, abruptly=way in _LEAVES_ABRUPTLY)
    sharing.settle()
    _compare(sharing.everywhere(other), untouched)
    return untouched, state


@pytest.mark.parametrize(("case", "way"), in_turn(LAST))
def test_settings_follow_their_client(sharing: Sharing, pg: PostgresCluster, case: str, way: str) -> None:
    """What a client has set is there for it on each server, and for nobody else, whoever comes and goes."""
    with direct(pg, DATABASE) as alone:
        _check(sharing, alone, way, LAST[case])


@pytest.mark.parametrize(("case", "way"), in_turn(PASS))
def test_settings_that_do_not_last(sharing: Sharing, pg: PostgresCluster, case: str, way: str) -> None:
    """What ends with the transaction, or is undone, leaves nothing for anybody."""
    with direct(pg, DATABASE) as alone:
        _check(sharing, alone, way, PASS[case])


SUPERUSERS: Final = {
    "SET SESSION AUTHORIZATION": ["SET SESSION AUTHORIZATION ann"],
    "somebody else's role": ["SET SESSION AUTHORIZATION trudy", "SET ROLE hat"],
    "somebody else's settings": ["SET SESSION AUTHORIZATION ann", "SET my.setting = 'x'", "RESET ALL"],
    "a superuser's setting": ["SET log_min_messages = error", "SET session_replication_role = replica"],
    "a superuser's setting of somebody else": [
        "SET log_min_messages = error",
        "SET SESSION AUTHORIZATION ann",
    ],
    "it is set twice": ["SET SESSION AUTHORIZATION ann", "SET SESSION AUTHORIZATION trudy"],
    "it ends a role": ["SET ROLE hat", "SET SESSION AUTHORIZATION ann"],
    "RESET SESSION AUTHORIZATION": ["SET SESSION AUTHORIZATION ann", "RESET SESSION AUTHORIZATION"],
    "it is put back, and a role": [
        "SET SESSION AUTHORIZATION ann",
        "SET ROLE NONE",
        "SET SESSION AUTHORIZATION DEFAULT",
    ],
    "it is rolled back": ["BEGIN", "SET SESSION AUTHORIZATION ann", "ROLLBACK"],
    "SET LOCAL SESSION AUTHORIZATION": ["BEGIN", "SET LOCAL SESSION AUTHORIZATION ann", "COMMIT"],
    "it is discarded": ["SET SESSION AUTHORIZATION ann", "DISCARD ALL"],
}


@pytest.mark.parametrize("way", ["simple", "prepared"])
@pytest.mark.parametrize("statements", SUPERUSERS.values(), ids=SUPERUSERS)
def test_who_a_superuser_is(
    sharing_superuser: Sharing, pg: PostgresCluster, statements: list[str], way: str
) -> None:
    """A superuser who acts as somebody else does so on each server, and nobody else does."""
    with direct(pg, DATABASE, SUPERUSER) as alone:
        _check(sharing_superuser, alone, way, statements)
