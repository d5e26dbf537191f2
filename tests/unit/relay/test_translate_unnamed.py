"""The unnamed statement: it goes where its client goes, and to nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpool.config import SessionState
from tests.support.relaystage import play, play_in_pieces

_TWO: dict[str, Any] = {"max_prepared_statements": 3, "pool_size": 2}

_PREPARED = """
    c1 > P:select 1[23]|DS|S
    s1 < P:select 1[23]|DS|S
    s1 > 1|t|T|Z
    c1 < 1|t|T|Z
"""
_TAKEN = """
    c9 > Qbegin
    s1 < Qbegin
    s1 > CBEGIN|ZT
    c9 < CBEGIN|ZT
"""
"""The first server is taken: what comes next goes to the second."""

_RELEASED = """
    c9 > Qcommit
    s1 < Qcommit
    s1 > CCOMMIT|Z
    c9 < CCOMMIT|Z
"""


@pytest.mark.parametrize(
    "script",
    [
        """
        c1 > P:select 1|B|DP|E|S
        s1 < P:select 1|B|DP|E|S
        s1 > 1|2|T|CSELECT 1|Z
        c1 < 1|2|T|CSELECT 1|Z
        """,
        """
        c1 > P:select 1|Bp=|Ep|CS|CPp|S
        s1 < P:select 1|Bp=|Ep|CS|CPp|S
        s1 > 1|2|CSELECT 1|3|3|Z
        c1 < 1|2|CSELECT 1|3|3|Z
        """,
        """
        c1 > P:select 1[23]|DS|H
        s1 < P:select 1[23]|DS|H
        s1 > 1|t|T
        c1 < 1|t|T
        c1 > B(3)|E|S
        s1 < B(3)|E|S
        s1 > 2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        """,
        """
        c1 > P:select 1|P:select 2|B|E|B|E|S
        s1 < P:select 1|P:select 2|B|E|B|E|S
        s1 > 1|1|2|CSELECT 1|2|CSELECT 1|Z
        c1 < 1|1|2|CSELECT 1|2|CSELECT 1|Z
        """,
    ],
)
def test_within_a_cycle_nothing_is_changed(script: str) -> None:
    """It is on the server that it was sent to."""
    play_in_pieces(script, **_TWO)


def test_it_is_put_on_the_server_where_it_is_used() -> None:
    """Drivers prepare it in one cycle, and use it in the next, which may have another server."""
    play_in_pieces(
        f"""
        {_PREPARED}
        {_TAKEN}
        c1 > B(3)|E|S
        s2 < P:select 1[23]|B(3)|E|S
        s2 > 1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        c1 > DS|S
        s2 < P:select 1[23]|DS|S
        s2 > 1|t|T|Z
        c1 < t|T|Z
        {_RELEASED}
        """,
        **_TWO,
    )


def test_it_is_put_on_the_same_server_too() -> None:
    """Somebody else may have been there in between; within one stay, it is put there once."""
    play_in_pieces(
        f"""
        {_PREPARED}
        c2 > P:select 2|B|E|S
        s1 < P:select 2|B|E|S
        s1 > 1|2|CSELECT 1|Z
        c2 < 1|2|CSELECT 1|Z
        c1 > B|E|B|E|S
        s1 < P:select 1[23]|B|E|B|E|S
        s1 > 1|2|CSELECT 1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|2|CSELECT 1|Z
        """,
        max_prepared_statements=3,
    )


def test_in_a_transaction_it_stays() -> None:
    """The server is the client's own."""
    play(
        """
        c1 > Qbegin
        s1 < Qbegin
        s1 > CBEGIN|ZT
        c1 < CBEGIN|ZT
        c1 > P:select 1|DS|S
        s1 < P:select 1|DS|S
        s1 > 1|t|T|ZT
        c1 < 1|t|T|ZT
        c1 > B|E|S
        s1 < B|E|S
        s1 > 2|CSELECT 1|ZT
        c1 < 2|CSELECT 1|ZT
        """,
        **_TWO,
    )


_MISSING = "E26000 unnamed prepared statement does not exist"


@pytest.mark.parametrize(
    "end",
    [
        # a Query destroys it
        """
        c1 > Qselect 2
        s1 < Qselect 2
        s1 > CSELECT 1|Z
        c1 < CSELECT 1|Z
        """,
        # an empty one, too
        """
        c1 > Q
        s1 < Q
        s1 > I|Z
        c1 < I|Z
        """,
        # one that fails, too
        """
        c1 > Qselekt
        s1 < Qselekt
        s1 > E42601 syntax error|Z
        c1 < E42601 syntax error|Z
        """,
        # Close
        """
        c1 > CS|S
        s1 < CS|S
        s1 > 3|Z
        c1 < 3|Z
        """,
        # a Parse that fails
        """
        c1 > P:selekt|S
        s1 < P:selekt|S
        s1 > E42601 syntax error|Z
        c1 < E42601 syntax error|Z
        """,
    ],
    ids=["query", "empty query", "bad query", "close", "bad parse"],
)
def test_it_is_gone_for_good(end: str) -> None:
    """What another client has left on the server under no name must not take its place."""
    play(
        f"""
        {_PREPARED}
        {end}
        c2 > P:select 3|B|E|S
        s1 < P:select 3|B|E|S
        s1 > 1|2|CSELECT 1|Z
        c2 < 1|2|CSELECT 1|Z
        c1 > B|E|S
        s1 < CS|B|E|S
        s1 > 3|{_MISSING}|Z
        c1 < {_MISSING}|Z
        """,
        max_prepared_statements=3,
    )


