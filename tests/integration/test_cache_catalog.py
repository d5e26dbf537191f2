"""What the judge of the result cache says of queries, and what PostgreSQL's own analysis says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from hyperpool.cache.catalog import Catalog, search_path
from hyperpool.cache.judge_settings import SETTINGS_ONLY
from hyperpool.sql.reader import QueryReader
from hyperpool.sql.reasons import Reason
from tests.support.cachecatalog import PATH, Oracle, catalog_of, fetch

if TYPE_CHECKING:
    import psycopg

    from hyperpool.cache.verdict import Verdict

pytestmark = pytest.mark.hyperpool_only

READER: Final = QueryReader()

ALLOWED: Final[dict[str, set[str]]] = {
    "SELECT 1": set(),
    "SELECT * FROM t": {"t"},
    "TABLE t": {"t"},
    "VALUES (1, 'a'), (2, 'b')": set(),
    "SELECT a, b FROM t WHERE a = 1 AND b LIKE 'x%' ORDER BY a DESC LIMIT 10 OFFSET 5": {"t"},
    "SELECT a FROM t WHERE a IN (1, 2, 3) OR a BETWEEN 5 AND 9 OR a IS NULL": {"t"},
    "SELECT count(*), sum(a), avg(f), max(b), min(d) FROM t GROUP BY h HAVING count(*) > 1": {"t"},
    "SELECT a, sum(g) FROM t GROUP BY GROUPING SETS ((a), ()), ROLLUP (b)": {"t"},
    "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b": {"t"},
    "SELECT c::date, e::date, c AT TIME ZONE 'UTC', c + interval '1 day', c - e FROM t": {"t"},
    "SELECT date_trunc('day', c), extract(year FROM c), to_char(c, 'YYYY-MM-DD'), to_char(f, '999') FROM t": {"t"},
    "SELECT d > c, e < c, c >= '2024-01-01', d BETWEEN '2024-01-01' AND '2024-02-01' FROM t": {"t"},
    "SELECT a::text || b, a || 'x', b || c, concat(a, b, c), format('%s', c) FROM t": {"t"},
    "SELECT lower(b), upper(b), length(b), substring(b FROM 1 FOR 2), trim(b), md5(b), b ~ 'x' FROM t": {"t"},
    "SELECT coalesce(b, 'x'), nullif(a, 0), greatest(a, 3), CASE WHEN o THEN 1 ELSE 2 END FROM t": {"t"},
    "SELECT CASE a WHEN 1 THEN 'one' WHEN 2 THEN 'two' END FROM t": {"t"},
    "SELECT json_agg(t), jsonb_build_object('a', a, 'c', c), to_jsonb(h) FROM t GROUP BY a, c, h": {"t"},
    "SELECT row_to_json(t), t FROM t": {"t"},
    "SELECT j ->> 'a', j #> '{a,b}', j @> '{\"a\": 1}', j ? 'a', j['a'] FROM t": {"t"},
    "SELECT k[1], k[1:2], array_append(l, 'x'), a = ANY (k), array_length(k, 1), unnest(l), ARRAY[1, a] FROM t": {"t"},
    "SELECT a FROM t WHERE a = ANY ('{1,2}') AND b = ANY (ARRAY['a', 'b']) AND h = 'sad'": {"t"},
    "SELECT row_number() OVER (PARTITION BY b ORDER BY a), lag(a) OVER w FROM t WINDOW w AS (ORDER BY g)": {"t"},
    "SELECT sum(a) OVER (ORDER BY a RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t": {"t"},
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a), mode() WITHIN GROUP (ORDER BY b) FROM t": {"t"},
    "SELECT string_agg(DISTINCT b, ',' ORDER BY b), array_agg(a) FILTER (WHERE a > 1), bool_and(o) FROM t": {"t"},
    "SELECT a FROM t UNION SELECT 2 ORDER BY 1": {"t"},
    "SELECT a, b FROM t EXCEPT SELECT a, b FROM parted": {"t", "parted", "parted_low", "parted_high"},
    "WITH x AS (SELECT a, b FROM t) SELECT x.a, p.b FROM x JOIN parted p USING (a)": {
        "t",
        "parted",
        "parted_low",
        "parted_high",
    },
    "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 10) SELECT n FROM r": set(),
    "SELECT x FROM (SELECT a AS x FROM t) s WHERE x > 1": {"t"},
    "SELECT s.x, s.y FROM (SELECT a, b FROM t) AS s (x, y)": {"t"},
    "SELECT (SELECT max(a) FROM t u WHERE u.b = t.b), EXISTS (SELECT FROM t), ARRAY(SELECT a FROM t) FROM t": {"t"},
    "SELECT * FROM t WHERE (a, b) IN (SELECT a, b FROM t) AND (a, g) = (1, 2) AND a > ALL (SELECT a FROM t)": {"t"},
    "SELECT i FROM generate_series(1, 10) AS g (i)": set(),
    "SELECT g.*, n FROM unnest(ARRAY['a', 'b']) WITH ORDINALITY AS g (w, n)": set(),
    "SELECT l.v FROM t, LATERAL (SELECT t.a + 1 AS v) l": {"t"},
    "SELECT x.a FROM jsonb_array_elements('[1]') AS x (a)": set(),
    "SELECT key, value FROM t, jsonb_each_text(j)": {"t"},
    "SELECT 'happy'::mood, 5::positive, '1'::int, '{1,2}'::int[], ROW(1, 'x'), '2024-01-01'::date": set(),
    "SELECT b::varchar(3), f::int, f::numeric(10, 2), a::float8, o::int, b::int, b::interval FROM t": {"t"},
    "SELECT ARRAY['2024-01-01', '2024-02-01']::date[]": set(),
    "SELECT (r).x, (r).y, r FROM t": {"t"},
    "SELECT v @> 5, lower(v), v * '[1,5)' FROM t": {"t"},
    "SELECT to_tsvector('english', b) @@ to_tsquery('english', 'x'), to_tsvector(b) FROM t": {"t"},
    'SELECT date(c), text(a), int4(g), "interval"(n) FROM t': {"t"},
    "SELECT pure(a), calm_sum(a), a === 1 FROM t GROUP BY a": {"t"},
    "SELECT mixed(a) FROM t": {"t"},
    "SELECT opened(1), opened_body(2)": {"t"},
    "SELECT defaulted(), defaulted(1)": set(),
    "SELECT on_domain(i), on_domain(a) FROM t": {"t"},
    "SELECT * FROM opened_rows(1)": {"t"},
    "SELECT one, two FROM opened_columns()": {"t"},
    "SELECT trusted('x')": set(),
    "SELECT t.computed_well FROM t": {"t"},
    "SELECT * FROM plain WHERE top > 1": {"t"},
    "SELECT * FROM deep": {"t", "parted", "parted_low", "parted_high"},
    "SELECT u FROM who": {"t"},
    "SELECT * FROM stored": {"stored"},
    "SELECT * FROM parted_low": {"parted_low"},
    "SELECT * FROM mother": {"mother", "daughter"},
    "SELECT * FROM owned": {"owned"},
    "SELECT * FROM linked": {"linked", "owned"},
    "SELECT * FROM zoned": {"zoned"},
    "SELECT a FROM judged.t": {"t"},
    'SELECT a COLLATE "C", count(*) FROM (SELECT b AS a FROM t) s GROUP BY 1': {"t"},
    "SELECT current_setting('app.tenant')": set(),
    "SELECT quote_literal(b), quote_ident(b), overlay(b PLACING 'x' FROM 1) FROM t": {"t"},
    "SELECT make_date(2020, 1, 1), age(c, c), justify_days(m), n + m FROM t": {"t"},
    "SELECT a FROM t ORDER BY b USING <": {"t"},
    "SELECT a IS DISTINCT FROM 1, b IS NOT DISTINCT FROM 'x', o IS TRUE, NOT o FROM t": {"t"},
}  # fmt: skip
"""Query -> the tables that its answer depends on."""

REFUSED: Final[dict[str, Reason]] = {
    "SELECT now()": Reason.STABLE_FUNCTION,
    "SELECT a FROM t WHERE c > now() - interval '1 day'": Reason.STABLE_FUNCTION,
    "SELECT random()": Reason.VOLATILE_FUNCTION,
    "SELECT clock_timestamp()": Reason.VOLATILE_FUNCTION,
    "SELECT nextval('counter')": Reason.VOLATILE_FUNCTION,
    "SELECT gen_random_uuid()": Reason.VOLATILE_FUNCTION,
    "SELECT pg_sleep(0)": Reason.VOLATILE_FUNCTION,
    "SELECT set_config('a.b', 'c', false)": Reason.VOLATILE_FUNCTION,
    "SELECT pg_advisory_lock(1)": Reason.VOLATILE_FUNCTION,
    "SELECT pg_notify('a', 'b')": Reason.VOLATILE_FUNCTION,
    "SELECT txid_current()": Reason.STABLE_FUNCTION,
    "SELECT lo_get(1)": Reason.VOLATILE_FUNCTION,
    "SELECT age(c) FROM t": Reason.STABLE_FUNCTION,
    "SELECT current_setting('work_mem')": Reason.STABLE_FUNCTION,
    "SELECT current_setting('app.' || b) FROM t": Reason.STABLE_FUNCTION,
    "SELECT steady(a) FROM t": Reason.STABLE_FUNCTION,
    "SELECT wild(a) FROM t": Reason.VOLATILE_FUNCTION,
    "SELECT mixed(b) FROM t": Reason.VOLATILE_FUNCTION,
    "SELECT mixed('1')": Reason.VOLATILE_FUNCTION,
    "SELECT wild_sum(a) FROM t": Reason.VOLATILE_FUNCTION,
    "SELECT moving_sum(a) OVER (ROWS 1 PRECEDING) FROM t": Reason.VOLATILE_FUNCTION,
    "SELECT * FROM physical": Reason.UNCERTAIN,
    "SELECT * FROM locked": Reason.ROW_SECURITY,
    "SELECT xmin(t) FROM t": Reason.UNKNOWN_FUNCTION,
    "SELECT b === 'x' FROM t": Reason.VOLATILE_FUNCTION,
    "SELECT 'a' === 'x'": Reason.VOLATILE_FUNCTION,
    "SELECT b OPERATOR(judged.===) 'x' FROM t": Reason.VOLATILE_FUNCTION,
    "SELECT h::pair FROM t": Reason.VOLATILE_FUNCTION,
    "SELECT t.computed FROM t": Reason.VOLATILE_FUNCTION,
    "SELECT computed(t) FROM t": Reason.VOLATILE_FUNCTION,
    "SELECT b::date FROM t": Reason.STABLE_FUNCTION,
    "SELECT b::timestamptz FROM t": Reason.STABLE_FUNCTION,
    "SELECT l::date[] FROM t": Reason.STABLE_FUNCTION,
    "SELECT timestamptz(b) FROM t": Reason.STABLE_FUNCTION,
    "SELECT lower('2020-01-01')::timestamptz": Reason.STABLE_FUNCTION,
    "SELECT * FROM json_to_record('{}') AS x (a timestamptz)": Reason.STABLE_FUNCTION,
    "SELECT n::timetz FROM t": Reason.STABLE_FUNCTION,
    "SELECT '10:00'::timetz": Reason.STABLE_FUNCTION,
    "SELECT z = '10:00' FROM zoned": Reason.STABLE_FUNCTION,
    "SELECT '2030-01-01'::timely": Reason.STABLE_FUNCTION,
    "SELECT 't'::regclass": Reason.STABLE_FUNCTION,
    "SELECT * FROM wide": Reason.STABLE_FUNCTION,
    "SELECT enum_range(h) FROM t": Reason.STABLE_FUNCTION,
    "SELECT opened_clock(1)": Reason.STABLE_FUNCTION,
    "SELECT opened_writes(1)": Reason.NOT_A_QUERY,
    "SELECT endless(1)": Reason.UNCERTAIN,
    "SELECT opened_literal(1)": Reason.CLOCK_LITERAL,
    "SELECT opened_escape(1)": Reason.AMBIGUOUS,
    "SELECT defaulted_wild()": Reason.VOLATILE_FUNCTION,
    "SELECT of_domain(i) FROM t": Reason.VOLATILE_FUNCTION,
    "SELECT of_timely('2030-01-01')": Reason.STABLE_FUNCTION,
    "SELECT * FROM clocked": Reason.STABLE_FUNCTION,
    "SELECT * FROM reads_text": Reason.STABLE_FUNCTION,
    "SELECT * FROM schemed": Reason.SQL_VALUE_FUNCTION,
    "SELECT * FROM drawn": Reason.UNSUPPORTED_SYNTAX,
    "SELECT * FROM catalogued": Reason.SYSTEM_CATALOG,
    "SELECT * FROM pg_class": Reason.SYSTEM_CATALOG,
    "SELECT * FROM information_schema.tables": Reason.SYSTEM_CATALOG,
    "SELECT * FROM pg_stat_activity": Reason.SYSTEM_CATALOG,
    "SELECT * FROM odd": Reason.ROW_SECURITY,
    "SELECT last_value FROM counter": Reason.UNKNOWN_RELATION,
    "SELECT * FROM missing": Reason.UNKNOWN_RELATION,
    "SELECT * FROM alone": Reason.UNKNOWN_RELATION,
    "SELECT missing(a) FROM t": Reason.UNKNOWN_FUNCTION,
    "SELECT a::missing FROM t": Reason.UNKNOWN_TYPE,
    "SELECT missing FROM t": Reason.UNCERTAIN,
    "SELECT ctid FROM t": Reason.UNCERTAIN,
    "SELECT t.xmin FROM t, (SELECT 1 AS xmin) s": Reason.UNCERTAIN,
    "SELECT * FROM t NATURAL JOIN parted": Reason.UNSUPPORTED_SYNTAX,
    "WITH RECURSIVE r AS (SELECT now() AS n UNION SELECT n FROM r) SELECT * FROM r": Reason.STABLE_FUNCTION,
    "SELECT 1 WHERE EXISTS (SELECT FROM t WHERE c < now())": Reason.STABLE_FUNCTION,
    "SELECT a FROM t ORDER BY random()": Reason.VOLATILE_FUNCTION,
    "SELECT a FROM t GROUP BY a, now()": Reason.STABLE_FUNCTION,
    "SELECT a FROM t LIMIT wild(3)": Reason.VOLATILE_FUNCTION,
    "SELECT sum(a) FILTER (WHERE c < now()) FROM t": Reason.STABLE_FUNCTION,
    "SELECT sum(a) OVER (PARTITION BY now()) FROM t": Reason.STABLE_FUNCTION,
    "SELECT * FROM t JOIN parted p ON wild(p.a) = t.a": Reason.VOLATILE_FUNCTION,
    "VALUES (now())": Reason.STABLE_FUNCTION,
    "SELECT * FROM generate_series(now(), now(), interval '1 day')": Reason.STABLE_FUNCTION,
    "SELECT ARRAY[now()]": Reason.STABLE_FUNCTION,
    "SELECT (ARRAY[1])[wild(1)]": Reason.VOLATILE_FUNCTION,
    "SELECT ROW(now())": Reason.STABLE_FUNCTION,
    "SELECT COALESCE(c, now()) FROM t": Reason.STABLE_FUNCTION,
    "SELECT CASE WHEN a > 1 THEN now() END FROM t": Reason.STABLE_FUNCTION,
}  # fmt: skip


def _judge(catalog: Catalog, query: str, *parameters: int, path: tuple[str, ...] = PATH) -> Verdict:
    text = READER.read(query.encode())
    assert text.reading.reason is None, (query, text.reading.reason)
    return catalog.judge(text, path, parameters)


def _named(catalog: Catalog, names: set[str]) -> frozenset[int]:
    found = frozenset().union(*(catalog.find(f"judged.{name}") for name in names)) if names else frozenset()
    assert len(found) == len(names)
    return found


@pytest.mark.parametrize("query", ALLOWED)
def test_what_is_allowed_is_harmless_for_postgresql_too(
    judged_catalog: Catalog, oracle: Oracle, query: str
) -> None:
    """What is allowed has nothing unfit in PostgreSQL's own analysis, and all its tables are told."""
    verdict = _judge(judged_catalog, query)
    assert (verdict.reason, verdict.detail) == (None, "")
    assert verdict.tables == _named(judged_catalog, ALLOWED[query])
    assert verdict.table_names == tuple(sorted(f"judged.{name}" for name in ALLOWED[query]))
    analysis = oracle.analyse(query)
    assert analysis is not None
    _check_allowed(analysis.unfit)


