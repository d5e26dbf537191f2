"""Session parameters: which are followed, sets of them, and the SQL that adjusts a server."""

from __future__ import annotations

import re
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.relay.parameters import (
    ALWAYS_TRACKED,
    ParameterTracker,
    adjustment,
    assignments,
    is_safe_change,
    literal,
    quote_literal,
)
from hyperpool.wire.text import decode

NAMES = st.sampled_from([*ALWAYS_TRACKED, "IntervalStyle"])
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20) | st.text("a'\\E;= ")
ENCODINGS = st.sampled_from(["UTF8", "LATIN1", "SJIS"])
VALUES = st.builds(
    lambda values, encoding: values | ({"client_encoding": encoding} if "client_encoding" in values else {}),
    st.dictionaries(NAMES, TEXTS),
    ENCODINGS,
)
OTHERS = st.dictionaries(
    st.sampled_from(["work_mem", "temp_tablespaces", "x.y", 'x.y"z', 'a;.b c."', "é.ü"]), TEXTS
)


def read_literal(sql: str, at: int, *, conforming: bool) -> tuple[str, int]:
    """Read a string constant as PostgreSQL's lexer does; returns its value and where it ends.

    Args:
        sql: the text.
        at: where the constant begins, white space and the E of an escape string included.
        conforming: what ``standard_conforming_strings`` is; if off, a backslash escapes in every constant.
    """
    while sql[at] == " ":
        at += 1
    escapes = not conforming
    if sql[at] == "E":
        escapes = True
        at += 1
    assert sql[at] == "'"
    at += 1
    value = ""
    while True:
        char = sql[at]
        if char == "\\" and escapes:
            assert sql[at + 1] == "\\", "a backslash that escapes anything but itself"
            at += 1
        elif char == "'":
            if sql[at + 1 : at + 2] != "'":
                return value, at + 1
            at += 1
        value += char
        at += 1


_NAME = r'((?:[A-Za-z_]\w*|"(?:[^"]|"")*")(?:\."(?:[^"]|"")*")*)'
_STEPS = re.compile(rf"(?s)(?P<reset>RESET {_NAME};)|(?P<set>SET {_NAME} =)|SELECT pg_catalog\.set_config\(")
_CONVERTED = re.compile(r"pg_catalog\.convert_from\(pg_catalog\.decode\('([0-9a-f]*)','hex'\),'(\w+)'\)")


def read_text(sql: str, at: int, *, conforming: bool) -> tuple[str, int, str]:
    """Read a string constant, or one that is converted from bytes; returns the encoding of that, too, or ""."""
    match = _CONVERTED.match(sql, at)
    if match:
        return decode(bytes.fromhex(match[1])), match.end(), match[2]
    return *read_literal(sql, at, conforming=conforming), ""


def run(sql: str, session: dict[str, str], wanted: str, *, conforming: bool) -> None:
    """Apply a list of statements that set or reset parameters, and nothing else.

    Args:
        sql: the statements.
        session: the parameters by name; is changed.
        wanted: the encoding in which what is set is told; what is reset, in the session's.
        conforming: what ``standard_conforming_strings`` is.
    """
    assert sql.isascii()
    current = session.get("client_encoding", "UTF8")
    at = 0
    while at < len(sql):
        match = _STEPS.match(sql, at)
        assert match, f"no such statement: {sql[at:]}"
        at = match.end()
        name = next(filter(None, match.groups()[1::2]), "")
        if name.startswith('"'):
            name = ".".join(part[1:-1].replace('""', '"') for part in re.findall(r'"(?:[^"]|"")*"', name))
        if match["reset"]:
            del session[name]
            continue
        end, named = ";", ""
        if not name:
            name, at, named = read_text(sql, at, conforming=conforming)
            assert sql[at] == ","
            end, at = ",false);", at + 1
        if sql.startswith("NULL", at):
            assert named in {"", current}
            del session[name]
            at += 4
        else:
            session[name], at, told = read_text(sql, at, conforming=conforming)
            assert {named, told} <= {"", wanted}
        assert sql.startswith(end, at)
        at += len(end)


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("timezone", "TimeZone"),
        ("TIMEZONE", "TimeZone"),
        ("DateStyle", "DateStyle"),
        ("datestyle", "DateStyle"),
        ("Application_Name", "application_name"),
        ("intervalstyle", "IntervalStyle"),
        ("work_mem", None),
        ("", None),
    ],
)
def test_names_fold_case(name: str, canonical: str | None) -> None:
    """A parameter is known by the name that the server reports."""
    assert ParameterTracker(["IntervalStyle"]).canonical(name) == canonical


