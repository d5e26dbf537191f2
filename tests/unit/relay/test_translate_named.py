"""Named prepared statements of clients that share servers: what servers are sent, and what clients are told.

Scripts as in `tests.support.relaystage`: what begins with ``~`` is a name on servers.
"""

from __future__ import annotations

from typing import Any

import pytest

from hyperpool.config import SessionState
from tests.support.relaystage import play, play_in_pieces

_FEW: dict[str, Any] = {"max_prepared_statements": 3}
_MANY: dict[str, Any] = {"max_prepared_statements": 200}
_FOLLOWING: dict[str, Any] = {
    "max_prepared_statements": 3,
    "session_state": SessionState.FOLLOW,
    "max_pinned": 2,
}
_RESETTING: dict[str, Any] = {"max_prepared_statements": 3, "session_state": SessionState.RESET}

_A = """
    c1 > Pa:select 1|S
    s1 < P~1:select 1|S
    s1 > 1|Z
    c1 < 1|Z
"""
_TAKEN = """
    c9 > Qbegin
    s1 < Qbegin
    s1 > CBEGIN|ZT
    c9 < CBEGIN|ZT
"""
"""The first server is taken: what comes next goes to the second."""


@pytest.mark.parametrize(
    "pool", [_FEW, _MANY, _FOLLOWING, _RESETTING], ids=["few", "many", "follow", "reset"]
)
@pytest.mark.parametrize(
    "script",
    [
        """
        c1 > Pa:select 1|Ba|DP|E|S
        s1 < P~1:select 1|B~1|DP|E|S
        s1 > 1|2|T|Da|CSELECT 1|Z
        c1 < 1|2|T|Da|CSELECT 1|Z
        """,
        """
        c1 > Pa:select $1[23,25]|DSa|S
        s1 < P~1:select $1[23,25]|DS~1|S
        s1 > 1|t|T|Z
        c1 < 1|t|T|Z
        """,
        """
        c1 > Pa:select 1|DSa|H
        s1 < P~1:select 1|DS~1|H
        s1 > 1|t|T
        c1 < 1|t|T
        c1 > Ba(5)|E/2|E|S
        s1 < B~1(5)|E/2|E|S
        s1 > 2|Da|Da|s|CSELECT 2|Z
        c1 < 2|Da|Da|s|CSELECT 2|Z
        """,
        """
        c1 > Pa:select 1|Bp=a|DPp|Ep/1|CPp|S
        s1 < P~1:select 1|Bp=~1|DPp|Ep/1|CPp|S
        s1 > 1|2|T|Da|s|3|Z
        c1 < 1|2|T|Da|s|3|Z
        """,
        """
        c1 > Pa_name_that_is_longer_than_the_other:select 1|Ba_name_that_is_longer_than_the_other(7)|E|S
        s1 < P~1:select 1|B~1(7)|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|Z
        """,
        """
        c1 > Pa:|Ba|E|S
        s1 < P~1:|B~1|E|S
        s1 > 1|2|I|Z
        c1 < 1|2|I|Z
        """,
        """
        c1 > Pé:select 'ü'|Bé|E|S
        s1 < P~1:select 'ü'|B~1|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|Z
        """,
        """
        c1 > Pa:select 1|Pb:select 2|Bb|E|Ba|E|S
        s1 < P~1:select 1|P~2:select 2|B~2|E|B~1|E|S
        s1 > 1|1|2|CSELECT 1|2|CSELECT 1|Z
        c1 < 1|1|2|CSELECT 1|2|CSELECT 1|Z
        """,
    ],
)
def test_a_statement_has_another_name_on_the_server(script: str, pool: dict[str, Any]) -> None:
    """In Parse, Bind and Describe, however what the client sends is cut; all else is passed on as it is."""
    play_in_pieces(script, **pool)


