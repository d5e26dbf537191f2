"""RESET and DISCARD ALL: a client is back at what it asked for at login, with the next request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.support.postgres import TRUDY
from tests.support.sharing import (
    DATABASE,
    STATE,
    WAYS,
    Sharing,
    answers,
    config_for,
    differences,
    direct,
    leave,
    schema,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support import rawclient as raw
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_SESSION: Final = "session"
"""The database whose only server its clients have for as long as they stay."""

ASKED: Final = {
    "TimeZone": "Asia/Tokyo",
    "datestyle": "German",
    "application_name": "mine",
    "search_path": '"$user", public, "odd name"',
    "work_mem": "7MB",
    "my.setting": "x",
    "options": "-c statement_timeout=90s -c extra_float_digits=-5 --lock-timeout=80s",
}
"""What the client asks for when it logs in."""

CASES: Final = {
    "nothing": ["SELECT 1"],
    "RESET": ["SET work_mem = '9MB'", "RESET work_mem"],
    "RESET of what is reported": ["SET TimeZone = 'Europe/Berlin'", "RESET TimeZone"],
    "RESET TIME ZONE": ["SET TIME ZONE 'Europe/Berlin'", "RESET TIME ZONE"],
    "SET TO DEFAULT": ["SET work_mem = '9MB'", "SET DateStyle = ISO", "SET work_mem TO DEFAULT"],
    "SET TIME ZONE LOCAL": ["SET TIME ZONE 'Europe/Berlin'", "SET TIME ZONE LOCAL"],
    "RESET of an own parameter": ["SET my.setting = 'y'", "RESET my.setting"],
    "RESET of a list": ["SET search_path = pg_catalog", "RESET search_path"],
    "RESET ALL": ["SET work_mem = '9MB'", "SET DateStyle = ISO, YMD", "SET my.setting = 'y'", "RESET ALL"],
    "RESET ALL of nothing": ["RESET ALL"],
    "DISCARD ALL": [
        "SET work_mem = '9MB'",
        "SET DateStyle = ISO, YMD",
        "SET my.setting = 'y'",
        "DISCARD ALL",
    ],
    "DISCARD ALL of nothing": ["DISCARD ALL"],
    "a setting behind RESET ALL": ["SET work_mem = '9MB'", "RESET ALL", "SET TimeZone = 'Europe/Berlin'"],
    "it is committed": ["SET work_mem = '9MB'", "BEGIN", "RESET ALL", "SELECT 1", "COMMIT"],
    "it is rolled back": ["SET work_mem = '9MB'", "BEGIN", "RESET ALL", "ROLLBACK"],
    "RESET is rolled back": ["SET work_mem = '9MB'", "BEGIN", "RESET work_mem", "RESET TimeZone", "ROLLBACK"],
    "RESET and SET": ["BEGIN", "RESET work_mem", "SET work_mem = '11MB'", "COMMIT"],
    "the server's own values": [
        "SET TimeZone = 'UTC'",
        "SET work_mem = '4MB'",
        'SET search_path = "$user", public',
    ],
}

UNKNOWN: Final = ("SET TO DEFAULT", "SET TIME ZONE LOCAL")
"""Cases that session mode leaves to the server: no text is looked into, and the answer says the same of any SET."""


@pytest.fixture(scope="module")
def sharing_pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Iterator[Pooler]:
    """And a database `session`, in session mode."""
    with schema(_pg, DATABASE):
        config = config_for(_pg, DATABASE)
        config["databases"][_SESSION] = {**config["databases"]["*"], "pool_mode": "session", "pool_size": 1}
        yield make_module_pooler(config)


@pytest.fixture
def pooler(sharing_pooler: Pooler, pg: PostgresCluster, watch: Callable[[Pooler], Pooler]) -> Pooler:
    """The same pooler; its database `session` has session mode."""
    return watch(sharing_pooler)


def _compare(state: str, expected: str) -> None:
    assert state == expected, differences(state, expected)


def _told(client: raw.RawClient, frames: list[raw.Frame]) -> dict[str, str]:
    """What a client knows of the parameters that are reported, after some answers."""
    told = dict(client.parameters)
    for got in frames:
        if got.kind == b"S":
            name, value = got.body.split(b"\0")[:2]
            told[name.decode()] = value.decode()
    return told


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("statements", CASES.values(), ids=CASES)
def test_back_at_the_beginning(
    sharing: Sharing, pg: PostgresCluster, statements: list[str], way: str
) -> None:
    """What a client resets is as it was when the client logged in, on each server; and it is told so."""
    with direct(pg, DATABASE, **ASKED) as alone:
        answer = answers(alone, way, statements)
        state, told = alone.value(STATE), _told(alone, answer)
    other, client = sharing.client(), sharing.client(**ASKED)
    untouched = sharing.everywhere(other)
    got = answers(client, way, statements)
    assert [one for one in got if one.kind != b"S"] == [one for one in answer if one.kind != b"S"]
    assert _told(client, got) == told
    _compare(sharing.everywhere(client), state)
    _compare(sharing.everywhere(other), untouched)
    _compare(sharing.everywhere(client), state)
    leave(client, abruptly=way == "simple")
    sharing.settle()
    _compare(sharing.everywhere(other), untouched)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("statements", [CASES[case] for case in CASES if case not in UNKNOWN])
def test_session_mode(pooler: Pooler, pg: PostgresCluster, statements: list[str], way: str) -> None:
    """The same for a client that has its server to itself; the next client finds nothing of it."""
    with direct(pg, DATABASE, **ASKED) as alone:
        answer = answers(alone, way, statements)
        state, told = alone.value(STATE), _told(alone, answer)
    with pooler.raw(_SESSION, TRUDY) as client:
        untouched = client.value(STATE)
    with pooler.raw(_SESSION, TRUDY, **ASKED) as client:
        got = answers(client, way, statements)
        assert [one for one in got if one.kind != b"S"] == [one for one in answer if one.kind != b"S"]
        got += client.ask("SELECT 1")
        assert _told(client, got) == told
        _compare(client.value(STATE), state)
        leave(client, abruptly=way == "simple")
    with pooler.raw(_SESSION, TRUDY) as client:
        _compare(client.value(STATE), untouched)


def test_session_mode_keeps_what_is_not_reset(pooler: Pooler) -> None:
    """What the client has set itself stays, whatever it has begun with."""
    with pooler.raw(_SESSION, TRUDY, **ASKED) as client:
        for statement in ("SET work_mem = '9MB'", "SET my.setting = 'y'", "SET TimeZone = 'UTC'"):
            client.ask(statement)
        client.ask("RESET lock_timeout")
        client.ask("RESET ROLE")
        got = [
            client.value(f"SHOW {name}") for name in ("work_mem", "my.setting", "TimeZone", "lock_timeout")
        ]
        assert got == ["9MB", "y", "UTC", "80s"]