def test_what_pgbouncer_follows_is_always_followed() -> None:
    """Under the server's names, whatever ``track_extra_parameters`` calls them."""
    tracker = ParameterTracker(["timezone", "CLIENT_ENCODING"])
    assert [tracker.canonical(name) for name in ALWAYS_TRACKED] == list(ALWAYS_TRACKED)
    assert tracker.canonical("IntervalStyle") is None


# -- sets ----------------------------------------------------------------------------------------------------------


def test_equal_sets_are_one_object() -> None:
    """In whatever order and spelling they come; so that comparing is one identity test."""
    tracker = ParameterTracker()
    one = tracker.intern({"TimeZone": "UTC", "DateStyle": "ISO"})
    assert tracker.intern({"datestyle": "ISO", "timezone": "UTC"}) is one
    assert tracker.intern({"DateStyle": "ISO", "TimeZone": "UTC", "work_mem": "7MB"}) is one
    assert dict(one.values) == {"TimeZone": "UTC", "DateStyle": "ISO"}


@pytest.mark.parametrize(
    "other", [{}, {"TimeZone": "utc"}, {"TimeZone": "UTC", "DateStyle": "ISO"}, {"DateStyle": "UTC"}]
)
def test_different_sets_are_different_objects(other: dict[str, str]) -> None:
    """A value is taken as it is."""
    tracker = ParameterTracker()
    one = tracker.intern({"TimeZone": "UTC"})
    assert tracker.intern(other) is not one


def test_sets_that_nobody_uses_are_forgotten() -> None:
    """A client that invents values does not fill the memory."""
    tracker = ParameterTracker()
    kept = tracker.intern({"application_name": "kept"})
    for number in range(100):
        tracker.intern({"application_name": f"job {number}"})
    assert list(tracker._sets.values()) == [kept]


@given(VALUES, NAMES, TEXTS)
def test_changed(values: dict[str, str], name: str, value: str) -> None:
    """A changed set is the one that has that value from the start."""
    tracker = ParameterTracker()
    old = tracker.intern(values)
    before = dict(old.values)
    new = tracker.changed(old, name.upper(), value)
    if tracker.canonical(name) is None:
        assert new is old
    else:
        assert new is tracker.intern({**values, name: value})
    assert old.values == before


def test_a_set_can_be_read_in_a_log() -> None:
    """It shows its values."""
    assert repr(ParameterTracker().intern({"TimeZone": "UTC"})) == "<ParameterSet {'TimeZone': 'UTC'}>"


# -- settings that servers do not report -----------------------------------------------------------------------------

REPORTED = frozenset({"timezone", "application_name"})


def test_others_belong_to_a_set() -> None:
    """What was set besides, in lower case; the same set for everybody who has set the same."""
    tracker = ParameterTracker()
    one = tracker.intern({"TimeZone": "UTC"}, {"work_mem": "7MB", "x.y": "1"})
    assert dict(one.values) == {"TimeZone": "UTC", "work_mem": "7MB", "x.y": "1"}
    assert tracker.intern({"timezone": "UTC"}, {"x.y": "1", "work_mem": "7MB"}) is one
    assert tracker.intern({"TimeZone": "UTC"}, {}) is tracker.intern({"TimeZone": "UTC"}) is not one


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"TimeZone": "UTC", "work_mem": "7MB"}),
        ({"x.y": "1"}, {"TimeZone": "UTC", "work_mem": "7MB", "x.y": "1"}),
        ({"work_mem": "8MB"}, {"TimeZone": "UTC", "work_mem": "8MB"}),
        ({"work_mem": None}, {"TimeZone": "UTC"}),
        ({"x.y": None}, {"TimeZone": "UTC", "work_mem": "7MB"}),
        ({"x.y": "", "work_mem": None}, {"TimeZone": "UTC", "x.y": ""}),
    ],
)
def test_with_settings(settings: dict[str, str | None], expected: dict[str, str]) -> None:
    """Set, or back at the default; an empty value is a value."""
    tracker = ParameterTracker()
    old = tracker.intern({"TimeZone": "UTC"}, {"work_mem": "7MB"})
    assert dict(tracker.with_settings(old, settings).values) == expected
    assert dict(old.values) == {"TimeZone": "UTC", "work_mem": "7MB"}


