"""What texts are read to change, and what PostgreSQL says that they have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from hyperpool.sql.effects import EffectReader, Effects, Pin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_SCHEMA: Final = """
    CREATE SCHEMA effects;
    CREATE TABLE effects.t (a int, b text);
    CREATE TABLE effects.audited (a int);
    CREATE FUNCTION effects.set_tenant(text) RETURNS text LANGUAGE sql AS
        $$ SELECT set_config('work_mem', $1, false) $$;
    CREATE FUNCTION effects.note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_lock(7); RETURN NEW; END $$;
    CREATE TRIGGER note BEFORE INSERT ON effects.audited FOR EACH ROW EXECUTE FUNCTION effects.note();
    CREATE PROCEDURE effects.p() LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '5MB'; END $$;
    CREATE ROLE effects_role;
"""
_DROP: Final = "DROP SCHEMA effects CASCADE; DROP ROLE effects_role"

_READER: Final = EffectReader(["effects.set_tenant"])
_READER.learn(["set_tenant", "audited", "note"])

_FOUND: Final[dict[Pin, str]] = {
    Pin.TEMPORARY: "SELECT relname::text FROM pg_class WHERE relnamespace = pg_my_temp_schema() UNION"
    " SELECT proname FROM pg_proc WHERE pronamespace = pg_my_temp_schema() UNION"
    " SELECT typname FROM pg_type WHERE typnamespace = pg_my_temp_schema()",
    Pin.LISTEN: "SELECT pg_listening_channels()",
    Pin.LOCK: "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    Pin.HOLD: "SELECT name FROM pg_cursors WHERE is_holdable",
    Pin.PREPARE: "SELECT name FROM pg_prepared_statements WHERE from_sql",
}
_SETTINGS: Final = (
    "SELECT lower(name) FROM pg_settings WHERE source = 'session' AND name NOT LIKE 'transaction%' UNION"
    " SELECT 'role' WHERE current_setting('role') <> 'none' UNION"
    " SELECT 'session_authorization' WHERE session_user <> 'postgres' UNION"
    " SELECT 'my.setting' WHERE current_setting('my.setting', true) <> ''"
)

_LEAVES_NOTHING: Final = [
    "SELECT * FROM effects.t WHERE b = 'SET x = 1; LISTEN y'",
    "BEGIN; SET LOCAL work_mem = '5MB'; SELECT 1; COMMIT",
    "SET LOCAL work_mem = '5MB'; SELECT 1",
    "BEGIN; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SET CONSTRAINTS ALL DEFERRED; COMMIT",
    "SELECT set_config('work_mem', '5MB', true), set_config('my.setting', 'x', 't'::bool)",
    "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)",
    "BEGIN; DECLARE c CURSOR FOR SELECT 1; FETCH c; MOVE c; COMMIT",
    "COPY (SELECT 1) TO STDOUT",
    "NOTIFY a; SHOW ALL",
    "BEGIN; LOCK TABLE effects.t; SAVEPOINT a; TRUNCATE effects.t; ROLLBACK TO a; RELEASE a; END",
    "TABLE effects.t; (VALUES (1)) UNION (SELECT 2); WITH x AS (SELECT 1) SELECT * FROM x",
    "INSERT INTO effects.t VALUES (1, 'a;b') RETURNING a",
    "SELECT * INTO effects.bare FROM effects.t; DELETE FROM effects.bare",
    "COMMENT ON TABLE effects.t IS 'x'; GRANT SELECT ON effects.t TO effects_role; ANALYZE effects.t",
    "ALTER ROLE effects_role SET work_mem = '5MB'",
    "EXPLAIN ANALYZE SELECT 1",
    "EXPLAIN SELECT 1 INTO x",
]

_LEAVES: Final[list[tuple[str, set[str], Pin]]] = [
    ("SET work_mem = '5MB'", {"work_mem"}, Pin(0)),
    ("SET/**/SESSION\n\"Work_Mem\" TO '5MB'", {"work_mem"}, Pin(0)),
    ("SET sort_mem = '5MB'", {"work_mem"}, Pin(0)),
    ("SET my.SETTING = 'x'", {"my.setting"}, Pin(0)),
    ("SET TIME ZONE 'Asia/Tokyo'", {"timezone"}, Pin(0)),
    ("SET SCHEMA 'effects'", {"search_path"}, Pin(0)),
    ("SET NAMES 'LATIN1'", {"client_encoding"}, Pin(0)),
    ("SET XML OPTION DOCUMENT", {"xmloption"}, Pin(0)),
    ("SET ROLE effects_role", {"role"}, Pin(0)),
    ("SET SESSION AUTHORIZATION effects_role", {"session_authorization"}, Pin(0)),
    (
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY",
        {"default_transaction_isolation", "default_transaction_read_only"},
        Pin(0),
    ),
    ("SELECT set_config('work_mem', '5MB', false)", {"work_mem"}, Pin(0)),
    ("SELECT set_config(lower('WORK_MEM'), '5MB', false)", {"work_mem"}, Pin(0)),
    ("SELECT U&\"set\\005fconfig\"('work_mem', '5MB', false)", {"work_mem"}, Pin(0)),
    ("UPDATE pg_settings SET setting = '5MB' WHERE name = 'work_mem'", {"work_mem"}, Pin(0)),
    ("SELECT ts_stat('SELECT to_tsvector(set_' || 'config(''work_mem'', ''5MB'', false))')", {"work_mem"}, Pin(0)),
    ("DO $$ BEGIN SET work_mem = '5MB'; PERFORM pg_advisory_lock(1); END $$", {"work_mem"}, Pin.LOCK),
    ("CALL effects.p()", {"work_mem"}, Pin(0)),
    ("SELECT effects.set_tenant('5MB')", {"work_mem"}, Pin(0)),
    ("INSERT INTO effects.audited VALUES (1)", set(), Pin.LOCK),
    ("PREPARE a AS SELECT effects.set_tenant('5MB'); EXECUTE a", {"work_mem"}, Pin.PREPARE),
    ("LISTEN a", set(), Pin.LISTEN),
    ("SELECT pg_try_advisory_lock_shared(1, 2)", set(), Pin.LOCK),
    ("SELECT 1 ORDER BY pg_advisory_lock(1) IS NULL", set(), Pin.LOCK),
    ("COPY (SELECT pg_advisory_lock(1)) TO STDOUT", set(), Pin.LOCK),
    ("EXPLAIN ANALYZE SELECT pg_advisory_lock(1)", set(), Pin.LOCK),
    ("BEGIN; DECLARE c CURSOR FOR SELECT pg_advisory_lock(1); FETCH c; COMMIT", set(), Pin.LOCK),
    ("ALTER TABLE effects.t ADD COLUMN c text DEFAULT set_config('work_mem', '5MB', false)", {"work_mem"}, Pin(0)),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", set(), Pin.HOLD),
    ("CREATE TEMP TABLE x (a int)", set(), Pin.TEMPORARY),
    ("CREATE TABLE pg_temp.x (a int)", set(), Pin.TEMPORARY),
    ('CREATE TABLE U&"pg\\005ftemp".x (a int)', set(), Pin.TEMPORARY),
    ("SELECT 1 AS a INTO TEMP x", set(), Pin.TEMPORARY),
    ("SELECT $$x$$INTO/**/LOCAL TEMPORARY TABLE x", set(), Pin.TEMPORARY),
    ("CREATE TEMP VIEW x AS SELECT 1", set(), Pin.TEMPORARY),
    ("CREATE TEMP SEQUENCE x", set(), Pin.TEMPORARY),
    ("CREATE FUNCTION pg_temp.x() RETURNS int LANGUAGE sql AS 'SELECT 1'", set(), Pin.TEMPORARY),
    ("CREATE TYPE pg_temp.x AS (a int)", set(), Pin.TEMPORARY),
    ("CREATE SCHEMA effects_too CREATE TABLE y (a int); CREATE TEMP TABLE x (a int); DROP SCHEMA effects_too CASCADE",
     set(), Pin.TEMPORARY),
    ("EXPLAIN ANALYZE CREATE TEMP TABLE x AS SELECT 1", set(), Pin.TEMPORARY),
    ("SET search_path = pg_temp; CREATE TABLE x (a int)", {"search_path"}, Pin.TEMPORARY),
    ("BEGIN; SET LOCAL search_path = pg_temp; CREATE TABLE x (a int); COMMIT", set(), Pin.TEMPORARY),
]  # fmt: skip


@pytest.fixture(scope="module")
def effects_schema(_pg: PostgresCluster) -> Iterator[None]:
    """The objects that the texts speak of."""
    with _pg.admin("app") as connection:
        connection.execute(_SCHEMA)
        yield
        connection.execute(_DROP)


@pytest.fixture
def session(pg: PostgresCluster, effects_schema: None) -> Iterator[psycopg.Connection[Any]]:
    """A session of its own."""
    with pg.admin("app") as connection:
        yield connection


def _run(session: psycopg.Connection[Any], text: str | bytes) -> None:
    """Send a text as one Query, and take in all that it answers."""
    pgconn = session.pgconn
    pgconn.send_query(text if isinstance(text, bytes) else text.encode())
    errors = []
    while (result := pgconn.get_result()) is not None:
        if result.status == psycopg.pq.ExecStatus.COPY_OUT:
            while pgconn.get_copy_data(0)[0] > 0:
                pass
        elif result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
            errors.append(result.get_error_message())
    assert errors == []


def _state(session: psycopg.Connection[Any]) -> tuple[set[str], Pin]:
    """What PostgreSQL says of its session: settings that were set, and what else there is."""
    settings = {row[0] for row in session.execute(_SETTINGS)}
    found = Pin(0)
    for pin, query in _FOUND.items():
        if session.execute(query).fetchone():
            found |= pin
    return settings, found


def _check(effects: Effects | None, settings: set[str], pins: Pin) -> None:
    predicted = effects or Effects()
    assert predicted.unknown_settings or settings <= predicted.settings
    assert pins & predicted.pins == pins


@pytest.mark.parametrize("text", _LEAVES_NOTHING)
def test_texts_that_leave_nothing(session: psycopg.Connection[Any], text: str) -> None:
    """The session is as it was, and that is what the text says."""
    effects = _READER.read(text.encode())
    assert effects in {None, Effects(schema=True), Effects(local=True)}

    _run(session, text)

    assert _state(session) == (set(), Pin(0))


@pytest.mark.parametrize(("text", "settings", "pins"), _LEAVES, ids=[text for text, *_ in _LEAVES])
def test_texts_that_leave_something(
    session: psycopg.Connection[Any], text: str, settings: set[str], pins: Pin
) -> None:
    """Whatever the session has got from it, the text has said so."""
    _run(session, text)

    found = _state(session)

    assert settings <= found[0]
    assert found[1] == pins
    _check(_READER.read(text.encode()), *found)


_TWO_WAYS: Final = [
    ("SET standard_conforming_strings = off", rb"SELECT 'a\''; SET work_mem = '5MB'; --'"),
    ("SET client_encoding = 'SJIS'", "SELECT E'\u8868'; SET work_mem = '5MB'; --'".encode("shift_jis")),
    (
        "SET backslash_quote = on; SET client_encoding = 'SHIFT_JIS_2004'",
        b"SELECT E'\x81_' /* ' ; SET work_mem = '5MB' -- */",
    ),
    (
        "SET backslash_quote = on; SET client_encoding = 'SHIFT_JIS_2004'",
        b"SELECT E'\x81_' , ' ; SET work_mem = 5000; -- '",
    ),
    ("SET client_encoding = 'GBK'", b"SELECT 1 AS a$\x95|$$ ; SET work_mem = '5MB'; -- $$"),
    ("SET client_encoding = 'BIG5'", "SELECT 1 AS \u529f; SET work_mem = '5MB'".encode("big5")),
    ("SET client_encoding = 'GB18030'", "SELECT 1 AS \u00e3; SET work_mem = '5MB'".encode("gb18030")),
    ("SET client_encoding = 'LATIN1'", "SELECT 'Käse'; SET work_mem = '5MB'".encode("latin-1")),
]


@pytest.mark.parametrize(("setting", "text"), _TWO_WAYS)
def test_texts_that_only_the_server_can_read(
    session: psycopg.Connection[Any], setting: str, text: bytes
) -> None:
    """A setting, or an encoding, hides from the text what is a string and what is not; not that it sets something."""
    effects = _READER.read(text)
    session.execute(setting)
    _run(session, text)
    session.execute("SET client_encoding = 'UTF8'")

    found = _state(session)

    assert "work_mem" in found[0]
    _check(effects, {"work_mem"}, found[1])
