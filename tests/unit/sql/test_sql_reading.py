"""What texts mean for the result cache."""

from __future__ import annotations

import re

import pytest

from hyperpool.sql.memo import Memo
from hyperpool.sql.reader import LONGEST_QUERY, QueryReader
from hyperpool.sql.reading import ANYTHING, NOTHING, Cast, Hint, Source, Writes
from hyperpool.sql.reasons import Reason


def _reason(text: str) -> Reason | None:
    return QueryReader().read(text.encode()).reading.reason


@pytest.mark.parametrize(
    "text",
    [
        "select 1",
        "SELECT a, b FROM t WHERE c = $1",
        "values (1), (2)",
        "table t",
        "(select 1)",
        "select 1;",
        ";;select 1;",
        "with q as (select 1) select * from q",
        "with recursive q as (select 1 union all select q.a + 1 from q) select * from q",
        "select a from t union select b from u order by 1 limit 5 offset 2",
        "select count(*) filter (where a > 1) over (partition by b order by c) from t",
        "select 'it''s', E'a\\nb', $$snow$$, U&'d\\0061t', x'1f', b'01', 1e10, .5, 1_000",
        "select array[1, 2], row(1, 2), (a).b[1], c[1:2] from t, lateral f(t.a) with ordinality",
        "select case a when 1 then 2 else 3 end, coalesce(a, b), greatest(a, b), nullif(a, b) from t",
        "select a from t where a in (select 1) and exists (select 1) and a = any(array[1]) and b is not null",
        "select extract(year from a), a at time zone 'UTC', position('a' in b), a collate \"C\" from t",
        "select a from only t group by rollup (a) having grouping(a) = 1",
    ],
)
def test_a_query_is_left_to_the_catalog(text: str) -> None:
    """A query by its words alone; the catalog says what its names stand for."""
    assert _reason(text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Reason.EMPTY),
        (" ; -- nothing", Reason.EMPTY),
        ("select 1; select 2", Reason.MULTIPLE_STATEMENTS),
        ("insert into t values (1)", Reason.NOT_A_QUERY),
        ("explain select 1", Reason.NOT_A_QUERY),
        ("explain analyze select 1", Reason.NOT_A_QUERY),
        ("show search_path", Reason.NOT_A_QUERY),
        ("copy (select 1) to stdout", Reason.NOT_A_QUERY),
        ("declare c cursor for select 1", Reason.NOT_A_QUERY),
        ("fetch all from c", Reason.NOT_A_QUERY),
        ("execute s", Reason.NOT_A_QUERY),
        ("select 1 from", Reason.PARSE_ERROR),
        ("select 'a", Reason.PARSE_ERROR),
        ("select " + "1" * 20000, Reason.TOO_LONG),
        ("select " + "(" * 200 + "1" + ")" * 200, None),
        ("select " + "not " * 200 + "true", Reason.TOO_DEEP),
        ("/*" * 65 + "*/" * 65 + "select 1", Reason.TOO_DEEP),
        ("select 'a\\'", Reason.AMBIGUOUS),
        ("select * from \u00c9t\u00e9", Reason.ENCODING),
        ("select a from t for update", Reason.LOCKING),
        ("select a from t for no key update skip locked", Reason.LOCKING),
        ("select a from (select a from t for share) s", Reason.LOCKING),
        ("select a from t where a in (select b from u for key share)", Reason.LOCKING),
        ("select 1 into t", Reason.INTO),
        ("select 1 into temp t", Reason.INTO),
        ("with q as (delete from t returning *) select * from q", Reason.DATA_MODIFYING_CTE),
        (
            "select (with q as (insert into t values (1) returning a) select a from q)",
            Reason.DATA_MODIFYING_CTE,
        ),
        ("select a from t tablesample system (1)", Reason.TABLESAMPLE),
        ("select a from t tablesample bernoulli (1) repeatable (1)", Reason.TABLESAMPLE),
        ("select 'now'::timestamp", Reason.CLOCK_LITERAL),
        ("select date 'Today'", Reason.CLOCK_LITERAL),
        ("select a from t where b > 'yesterday 12:00'", Reason.CLOCK_LITERAL),
        ("select '{tomorrow,2020-01-01}'::date[]", Reason.CLOCK_LITERAL),
        ("select $$[now,)$$::tsrange", Reason.CLOCK_LITERAL),
        ("select E'\\x6eow'::date", Reason.CLOCK_LITERAL),
        ("select U&'\\006eow'::date", Reason.CLOCK_LITERAL),
        ("select '{to\"da\"y}'::date[]", Reason.CLOCK_LITERAL),
        ("select 'to'\n'day'::date", Reason.CLOCK_LITERAL),
        *(
            (f"select {name}", Reason.SQL_VALUE_FUNCTION)
            for name in ("current_date", "current_timestamp(3)", "user")
        ),
        ("select 1 where session_user = 'a'", Reason.SQL_VALUE_FUNCTION),
        ("select xmlelement(name a)", Reason.UNSUPPORTED_SYNTAX),
        ("select json_value(a, '$.b') from t", Reason.UNSUPPORTED_SYNTAX),
        ("select * from xmltable('/a' passing b columns c int)", Reason.UNSUPPORTED_SYNTAX),
        ("select a from other.s.t", Reason.UNKNOWN_RELATION),
    ],
)
def test_a_text_is_refused_for_what_it_is(text: str, reason: Reason | None) -> None:
    """Each for the first reason there is."""
    assert _reason(text) is reason


