"""What else could go wrong with a result cache: rights, the schema, and answers that are none."""

from __future__ import annotations

from typing import Final

import pytest

from tests.support import rawclient as raw
from tests.support.cached import Stage, rows
from tests.support.postgres import ANN, TRUDY
from tests.support.waiting import eventually

pytestmark = pytest.mark.hyperpool_only

_CREATE: Final = """
DROP TABLE IF EXISTS cached.mine CASCADE;
DROP FUNCTION IF EXISTS cached.chatty, cached.privileged;
CREATE TABLE cached.mine (id int PRIMARY KEY, name text);
INSERT INTO cached.mine VALUES (1, 'one'), (2, 'two');
CREATE FUNCTION cached.chatty(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
    'BEGIN RAISE NOTICE ''here''; RETURN i; END';
CREATE FUNCTION cached.privileged() RETURNS bigint SECURITY DEFINER LANGUAGE sql AS 'SELECT count(*) FROM cached.mine';
GRANT ALL ON cached.mine TO ann;
"""
_SQL: Final = "SELECT name FROM cached.mine WHERE id = 1"


@pytest.fixture(autouse=True)
def _mine(stage: Stage) -> None:
    """A table of this module's own."""
    stage.client().fetch(_CREATE)
    eventually(lambda: _is_kept(stage), what="the new table is known")


def _is_kept(stage: Stage) -> bool:
    client = stage.client()
    sql = "SELECT name FROM cached.mine WHERE id = 2"
    before = client.fetch(sql)
    stage.rename(2, f"{before[0][0]!r}"[-40:] + "!", "mine")
    return client.fetch(sql) == before


def test_a_right_that_is_revoked_in_a_transaction_is_gone_with_its_commit(stage: Stage) -> None:
    """If the pooler sees it; what it does not see is bounded by the answers' age."""
    client, owner = stage.client("app", ANN), stage.client("app", TRUDY)
    for _ in range(2):
        assert client.fetch(_SQL) == [[b"one"]]
    owner.fetch("BEGIN")
    owner.fetch("REVOKE ALL ON cached.mine FROM ann, PUBLIC")
    owner.fetch("COMMIT")
    assert client.ask(_SQL)[0].fields["C"] == "42501"


def test_a_policy_counts_from_its_commit(stage: Stage) -> None:
    """Row security that is turned on hides what was to be seen before."""
    client, owner = stage.client("app", ANN), stage.client("app", TRUDY)
    for _ in range(2):
        assert client.fetch(_SQL) == [[b"one"]]
    owner.fetch("ALTER TABLE cached.mine ENABLE ROW LEVEL SECURITY")
    assert client.fetch(_SQL) == []
    owner.fetch("CREATE POLICY all_of_it ON cached.mine USING (true)")
    assert client.fetch(_SQL) == [[b"one"]]


def test_columns_are_described_as_they_are(stage: Stage) -> None:
    """Also to a client that has prepared its statement before, and to one that only asks for a description."""
    client, direct = stage.client("app", ANN), stage.direct(ANN)
    sql = "SELECT * FROM cached.mine WHERE id = 1"
    describe = raw.parse(sql) + raw.frame(b"D", b"S\0") + raw.SYNC
    run = raw.parse(sql) + raw.bind() + raw.describe_portal() + raw.execute() + raw.SYNC
    for change in (
        "SELECT 1",
        "ALTER TABLE cached.mine ADD COLUMN more int DEFAULT 7",
        "ALTER TABLE cached.mine ALTER COLUMN more TYPE text",
        "ALTER TABLE cached.mine RENAME COLUMN more TO most",
        "ALTER TABLE cached.mine DROP COLUMN most",
    ):
        stage.client("app", TRUDY).fetch(change)
        for _ in range(3):
            assert client.frames(describe) == direct.frames(describe)
            assert client.frames(run) == direct.frames(run)


def test_a_table_that_is_dropped_is_gone(stage: Stage) -> None:
    """And another one of its name is another one."""
    client, owner = stage.client("app", ANN), stage.client("app", TRUDY)
    for _ in range(2):
        assert client.fetch(_SQL) == [[b"one"]]
    owner.fetch("ALTER TABLE cached.mine RENAME TO yours")
    assert client.ask(_SQL)[0].fields["C"] == "42P01"
    owner.fetch("CREATE TABLE cached.mine (id int, name text); GRANT SELECT ON cached.mine TO ann")
    assert client.fetch(_SQL) == []
    owner.fetch("DROP TABLE cached.mine; ALTER TABLE cached.yours RENAME TO mine")
    assert client.fetch(_SQL) == [[b"one"]]


def test_a_function_that_is_replaced_is_another_one(stage: Stage) -> None:
    """Though it is immutable."""
    client, owner = stage.client("app", ANN), stage.client("app", TRUDY)
    create = "CREATE OR REPLACE FUNCTION cached.answer() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT {}'"
    for number in (b"42", b"43"):
        owner.fetch(create.format(number.decode()))
        for _ in range(3):
            assert client.fetch("SELECT cached.answer()") == [[number]]


def test_an_answer_with_a_notice_is_not_kept(stage: Stage) -> None:
    """Who asks again is told again."""
    client = stage.client()
    for _ in range(3):
        assert b"N" in raw.kinds(client.ask("SELECT cached.chatty(1), name FROM cached.mine WHERE id = 1"))


def test_a_function_with_the_rights_of_its_owner_is_asked_each_time(stage: Stage) -> None:
    """Nobody knows what it reads."""
    client = stage.client("app", ANN)
    assert client.fetch("SELECT cached.privileged()") == [[b"2"]]
    stage.behind("DELETE FROM cached.mine WHERE id = 2")
    assert client.fetch("SELECT cached.privileged()") == [[b"1"]]


def test_an_answer_that_was_canceled_is_not_kept(stage: Stage) -> None:
    """The next one to ask gets a whole one."""
    slow = "SELECT count(*) FROM generate_series(1, 3000000) i, cached.mine m WHERE m.id = 1 AND i % 7 = m.id"
    client = stage.client()
    client.send(raw.query(slow))
    eventually(
        lambda: stage.read(f"SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = $q${slow}$q$"),
        what="the query runs",
    )
    with raw.RawClient((stage.pooler.host, stage.pooler.port)) as cancel:
        cancel.send(raw.cancel_packet(client.pid, client.secret))
        cancel.receive_all()
    assert client.receive_until()[-2].fields["C"] == "57014"
    assert client.fetch(slow) == [[b"428572"]]


def test_an_empty_query_is_answered_as_such(stage: Stage) -> None:
    """Also the second time."""
    client = stage.client()
    for text in ("", ";", "-- nothing", "/* nothing */"):
        for _ in range(2):
            assert raw.kinds(client.ask(text)) == b"IZ"


def test_whoever_may_not_log_in_gets_no_answer(stage: Stage) -> None:
    """However many answers there are in memory."""
    stage.client("app", ANN).fetch(_SQL)
    with raw.RawClient((stage.pooler.host, stage.pooler.port)) as client:
        last = client.login("app", "nobody", "")[-1]
        assert last.kind == b"E"
        client.send(raw.query(_SQL))
        with pytest.raises(raw.ConnectionEnded):
            rows(client.receive_until())