def test_with_settings_that_are_there_already() -> None:
    """It is the same set."""
    tracker = ParameterTracker()
    old = tracker.intern({"TimeZone": "UTC"}, {"work_mem": "7MB"})
    assert tracker.with_settings(old, {"work_mem": "7MB", "x.y": None}) is old


def test_reported_alone() -> None:
    """After ``DISCARD ALL``, what servers do not report is gone; names fold case."""
    tracker = ParameterTracker()
    old = tracker.intern({"TimeZone": "UTC", "DateStyle": "ISO"}, {"work_mem": "7MB"})
    assert tracker.reported_alone(old, REPORTED) is tracker.intern({"TimeZone": "UTC"})
    assert tracker.reported_alone(old, frozenset()) is tracker.intern({})


def test_with_others() -> None:
    """Servers tell what they report; the rest is what the client has been given."""
    tracker = ParameterTracker()
    server = tracker.intern({"TimeZone": "UTC", "DateStyle": "ISO"}, {"x.y": "1"})
    client = tracker.intern({"TimeZone": "Asia/Tokyo", "DateStyle": "German"}, {"work_mem": "7MB"})
    made = tracker.with_others(server, client, REPORTED)
    assert made is tracker.intern({"TimeZone": "UTC", "DateStyle": "German"}, {"work_mem": "7MB"})


# -- adjusting -----------------------------------------------------------------------------------------------------


def test_only_differences_are_set() -> None:
    """What is right already costs nothing; what the client does not have is reset."""
    tracker = ParameterTracker()
    current = tracker.intern({"TimeZone": "UTC", "DateStyle": "ISO", "application_name": "a"})
    wanted = tracker.intern({"TimeZone": "Asia/Tokyo", "DateStyle": "ISO"})
    assert adjustment(wanted, current) == "RESET application_name;SET TimeZone = 'Asia/Tokyo';"
    assert adjustment(current, current) == ""
    assert adjustment(tracker.intern(dict(current.values)), current) == ""


@pytest.mark.parametrize(
    ("wanted", "current", "sql"),
    [
        ({"x.y": "1"}, {}, """SET "x"."y" = '1';"""),
        ({}, {"x.y": "1"}, """RESET "x"."y";"""),
        ({'x.y"z': "1"}, {}, """SET "x"."y""z" = '1';"""),
        ({"x.y": ""}, {"x.y": "1"}, """SET "x"."y" = '';"""),
        ({"work_mem": "7MB"}, {"work_mem": "8MB"}, "SET work_mem = '7MB';"),
        ({"work mem": "7MB"}, {}, "SET \"work mem\" = '7MB';"),
        (
            {"search_path": '"$user", public'},
            {},
            "SET search_path = '$user','public';",
        ),
        ({"search_path": ""}, {}, "SELECT pg_catalog.set_config('search_path','',false);"),
        ({}, {"search_path": "x"}, "RESET search_path;"),
        (
            {"temp_tablespaces": "a\\b, 'c'"},
            {"search_path": "x"},
            "RESET search_path;SELECT pg_catalog.set_config('temp_tablespaces', E'a\\\\b, ''c''',false);",
        ),
        (
            {"local_preload_libraries": "x", "session_preload_libraries": "y"},
            {},
            ("SET local_preload_libraries = 'x';SET session_preload_libraries = 'y';"),
        ),
    ],
)
def test_spellings(wanted: dict[str, str], current: dict[str, str], sql: str) -> None:
    """Names that are no words are quoted, part by part; lists are set as they are, not as one name."""
    tracker = ParameterTracker()
    assert adjustment(tracker.intern({}, wanted), tracker.intern({}, current)) == sql


def _converted(data: bytes, encoding: str = "UTF8") -> str:
    return f"pg_catalog.convert_from(pg_catalog.decode('{data.hex()}','hex'),'{encoding}')"


def _config(name: str, value: str) -> str:
    return f"SELECT pg_catalog.set_config({name},{value},false);"