def _check_allowed(unfit: tuple[str, ...]) -> None:
    """Only functions in SQL that have been opened, and settings that are told, may look unfit."""
    assert set(unfit) <= {
        "opened(int4)",
        "opened_body(int4)",
        "opened_rows(int4)",
        "opened_columns()",
        "current_setting(text)",
    }


@pytest.mark.parametrize("query", REFUSED)
def test_what_is_refused_has_its_reason(judged_catalog: Catalog, query: str) -> None:
    """Each hazard has a reason that people can look up, and says what it is about."""
    verdict = _judge(judged_catalog, query)
    assert verdict.reason is REFUSED[query]
    assert verdict.detail


@pytest.mark.parametrize(
    ("query", "parameters", "clock"),
    [
        ("SELECT a FROM t WHERE a = $1", (), True),
        ("SELECT a FROM t WHERE a = $1", (23,), False),
        ("SELECT a FROM t WHERE a = $1 AND c > $2", (23, 0), True),
        ("SELECT a FROM t WHERE c > $1", (1184,), True),
        ("SELECT a FROM t WHERE d = ANY ($1)", (1182,), True),
        ("SELECT a FROM t WHERE a = ANY ($1)", (1007,), False),
        ("SELECT $1::int + a FROM t LIMIT $2", (0, 20), True),
        ("SELECT a FROM t WHERE b = $1 OR $1 IS NULL", (25,), False),
        ("SELECT a FROM t", (), False),
    ],
)
def test_parameters_that_may_mean_the_clock_are_told(
    judged_catalog: Catalog, query: str, parameters: tuple[int, ...], clock: bool
) -> None:
    """A text such as ``now`` may come as a parameter."""
    verdict = _judge(judged_catalog, query, *parameters)
    assert (verdict.reason, verdict.clock) == (None, clock)


