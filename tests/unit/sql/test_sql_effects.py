"""What texts change, construct by construct."""

from __future__ import annotations

from typing import Any, Final

import attrs
import pytest

from hyperpool.sql.effects import EVERYTHING, EffectReader, Effects, Pin

_TEMPORARY: Final = Effects(pins=Pin.TEMPORARY)
_RELEASES: Final = Effects(releases=True)
_SCHEMA: Final = Effects(schema=True)
_DROPS: Final = Effects(releases=True, schema=True)
_DISCARDS_ALL: Final = Effects(
    unknown_settings=True, releases=True, deallocates_all=True, discards_all=True, resets_all=True
)


def _sets(*names: str, **others: Any) -> Effects:
    return Effects(settings=frozenset(names), sets=frozenset(names), **others)


def _read(text: str | bytes, pinning: tuple[str, ...] = (), stateful: tuple[str, ...] = ()) -> Effects | None:
    reader = EffectReader(pinning)
    reader.learn(stateful)
    return reader.read(text.encode() if isinstance(text, str) else text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        " \t\r\n\f\v",
        ";;",
        "-- SET x = 1",
        "/* SET x = 1; */",
        "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
        "  SELECT 1",
        "(SELECT 1) UNION (VALUES (2))",
        "TABLE t",
        "UPDATE pgbench_tellers SET tbalance = tbalance + 5 WHERE tid = 7",
        "INSERT INTO t (a, temp) VALUES ($1, $2) ON CONFLICT DO UPDATE SET a = 1 RETURNING a",
        "DELETE FROM t USING u WHERE t.a = u.a",
        "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE",
        "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
        "COPY t FROM STDIN",
        "COPY (SELECT 1) TO STDOUT",
        "BEGIN",
        "begin isolation level serializable;",
        "START TRANSACTION READ ONLY",
        "COMMIT AND CHAIN",
        "END;",
        "end\n",
        "end\t",
        "ROLLBACK TO SAVEPOINT a",
        "ABORT",
        "SAVEPOINT a",
        "RELEASE a",
        "PREPARE TRANSACTION 'x'",
        "COMMIT PREPARED 'x'",
        "BEGIN; UPDATE t SET a = 1; SELECT f(a) FROM t; COMMIT;",
        "SHOW search_path",
        "NOTIFY channel, 'LISTEN'",
        "FETCH 1 FROM c",
        "MOVE ALL IN c",
        "DECLARE c CURSOR FOR SELECT 1",
        "LOCK TABLE t",
        "TRUNCATE t",
        "VACUUM t",
        "ANALYZE t",
        "REFRESH MATERIALIZED VIEW m",
        "COMMENT ON TABLE t IS 'SET x = 1'",
        "GRANT SELECT ON t TO u",
        "REASSIGN OWNED BY a TO b",
        "CREATE INDEX i ON t (lower(a))",
        "EXPLAIN SELECT 1",
        "EXPLAIN (ANALYZE, BUFFERS) UPDATE t SET a = 1",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET TRANSACTION SNAPSHOT 'x'",
        "SET transaction_isolation = 'serializable'",
        "SET seed TO 0.5",
        "SET CONSTRAINTS ALL DEFERRED",
        "ALTER ROLE a SET work_mem = '1MB'",
        "ALTER DATABASE a RESET ALL",
        "ALTER SYSTEM SET work_mem = '1MB'",
        "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(1, 2)",
        "SELECT 'set_config', 'pg_advisory_lock(1)', 'pg_temp.x'",
        "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg_temp%'",
        "SELECT name, setting FROM pg_settings",
        "SELECT temp, temporary, template FROM temperatures",
        "INSERT INTO temp SELECT * FROM temporary",
        "SELECT * INTO t FROM u",
        "SELECT accessory_id FROM accessory_locks WHERE f(a)",
        "SELECT facts_stat(1), charts_rewrite(2)",
        "SELECT a, u & b FROM t WHERE c = 'u&\"'",
    ],
)
def test_what_changes_nothing(text: str) -> None:
    """Transactions, queries, and what ends with the transaction, leave nothing behind."""
    assert _read(text) is None


_CALL: Final = "set_config('a', 'x', false)"