@pytest.mark.parametrize(
    "text",
    [
        "select 'known', 'snow', 'nowhere', 'todays'",
        "select now from today",
        'select "now" -- now',
        "select 1 /* now */",
    ],
)
def test_only_a_word_of_its_own_in_a_string_means_the_clock(text: str) -> None:
    """Names and comments do not, nor do parts of words."""
    assert _reason(text) is None


def test_names_are_found_and_scoped() -> None:
    """The name of a WITH query hides a table only where it can be seen."""
    reading = (
        QueryReader()
        .read(
            b"with q as (select * from q), r as (select * from s.r where f(a) > $1) "
            b"select q.b, (r).c.d, sum(e) over w, h::int[], $2::s.t, i::text, 1.5, true, 'x' "
            b"from q join r using (k) natural join u where l operator(s.@@) m and n between 1 and 5000000000 "
            b"window w as (order by o)"
        )
        .reading
    )
    assert reading.reason is None
    assert reading.relations == {(None, "q"), ("s", "r"), (None, "u")}
    assert reading.functions == {(None, "f", 1), (None, "sum", 1)}
    assert reading.operators == {
        *((None, name) for name in (">", "=", "<", "<=", ">=")),
        ("s", "@@"),
    }
    assert reading.types == {("pg_catalog", "int4[]"), ("s", "t"), (None, "text")}
    assert reading.casts == {
        Cast(("pg_catalog", "int4[]"), Source.EXPRESSION),
        Cast(("s", "t"), Source.PARAMETER),
        Cast((None, "text"), Source.EXPRESSION),
    }
    assert reading.constants == {"unknown", "numeric", "bool", "int4", "int8"}
    assert reading.parameters == {1, 2}
    assert reading.attributes == {"b", "c", "d"}
    assert reading.columns >= {"a", "b", "c", "d", "e", "h", "i", "k", "l", "m", "n", "o"}
    assert reading.star
    assert reading.compares


@pytest.mark.parametrize(
    ("text", "star"),
    [
        ("select a from t", False),
        ("select count(*) from t", False),
        ("select * from t", True),
        ("select t from t", True),
        ("select f(x) from t x", True),
        ("select s.t from s.t", True),
        ("select (a).* from t", True),
        ("select q from (select 1) q", True),
    ],
)
def test_all_columns_are_read_by_a_star_or_a_row(text: str, star: bool) -> None:
    """A relation's name or alias that stands for a value is a row."""
    assert QueryReader().read(text.encode()).reading.star is star


@pytest.mark.parametrize(
    ("text", "writes"),
    [
        ("select f(1)", NOTHING),
        ("begin; commit", NOTHING),
        ("set a.b = 1", NOTHING),
        ("rollback prepared 'x'", NOTHING),
        ("lock t; notify a; listen a; analyze t; comment on table t is 'x'", NOTHING),
        ("create temp table t (a int)", NOTHING),
        ("drop table pg_temp.t", NOTHING),
        ("explain select 1", NOTHING),
        ("call p()", NOTHING),
        ("copy t to stdout", NOTHING),
        ("insert into s.t select * from u", Writes(frozenset({("s", "t")}))),
        ("with t as (select 1) update t set a = 1", Writes(frozenset({(None, "t")}))),
        ("delete from t using u", Writes(frozenset({(None, "t")}))),
        ("merge into t using u on t.a = u.a when matched then delete", Writes(frozenset({(None, "t")}))),
        ("truncate t, s.u", Writes(frozenset({(None, "t"), ("s", "u")}))),
        ("truncate t restart identity cascade", Writes(frozenset({(None, "t")}), anything=True)),
        ("copy t from stdin", Writes(frozenset({(None, "t")}))),
        ("copy (delete from t returning *) to stdout", Writes(frozenset({(None, "t")}))),
        ("explain analyze insert into t values (1)", Writes(frozenset({(None, "t")}))),
        (
            "begin; insert into t values (1); update u set a = 1; commit",
            Writes(frozenset({(None, "t"), (None, "u")})),
        ),
        ("select (with q as (delete from t returning 1) select 1)", Writes(frozenset({(None, "t")}))),
        ("refresh materialized view m", Writes(frozenset({(None, "m")}))),
        *(
            (text, ANYTHING)
            for text in (
                "do $$ begin end $$",
                "execute s",
                "explain analyze execute s",
                "commit prepared 'x'",
                "create table t (a int)",
                "create table t as select 1",
                "select 1 into t",
                "alter table t add a int",
                "drop table t",
                "drop table pg_temp.t, t",
                "drop schema pg_temp",
                "grant select on t to u",
                "create policy p on t",
                "alter role a bypassrls",
                "load 'x'",
                "copy (select 1) to program 'x'",
                "select broken from",
            )
        ),
    ],
)
def test_what_a_text_may_write(text: str, writes: Writes) -> None:
    """By its own words; the catalog widens it."""
    assert QueryReader().read(text.encode()).reading.writes == writes


