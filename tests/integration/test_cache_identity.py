"""The result cache: answers are for those alone to whom PostgreSQL would have given the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import rawclient as raw
from tests.support.cached import Stage, config_for, rows, tables
from tests.support.postgres import ANN, TRUDY
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_SQL = "SELECT name FROM cached.item WHERE id = 1"
_POLICIES = """
CREATE TABLE cached.secret (owner text, tenant text, what text);
INSERT INTO cached.secret VALUES ('trudy', 'a', 'of trudy'), ('ann', 'b', 'of ann');
GRANT ALL ON cached.secret TO PUBLIC;
ALTER TABLE cached.secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON cached.secret USING (owner = current_user);
CREATE TABLE cached.rented (tenant text, what text);
INSERT INTO cached.rented VALUES ('a', 'of a'), ('b', 'of b');
GRANT ALL ON cached.rented TO PUBLIC;
ALTER TABLE cached.rented ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON cached.rented USING (tenant = current_setting('app.tenant', true));
CREATE SCHEMA elsewhere;
CREATE TABLE elsewhere.item (id int, name text);
INSERT INTO elsewhere.item VALUES (1, 'elsewhere');
GRANT ALL ON SCHEMA elsewhere TO PUBLIC;
GRANT ALL ON elsewhere.item TO PUBLIC;
CREATE TABLE cached.counted (id int);
CREATE FUNCTION cached.volatile(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1';
CREATE FUNCTION cached.fixed(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
"""


@pytest.fixture(scope="module")
def caching_pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Iterator[Pooler]:
    """With settings of its own."""
    with tables(_pg):
        _pg.sql(_POLICIES, dbname="other")
        yield make_module_pooler(config_for(_pg))
        _pg.sql("DROP SCHEMA elsewhere CASCADE", dbname="other")


def test_users_have_answers_of_their_own(stage: Stage) -> None:
    """Even where they would be the same."""
    trudy, ann = stage.client("app", TRUDY), stage.client("app", ANN)
    trudy.fetch(_SQL)
    stage.rename(1, "new")
    assert ann.fetch(_SQL) == [[b"new"]]
    assert trudy.fetch(_SQL) == [[b"item 1"]]


def test_row_security_by_user(stage: Stage) -> None:
    """Each sees its own rows."""
    sql = "SELECT what FROM cached.secret"
    for _ in range(3):
        assert stage.client("app", TRUDY).fetch(sql) == [[b"of trudy"]]
        assert stage.client("app", ANN).fetch(sql) == [[b"of ann"]]


def test_row_security_by_a_setting(stage: Stage) -> None:
    """The setting that a policy reads is part of the key, also when it is not set."""
    sql = "SELECT what FROM cached.rented"
    a, b, none = stage.client(), stage.client(), stage.client()
    a.fetch("SET app.tenant = 'a'")
    b.fetch("SELECT set_config('app.tenant', 'b', false)")
    for _ in range(3):
        assert a.fetch(sql) == [[b"of a"]]
        assert b.fetch(sql) == [[b"of b"]]
        assert none.fetch(sql) == []
    a.fetch("SET app.tenant = 'b'")
    assert a.fetch(sql) == [[b"of b"]]


def test_set_role(stage: Stage) -> None:
    """The current role is part of the key."""
    stage.behind("GRANT ann TO trudy")
    sql = "SELECT what FROM cached.secret"
    client, other = stage.client(), stage.client()
    for _ in range(2):
        assert client.fetch(sql) == [[b"of trudy"]]
    client.fetch("SET ROLE ann")
    for _ in range(2):
        assert client.fetch(sql) == [[b"of ann"]]
        assert other.fetch(sql) == [[b"of trudy"]]
    client.fetch("RESET ROLE")
    assert client.fetch(sql) == [[b"of trudy"]]
    stage.behind("REVOKE ann FROM trudy")


@pytest.mark.parametrize("how", ["SET", "set_config", "options", "a function", "a prepared statement"])
def test_the_search_path(stage: Stage, how: str) -> None:
    """The same text may mean another table."""
    sql = "SELECT name FROM item WHERE id = 1"
    plain = stage.client(options="-c search_path=cached")
    for _ in range(2):
        assert plain.fetch(sql) == [[b"item 1"]]
    client = stage.client(**({"options": "-c search_path=elsewhere"} if how == "options" else {}))
    if how == "SET":
        client.fetch("SET search_path = elsewhere")
    elif how == "set_config":
        client.fetch("SELECT set_config('search_path', 'elsewhere', false)")
    elif how == "a function":
        client.fetch("DO $$ BEGIN PERFORM set_config('search_path', 'elsewhere', false); END $$")
    elif how == "a prepared statement":
        client.frames(raw.extended("SET search_path = elsewhere"), raw.SYNC)
    for _ in range(3):
        assert client.fetch(sql) == [[b"elsewhere"]]
        assert plain.fetch(sql) == [[b"item 1"]]


SHAPES = {
    "TimeZone": ("'Asia/Tokyo'", "SELECT made FROM cached.item WHERE id = 1"),
    "DateStyle": ("German", "SELECT made::date FROM cached.item WHERE id = 1"),
    "IntervalStyle": ("iso_8601", "SELECT interval '1 day 2 hours'"),
    "extra_float_digits": ("-10", "SELECT 0.1::float8 / 3"),
    "bytea_output": ("escape", "SELECT '\\x0102'::bytea"),
    "client_encoding": ("LATIN1", "SELECT name || chr(233) FROM cached.item WHERE id = 1"),
    "standard_conforming_strings": ("off", "SELECT 'a\\\\b'"),
    "transform_null_equals": ("on", "SELECT NULL = NULL, id = NULL FROM cached.item WHERE id = 1"),
    "array_nulls": ("off", "SELECT '{NULL}'::text[]"),
    "xmlbinary": ("hex", "SELECT name FROM cached.item WHERE id = 1"),
    "lc_monetary": ("'C'", "SELECT price::money FROM cached.item WHERE id = 1"),
    "row_security": ("off", "SELECT name FROM cached.item WHERE id = 1"),
    "default_text_search_config": ("simple", "SELECT to_tsvector('the items')"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_settings_that_shape_answers(stage: Stage, name: str) -> None:
    """Each client gets what PostgreSQL would have made for it."""
    value, sql = SHAPES[name]
    plain, client, direct = stage.client(), stage.client(), stage.direct()
    plainly = rows(direct.frames(raw.query(sql)))
    direct.fetch(f"SET {name} = {value}")
    other = rows(direct.frames(raw.query(sql)))
    client.fetch(f"SET {name} = {value}")
    for _ in range(3):
        assert plain.fetch(sql) == plainly
        assert client.fetch(sql) == other


def test_other_applications_share_answers(stage: Stage) -> None:
    """A client's name for itself changes nothing, and nor does a timeout."""
    first, other = stage.client(application_name="one"), stage.client(application_name="two")
    other.fetch("SET statement_timeout = '30s'")
    first.fetch(_SQL)
    stage.rename(1, "new")
    assert other.fetch(_SQL) == [[b"item 1"]]


def test_a_parameter_s_declared_type_counts(stage: Stage) -> None:
    """The same bytes may be read as another type."""
    client = stage.client()
    sql = b"\0SELECT $1 = '01'\0"
    as_int = raw.frame(b"P", sql + bytes.fromhex("0001 00000017"))
    as_text = raw.frame(b"P", sql + bytes.fromhex("0001 00000019"))
    tail = raw.bind(b"1") + raw.execute() + raw.SYNC
    for _ in range(3):
        assert rows(client.frames(as_int + tail)) == [[b"t"]]
        assert rows(client.frames(as_text + tail)) == [[b"f"]]


UNFIT = {
    "a clock": "SELECT clock_timestamp()",
    "now()": "SELECT now()::text || name FROM cached.item WHERE id = 1",
    "CURRENT_TIMESTAMP": "SELECT CURRENT_TIMESTAMP::text",
    "chance": "SELECT random()",
    "a sequence": "SELECT nextval('cached.numbers')",
    "a volatile function": "SELECT cached.volatile(1) + random()",
    "a row of the system": "SELECT pg_backend_pid(), txid_current()",
    "locking": "SELECT txid_current() FROM cached.item WHERE id = 1 FOR UPDATE",
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_changes_by_itself_is_not_kept(stage: Stage, what: str) -> None:
    """Two answers differ, as they should."""
    if what == "a sequence":
        stage.behind(
            "CREATE SEQUENCE IF NOT EXISTS cached.numbers; GRANT ALL ON SEQUENCE cached.numbers TO PUBLIC"
        )
    client = stage.client()
    assert client.fetch(UNFIT[what]) != client.fetch(UNFIT[what])


def test_a_temporary_table_hides_a_permanent_one(stage: Stage) -> None:
    """From the client that has it, and from nobody else."""
    client, other = (stage.client(options="-c search_path=cached") for _ in range(2))
    sql = "SELECT name FROM item WHERE id = 1"
    for _ in range(2):
        assert client.fetch(sql) == [[b"item 1"]]
    client.fetch("CREATE TEMPORARY TABLE item AS SELECT 1 AS id, 'mine' AS name")
    for _ in range(2):
        assert client.fetch(sql) == [[b"mine"]]
        assert other.fetch(sql) == [[b"item 1"]]
    client.fetch("DROP TABLE pg_temp.item")
    assert client.fetch(sql) == [[b"item 1"]]


def test_two_phase_commit(stage: Stage) -> None:
    """Whoever commits what another one has prepared."""
    expected = "55000" if stage.read("SHOW max_prepared_transactions") == [("0",)] else ""
    client, other = stage.client(), stage.client()
    client.fetch(_SQL)
    client.fetch("BEGIN; UPDATE cached.item SET name = 'prepared' WHERE id = 1")
    frames = client.frames(raw.query("PREPARE TRANSACTION 'cached'"))
    assert [frame.fields["C"] for frame in frames if frame.kind == b"E"] == ([expected] if expected else [])
    if not expected:
        assert other.fetch(_SQL) == [[b"item 1"]]
        other.fetch("COMMIT PREPARED 'cached'")
        assert client.fetch(_SQL) == other.fetch(_SQL) == [[b"prepared"]]


def test_revoked_rights_through_the_pooler(stage: Stage) -> None:
    """What may not be read any more is not served."""
    owner, reader = stage.client("app", TRUDY), stage.client("app", ANN)
    sql = "SELECT name FROM cached.other WHERE id = 2"
    for _ in range(2):
        reader.fetch(sql)
    owner.fetch("REVOKE ALL ON cached.other FROM PUBLIC")
    try:
        assert [frame.fields["C"] for frame in reader.frames(raw.query(sql)) if frame.kind == b"E"] == [
            "42501"
        ]
    finally:
        owner.fetch("GRANT ALL ON cached.other TO PUBLIC")
    eventually(lambda: reader.fetch(sql) == [[b"other 2"]], what="it may be read again")