@pytest.mark.parametrize(
    "text",
    [
        f"VALUES ({_CALL})",
        f"SELECT * FROM {_CALL}",
        f"SELECT * FROM ROWS FROM ({_CALL}, f(1)) WITH ORDINALITY",
        f"SELECT 1 FROM t ORDER BY {_CALL}",
        f"SELECT 1 FROM t GROUP BY {_CALL}",
        f"SELECT 1 FROM t HAVING {_CALL} = ''",
        f"SELECT 1 FROM t WHERE a IN (1, length({_CALL}))",
        f"SELECT 1 FROM t LIMIT length({_CALL}) OFFSET 1",
        f"SELECT 1 FROM t LEFT JOIN LATERAL (SELECT {_CALL}) x ON true",
        f"SELECT DISTINCT ON ({_CALL}) a FROM t",
        f"SELECT sum(a) FILTER (WHERE {_CALL} = '') OVER (PARTITION BY {_CALL}) FROM t",
        f"SELECT CASE WHEN a THEN b ELSE {_CALL} END",
        f"SELECT ARRAY[1, length({_CALL})], ROW({_CALL}), ({_CALL}).x, ({_CALL})::text",
        f"SELECT a[length({_CALL})] FROM t",
        f"SELECT EXISTS (SELECT {_CALL})",
        f"SELECT 1 UNION ALL SELECT 1 FROM t WHERE {_CALL} IS NULL",
        f"SELECT coalesce(NULL, {_CALL}), nullif(1, 2), greatest({_CALL})",
        f"SELECT xmlelement(name a, {_CALL}), json_object('a': {_CALL})",
        f"SELECT * FROM t TABLESAMPLE system (length({_CALL}))",
        f"WITH x AS (SELECT {_CALL}) SELECT * FROM x",
        f"WITH RECURSIVE x AS (SELECT 1 UNION SELECT 2 FROM x WHERE {_CALL} = '') TABLE x",
        f"INSERT INTO t VALUES (1, {_CALL})",
        f"INSERT INTO t SELECT {_CALL}",
        f"INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = {_CALL}",
        f"INSERT INTO t VALUES (1) RETURNING {_CALL}",
        f"UPDATE t SET a = {_CALL}",
        f"UPDATE t SET (a, b) = (SELECT 1, {_CALL})",
        f"UPDATE t SET a = 1 FROM {_CALL} x RETURNING x",
        f"DELETE FROM t WHERE a = {_CALL}",
        f"DELETE FROM t USING {_CALL} x",
        f"MERGE INTO t USING u ON {_CALL} = a WHEN MATCHED THEN DO NOTHING",
        f"MERGE INTO t USING u ON t.a = u.a WHEN NOT MATCHED THEN INSERT VALUES ({_CALL})",
        f"COPY (SELECT {_CALL}) TO STDOUT",
        f"COPY t FROM STDIN WHERE {_CALL} = ''",
        f"DECLARE c CURSOR FOR SELECT {_CALL}",
        f"EXPLAIN ANALYZE SELECT {_CALL}",
        f"EXPLAIN (ANALYZE true) INSERT INTO t SELECT {_CALL}",
        f"(SELECT {_CALL})",
        f"((VALUES (1)) EXCEPT (VALUES ({_CALL})))",
        f"SELECT 1; SELECT {_CALL}",
        f"SELECT ';'; /* ; */ SELECT {_CALL} -- ;",
        f"SELECT (pg_catalog.{_CALL})",
        f'SELECT "{_CALL.replace("(", chr(34) + "(", 1)}',
        f"SELECT /* */ {_CALL.upper().replace('(', ' -- ' + chr(10) + ' ( ')}",
        f"SELECT mine . {_CALL}",
        f'SELECT "pg_catalog" /**/ . /**/ "{_CALL.replace("(", chr(34) + "(", 1)}',
        """SELECT U&"\\0073et_config"('a', 'x', false)""",
        """SELECT u&"set!005fconfig" UESCAPE '!' ('a', 'x', false)""",
        "SELECT SET_CONF\u0130G('a', 'x', false)",
    ],
)
def test_set_config_anywhere(text: str) -> None:
    """A call is found wherever an expression may stand, however it is written."""
    assert _read(text) == _sets("a")