@pytest.mark.parametrize(
    ("query", "parameters", "reason"),
    [
        ("SELECT mixed($1)", (), Reason.VOLATILE_FUNCTION),
        ("SELECT mixed($1)", (25,), Reason.VOLATILE_FUNCTION),
        ("SELECT mixed($1)", (23,), None),
        ("SELECT $1 === 1", (), None),
        ("SELECT a === $1 FROM t", (25,), Reason.UNKNOWN_FUNCTION),
        ("SELECT $1::timestamptz", (), None),
        ("SELECT $1::timestamptz", (25,), Reason.STABLE_FUNCTION),
        ("SELECT $1::timetz", (), Reason.STABLE_FUNCTION),
        ("SELECT z = $1 FROM zoned", (), Reason.STABLE_FUNCTION),
        ("SELECT $1::text, mixed($1)", (), Reason.VOLATILE_FUNCTION),
        ("SELECT mixed($1), $1::int", (), Reason.VOLATILE_FUNCTION),
    ],
)
def test_types_of_parameters_decide_which_function_is_meant(
    judged_catalog: Catalog, query: str, parameters: tuple[int, ...], reason: Reason | None
) -> None:
    """The same query may be fit with one type and unfit with another, or when the type is unknown."""
    assert _judge(judged_catalog, query, *parameters).reason is reason