@pytest.mark.parametrize(
    "script",
    [
        """
        c1 > Ba|E|S
        s1 < Ba|E|S
        s1 > E26000 prepared statement "a" does not exist|Z
        c1 < E26000 prepared statement "a" does not exist|Z
        """,
        """
        c1 > DSa|S
        s1 < DSa|S
        s1 > E26000 prepared statement "a" does not exist|Z
        c1 < E26000 prepared statement "a" does not exist|Z
        """,
        """
        c1 > CSa|S
        s1 < CSa|S
        s1 > 3|Z
        c1 < 3|Z
        """,
        """
        c1 > Bp=a|DPp|CPp|S
        s1 < Bp=a|DPp|CPp|S
        s1 > E26000 prepared statement "a" does not exist|Z
        c1 < E26000 prepared statement "a" does not exist|Z
        """,
    ],
)
def test_a_name_that_the_client_has_not_given(script: str) -> None:
    """It is left to the server, which knows no such name either."""
    play_in_pieces(script, **_FEW)
    play_in_pieces(script, **_FOLLOWING)


@pytest.mark.parametrize(
    "script",
    [
        """
        c2 > B~1|E|S
        s1 < B~1?|E|S
        s1 > E26000 prepared statement "~1?" does not exist|Z
        c2 < E26000 prepared statement "~1" does not exist|Z
        """,
        """
        c2 > DS~1|S
        s1 < DS~1?|S
        s1 > E26000 prepared statement "~1?" does not exist|Z
        c2 < E26000 prepared statement "~1" does not exist|Z
        """,
        """
        c2 > CS~1|CS~7|S
        s1 < CS~1?|CS~7?|S
        s1 > 3|3|Z
        c2 < 3|3|Z
        """,
        """
        c2 > P~1:select 2|B~1|E|CS~1|S
        s1 < P~2:select 2|B~2|E|S
        s1 > 1|2|CSELECT 1|Z
        c2 < 1|2|CSELECT 1|3|Z
        """,
        """
        c2 > P~1:select 1|B~1|E|S
        s1 < B~1|E|S
        s1 > 2|CSELECT 1|Z
        c2 < 1|2|CSELECT 1|Z
        """,
    ],
)
def test_a_name_of_a_client_that_looks_like_one_on_servers(script: str) -> None:
    """It does not reach another client's statement, and the client reads it as it gave it."""
    play(_A + script, **_FEW)


def test_a_name_that_looks_like_one_on_servers_makes_nothing_out_of_date() -> None:
    """The error is the client's own fault: statements of others need not be prepared anew."""
    play(
        f"""
        {_A}
        c2 > B~1|S
        s1 < B~1?|S
        s1 > E26000 prepared statement "~1?" does not exist|Z
        c2 < E26000 prepared statement "~1" does not exist|Z
        c1 > Ba|S
        s1 < B~1|S
        """,
        **_FEW,
    )


# -- several clients -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "sent", "answered", "told"),
    [
        ("Pb:select 1|Bb|E|S", "B~1|E|S", "2|CSELECT 1|Z", "1|2|CSELECT 1|Z"),
        ("Pb:select 1|DSb|S", "DS~1|S", "t|T|Z", "1|t|T|Z"),
        ("Pa:select 1|Ba|E|S", "B~1|E|S", "2|CSELECT 1|Z", "1|2|CSELECT 1|Z"),
        ("Pb:select 1|CSb|Pb:select 1|Bb|S", "B~1|S", "2|Z", "1|3|1|2|Z"),
        ("Pb:select 2|Bb|E|S", "P~2:select 2|B~2|E|S", "1|2|CSELECT 1|Z", "1|2|CSELECT 1|Z"),
        ("Pb:select 1[23]|DSb|S", "P~2:select 1[23]|DS~2|S", "1|t|T|Z", "1|t|T|Z"),
        ("Pb:SELECT 1|S", "P~2:SELECT 1|S", "1|Z", "1|Z"),
    ],
)
def test_clients_share_what_is_the_same(asked: str, sent: str, answered: str, told: str) -> None:
    """What is on the server already need not be prepared again: its answer is made here, at its place."""
    play(
        f"""
        {_A}
        c2 > {asked}
        s1 < {sent}
        s1 > {answered}
        c2 < {told}
        """,
        **_FEW,
    )