@pytest.mark.parametrize(
    ("text", "effects"),
    [
        ("SELECT pg_advisory_lock(1)", Effects(pins=Pin.LOCK)),
        ("SELECT PG_TRY_ADVISORY_LOCK_SHARED(1, 2)", Effects(pins=Pin.LOCK)),
        ('SELECT pg_catalog."pg_try_advisory_lock"(1)', Effects(pins=Pin.LOCK)),
        ("SELECT 1 WHERE pg_advisory_lock_shared(1) IS NULL", Effects(pins=Pin.LOCK)),
        ("SELECT pg_adv\u0130sory_lock(1)", Effects(pins=Pin.LOCK)),
        ("SELECT pg_advisory_unlock(1)", _RELEASES),
        ("SELECT pg_advisory_unlock_shared(1)", _RELEASES),
        ("SELECT pg_advisory_unlock_all()", _RELEASES),
        ("SELECT pg_advisory_lock(1), pg_advisory_unlock(2)", Effects(pins=Pin.LOCK, releases=True)),
        ("LISTEN a", Effects(pins=Pin.LISTEN)),
        ("UNLISTEN *", _RELEASES),
        ("LOAD 'auto_explain'", Effects(pins=Pin.LOAD)),
        ("PREPARE a AS SELECT set_config('a', 'x', false)", _sets("a", pins=Pin.PREPARE)),
        ("PREPARE a (int) AS INSERT INTO t VALUES ($1)", Effects(pins=Pin.PREPARE)),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", Effects(pins=Pin.HOLD)),
        ("declare c binary scroll cursor /**/ with -- \n hold for values (1)", Effects(pins=Pin.HOLD)),
        ("DECLARE c CURSOR WITHOUT HOLD FOR SELECT pg_advisory_lock(1)", Effects(pins=Pin.LOCK)),
        ("CLOSE c", _RELEASES),
        ("CLOSE ALL", _RELEASES),
        ("DEALLOCATE a", attrs.evolve(_RELEASES, deallocates=(b"a",))),
        ('DEALLOCATE PREPARE "A b"; deallocate C', attrs.evolve(_RELEASES, deallocates=(b"A b", b"c"))),
        ("DEALLOCATE ALL", attrs.evolve(_RELEASES, deallocates_all=True)),
        ("DISCARD ALL", _DISCARDS_ALL),
        ("DISCARD TEMP", _RELEASES),
        ("DISCARD PLANS", _RELEASES),
        ("EXECUTE a", EVERYTHING),
        ("EXPLAIN ANALYZE EXECUTE a(1)", EVERYTHING),
        ("CREATE TEMP TABLE t AS EXECUTE a", EVERYTHING),
        ("DO $$ BEGIN END $$", EVERYTHING),
        ("CALL p(1)", EVERYTHING),
        ("SELECT query_to_xml($1, true, true, '')", EVERYTHING),
        ("SELECT * FROM ts_stat($1)", EVERYTHING),
        ("SELECT ts_rewrite(a, 'SELECT t, s FROM aliases')", EVERYTHING),
    ],
)
def test_other_state(text: str, effects: Effects) -> None:
    """Locks, channels, cursors, libraries and prepared statements, and what cannot be known."""
    assert _read(text) == effects


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TEMP TABLE t (a int)",
        "create temporary table if not exists t (a int) on commit drop",
        "CREATE LOCAL TEMP TABLE t (a int)",
        "CREATE GLOBAL TEMPORARY TABLE t (a int)",
        "CREATE /**/ TEMP -- \n TABLE t (a int)",
        "CREATE TABLE pg_temp.t (a int)",
        'CREATE TABLE "pg_temp_3".t (a int)',
        'CREATE TABLE U&"pg\\005ftemp".t (a int)',
        "CREATE TEMP TABLE t AS SELECT 1",
        "CREATE TABLE pg_temp.t AS VALUES (1)",
        "CREATE TEMP VIEW v AS SELECT 1",
        "CREATE OR REPLACE TEMP VIEW v AS SELECT set_config('a', 'x', false)",
        "CREATE TEMP SEQUENCE s",
        "SELECT 1 INTO TEMP t",
        "SELECT 1 AS a INTO TEMPORARY TABLE t FROM u",
        "SELECT 1 INTO pg_temp.t",
        "SELECT $$x$$INTO TEMP t",
        "WITH x AS (SELECT 1) SELECT * INTO LOCAL TEMP t FROM x",
        "(SELECT 1 INTO TEMP t)",
        "SELECT 1; SELECT 2 INTO/**/TEMP/**/t",
        "EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1",
        "SELECT 'x'::pg_temp.y",
        "SELECT CAST(a AS pg_temp.y[]) FROM t",
        "INSERT INTO pg_temp.t VALUES (1)",
        "SELECT * FROM pg_temp.t",
        "CREATE INDEX i ON pg_temp.t (a)",
    ],
)
def test_temporary_objects(text: str) -> None:
    """Temporary relations are not part of the schema that others see."""
    assert _read(text) == _TEMPORARY


