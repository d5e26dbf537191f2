"""Effects of texts that nobody would write: what changes the session is found in any disguise.

There are two oracles: the effects that a construct is known to have, and the syntax tree of the whole text, which is
read without the search that saves the parser most texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.sql.effects import EVERYTHING, EffectReader, Effects, Pin
from hyperpool.sql.tree import TreeReader, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

_STATEFUL: Final = ("set_tenant", "audited")
_PINNING: Final = ("dblink_connect",)


def _reader() -> EffectReader:
    reader = EffectReader(_PINNING)
    reader.learn(_STATEFUL)
    return reader


def _covers(found: Effects | None, expected: Effects) -> bool:
    """Whether everything that is expected has been found; there may be more."""
    if found is None:
        return False
    return (
        (found.unknown_settings or expected.settings <= found.settings)
        and found.pins & expected.pins == expected.pins
        and all(
            getattr(found, name) >= getattr(expected, name)
            for name in (
                "unknown_settings",
                "releases",
                "schema",
                "deallocates_all",
                "discards_all",
                "resets_all",
            )
        )
    )


# -- disguises: a construct is a list of tokens; `{}` stands for an expression -----------------------------------------

_SPACE: Final = st.sampled_from(
    [
        " ",
        "\t",
        "\n",
        "\r\n",
        "\f",
        "/**/",
        "/* ; */",
        "/* it's */",
        "/*/* nested */*/",
        "-- it's; select 1\n",
        " --\r",
    ]
)
_HARMLESS: Final = st.sampled_from(
    [
        "",
        "SELECT 1",
        "select ';' as \"a;b\"",
        "INSERT INTO t VALUES ('it''s; SET x = 1', $1)",
        "BEGIN",
        "end",
        "COMMIT AND CHAIN",
        "/* ; */ UPDATE t SET a = $$;$$ WHERE b = $tag$ $$; $tag$",
        "SELECT E'\\n' -- ;\n",
        "(TABLE t)",
        "SHOW ALL",
    ]
)
_AROUND_STATEMENTS: Final = st.sampled_from(["{}", "EXPLAIN ANALYZE {}", "EXPLAIN (ANALYZE, COSTS off) {}"])
_AROUND_EXPRESSIONS: Final = st.sampled_from(
    [
        "{}",
        "({})",
        "coalesce(NULL, {})",
        "CASE WHEN a THEN {} ELSE b END",
        "(SELECT {})",
        "EXISTS (SELECT 1 FROM t WHERE {} IS NULL)",
        "ARRAY[{}]",
        "({})::text",
        "CAST({} AS text)",
        "a || {} || b",
        "NOT {}",
        "ROW(1, {})",
        "f(a => {})",
        "sum(a) FILTER (WHERE {})",
    ]
)
_QUERIES: Final = st.sampled_from(
    [
        "SELECT {}",
        "SELECT a FROM t WHERE {} ORDER BY b",
        "SELECT a FROM t ORDER BY {}",
        "SELECT a FROM t JOIN u ON {}",
        "SELECT a FROM (SELECT {}) x",
        "WITH x AS (SELECT {}) SELECT * FROM x",
        "VALUES (1), ({})",
        "(SELECT 1) UNION (SELECT {})",
        "INSERT INTO t VALUES ({}) RETURNING a",
        "INSERT INTO t VALUES (1) RETURNING {}",
        "UPDATE t SET a = {} WHERE b = $1",
        "DELETE FROM t WHERE {}",
        "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN UPDATE SET a = {}",
        "COPY (SELECT {}) TO STDOUT",
        "DECLARE c CURSOR FOR SELECT {}",
        "CREATE TABLE t AS SELECT {}",
    ]
)
_SELECTS: Final = st.sampled_from(
    ["{}", "({})", "WITH x AS (VALUES ('temp')) {}", "SELECT 1 UNION ALL {}", "VALUES (1) EXCEPT {}"]
)

_EXPRESSIONS: Final[list[tuple[str, Effects]]] = [
    ("set_config ( 'x' , 'y' , false )", Effects(settings=frozenset({"x"}))),
    ("set_config ( 'role' , $1 , $2 )", Effects(settings=frozenset({"role"}))),
    ("set_config ( $1 , $2 , $3 )", Effects(unknown_settings=True)),
    ("pg_advisory_lock ( 1 )", Effects(pins=Pin.LOCK)),
    ("pg_try_advisory_lock_shared ( 1 , 2 )", Effects(pins=Pin.LOCK)),
    ("pg_advisory_unlock_all ( )", Effects(releases=True)),
    ("query_to_xml ( $1 , true , true , '' )", EVERYTHING),
    ("set_tenant ( 1 )", EVERYTHING),
    ("dblink_connect ( 'x' )", Effects(pins=Pin.FUNCTION)),
    ("pg_temp . f ( )", EVERYTHING),
]
_STATEMENTS: Final[list[tuple[str, Effects]]] = [
    ("SET x = 1", Effects(settings=frozenset({"x"}))),
    ("SET SESSION x TO 'it''s; '", Effects(settings=frozenset({"x"}))),
    ("SET TIME ZONE DEFAULT", Effects(settings=frozenset({"timezone"}))),
    ("SET SESSION AUTHORIZATION a", Effects(settings=frozenset({"session_authorization", "role"}))),
    ("RESET x", Effects(settings=frozenset({"x"}))),
    ("RESET ALL", Effects(unknown_settings=True, resets_all=True)),
    ("DISCARD ALL", Effects(discards_all=True, resets_all=True, deallocates_all=True, releases=True)),
    ("LISTEN a", Effects(pins=Pin.LISTEN)),
    ("UNLISTEN a", Effects(releases=True)),
    ("LOAD 'x'", Effects(pins=Pin.LOAD)),
    ("PREPARE a AS SELECT 1", Effects(pins=Pin.PREPARE)),
    ("DEALLOCATE ALL", Effects(deallocates_all=True, releases=True)),
    ("DECLARE a CURSOR WITH HOLD FOR SELECT 1", Effects(pins=Pin.HOLD)),
    ("CLOSE a", Effects(releases=True)),
    ("DO $$ BEGIN END $$", EVERYTHING),
    ("CALL a ( )", EVERYTHING),
    ("EXECUTE a", EVERYTHING),
    ("CREATE TEMP TABLE a ( b int )", Effects(pins=Pin.TEMPORARY)),
    ("CREATE TEMPORARY VIEW a AS SELECT 1", Effects(pins=Pin.TEMPORARY)),
    ("CREATE TABLE pg_temp . a ( b int )", Effects(pins=Pin.TEMPORARY)),
    ("CREATE TABLE a AS EXECUTE b", EVERYTHING),
    ("CREATE FUNCTION a ( ) RETURNS int LANGUAGE sql AS 'SELECT 1'", Effects(schema=True)),
    ("ALTER TABLE a ADD COLUMN b int", Effects(schema=True)),
    ("DROP TABLE a", Effects(schema=True, releases=True)),
    ("UPDATE pg_settings SET setting = 1", Effects(unknown_settings=True)),
    ("INSERT INTO audited VALUES ( 1 )", EVERYTHING),
    ("COPY audited FROM STDIN", EVERYTHING),
]
_INTO: Final[list[tuple[str, Effects]]] = [
    ("SELECT 1 INTO TEMP a", Effects(pins=Pin.TEMPORARY)),
    ("SELECT 1 AS b INTO LOCAL TEMPORARY TABLE a FROM t", Effects(pins=Pin.TEMPORARY)),
    ("SELECT 1 INTO pg_temp . a", Effects(pins=Pin.TEMPORARY)),
]
_NAMES: Final = frozenset(
    word
    for text, _ in _EXPRESSIONS + _STATEMENTS + _INTO
    for word in text.split()
    if "_" in word or word == "audited"
)


def _tokens(text: str) -> list[str]:
    """The words of a construct; strings are left whole."""
    found: list[str] = []
    for word in text.split(" "):
        if found and (found[-1].count("'") % 2 or found[-1].count("$$") % 2):
            found[-1] += " " + word
        else:
            found.append(word)
    return found


@st.composite
def _word(draw: st.DrawFn, token: str) -> str:
    """A token in another spelling."""
    if "'" in token or "$" in token:
        return token
    if token in _NAMES:
        how = draw(st.integers(0, 3))
        if how == 1:
            return f'"{token}"'
        if how == 2:
            at = draw(st.integers(0, len(token) - 1))
            return f'U&"{token[:at]}\\{ord(token[at]):04x}{token[at + 1 :]}"'
    upper = draw(st.lists(st.booleans(), min_size=len(token), max_size=len(token)))
    return "".join(char.upper() if up else char.lower() for char, up in zip(token, upper, strict=True))


@st.composite
def _disguised(draw: st.DrawFn, text: str) -> str:
    """A construct with its words in other spellings, and with other blanks."""
    parts: list[str] = []
    for token in _tokens(text):
        if parts:
            parts += draw(st.lists(_SPACE, min_size=1, max_size=2))
        parts.append(draw(_word(token)))
    return "".join(parts)


@st.composite
def _effectful(draw: st.DrawFn) -> tuple[str, Effects]:
    """A text of one or several statements, and what one of them does."""
    pool = draw(st.sampled_from([_EXPRESSIONS, _STATEMENTS, _INTO]))
    plain, effects = draw(st.sampled_from(pool))
    text = draw(_disguised(plain))
    if pool is _EXPRESSIONS:
        for around in draw(st.lists(_AROUND_EXPRESSIONS, max_size=3)):
            text = around.replace("{}", text)
        text = draw(_QUERIES).replace("{}", text)
        text = draw(_AROUND_STATEMENTS).replace("{}", text) if not text.startswith("COPY") else text
    elif pool is _INTO:
        text = draw(_SELECTS).replace("{}", text)
    before = draw(st.lists(_HARMLESS, max_size=2))
    after = draw(st.lists(_HARMLESS, max_size=2))
    blanks = draw(st.lists(_SPACE, max_size=2))
    return ";".join([*before, "".join([*blanks, text, *draw(st.lists(_SPACE, max_size=1))]), *after]), effects


@given(_effectful())
def test_effects_are_found_in_any_disguise(found: tuple[str, Effects]) -> None:
    """Case, quotes, escapes, comments, other statements and other expressions hide nothing."""
    text, expected = found
    assert _covers(_reader().read(text.encode()), expected)


@given(_effectful(), st.binary(max_size=3).map(lambda raw: raw.replace(b"\0", b"")))
def test_effects_are_found_in_any_encoding(found: tuple[str, Effects], name: bytes) -> None:
    """Bytes that are not UTF-8 in one statement hide nothing of the others."""
    text, expected = found
    quoted = name.replace(b"'", b"").replace(b"\\", b"")
    raw = text.encode() + b"; SELECT '" + quoted + b"'"
    expected = attrs.evolve(expected, deallocates_all=False, discards_all=False, resets_all=False)
    assert _covers(_reader().read(raw), expected)


# -- the search against the tree -------------------------------------------------------------------------------------

_TABLES: Final = st.sampled_from(
    ["t", "orders", "temperatures", "templates", '"select"', "s.t", "temp", "audits", "pg_temp.t", "audited"]
)
_COLUMNS: Final = st.sampled_from(
    ["a", "temp", "set_at", "t.pg_template", '"a;b"', "offset_config", "listen", "u"]
)
_TEXTS: Final = st.lists(
    st.sampled_from(
        [
            *(
                "set_config('a','b',false)",
                "pg_advisory_lock(1)",
                "CREATE TEMP TABLE",
                "pg_temp",
                "; SET x = 1",
                ";",
            ),
            *(
                'U&"a"',
                "''",
                "--",
                "/*",
                "*/",
                "set_tenant",
                "audited",
                "dblink_connect",
                "é",
                "表",
                "$$",
                " ",
                "x",
            ),
        ]
    ),
    max_size=4,
).map("".join)
_LITERALS: Final = st.one_of(
    _TEXTS.map(lambda text: f"'{text}'"),
    _TEXTS.map(lambda text: f"E'{text}\\n'"),
    _TEXTS.filter(lambda text: "$" not in text).map(lambda text: f"$a${text}$a$"),
    st.integers(-5, 10**12).map(str),
    st.sampled_from(["$1", "NULL", "true", "1.5e3", "now()", "current_setting('x')", "pg_temp.f()"]),
    st.sampled_from(
        ["set_config('a', $1, false)", '"pg_advisory_lock"(1)', "set_tenant(1)", "t.dblink_connect"]
    ),
)


@st.composite
def _expression(draw: st.DrawFn) -> str:
    left = draw(_COLUMNS)
    right = draw(st.one_of(_LITERALS, _COLUMNS))
    operator = draw(
        st.sampled_from(["=", "<>", "||", "&", "~", "@>", "IN (1) OR b =", "LIKE", "IS NULL AND a ="])
    )
    return f"{left} {operator} {right}"


@st.composite
def _ordinary(draw: st.DrawFn) -> str:
    """A statement of the kind that applications send all day."""
    table, column, where = draw(_TABLES), draw(_COLUMNS), draw(_expression())
    value, comment = draw(_LITERALS), draw(st.sampled_from(["", "", " -- set_config(", " /* ; SET x = 1 */"]))
    statement = draw(
        st.sampled_from(
            [
                f"SELECT {column}, count(*) FROM {table} WHERE {where} LIMIT 5",
                f"SELECT {value} AS x FROM {table} JOIN u ON {where}",
                f"INSERT INTO {table} VALUES ({value}, {value})",
                f"INSERT INTO {table} (a) SELECT {column} FROM u WHERE {where}",
                f"UPDATE {table} SET a = {value} WHERE {where}",
                f"DELETE FROM {table} WHERE {where}",
                f"WITH x AS (SELECT {column} FROM {table}) SELECT * FROM x WHERE {where}",
                f"SELECT {column} INTO {table} FROM u",
                f"SELECT {column} INTO TEMP {table} FROM u",
                f"COPY {table} TO STDOUT",
                "BEGIN",
                "COMMIT",
            ]
        )
    )
    return statement + comment


def _tree_effects(text: str) -> Effects | None:
    """What the tree of a text says; nothing where the parser refuses the text, as the server would."""
    tree = TreeReader(frozenset(_PINNING), frozenset(_STATEFUL))
    try:
        return tree.read(text, "utf-8", deep=True, mentions=False)
    except Unreadable:
        return None


@given(st.lists(_ordinary(), min_size=1, max_size=3), st.sampled_from([";", "; ", ";\n"]))
def test_the_search_misses_nothing_that_the_tree_has(statements: list[str], between: str) -> None:
    """Where the search says that a text does nothing, so does its tree."""
    text = between.join(statements)
    if _reader().read(text.encode()) is None:
        assert _tree_effects(text) is None


# -- anything --------------------------------------------------------------------------------------------------------

_PIECES: Final = st.sampled_from(
    [
        *(
            b"select ",
            b"set ",
            b"x",
            b"=",
            b"1",
            b";",
            b"(",
            b")",
            b"'",
            b'"',
            b"$$",
            b"$a$",
            b"--",
            b"\n",
            b"/*",
        ),
        *(
            b"*/",
            b"\\",
            b"E'",
            b'U&"',
            b"set_config",
            b"pg_temp",
            b".",
            b",",
            b"\xff",
            b"\x81",
            b"\0",
            b"temp",
        ),
        *(
            b" into ",
            b"listen ",
            b"from ",
            b"execute ",
            b"load ",
            b"::",
            b"[",
            b"]",
            b"\xc3\xa9",
            b"set_tenant",
        ),
    ]
)


@given(
    st.one_of(st.binary(), st.lists(_PIECES, max_size=30).map(b"".join)), st.sampled_from([bytes, bytearray])
)
def test_reading_never_fails(text: bytes, kind: Callable[[bytes], bytes | bytearray]) -> None:
    """Whatever a client may send has an answer, and the same one each time."""
    reader = _reader()
    assert reader.read(kind(text)) == reader.read(kind(text))