def test_a_statement_is_prepared_where_it_is_used() -> None:
    """On each server once, in front of the first request that needs it; the client does not see that."""
    script = f"""
        {_A}
        {_TAKEN}
        c1 > Ba|E|S
        s2 < P~1:select 1|B~1|E|S
        s2 > 1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        c1 > DSa|S
        s2 < DS~1|S
        s2 > t|T|Z
        c1 < t|T|Z
    """
    play_in_pieces(script, pool_size=2, **_FEW)


def test_a_statement_is_described_where_it_is_not_yet() -> None:
    """Describe needs it, too."""
    script = f"""
        {_A}
        {_TAKEN}
        c1 > DSa|H
        s2 < P~1:select 1|DS~1|H
        s2 > 1|t|T
        c1 < t|T
        c1 > Ba|E|S
        s2 < B~1|E|S
        s2 > 2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
    """
    play_in_pieces(script, pool_size=2, **_FEW)


def test_the_same_name_means_something_else_to_each_client() -> None:
    """Programs with counters for names use the same ones."""
    play(
        """
        c1 > Ps1:select 1|S
        s1 < P~1:select 1|S
        s1 > 1|Z
        c1 < 1|Z
        c2 > Ps1:select 2|S
        s1 < P~2:select 2|S
        s1 > 1|Z
        c2 < 1|Z
        c1 > Bs1|E|S
        s1 < B~1|E|S
        s1 > 2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        c2 > Bs1|E|S
        s1 < B~2|E|S
        s1 > 2|CSELECT 1|Z
        c2 < 2|CSELECT 1|Z
        """,
        **_FEW,
    )


def test_two_names_of_one_text_at_one_client() -> None:
    """They are two statements, since one may be closed without the other; another client shares both."""
    play(
        """
        c1 > Pa:select 1|Pb:select 1|Ba|Bb|S
        s1 < P~1:select 1|P~2:select 1|B~1|B~2|S
        s1 > 1|1|2|2|Z
        c1 < 1|1|2|2|Z
        c1 > CSa|Bb|E|S
        s1 < B~2|E|S
        s1 > 2|CSELECT 1|Z
        c1 < 3|2|CSELECT 1|Z
        c2 > Px:select 1|Py:select 1|Bx|By|S
        s1 < B~1|B~2|S
        s1 > 2|2|Z
        c2 < 1|1|2|2|Z
        """,
        **_FEW,
    )


# -- Parse of a name that is taken -----------------------------------------------------------------------------------


def test_a_name_that_is_taken() -> None:
    """The server makes the error, at its place; the client reads its own name, and keeps its statement."""
    play(
        f"""
        {_A}
        c1 > Pa:select 2|Ba|E|S
        s1 < CS~01|P~01:|P~01:select 2|B~1|E|S
        s1 > 3|1|E42P05 prepared statement "~01" already exists|Z
        c1 < E42P05 prepared statement "a" already exists|Z
        c1 > Ba|E|S
        s1 < B~1|E|S
        s1 > 2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        """,
        **_FEW,
    )


def test_a_name_that_is_taken_twice_in_one_pipeline() -> None:
    """The first Parse holds, the second fails."""
    play(
        """
        c1 > Pa:select 1|Pa:select 1|Ba|E|S
        s1 < P~1:select 1|CS~01|P~01:|P~01:select 1|B~1|E|S
        s1 > 1|3|1|E42P05 prepared statement "~01" already exists|Z
        c1 < 1|E42P05 prepared statement "a" already exists|Z
        c1 > DSa|S
        s1 < DS~1|S
        s1 > t|T|Z
        c1 < t|T|Z
        """,
        **_FEW,
    )