def test_a_name_means_everything_along_the_search_path(judged_catalog: Catalog) -> None:
    """Which of several tables of a name is meant depends on what a role may see, so that all of them count."""
    one, other = judged_catalog.find("judged.t"), judged_catalog.find("other.t")
    assert _judge(judged_catalog, "SELECT a FROM t", path=("judged",)).tables == one
    assert _judge(judged_catalog, "SELECT a FROM t", path=("other",)).tables == other
    assert _judge(judged_catalog, "SELECT a FROM t", path=("judged", "other")).tables == one | other
    assert _judge(judged_catalog, "SELECT a FROM other.t", path=("judged",)).tables == other
    assert _judge(judged_catalog, "SELECT a FROM t", path=("public",)).reason is Reason.UNKNOWN_RELATION
    assert _judge(judged_catalog, "SELECT wild(1)", path=("other",)).reason is Reason.UNKNOWN_FUNCTION


def test_settings_that_policies_read_are_told(judged_catalog: Catalog) -> None:
    """What answers depend on must be in the key."""
    assert _judge(judged_catalog, "SELECT * FROM tenants").settings == {"app.tenant"}
    assert _judge(judged_catalog, "SELECT current_setting('My.Thing', true)").settings == {"my.thing"}
    assert _judge(judged_catalog, "SELECT current_setting('my.other', true)").settings == {"my.other"}
    assert _judge(judged_catalog, "SELECT * FROM owned").settings == frozenset()