_E_DOT_E: Final = "é.é".encode()
_TABLE: Final = "表".encode("shift_jis")
"""Its second byte is a backslash."""
_QUOTES: Final = "表'\\表".encode("shift_jis")
_SJIS: Final = {"client_encoding": "SJIS"}
_LATIN1: Final = {"client_encoding": "LATIN1"}


@pytest.mark.parametrize(
    ("wanted", "current", "sql"),
    [
        ({"x.y": "é"}, {}, [_config("'x.y'", _converted("é".encode()))]),
        ({"é.é": "1"}, {}, [_config(_converted(_E_DOT_E), "'1'")]),
        ({}, {"é.é": "1"}, [_config(_converted(_E_DOT_E), "NULL")]),
        ({"search_path": '"é"'}, {}, [_config("'search_path'", _converted('"é"'.encode()))]),
        ({"role": "é"}, {}, [_config("'role'", _converted("é".encode()))]),
        (
            {"x.y": decode(_QUOTES), **_SJIS},
            _SJIS,
            [_config("'x.y'", _converted(_QUOTES, "SJIS"))],
        ),
        (
            {decode(b"x." + _TABLE): decode(_QUOTES), **_SJIS},
            {"é.é": "1", "client_encoding": "UTF8"},
            [
                _config(_converted(_E_DOT_E), "NULL"),
                _config(_converted(b"x." + _TABLE, "SJIS"), _converted(_QUOTES, "SJIS")),
                "SET client_encoding = 'SJIS';",
            ],
        ),
        (
            {"session_authorization": decode(b"\xe9"), "role": "r", **_LATIN1},
            _LATIN1,
            [_config("'session_authorization'", _converted(b"\xe9", "LATIN1")), "SET ROLE 'r';"],
        ),
    ],
)
def test_what_is_not_ascii(wanted: dict[str, str], current: dict[str, str], sql: list[str]) -> None:
    """Names, values and roles are told byte by byte, with the encoding that the client had when it told them."""
    tracker = ParameterTracker()
    assert adjustment(tracker.intern({}, wanted), tracker.intern({}, current)) == "".join(sql)


@pytest.mark.parametrize(
    ("values", "encoding", "sql"),
    [
        ({}, None, []),
        ({"work_mem": "7MB", "x.y": "o'"}, "SJIS", ["SET work_mem = '7MB';", """SET "x"."y" = 'o''';"""]),
        ({"search_path": "a, b"}, None, ["SET search_path = 'a','b';"]),
        ({"search_path": "A, select"}, None, [_config("'search_path'", "'A, select'")]),
        (
            {"role": "r", "session_authorization": "s", "work_mem": "7MB"},
            None,
            ["SET work_mem = '7MB';", "SET SESSION AUTHORIZATION 's';", "SET ROLE 'r';"],
        ),
        (
            {"role": decode(_TABLE), "x.y": decode(_TABLE)},
            "SJIS",
            [_config("'x.y'", _converted(_TABLE, "SJIS")), _config("'role'", _converted(_TABLE, "SJIS"))],
        ),
    ],
)
def test_assignments(values: dict[str, str], encoding: str | None, sql: list[str]) -> None:
    """In their order, but for who the session is, which comes last."""
    assert assignments(values, encoding) == "".join(sql)


_BACK = "RESET ROLE;RESET SESSION AUTHORIZATION;"


@pytest.mark.parametrize(
    ("wanted", "current", "sql"),
    [
        ({"role": "r"}, {}, "SET ROLE 'r';"),
        ({}, {"role": "r"}, _BACK),
        ({"role": "r"}, {"role": "s"}, _BACK + "SET ROLE 'r';"),
        ({"session_authorization": "a'b"}, {}, "SET SESSION AUTHORIZATION 'a''b';"),
        ({}, {"session_authorization": "a"}, _BACK),
        (
            {"role": "r", "session_authorization": "a", "work_mem": "7MB"},
            {"role": "s", "x.y": "1"},
            _BACK + """RESET "x"."y";SET work_mem = '7MB';SET SESSION AUTHORIZATION 'a';SET ROLE 'r';""",
        ),
        ({"role": "r", "work_mem": "7MB"}, {"role": "r"}, _BACK + "SET work_mem = '7MB';SET ROLE 'r';"),
    ],
)
def test_who_the_session_is(wanted: dict[str, str], current: dict[str, str], sql: str) -> None:
    """Undone before anything else is changed, since roles may set different things, and set when all else has been."""
    tracker = ParameterTracker()
    assert adjustment(tracker.intern({}, wanted), tracker.intern({}, current)) == sql