def test_a_name_that_is_free_again() -> None:
    """Closed in the same pipeline, or before."""
    play(
        f"""
        {_A}
        c1 > CSa|Pa:select 2|Ba|E|S
        s1 < P~2:select 2|B~2|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 3|1|2|CSELECT 1|Z
        c1 > CSa|S
        s1 < S
        s1 > Z
        c1 < 3|Z
        c1 > Ba|S
        s1 < Ba|S
        s1 > E26000 prepared statement "a" does not exist|Z
        c1 < E26000 prepared statement "a" does not exist|Z
        c1 > Pa:select 1|Ba|E|S
        s1 < B~1|E|S
        s1 > 2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|Z
        """,
        **_FEW,
    )


# -- Close -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "sent", "answered", "told"),
    [
        ("CSa|S", "S", "Z", "3|Z"),
        ("CSa|CSa|S", "CSa|S", "3|Z", "3|3|Z"),
        ("Ba|E|CSa|S", "B~1|E|S", "2|CSELECT 1|Z", "2|CSELECT 1|3|Z"),
        ("Bp=a|CSa|Ep|S", "Bp=~1|Ep|S", "2|CSELECT 1|Z", "2|3|CSELECT 1|Z"),
        ("CPa|S", "CPa|S", "3|Z", "3|Z"),
        ("CSa|Qselect 2", "Qselect 2", "CSELECT 1|Z", "3|CSELECT 1|Z"),
    ],
)
def test_close_is_answered_here(asked: str, sent: str, answered: str, told: str) -> None:
    """Others may use the statement on the server; the answer stands at its place."""
    script = f"""
        {_A}
        c1 > {asked}
        s1 < {sent}
        s1 > {answered}
        c1 < {told}
    """
    play_in_pieces(script, **_FEW)


def test_a_statement_that_is_closed_stays_for_others() -> None:
    """On the server, and under its name there."""
    play(
        f"""
        {_A}
        c2 > Pb:select 1|S
        c2 < 1|Z
        c1 > CSa|S
        s1 < S
        s1 > Z
        c1 < 3|Z
        c2 > Bb|E|S
        s1 < B~1|E|S
        s1 > 2|CSELECT 1|Z
        c2 < 2|CSELECT 1|Z
        """,
        **_FEW,
    )


def test_a_client_that_leaves_takes_nothing_with_it() -> None:
    """What it has prepared is there for the next."""
    play(
        f"""
        {_A}
        c1 leaves
        c2 > Pb:select 1|Bb|E|S
        s1 < B~1|E|S
        s1 > 2|CSELECT 1|Z
        c2 < 1|2|CSELECT 1|Z
        """,
        **_FEW,
    )


# -- broken messages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        r"\x5000000004",  # Parse: nothing
        r"\x500000000561",  # a name that does not end
        r"\x50000000066100",  # no text
        r"\x5000000007610078",  # a text that does not end
        r"\x4200000004",  # Bind: nothing
        r"\x420000000500",  # no statement
        r"\x42000000060061",  # a statement's name that does not end
        r"\x4400000004",  # Describe: nothing
        r"\x440000000553",  # no name
        r"\x4300000004",  # Close: nothing
        r"\x430000000553",  # no name
    ],
)
@pytest.mark.parametrize("waits", [False, True])
def test_a_broken_message_is_left_to_the_server(message: str, waits: bool) -> None:
    """Which says what is wrong with it; and the next client's bytes are its own."""
    wait = """
        c8 > P:x|H
        s1 < P:x|H
        s1 > 1
        c8 < 1
    """
    go = """
        c8 > S
        s1 < S
        s1 > Z
        c8 < Z
    """
    play(
        rf"""
        {_A}
        {wait if waits else ""}
        c1 > Pb:select 2|{message}
        {go if waits else ""}
        s1 < P~2:select 2|{message}
        c1 > S
        s1 < S
        s1 > 1|E08P01 invalid message format|Z
        c1 < 1|E08P01 invalid message format|Z
        c2 > Pc:select 1|Bc|E|S
        s1 < B~1|E|S
        s1 > 2|CSELECT 1|Z
        c2 < 1|2|CSELECT 1|Z
        """,
        **_FEW,
    )