@pytest.mark.parametrize(
    "text",
    [
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE pg_temp.y AS ENUM ('a')",
        "CREATE TYPE pg_temp.y AS (a int)",
        "CREATE DOMAIN pg_temp.y AS int",
        "CREATE OPERATOR pg_temp.+ (FUNCTION = f, LEFTARG = int)",
        "CREATE SCHEMA s CREATE TABLE pg_temp.t (a int)",
        "CREATE TABLE t (a pg_temp.y)",
        "CREATE TABLE t (a int); CREATE TEMP TABLE u (a int)",
    ],
)
def test_temporary_objects_and_the_schema(text: str) -> None:
    """What is not a relation counts as a change of the schema, too."""
    assert _read(text) == attrs.evolve(_TEMPORARY, schema=True)


def test_a_call_of_a_temporary_function_may_do_everything() -> None:
    """Nothing is known about functions that a session has made for itself."""
    assert _read("SELECT pg_temp.f()") == EVERYTHING


@pytest.mark.parametrize(
    ("text", "effects"),
    [
        ("SET search_path = pg_temp, a", _sets("search_path", pins=Pin.TEMPORARY)),
        ("SET search_path = a, 'PG_TEMP'", _sets("search_path", pins=Pin.TEMPORARY)),
        ("SET LOCAL search_path = pg_temp", attrs.evolve(_TEMPORARY, local=True)),
        ("SELECT set_config('search_path', 'pg_temp', true)", attrs.evolve(_TEMPORARY, local=True)),
        ("SELECT set_config('search_path', 'a', false)", _sets("search_path")),
        (
            "SELECT set_config('search_path', $1, false)",
            _sets("search_path", unknown_settings=True, pins=Pin.TEMPORARY),
        ),
    ],
)
def test_the_temporary_schema_in_the_search_path(text: str, effects: Effects) -> None:
    """Where it leads there, tables are temporary without a word of it."""
    assert _read(text) == effects


@pytest.mark.parametrize(
    ("text", "effects"),
    [
        ("CREATE TABLE t (a int DEFAULT f())", _SCHEMA),
        ("CREATE UNLOGGED TABLE t (a int)", _SCHEMA),
        ("CREATE TABLE t AS SELECT 1", _SCHEMA),
        ("CREATE MATERIALIZED VIEW v AS SELECT 1", _SCHEMA),
        ("CREATE TABLE t AS SELECT set_config('a', 'x', false)", _sets("a", schema=True)),
        ("CREATE VIEW v AS SELECT set_config('a', 'x', false), pg_advisory_lock(1)", _SCHEMA),
        ("CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT set_config('a', 'x', false); DELETE FROM u)", _SCHEMA),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql SET a = 1 AS 'SELECT 1; SET b = 1'", _SCHEMA),
        ("CREATE OR REPLACE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN SET a = 1; END $$", _SCHEMA),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT set_config('a', 'x', false); END", _SCHEMA),
        ("ALTER FUNCTION f() SET a = 1", _SCHEMA),
        ("CREATE TRIGGER g AFTER INSERT ON t EXECUTE FUNCTION f()", _SCHEMA),
        ("CREATE POLICY p ON t USING (set_config('a', 'x', false) = '')", _SCHEMA),
        ("CREATE SEQUENCE s", _SCHEMA),
        ("CREATE SCHEMA s CREATE VIEW v AS SELECT 1", _SCHEMA),
        ("CREATE TYPE y AS ENUM ('a')", _SCHEMA),
        ("CREATE AGGREGATE g (int) (SFUNC = f, STYPE = int)", _SCHEMA),
        ("CREATE EXTENSION e", _SCHEMA),
        ("ALTER TABLE t ADD COLUMN a int", _SCHEMA),
        ("ALTER TABLE t ADD COLUMN a text DEFAULT set_config('a', 'x', false)", _sets("a", schema=True)),
        ("ALTER TABLE t RENAME TO u", _SCHEMA),
        ("ALTER TABLE t SET SCHEMA s", _SCHEMA),
        ("ALTER TABLE t OWNER TO a", _SCHEMA),
        ("ALTER TYPE y ADD VALUE 'b'", _SCHEMA),
        ("IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c", _SCHEMA),
        ("DROP TABLE IF EXISTS t CASCADE", _DROPS),
        ("DROP FUNCTION f(int)", _DROPS),
        ("DROP OWNED BY a", _DROPS),
        ("DROP TABLE pg_temp.t", attrs.evolve(_DROPS, pins=Pin.TEMPORARY)),
    ],
)  # fmt: skip
def test_schema(text: str, effects: Effects) -> None:
    """Definitions change the schema; what they contain is executed later, if at all."""
    assert _read(text) == effects