def test_what_cannot_be_read_in_one_way_may_write_anything() -> None:
    """Nor is it cached; ASCII without backslashes is the same to all."""
    reader = QueryReader()
    assert reader.read(b"select 'a\\'").reading.writes == ANYTHING
    assert reader.read(b"select '\xff'").reading.reason is Reason.ENCODING
    assert reader.read("select 'é'".encode()).reading.reason is None
    assert reader.read("select 'é'".encode(), utf8=False).reading.reason is Reason.ENCODING
    assert reader.read(b"select 'a'", utf8=False, conforming=False).reading.reason is None
    assert reader.read(b"select 'a\\b'", conforming=False).reading.reason is Reason.AMBIGUOUS


def test_hints_are_read_from_comments() -> None:
    """The shorter age counts, and what is not understood means nocache."""

    def hint(text: bytes) -> Hint | None:
        return QueryReader().read(text).reading.hint

    assert hint(b"select 1 /* hyperpool: nocache */") is None
    assert hint(b"select '/*+ hyperpool: nocache */'") is None
    assert hint(b"/*+ hyperpool: nocache */ select 1") == Hint(nocache=True)
    assert hint(b"select /*+ Hyperpool: max_age=5s, stale_while_revalidate = 0s */ 1") == Hint(
        max_age=5, stale_while_revalidate=0
    )
    assert hint(b"/*+ hyperpool: max_age=5s */ select 1 /*+ hyperpool: max_age=500ms */") == Hint(max_age=0.5)
    assert hint(b"select 1 /*+ hyperpool: max_age=soon */") == Hint(nocache=True)
    assert hint(b"select 1 /*+ hyperpool: age=5s */") == Hint(nocache=True)


def test_texts_that_differ_in_literals_alone_share_a_reading() -> None:
    """If the literals have the same types, and mean neither the clock nor a column."""
    reader = QueryReader()

    def same(one: str, other: str) -> bool:
        first, second = reader.read(one.encode()), reader.read(other.encode())
        assert first.canonical != second.canonical
        return first.reading is second.reading

    assert same("select a from t where b = 1 and c = 'x'", "select a from t where b = 22 and c = 'it''s'")
    assert same('select "a" from "t" limit 1', 'select "a" from "t" limit 2')
    assert not same("select 1", "select 3000000000")
    assert not same("select 1", "select '1'")
    assert not same("select a from t1", "select a from t2")
    assert not same("select a from t order by 1", "select a from t order by 2")
    assert not same("select a from t group by 1", "select a from t group by 2")
    assert not same("select 'a'", "select 'now'")
    assert not same("select E'a'", "select E'b'")


def test_a_comment_behind_a_text_need_not_be_read() -> None:
    """Such as a trace's, which is another one each time; but hints are."""
    reader = QueryReader()
    plain = reader.read(b"select a from t")
    assert reader.read(b"select a from t /*traceparent='00-1'*/") is plain
    assert reader.read(b"select a from t -- x /* y */").reading.reason is None
    assert reader.read(b"select a from t /*+ hyperpool: nocache */").reading.hint == Hint(nocache=True)
    assert reader.read(b"select '/* x */").reading.reason is Reason.PARSE_ERROR
    assert reader.read(b"select a from t /* /* x */").reading.reason is Reason.PARSE_ERROR
    assert reader.read(b"select a from t /* x */ */").reading.reason is Reason.PARSE_ERROR


