"""What a client asks for in its StartupMessage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.errors import ClientRefused
from hyperpool.frontdoor.startup import requested_parameters
from hyperpool.relay.parameters import ParameterTracker
from hyperpool.wire.startup import StartupMessage

TRACKER = ParameterTracker(["IntervalStyle"])


def requested(parameters: dict[str, str], *ignored: str) -> dict[str, str]:
    """What is requested by a client with these startup parameters."""
    message = StartupMessage((3, 0), {"user": "ann", "database": "shop", **parameters})
    return requested_parameters(message, frozenset(ignored), TRACKER)


def test_nothing() -> None:
    """User and database are not session parameters."""
    assert requested({}) == {}


def test_names_are_those_that_the_server_reports() -> None:
    """However the client spells them."""
    assert requested({"datestyle": "German", "TIMEZONE": "UTC", "Application_Name": "Psql"}) == {
        "DateStyle": "German",
        "TimeZone": "UTC",
        "application_name": "Psql",
    }


def test_encodings_are_named_as_the_server_reports_them() -> None:
    """Drivers have their own spellings."""
    assert requested({"CLIENT_ENCODING": "'utf-8'"}) == {"client_encoding": "UTF8"}


def test_a_parameter_that_cannot_be_followed() -> None:
    """It is refused by name, with the remedy."""
    with pytest.raises(ClientRefused) as caught:
        requested({"statement_timeout": "5s"})
    assert str(caught.value) == "unsupported startup parameter: statement_timeout"
    assert caught.value.sqlstate == "08P01"
    assert "ignore_startup_parameters" in caught.value.hint
    assert "track_extra_parameters" in caught.value.hint


@pytest.mark.parametrize("name", ["statement_timeout", "Statement_Timeout", "STATEMENT_TIMEOUT"])
def test_ignored(name: str) -> None:
    """Names fold case."""
    assert requested({name: "5s", "TimeZone": "UTC"}, "statement_timeout") == {"TimeZone": "UTC"}


def test_what_is_followed_is_never_ignored() -> None:
    """As in pgbouncer, which looks at what it follows first."""
    assert requested({"TimeZone": "UTC"}, "timezone") == {"TimeZone": "UTC"}


# -- replication ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "false", "off", "no", "0", "OFF", "False"])
def test_no_replication(value: str) -> None:
    """A client may say that it wants an ordinary session."""
    assert requested({"replication": value}) == {}


@pytest.mark.parametrize("value", ["true", "on", "yes", "1", "database", "DATABASE", "anything"])
def test_replication(value: str) -> None:
    """It needs a server of its own, without a pooler."""
    with pytest.raises(ClientRefused, match="replication connections are not supported") as caught:
        requested({"replication": value})
    assert caught.value.sqlstate == "0A000"


def test_replication_cannot_be_ignored() -> None:
    """A client that wants replication could do nothing with a session."""
    with pytest.raises(ClientRefused, match="replication"):
        requested({"replication": "database"}, "replication")


# -- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {}),
        ("  \t\n ", {}),
        ("-c TimeZone=UTC", {"TimeZone": "UTC"}),
        ("-cTimeZone=UTC", {"TimeZone": "UTC"}),
        ("--TimeZone=UTC", {"TimeZone": "UTC"}),
        ("-c  TimeZone=UTC", {"TimeZone": "UTC"}),
        ("--application-name=psql", {"application_name": "psql"}),
        ("-c application-name=psql", {"application_name": "psql"}),
        ("-c timezone=UTC -cdatestyle=German", {"TimeZone": "UTC", "DateStyle": "German"}),
        ("-c timezone=UTC --timezone=Asia/Tokyo", {"TimeZone": "Asia/Tokyo"}),
        ("-c timezone=", {"TimeZone": ""}),
        ("-c application_name=a=b", {"application_name": "a=b"}),
        (r"-c application_name=a\ b", {"application_name": "a b"}),
        (r"-c application_name=a\\b", {"application_name": r"a\b"}),
        (r"-c application_name=\-c", {"application_name": "-c"}),
        ("-c application_name=a\\", {"application_name": "a"}),
        ("-c application_name='a'", {"application_name": "'a'"}),
        ("-c application_name=a\u00a0b", {"application_name": "a\u00a0b"}),
        ("-c client_encoding=latin-1", {"client_encoding": "LATIN1"}),
    ],
)
def test_options(options: str, expected: dict[str, str]) -> None:
    """The spellings that PostgreSQL reads; white space separates, and a backslash keeps the next character."""
    assert requested({"options": options}) == expected


@pytest.mark.parametrize(
    "options",
    [
        "-c",
        "-c TimeZone",
        "-c =UTC",
        "--",
        "--=x",
        "-d 3",
        "-ctimezone",
        "timezone=UTC",
        "-c timezone=UTC extra",
        "\\",
    ],
)
def test_options_that_are_not_understood(options: str) -> None:
    """They are refused, with the remedy."""
    with pytest.raises(ClientRefused, match="unsupported startup parameter in options") as caught:
        requested({"options": options})
    assert caught.value.sqlstate == "08P01"
    assert "ignore_startup_parameters" in caught.value.hint


def test_a_parameter_in_options_that_cannot_be_followed() -> None:
    """It is named as if it stood on its own, and ignored in the same way."""
    with pytest.raises(ClientRefused, match="unsupported startup parameter: work_mem"):
        requested({"options": "-c work_mem=7MB"})
    assert requested({"options": "-c work-mem=7MB --TimeZone=UTC"}, "work_mem") == {"TimeZone": "UTC"}


def test_options_can_be_ignored_as_a_whole() -> None:
    """Then nobody looks inside."""
    assert requested({"options": "-d 3 -c timezone=UTC"}, "options") == {}


def assert_hint(refusal: ClientRefused) -> None:
    """Every refusal says what can be done."""
    assert "ignore_startup_parameters" in refusal.hint


PIECES = st.sampled_from(["-c", "-c ", "--", " ", "=", "\\", "timezone=", "a", "'", "work_mem", "\t", "-"])


@given(st.lists(PIECES | st.text(max_size=3)).map("".join))
def test_any_options(options: str) -> None:
    """They are understood or refused."""
    try:
        found = requested({"options": options})
    except ClientRefused as refusal:
        found = {}
        assert_hint(refusal)
    assert all(TRACKER.canonical(name) == name for name in found)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8)))
def test_any_parameters(parameters: dict[str, str]) -> None:
    """They are followed or refused."""
    try:
        found = requested(parameters)
    except ClientRefused:
        return
    assert all(TRACKER.canonical(name) == name for name in found)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)))
def test_values_come_through_options_unchanged(values: list[str]) -> None:
    """Escaped as libpq's documentation says, any value arrives."""
    escaped = [
        "".join("\\" + char if char in " \t\n\v\f\r\\" else char for char in value) for value in values
    ]
    options = " ".join(f"-c application_name={value}" for value in escaped)
    assert requested({"options": options}) == ({"application_name": values[-1]} if values else {})