def test_unlogged_tables_are_told(judged_catalog: Catalog) -> None:
    """A crash empties them: whether they are cached is for the settings to say."""
    assert _judge(judged_catalog, "SELECT * FROM quick").unlogged == ("judged.quick",)
    assert _judge(judged_catalog, "SELECT * FROM quick_view JOIN t USING (a)").unlogged == ("judged.quick",)
    assert _judge(judged_catalog, "SELECT * FROM t").unlogged == ()


def test_a_refusal_tells_the_tables_that_the_text_names(judged_catalog: Catalog) -> None:
    """So that a rule for a table can be found."""
    verdict = _judge(judged_catalog, "SELECT now() FROM judged.plain, t", path=("judged", "other"))
    assert verdict.reason is Reason.STABLE_FUNCTION
    assert verdict.table_names == ("judged.plain", "judged.t", "other.t")


@pytest.mark.parametrize(
    ("text", "undo"),
    [
        ("CREATE TABLE judged.new (a int)", "DROP TABLE judged.new"),
        ("ALTER TABLE judged.zoned ADD COLUMN c int", "ALTER TABLE judged.zoned DROP COLUMN c"),
        ("ALTER TABLE judged.zoned RENAME TO renamed", "ALTER TABLE judged.renamed RENAME TO zoned"),
        ("ALTER FUNCTION judged.pure(int) VOLATILE", "ALTER FUNCTION judged.pure(int) IMMUTABLE"),
        (
            "ALTER TABLE judged.zoned ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE judged.zoned DISABLE ROW LEVEL SECURITY",
        ),
        ("CREATE POLICY p ON judged.zoned USING (true)", "DROP POLICY p ON judged.zoned"),
        ("CREATE OR REPLACE VIEW judged.who AS SELECT a, session_user AS u FROM judged.t", ""),
        ("ALTER TABLE judged.alone2 SET SCHEMA judged", ""),
        ("CREATE CAST (judged.pair AS int) WITH INOUT", "DROP CAST (judged.pair AS int)"),
        (
            "ALTER TABLE judged.daughter NO INHERIT judged.mother",
            "ALTER TABLE judged.daughter INHERIT judged.mother",
        ),
        ("ALTER DOMAIN judged.positive ADD CHECK (VALUE < 1000)", ""),
        ("ALTER SCHEMA other RENAME TO another", "ALTER SCHEMA another RENAME TO other"),
    ],
)
def test_a_change_of_the_schema_is_a_new_version(
    judged: psycopg.Connection[Any], text: str, undo: str
) -> None:
    """Whatever could change a verdict changes the version."""
    if "alone2" in text:
        judged.execute("CREATE TABLE other.alone2 (a int)")
        text, undo = text.replace("judged.alone2", "other.alone2"), "DROP TABLE judged.alone2"
    before = catalog_of(judged)
    assert fetch(judged, before.version) == [["v", before.version, *fetch(judged)[0][2:]]]
    assert before.renewed(fetch(judged, before.version)) is before
    judged.execute(text)
    after = before.renewed(fetch(judged, before.version))
    assert after is not before
    assert after.version != before.version
    if undo:
        judged.execute(undo)