@pytest.mark.parametrize(
    ("wanted", "current", "safe"),
    [
        ({}, {}, True),
        ({"work_mem": "7MB"}, {"x.y": "1", "work_mem": "7MB"}, False),
        ({"x.y": "1"}, {}, False),
        ({"x.y": "1", "work_mem": "7MB"}, {"x.y": "1"}, True),
        ({"enable.x": "1"}, {}, False),
        ({"x.timeout": "1"}, {}, False),
        ({"role": "r"}, {}, False),
        ({}, {"role": "r"}, False),
        ({"session_authorization": "a", "work_mem": "7MB"}, {}, False),
        ({}, {"statement_timeout": "1"}, False),
        ({"statement_timeout": "1"}, {}, True),
        ({"default_text_search_config": "a.b"}, {}, False),
        # on some servers, it cannot be set any more, or has rules by now
        ({"search_path": "tenant", "temp_buffers": "16MB"}, {}, False),
        ({}, {"temp_buffers": "16MB"}, False),
        ({"temp_buffers": "16MB", "work_mem": "7MB"}, {"temp_buffers": "16MB"}, True),
        ({"plpgsql.variable_conflict": "any"}, {}, False),
        ({"PLpgSQL.variable_conflict": "any"}, {}, False),
        ({"plperl.use_strict": "on"}, {}, False),
        # nobody knows what it does
        ({"huge_something": "on"}, {}, False),
        ({"session_replication_role": "replica"}, {}, False),
        # it is taken by every server at any time
        ({"enable_seqscan": "off", "DateStyle": "ISO, DMY", "search_path": "a, b"}, {}, True),
        # to be converted
        ({"search_path": "é"}, {}, False),
        ({"search_path": "é"}, {"search_path": "é"}, True),
        ({"work_mem": "7MB"}, {"search_path": "é"}, True),
    ],
)
def test_safe_changes(wanted: dict[str, str], current: dict[str, str], *, safe: bool) -> None:
    """A change may fail if somebody else acts, if a timeout may end it, or if what it names may be gone."""
    tracker = ParameterTracker()
    assert is_safe_change(tracker.intern({}, wanted), tracker.intern({}, current)) is safe


@given(VALUES, VALUES, OTHERS, OTHERS, st.booleans())
def test_adjustment_brings_the_session_there(
    wanted: dict[str, str],
    current: dict[str, str],
    more: dict[str, str],
    less: dict[str, str],
    conforming: bool,
) -> None:
    """The SQL makes exactly what the client wants, with any values, of whatever there was."""
    tracker = ParameterTracker(["IntervalStyle"])
    goal, start = tracker.intern(wanted, more), tracker.intern(current, less)
    session = dict(start.values)
    run(adjustment(goal, start), session, goal.values.get("client_encoding", "UTF8"), conforming=conforming)
    assert session == dict(goal.values)


@given(TEXTS, st.booleans())
def test_a_literal_reads_the_same_in_both_modes(value: str, conforming: bool) -> None:
    """Whatever ``standard_conforming_strings`` is: it is one of the parameters that change."""
    literal = quote_literal(value)
    assert read_literal(literal + ";", 0, conforming=conforming) == (value, len(literal))


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        ("", "''"),
        ("UTC", "'UTC'"),
        ("O'Hara", "'O''Hara'"),
        ("a\\b", " E'a\\\\b'"),
        ("'; DROP TABLE t; --", "'''; DROP TABLE t; --'"),
        ("\\'; DROP TABLE t; --", " E'\\\\''; DROP TABLE t; --'"),
    ],
)
def test_literals(value: str, literal: str) -> None:
    """A constant with a backslash is an escape string; the blank keeps its E apart from what stands before it."""
    assert quote_literal(value) == literal


@given(st.binary().filter(lambda data: 0 not in data), st.sampled_from(["UTF8", "LATIN1", "SJIS", None]))
def test_any_bytes_make_a_literal(data: bytes, encoding: str | None) -> None:
    """They come back as they were told."""
    sql = literal(decode(data), encoding)
    assert sql.isascii()
    assert read_text(sql + ";", 0, conforming=True) == (
        decode(data),
        len(sql),
        "" if data.isascii() else encoding or "UTF8",
    )