def test_a_long_text_is_told_by_a_short_one() -> None:
    """It is not cached, but what it writes is known."""
    rows = ", ".join(f"({number}, 'it''s', NULL, -1.5, $1::text[])" for number in range(1000))
    large = "'" + "x" * 100_000 + "'"
    numbers = ", ".join(map(str, range(3000)))

    def writes(text: str) -> Writes:
        reading = QueryReader().read(text.encode()).reading
        assert reading.reason is Reason.TOO_LONG
        return reading.writes

    assert writes(f"insert into s.t (a, b) values {rows}") == Writes(frozenset({("s", "t")}))
    assert writes(f'update "t" set a = {large}') == Writes(frozenset({(None, "t")}))
    assert writes(f"delete from t where a in ({numbers})") == Writes(frozenset({(None, "t")}))
    assert writes(f"select a from t where a in ({numbers})") == NOTHING
    assert writes(f"insert into t values ({large}); delete from u") == Writes(
        frozenset({(None, "t"), (None, "u")})
    )
    assert writes(f"insert into t values ({large}); do 'x'") == ANYTHING
    assert writes(f"insert into t values (f({large}))") == Writes(frozenset({(None, "t")}))
    assert QueryReader().read(f"select f({large})".encode()).reading.functions == {(None, "f", 1)}


def test_a_query_may_be_long_for_its_columns() -> None:
    """As those are that mappers of objects write; then it is read like any other."""
    columns = ", ".join(f'"t0"."column_{number}" AS "t0_column_{number}"' for number in range(200))
    joins = " ".join(f'LEFT JOIN "s"."t{number}" ON "t{number}"."id" = "t0"."id"' for number in range(1, 40))
    text = f'/* 1 */ SELECT {columns} FROM "s"."t0" {joins} WHERE "t0"."id" = $1'
    assert 8000 < len(text) < LONGEST_QUERY
    read = QueryReader().read(text.encode())
    assert read.reading.reason is None
    assert read.reading.relations == {("s", f"t{number}") for number in range(40)}
    assert "column_199" in read.reading.columns
    assert QueryReader().read(text.ljust(LONGEST_QUERY + 1).encode()).reading.reason is Reason.TOO_LONG
    writing = f"WITH w AS (DELETE FROM u RETURNING *) SELECT {columns} FROM t0, w"
    assert QueryReader().read(writing.encode()).reading.writes == Writes(frozenset({(None, "u")}))


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a FROM t WHERE " + " AND ".join(f"c{number} = 1" for number in range(500)),
        "SELECT " + " || ".join(f"column_{number}" for number in range(600)),
        "SELECT 1 FROM t " + " ".join(f"JOIN t{number} USING (some_column)" for number in range(300)),
        "SELECT a, some_column_or_other FROM t WHERE a IN (" + ", ".join(map(str, range(1000))) + ")",
    ],
)
def test_a_query_may_not_be_long_for_what_is_nested_or_listed_in_it(text: str) -> None:
    """The depth of a text costs stack; and one with many values is another one the next time."""
    assert 4096 < len(text) < LONGEST_QUERY
    assert QueryReader().read(text.encode()).reading.reason is Reason.TOO_LONG


@pytest.mark.parametrize(
    "text",
    [
        "insert into t values (E'{}')",
        "insert into t values ($a${}$a$)",
        "insert into \"t'u\" values ('{}')",
        "insert into \"t(1, 2)\" values ('{}')",
        "insert into t values ('{}') -- '",
        "insert into t values ('{}') /* ' */",
        "insert into t values ('{}\\''); delete from u --')",
        "insert into t values (U&'{}')",
        "select {}",
    ],
)
def test_a_long_text_that_is_not_plain_may_write_anything(text: str) -> None:
    """Where its strings end is not looked at."""
    reading = QueryReader().read(text.format("a + " * 2000 + "b").encode()).reading
    assert reading.writes == ANYTHING


def test_what_people_see_holds_no_values() -> None:
    """Neither literals of queries nor passwords."""
    reader = QueryReader()
    assert (
        reader.read(b"select a from t where b = 'secret'").reading.template == "select a from t where b = $1"
    )
    assert reader.read(b"alter role a password 'secret'").reading.template == "ALTER ROLE"
    assert reader.read(b"set a.b = 'secret'; begin").reading.template == "VARIABLE SET; TRANSACTION"


def test_every_reason_says_what_it_is_and_what_to_do() -> None:
    """Names are short, and stay as they are."""
    for reason in Reason:
        assert re.fullmatch(r"[a-z_]{2,24}", reason.value)
        assert reason.name == reason.value.upper()
        assert reason.sentence.endswith(".")
        assert reason.remedy.endswith(".")


def test_a_memo_forgets_what_is_not_used() -> None:
    """And keeps what is, within its bound."""
    memo: Memo[int, str] = Memo(10)
    for number in range(100):
        memo.put(number, str(number), 1)
        assert memo.get(0) == "0"
        assert len(memo) <= 10
    assert memo.get(50) is None
    assert memo.get(99) == "99"
