"""What a client asks for in its StartupMessage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.config import SessionState
from hyperpool.errors import ClientRefused
from hyperpool.frontdoor.startup import (
    Wanted,
    own_parameters,
    requested_parameters,
    sort_parameters,
    wanted_replication,
)
from hyperpool.pool.state import Pool
from hyperpool.relay.parameters import ParameterTracker
from hyperpool.wire.startup import StartupMessage
from tests.support.relayworld import POOL

if TYPE_CHECKING:
    from hyperpool.relay.handover import RelayPool


def requested(parameters: dict[str, str], *ignored: str) -> dict[str, str]:
    """What is requested by a client with these startup parameters."""
    message = StartupMessage((3, 0), {"user": "ann", "database": "shop", **parameters})
    return dict(requested_parameters(message, frozenset(ignored)))


def test_nothing() -> None:
    """User and database are not session parameters."""
    assert requested({}) == {}


def test_parameters_are_taken_as_they_are() -> None:
    """Names and values are for the server to judge."""
    sent = {
        "datestyle": "German",
        "TIMEZONE": "UTC",
        "Statement_Timeout": "5s",
        "x.y": "",
        "client_encoding": "'utf-8'",
    }
    assert requested(sent) == sent


@pytest.mark.parametrize("name", ["statement_timeout", "Statement_Timeout", "STATEMENT_TIMEOUT"])
def test_ignored(name: str) -> None:
    """Names fold case."""
    assert requested({name: "5s", "TimeZone": "UTC"}, "statement_timeout") == {"TimeZone": "UTC"}


# -- what becomes of them ------------------------------------------------------------------------------------

TRACKER = ParameterTracker(["IntervalStyle"])
REPORTED = frozenset({"timezone", "datestyle", "client_encoding", "application_name"})


def pool(state: SessionState) -> RelayPool:
    """A pool whose servers report some parameters, one of which has been taken before."""
    made: RelayPool = Pool(attrs.evolve(POOL, session_state=state), lambda: 0.5)
    made.reported = REPORTED
    made.accepted = {
        ("timezone", "utc"): "UTC",
        ("client_encoding", "utf-8"): "UTF8",
        ("work_mem", "8 MB"): "8MB",
    }
    return made


@pytest.mark.parametrize(
    ("asked", "reported", "others", "unproven"),
    [
        ({}, {}, {}, False),
        ({"application_name": "psql"}, {"application_name": "psql"}, {}, False),
        ({"Application_Name": "psql"}, {"application_name": "psql"}, {}, False),
        ({"application_name": "x" * 63}, {"application_name": "x" * 63}, {}, False),
        ({"application_name": "x" * 64}, {"application_name": "x" * 64}, {}, True),
        ({"application_name": "é"}, {"application_name": "é"}, {}, True),
        ({"application_name": "a\tb"}, {"application_name": "a\tb"}, {}, True),
        ({"timezone": "Asia/Tokyo"}, {"TimeZone": "Asia/Tokyo"}, {}, True),
        ({"TIMEZONE": "utc"}, {"TimeZone": "UTC"}, {}, False),
        ({"TimeZone": "UTC"}, {"TimeZone": "UTC"}, {}, True),
        ({"client_encoding": "utf-8"}, {"client_encoding": "UTF8"}, {}, False),
        (
            {"client_encoding": "utf-8", "DateStyle": "german"},
            {"client_encoding": "UTF8", "DateStyle": "german"},
            {},
            True,
        ),
    ],
)
@pytest.mark.parametrize("state", SessionState)
def test_what_servers_report_follows_in_every_mode(
    state: SessionState,
    asked: dict[str, str],
    reported: dict[str, str],
    others: dict[str, str],
    unproven: bool,
) -> None:
    """Under the servers' names; a value that a server has taken before is known, and what that made of it."""
    assert sort_parameters(asked, pool(state), TRACKER) == Wanted(reported, others, unproven)


@pytest.mark.parametrize(
    ("asked", "reported", "others", "unproven"),
    [
        ({"Work_Mem": "8 MB"}, {}, {"work_mem": "8MB"}, False),
        ({"work_mem": "9MB"}, {}, {"work_mem": "9MB"}, True),
        ({"X.y": "1"}, {}, {"x.y": "1"}, True),
        ({"IntervalStyle": "iso_8601"}, {}, {"intervalstyle": "iso_8601"}, True),
        (
            {"search_path": "a", "timezone": "utc", "application_name": "x"},
            {"TimeZone": "UTC", "application_name": "x"},
            {"search_path": "a"},
            True,
        ),
    ],
)
def test_the_rest_follows_if_session_state_does(
    asked: dict[str, str], reported: dict[str, str], others: dict[str, str], unproven: bool
) -> None:
    """In lower case; what is tracked, but not by these servers, is a setting as any other."""
    assert sort_parameters(asked, pool(SessionState.FOLLOW), TRACKER) == Wanted(reported, others, unproven)