@pytest.mark.parametrize(
    "text",
    [
        "gibberish",
        "SELECT set_config(",
        "SET",
        "\ufeffSET x = 1",
        "CREATE TABLE t (a int) WITH OIDS; SELECT 1",
        "SELECT 1; FUTURE COMMAND",
        "SET x = 1 /*",
        "SELECT set_config('a', 'x', true)" + " || ''" * 200,
        "LISTEN a" + " " * 5000,
        "LISTEN a" + "/*" * 100 + "*/" * 100,
        b"LISTEN a\0",
        "SELECT 1;" * 20000,
    ],
    ids=lambda text: str(text[:20]),
)
def test_what_cannot_be_read_may_do_everything(text: str | bytes) -> None:
    """Texts that the parser does not understand, or that would cost it too much."""
    assert _read(text) == EVERYTHING


def test_a_library_may_be_loaded_by_what_cannot_be_read() -> None:
    """LOAD cannot be found afterwards, so it is looked for in texts that cannot be read."""
    assert _read("LOAD 'x'; FUTURE COMMAND") == attrs.evolve(EVERYTHING, pins=EVERYTHING.pins | Pin.LOAD)
    assert _read("FUTURE COMMAND workload 'x'") == EVERYTHING


@pytest.mark.parametrize(
    "text",
    [
        r"SELECT 'a\''; SET x = 1; --'",
        "SELECT E'\u8868\\'; SET x = 1; --'".encode("shift_jis"),
        b"SELECT a$\x95|$$ ; SET x = 1; -- $$",
        b"SELECT E'\x81_'; SET x = 1; --'",
        b"SELECT E'\x81_' , ' ; SET x = 1; -- '",
        b"SET x = '\xe9|'",
    ],
)
def test_what_may_be_read_in_two_ways_may_do_everything(text: bytes | str) -> None:
    """Where tokens end depends on a setting, or on an encoding, that a text does not tell."""
    assert _read(text) == EVERYTHING


@pytest.mark.parametrize(
    "text",
    [
        "-- ; select 1\nSET x = 1",
        "-- ;\rSET x = 1",
        "/* ; select 1 */ SET x = 1",
        "/* /* */ */ SET x = 1",
        "/**/SET/**/x/**/=/**/1",
        "SELECT 1; -- ; select 2\n SET x = 1",
        "SELECT ';select'; SET x = 1",
        "SELECT $$;$$; SET x = 1",
        ";;(SELECT 1);\tSET x = 1",
        "end;SET x = 1",
        "BEGIN/*;*/;SET x = 1",
        'SELECT "a;b"; SET x = 1',
        """SELECT "it's"; SET x = 1; SELECT "it's" """,
        "SELECT 1 -- it's\n; SET x = 1; -- it's",
        "SELECT 1 /* it's */; SET x = 1; /* it's */",
        "SELECT $$it's$$; SET x = 1; SELECT $a$it's$a$",
        "sElEcT 1; sEt X tO 1",
    ],
)
def test_statements_behind_others(text: str) -> None:
    """Each statement is found, whatever is in front of it."""
    assert _read(text) == _sets("x")


def test_names_keep_the_encoding_of_the_text() -> None:
    """Names come in bytes as the client would send them, in UTF-8 or in another encoding."""
    for encoding in ("utf-8", "latin-1"):
        effects = _read('DEALLOCATE "Käse"'.encode(encoding))
        assert effects is not None
        assert effects.deallocates == ("Käse".encode(encoding),)
