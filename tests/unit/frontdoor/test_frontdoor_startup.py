"""What a client asks for in its StartupMessage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.errors import ClientRefused
from hyperpool.frontdoor.startup import own_parameters, requested_parameters, wanted_replication
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


def replication(value: str) -> str:
    """What is made of a startup parameter `replication`."""
    message = StartupMessage((3, 0), {"user": "ann", "replication": value})
    return wanted_replication(message)


@pytest.mark.parametrize(
    "value", ["", "false", "off", "no", "0", "OFF", "False", "f", "fa", "fal", "fals", "n", "of", "N"]
)
def test_no_replication(value: str) -> None:
    """A client may say that it wants an ordinary session."""
    assert replication(value) == ""
    assert requested({"replication": value}) == {}


def test_replication_is_not_asked_for() -> None:
    """Most clients do not mention it."""
    assert wanted_replication(StartupMessage((3, 0), {"user": "ann"})) == ""


@pytest.mark.parametrize(
    "value", ["true", "on", "yes", "1", "database", "TRUE", "t", "tr", "tru", "y", "ye", "On"]
)
def test_replication(value: str) -> None:
    """The server gets it as it is."""
    assert replication(value) == value


@pytest.mark.parametrize("value", ["DATABASE", "Database", "anything", "o", "2", "truee", " true", "tru e"])
def test_replication_that_there_is_not(value: str) -> None:
    """It is refused in PostgreSQL's words."""
    with pytest.raises(ClientRefused) as caught:
        replication(value)
    assert str(caught.value) == f'invalid value for parameter "replication": "{value}"'
    assert caught.value.sqlstate == "22023"
    assert caught.value.hint == 'Valid values are: "false", 0, "true", 1, "database".'


def test_own_parameters() -> None:
    """All that is a setting, as it was sent; names fold no case, as in PostgreSQL's startup packet."""
    sent = {"options": "-c a=b", "DateStyle": "ISO", "client_encoding": "'utf-8'", "USER": "x"}
    message = StartupMessage((3, 0), {"user": "ann", "database": "shop", "replication": "true", **sent})
    assert own_parameters(message) == sent


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