@pytest.mark.parametrize(
    "script",
    [
        # it was discarded together with what would have taken its place
        """
        c1 > Bx|P:select 2|S
        s1 < Bx|P:select 2|S
        s1 > E26000 prepared statement "x" does not exist|Z
        c1 < E26000 prepared statement "x" does not exist|Z
        """,
        # as was the Close
        """
        c1 > Bx|CS|S
        s1 < Bx|CS|S
        s1 > E26000 prepared statement "x" does not exist|Z
        c1 < E26000 prepared statement "x" does not exist|Z
        """,
        # as was the Query
        """
        c1 > Bx|Qselect 2|S
        s1 < Bx|Qselect 2|S
        s1 > E26000 prepared statement "x" does not exist|Z
        c1 < E26000 prepared statement "x" does not exist|Z
        """,
        # which the server skips, sent after its error has come
        """
        c1 > Bx|H
        s1 < Bx|H
        s1 > E26000 prepared statement "x" does not exist
        c1 < E26000 prepared statement "x" does not exist
        c1 > Qselect 2|P:select 3|CS|S
        s1 < Qselect 2|P:select 3|CS|S
        s1 > Z
        c1 < Z
        """,
        # a function call leaves it alone
        """
        c1 > F2026
        s1 < F2026
        s1 > V|Z
        c1 < V|Z
        """,
        # as does an error while it runs
        """
        c1 > B|E|S
        s1 < P:select 1[23]|B|E|S
        s1 > 1|2|E22012 division by zero|Z
        c1 < 2|E22012 division by zero|Z
        """,
        # and as do statements with names
        """
        c1 > Pa:selekt|S
        s1 < P~1:selekt|S
        s1 > E42601 syntax error|Z
        c1 < E42601 syntax error|Z
        """,
    ],
    ids=["parse", "close", "query", "skipped", "call", "error", "named"],
)
def test_it_is_still_there(script: str) -> None:
    """What the server has discarded has not happened."""
    play(
        f"""
        {_PREPARED}
        {script}
        c1 > B|E|S
        s1 < P:select 1[23]|B|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        """,
        max_prepared_statements=3,
    )


def test_a_failed_parse_behind_a_good_one() -> None:
    """The statement before it is gone; what follows in the pipeline is discarded."""
    play(
        f"""
        {_PREPARED}
        c1 > P:select 2|P:selekt|P:select 3|S
        s1 < P:select 2|P:selekt|P:select 3|S
        s1 > 1|E42601 syntax error|Z
        c1 < 1|E42601 syntax error|Z
        c1 > B|S
        s1 < CS|B|S
        s1 > 3|{_MISSING}|Z
        c1 < {_MISSING}|Z
        """,
        max_prepared_statements=3,
    )


def test_a_client_that_has_none() -> None:
    """It does not find another client's."""
    play_in_pieces(
        f"""
        c1 > P:select 1|S
        s1 < P:select 1|S
        s1 > 1|Z
        c1 < 1|Z
        c2 > DS|B|E|S
        s1 < CS|DS|CS|B|E|S
        s1 > 3|{_MISSING}|Z
        c2 < {_MISSING}|Z
        """,
        max_prepared_statements=3,
    )


def test_the_pooler_cannot_put_it_there() -> None:
    """The table is gone: the client reads why, and the statement is still its own."""
    play(
        f"""
        {_PREPARED}
        c1 > B|E|S
        s1 < P:select 1[23]|B|E|S
        s1 > E42P01 relation "t" does not exist|Z
        c1 < E42P01 relation "t" does not exist|Z
        c1 > B|E|S
        s1 < P:select 1[23]|B|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        """,
        max_prepared_statements=3,
    )


def test_the_pooler_cannot_put_it_there_in_front_of_another() -> None:
    """The Parse that is discarded has not taken its place."""
    play(
        f"""
        {_PREPARED}
        c1 > B|E|P:select 2|S
        s1 < P:select 1[23]|B|E|P:select 2|S
        s1 > E42P01 relation "t" does not exist|Z
        c1 < E42P01 relation "t" does not exist|Z
        c1 > B|E|S
        s1 < P:select 1[23]|B|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        """,
        max_prepared_statements=3,
    )


@pytest.mark.parametrize("state", [SessionState.KEEP, SessionState.RESET])
def test_cycles_that_are_sent_ahead(state: SessionState) -> None:
    """A driver writes several cycles at once: the server gets all of them at once, as they are."""
    play(
        """
        c1 > P:select 1|B|DP|E|S|P:select 2|B|DP|E|S|Qselect 3|P:select 4|B|E|S
        s1 < P:select 1|B|DP|E|S|P:select 2|B|DP|E|S|Qselect 3|P:select 4|B|E|S
        s1 > 1|2|T|CSELECT 1|Z|1|2|T|CSELECT 1|Z|T|CSELECT 1|Z|1|2|CSELECT 1|Z
        c1 < 1|2|T|CSELECT 1|Z|1|2|T|CSELECT 1|Z|T|CSELECT 1|Z|1|2|CSELECT 1|Z
        """,
        max_prepared_statements=3,
        session_state=state,
    )


def test_a_cycle_ahead_uses_the_statement_of_the_one_before() -> None:
    """The server has it, unless it has refused it; then it says so."""
    play(
        f"""
        c1 > P:selekt|S|B|E|S
        s1 < P:selekt|S|B|E|S
        s1 > E42601 syntax error|Z|{_MISSING}|Z
        c1 < E42601 syntax error|Z|{_MISSING}|Z
        """,
        max_prepared_statements=3,
    )