def test_writes_and_temporary_tables_are_no_new_version(judged: psycopg.Connection[Any]) -> None:
    """Otherwise the whole catalog would be fetched again and again."""
    before = catalog_of(judged)
    judged.execute(
        "INSERT INTO judged.zoned (a) VALUES (1); CREATE TEMP TABLE passing (a serial CHECK (a > 0))"
    )
    assert before.renewed(fetch(judged, before.version)) is before
    judged.execute("DROP TABLE passing; ANALYZE judged.zoned; DELETE FROM judged.zoned")
    assert before.renewed(fetch(judged, before.version)) is before


def test_rows_that_are_no_catalog_are_an_error(judged: psycopg.Connection[Any]) -> None:
    """A pooler in front of something else finds out."""
    rows = fetch(judged)
    with pytest.raises(ValueError, match="version"):
        Catalog(rows[1:])
    with pytest.raises(ValueError, match="unknown kind, 'x'"):
        Catalog([*rows, ["x", *[None] * 7]])


def test_the_question_is_asked_in_any_session(judged: psycopg.Connection[Any]) -> None:
    """Whatever is set, and whatever tables and functions have the names of PostgreSQL's own."""
    before = fetch(judged)
    with judged.transaction(force_rollback=True):
        judged.execute(
            "CREATE SCHEMA trap; CREATE TABLE trap.pg_class (a int); CREATE TABLE trap.pg_proc (a int)"
        )
        judged.execute("CREATE FUNCTION trap.md5(text) RETURNS text LANGUAGE sql AS 'SELECT 1/0'")
        judged.execute("SET LOCAL search_path = trap, pg_catalog; SET LOCAL DateStyle = 'German'")
        judged.execute("SET LOCAL statement_timeout = '1ms'; SET LOCAL standard_conforming_strings = off")
        after = fetch(judged)
    assert {row[1] for row in before if row[0] == "o"} == {row[1] for row in after if row[0] == "o"}
    assert Catalog(after).find("trap.pg_class")