@pytest.mark.parametrize("state", [SessionState.KEEP, SessionState.RESET])
@pytest.mark.parametrize("name", ["work_mem", "Statement_Timeout", "IntervalStyle", "x.y"])
def test_the_rest_is_refused_if_session_state_does_not_follow(state: SessionState, name: str) -> None:
    """By name, with the remedies: a client that asks for a timeout and does not get it would be surprised later."""
    with pytest.raises(ClientRefused) as caught:
        sort_parameters({"TimeZone": "UTC", name: "8 MB"}, pool(state), TRACKER)
    assert str(caught.value) == f"unsupported startup parameter: {name}"
    assert caught.value.sqlstate == "08P01"
    assert caught.value.hint == (
        f"servers do not report {name}, so it can be honoured only with session_state follow; or add it to"
        " ignore_startup_parameters to have it ignored"
    )


@given(st.dictionaries(st.text(max_size=8) | st.sampled_from(["TimeZone", "work_mem"]), st.text(max_size=8)))
def test_any_parameters(parameters: dict[str, str]) -> None:
    """Each is honoured once, under its folded name, and nobody is told a value that no server has taken."""
    made = sort_parameters(parameters, pool(SessionState.FOLLOW), TRACKER)
    assert {name.lower() for name in made.reported} | set(made.others) == {
        name.lower() for name in parameters
    }
    assert set(made.reported) <= {"TimeZone", "DateStyle", "client_encoding", "application_name"}
    assert not set(made.others) & REPORTED
    assert made.unproven or all(
        (name.lower(), value) in pool(SessionState.FOLLOW).accepted or name.lower() == "application_name"
        for name, value in parameters.items()
    )


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
        ("-c timezone=UTC -cdatestyle=German", {"timezone": "UTC", "datestyle": "German"}),
        ("-c timezone=UTC --timezone=Asia/Tokyo", {"timezone": "Asia/Tokyo"}),
        ("-c timezone=", {"timezone": ""}),
        ("-c application_name=a=b", {"application_name": "a=b"}),
        (r"-c application_name=a\ b", {"application_name": "a b"}),
        (r"-c application_name=a\\b", {"application_name": r"a\b"}),
        (r"-c application_name=\-c", {"application_name": "-c"}),
        ("-c application_name=a\\", {"application_name": "a"}),
        ("-c application_name='a'", {"application_name": "'a'"}),
        ("-c application_name=a\u00a0b", {"application_name": "a\u00a0b"}),
        ("-c client_encoding=latin-1", {"client_encoding": "latin-1"}),
        ("-c x.y=1 -c X.Y=2", {"X.Y": "2"}),
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


def test_a_parameter_in_options() -> None:
    """It is taken as if it stood on its own, and ignored in the same way."""
    assert requested({"options": "-c work-mem=7MB"}) == {"work_mem": "7MB"}
    assert requested({"options": "-c work-mem=7MB --TimeZone=UTC"}, "work_mem") == {"TimeZone": "UTC"}


def test_options_can_be_ignored_as_a_whole() -> None:
    """Then nobody looks inside."""
    assert requested({"options": "-d 3 -c timezone=UTC"}, "options") == {}


def assert_remedy(refusal: ClientRefused) -> None:
    """A refusal says what can be done."""
    assert refusal.sqlstate == "08P01"
    assert "ignore_startup_parameters" in refusal.hint


PIECES = st.sampled_from(["-c", "-c ", "--", " ", "=", "\\", "timezone=", "a", "'", "work_mem", "\t", "-"])


@given(st.lists(PIECES | st.text(max_size=3)).map("".join))
def test_any_options(options: str) -> None:
    """They are understood or refused."""
    try:
        found = requested({"options": options})
    except ClientRefused as refusal:
        assert_remedy(refusal)
        return
    assert all(name and "-" not in name for name in found)
    assert sum(map(len, found.values())) <= len(options)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)))
def test_values_come_through_options_unchanged(values: list[str]) -> None:
    """Escaped as libpq's documentation says, any value arrives."""
    escaped = [
        "".join("\\" + char if char in " \t\n\v\f\r\\" else char for char in value) for value in values
    ]
    options = " ".join(f"-c application_name={value}" for value in escaped)
    assert requested({"options": options}) == ({"application_name": values[-1]} if values else {})
