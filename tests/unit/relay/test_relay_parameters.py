"""Session parameters: which are followed, sets of them, and the SQL that adjusts a server."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.relay.parameters import (
    ALWAYS_TRACKED,
    ParameterTracker,
    adjustment,
    canonical_encoding,
    quote_literal,
)

NAMES = st.sampled_from([*ALWAYS_TRACKED, "IntervalStyle"])
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20) | st.text("a'\\E;= ")
VALUES = st.dictionaries(NAMES, TEXTS)


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


def run(sql: str, session: dict[str, str], *, conforming: bool) -> None:
    """Apply a list of SET statements, and nothing else."""
    at = 0
    while at < len(sql):
        match = re.compile(r"SET ([A-Za-z_]+) =").match(sql, at)
        assert match, f"not a SET: {sql[at:]}"
        session[match[1]], at = read_literal(sql, match.end(), conforming=conforming)
        assert sql[at] == ";"
        at += 1


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


# -- adjusting -----------------------------------------------------------------------------------------------------


def test_only_differences_are_set() -> None:
    """What is right already costs nothing; what the client has never named stays as it is."""
    tracker = ParameterTracker()
    current = tracker.intern({"TimeZone": "UTC", "DateStyle": "ISO", "application_name": "a"})
    wanted = tracker.intern({"TimeZone": "Asia/Tokyo", "DateStyle": "ISO"})
    assert adjustment(wanted, current) == "SET TimeZone = 'Asia/Tokyo';"
    assert adjustment(current, current) == ""
    assert adjustment(tracker.intern({}), current) == ""


@given(VALUES, VALUES, st.booleans())
def test_adjustment_brings_the_session_there(
    wanted: dict[str, str], current: dict[str, str], conforming: bool
) -> None:
    """The SQL sets what the client wants, with any values, and touches nothing else."""
    tracker = ParameterTracker(["IntervalStyle"])
    goal, start = tracker.intern(wanted), tracker.intern(current)
    session = dict(start.values)
    run(adjustment(goal, start), session, conforming=conforming)
    assert session == {**start.values, **goal.values}


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


# -- encodings -----------------------------------------------------------------------------------------------------

ENCODINGS = (  # as a server reports them
    "SQL_ASCII EUC_JP EUC_CN EUC_KR EUC_TW EUC_JIS_2004 UTF8 MULE_INTERNAL LATIN1 LATIN2 LATIN3 LATIN4 LATIN5 LATIN6"
    " LATIN7 LATIN8 LATIN9 LATIN10 WIN1256 WIN1258 WIN866 WIN874 KOI8R WIN1251 WIN1252 ISO_8859_5 ISO_8859_6 ISO_8859_7"
    " ISO_8859_8 WIN1250 WIN1253 WIN1254 WIN1255 WIN1257 KOI8U SJIS BIG5 GBK UHC GB18030 JOHAB SHIFT_JIS_2004"
)


@pytest.mark.parametrize("name", ENCODINGS.split())
def test_names_that_the_server_reports_stay(name: str) -> None:
    """In every spelling that PostgreSQL takes for the same."""
    for spelling in (name, name.lower(), name.replace("_", ""), name.replace("_", "-").lower(), f" {name} "):
        assert canonical_encoding(spelling) == name


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("utf-8", "UTF8"),
        ("unicode", "UTF8"),
        ("iso-8859-1", "LATIN1"),
        ("ISO 8859-15", "LATIN9"),
        ("iso_8859_9", "LATIN5"),
        ("windows-1252", "WIN1252"),
        ("win", "WIN1251"),
        ("koi8", "KOI8R"),
        ("Shift_JIS", "SJIS"),
        ("windows-932", "SJIS"),
        ("tcvn-5712", "WIN1258"),
    ],
)
def test_aliases(alias: str, name: str) -> None:
    """The other names of PostgreSQL's table of character sets."""
    assert canonical_encoding(alias) == name


@given(st.text(st.characters(codec="ascii")))
def test_any_encoding_name(name: str) -> None:
    """What is no encoding is left to the server to refuse, in a form that is its own canonical form."""
    once = canonical_encoding(name)
    assert canonical_encoding(once) == once