@pytest.mark.parametrize(
    ("value", "schemas"),
    [
        ('"$user", public', ("ann", "public")),
        ("a,b", ("a", "b")),
        ('Mixed, "Mixed", "with ""quotes"" and, comma"', ("mixed", "Mixed", 'with "quotes" and, comma')),
        ('""', ()),
        ("", ()),
        ("pg_catalog , public", ("pg_catalog", "public")),
    ],
)
def test_the_search_path_is_taken_apart(value: str, schemas: tuple[str, ...]) -> None:
    """As PostgreSQL's SplitIdentifierString does."""
    assert search_path(value, "ann") == schemas


def test_each_function_that_looks_at_settings_alone_is_one_of_postgresqls(oracle: Oracle) -> None:
    """No name on the list is misspelt."""
    known = {signature: volatility for volatility, signature in oracle.signatures.values()}
    later = {"date_add", "date_subtract", "timezone", "json_agg_strict", "jsonb_agg_strict"}
    for signature in SETTINGS_ONLY:
        name = signature.partition("(")[0]
        if signature not in known:
            assert name in later or name.endswith(("_strict", "_unique")), signature


def _settings_only_call(signature: str) -> str:
    name, _, arguments = signature.rstrip(")").partition("(")
    values = {
        "date": "date '2020-01-31'",
        "timestamptz": "timestamptz '2020-03-29 01:30:00+00'",
        "timestamp": "timestamp '2020-03-29 01:30:00'",
        "time": "time '10:00'",
        "interval": "interval '1 month 3 days'",
        "bool": "true",
        "int4": "7",
        "int8": "7::int8",
        "float4": "1.5::float4",
        "float8": "1.5::float8",
        "numeric": "1234.5",
        "money": "'12.34'::money",
        "json": '\'{"a": "b"}\'::json',
        "jsonb": '\'{"a": "b"}\'::jsonb',
        "anyelement": "timestamptz '2020-01-01 00:00:00+00'",
        "any": "'x'::text",
        "anyarray": "ARRAY[timestamptz '2020-01-01 00:00:00+00']",
        "anynonarray": "timestamptz '2020-01-01 00:00:00+00'",
        "record": "ROW(1, date '2020-01-01')",
        "tsquery": "'x'::tsquery",
    }
    texts = {
        "date_trunc": ["'day'", "'UTC'"],
        "date_part": ["'hour'"],
        "extract": ["'hour'"],
        "to_date": ["'2020-01-01'", "'YYYY-MM-DD'"],
        "to_timestamp": ["'2020-01-01'", "'YYYY-MM-DD'"],
        "to_number": ["'12'", "'99'"],
        "make_timestamptz": ["'UTC'"],
        "to_char": ["'9'"],
        "format": ["'%%'"],
    }.get(name, [])
    given = [
        (texts.pop(0) if texts else "'x'") + "::text" if argument == "text" else values[argument]
        for argument in (arguments.split(",") if arguments else ())
    ]
    if "object" in name and given:
        given = ["'key'::text", "date '2020-01-01'"]
    return f'pg_catalog."{name}"({", ".join(given)})'


def test_functions_that_look_at_settings_alone_give_the_same_in_every_transaction(
    judged: psycopg.Connection[Any], oracle: Oracle
) -> None:
    """What they give does not change from one transaction and session to the next; that is all they promise here."""
    known = {signature for _, signature in oracle.signatures.values()}
    calls = [
        _settings_only_call(one) for one in sorted(SETTINGS_ONLY & known) if not one.startswith("in_range")
    ]
    assert len(calls) > 90
    query = "SELECT " + ", ".join(f"({call})::text" for call in calls if "generate_series" not in call)
    with judged.transaction():
        first = judged.execute(query).fetchone()
    with judged.transaction():
        judged.execute("CREATE TEMP TABLE unrelated (a int) ON COMMIT DROP")
        second = judged.execute(query).fetchone()
    assert first == second
