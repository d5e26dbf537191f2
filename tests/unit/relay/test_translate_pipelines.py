"""Pipelines: where the pooler's own answers stand, and what an error undoes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.relaystage import answers, play, play_in_pieces

_FEW: dict[str, Any] = {"max_prepared_statements": 3}

_A = """
    c1 > Pa:select 1|S
    s1 < P~1:select 1|S
    s1 > 1|Z
    c1 < 1|Z
"""
_BEGUN = """
    c1 > Qbegin
    s1 < Qbegin
    s1 > CBEGIN|ZT
    c1 < CBEGIN|ZT
"""
_TAKEN = """
    c9 > Qbegin
    s1 < Qbegin
    s1 > CBEGIN|ZT
    c9 < CBEGIN|ZT
"""
"""The first server is taken: what comes next goes to the second."""


# -- answers that are made here --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "sent", "exchange"),
    [
        # between the answers of the server, wherever they are cut
        ("Ba|E|CSa|S", "B~1|E|S", [("2", "2"), ("CSELECT 1", "CSELECT 1|3"), ("Z", "Z")]),
        ("Ba|CSa|E|S", "B~1|E|S", [("2", "2|3"), ("CSELECT 1", "CSELECT 1"), ("Z", "Z")]),
        ("DSa|CSa|CSa|S", "DS~1|CSa|S", [("t", ""), ("T", "t|T|3"), ("3", "3"), ("Z", "Z")]),
        # in front of them
        ("CSa|P:select 2|S", "P:select 2|S", [("1", "3|1"), ("Z", "Z")]),
        # behind ReadyForQuery
        ("Qselect 2|CSa|S", "Qselect 2|S", [("CSELECT 1", "CSELECT 1"), ("Z", "Z|3"), ("Z", "Z")]),
        # several of them
        ("P:x|CSa|Pa:select 2|CSa|S", "P:x|P~2:select 2|S", [("1", "1|3"), ("1", "1|3"), ("Z", "Z")]),
        # not in the midst of rows
        ("Ba|E|CSa|S", "B~1|E|S", [("2|Da", "2|Da"), ("Db|CSELECT 2", "Db|CSELECT 2|3"), ("Z", "Z")]),
    ],
)
def test_they_stand_at_their_place(asked: str, sent: str, exchange: list[tuple[str, str]]) -> None:
    """When all before them has been answered, and before anything else is."""
    steps = "".join(f"s1 > {answer}\nc1 < {told}\n" for answer, told in exchange)
    play(f"{_A}\nc1 > {asked}\ns1 < {sent}\n{steps}", **_FEW)


@pytest.mark.parametrize(
    ("asked", "sent", "answered", "told"),
    [
        ("c1 > CSa|H", "H", "", ["3"]),
        ("c2 > Pb:select 1|H", "H", "", ["1"]),
        ("c2 > Pb:select 1|CSb|Pb:select 1|H", "H", "", ["1|3|1"]),
        ("c1 > CSa|CSx|H", "CSx|H", "3", ["", "3|3"]),
        ("c1 > CSx|CSa|H", "CSx|H", "3", ["", "3|3"]),
    ],
)
def test_they_are_made_at_once_if_nothing_else_is_owed(
    asked: str, sent: str, answered: str, told: list[str]
) -> None:
    """A driver that has asked for them with Flush waits for nothing else."""
    client = asked[:2]
    play(
        f"""
        {_A}
        {asked}
        s1 < {sent}
        {client} < {told[0]}
        s1 > {answered}
        {client} < {told[1] if told[1:] else ""}
        {client} > S
        s1 < S
        s1 > Z
        {client} < Z
        """,
        **_FEW,
    )


def test_they_are_not_made_in_the_midst_of_a_message_of_the_server() -> None:
    """A notice comes in two parts, and nothing is owed."""
    notice = answers("Nhello high").hex()
    play(
        rf"""
        {_BEGUN}
        c1 > Pa:select 1|S
        s1 < P~1:select 1|S
        s1 > 1|ZT|\x{notice[:30]}
        c1 < 1|ZT|\x{notice[:30]}
        c1 > CSa|H
        s1 < H
        c1 <
        s1 > \x{notice[30:]}
        c1 < \x{notice[30:]}3300000004
        """,
        **_FEW,
    )


@pytest.mark.parametrize(
    ("asked", "sent", "answered", "told"),
    [
        ("Bx|CSa|S", "Bx|S", "E26000 no|Z", "E26000 no|Z"),
        ("Bx|CSa|S|CSy|S", "Bx|S|CSy|S", "E26000 no|Z|3|Z", "E26000 no|Z|3|Z"),
        ("Ba|E|CSa|E|CSa|S", "B~1|E|E|CSa|S", "2|CSELECT 1|E34000 no|Z", "2|CSELECT 1|3|E34000 no|Z"),
    ],
)
def test_they_are_not_made_behind_an_error(asked: str, sent: str, answered: str, told: str) -> None:
    """PostgreSQL discards what comes behind an error."""
    play(
        f"""
        {_A}
        c1 > {asked}
        s1 < {sent}
        s1 > {answered}
        c1 < {told}
        """,
        **_FEW,
    )


# -- errors ------------------------------------------------------------------------------------------------------------


def _after_an_error(asked: str, sent: str, answered: str, told: str, then: str, **pool: Any) -> None:
    """A pipeline fails; `then` tells what the client's next pipeline makes of it."""
    play(
        f"""
        {_A}
        c1 > {asked}
        s1 < {sent}
        s1 > {answered}
        c1 < {told}
        {then}
        """,
        **{**_FEW, **pool},
    )


_MISSING = 'E26000 prepared statement "b" does not exist'
_B_IS_MISSING = f"""
    c1 > Bb|S
    s1 < Bb|S
    s1 > {_MISSING}|Z
    c1 < {_MISSING}|Z
"""


@pytest.mark.parametrize(
    ("asked", "sent", "answered", "told"),
    [
        ("Pb:selekt|Bb|S", "P~2:selekt|B~2|S", "E42601 no|Z", "E42601 no|Z"),
        ("Bx|Pb:select 2|Bb|S", "Bx|P~2:select 2|B~2|S", "E26000 no|Z", "E26000 no|Z"),
        ("Bx|Pb:select 2|Qselect 3|S", "Bx|P~2:select 2|Qselect 3|S", "E26000 no|Z", "E26000 no|Z"),
        ("Bx|Pb:select 2|CSb|Pb:select 3|S", "Bx|P~2:select 2|P~3:select 3|S", "E26000 no|Z", "E26000 no|Z"),
        (
            "Pb:selekt|S|Qselect 3",
            "P~2:selekt|S|Qselect 3",
            "E42601 no|Z|CSELECT 1|Z",
            "E42601 no|Z|CSELECT 1|Z",
        ),
    ],
)
def test_a_name_that_was_not_given(asked: str, sent: str, answered: str, told: str) -> None:
    """The Parse failed, or was discarded: the client has no such statement."""
    _after_an_error(asked, sent, answered, told, _B_IS_MISSING)


@pytest.mark.parametrize(
    ("asked", "sent", "answered", "told"),
    [
        ("Bx|CSa|S", "Bx|S", "E26000 no|Z", "E26000 no|Z"),
        ("Bx|CSa|Pa:select 2|S", "Bx|P~2:select 2|S", "E26000 no|Z", "E26000 no|Z"),
        ("Bx|CSa|Pa:select 2|CSa|S", "Bx|P~2:select 2|S", "E26000 no|Z", "E26000 no|Z"),
        ("CSa|Pa:select 2|S|Bx|S", "P~2:select 2|S|Bx|S", "1|Z|E26000 no|Z", "3|1|Z|E26000 no|Z"),
        ("CSa|Pa:selekt|S", "P~2:selekt|S", "E42601 no|Z", "3|E42601 no|Z"),
    ],
)
def test_a_name_that_was_not_taken_away(asked: str, sent: str, answered: str, told: str) -> None:
    """It means what it meant before the part of the pipeline that was discarded."""
    now = {"CSa|Pa:select 2|S|Bx|S": "B~2", "CSa|Pa:selekt|S": "Ba"}.get(asked, "B~1")
    then = f"""
        c1 > Ba|E|S
        s1 < {now}|E|S
    """
    _after_an_error(asked, sent, answered, told, then)


@pytest.mark.parametrize(
    ("asked", "sent", "answered", "told"),
    [
        ("Pb:select 2|E|S", "P~2:select 2|E|S", "1|E34000 no|Z", "1|E34000 no|Z"),
        ("Pb:select 2|Bb|E|S", "P~2:select 2|B~2|E|S", "1|2|E22012 no|Z", "1|2|E22012 no|Z"),
        ("Pb:select 2|S|Bx|S", "P~2:select 2|S|Bx|S", "1|Z|E26000 no|Z", "1|Z|E26000 no|Z"),
    ],
)
def test_a_name_that_was_given_before_the_error(asked: str, sent: str, answered: str, told: str) -> None:
    """Prepared statements are not rolled back."""
    then = """
        c1 > Bb|E|S
        s1 < B~2|E|S
    """
    _after_an_error(asked, sent, answered, told, then)


def test_what_may_not_be_on_the_server_is_prepared_again() -> None:
    """The server has discarded the Parse: others who use the statement there are not to suffer."""
    play(
        """
        c1 > Bx|Pa:select 1|S
        s1 < Bx|P~1:select 1|S
        s1 > E26000 no|Z
        c1 < E26000 no|Z
        c1 > Pa:select 1|Ba|S
        s1 < CS~1|P~1:select 1|B~1|S
        s1 > 3|1|2|Z
        c1 < 1|2|Z
        c2 > Pb:select 1|Bb|S
        s1 < B~1|S
        s1 > 2|Z
        c2 < 1|2|Z
        """,
        **_FEW,
    )


def test_a_discarded_close_leaves_the_statement_on_the_server() -> None:
    """It is closed again before it is prepared again: the server would say that it is there already."""
    play(
        """
        c1 > Pa:select 1|S
        s1 < P~1:select 1|S
        s1 > 1|Z
        c1 < 1|Z
        c1 > Bx|Pb:select 2|S
        s1 < Bx|CS~1|P~2:select 2|S
        s1 > E26000 no|Z
        c1 < E26000 no|Z
        c1 > Ba|S
        s1 < CS~1|P~1:select 1|B~1|S
        s1 > 3|1|2|Z
        c1 < 2|Z
        """,
        max_prepared_statements=1,
    )


def test_the_poolers_own_parse_fails() -> None:
    """The client reads the error as its own: the table is gone, or the transaction is aborted."""
    play(
        f"""
        {_A}
        {_TAKEN}
        c1 > Ba|E|S
        s2 < P~1:select 1|B~1|E|S
        s2 > E42P01 relation "~1" does not exist|Z
        c1 < E42P01 relation "a" does not exist|Z
        c1 > Ba|E|S
        s2 < CS~1|P~1:select 1|B~1|E|S
        s2 > 3|1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        """,
        pool_size=2,
        **_FEW,
    )


def test_the_poolers_own_parse_is_discarded() -> None:
    """Its answer does not come, and is not waited for."""
    play(
        f"""
        {_A}
        {_TAKEN}
        c1 > Bx|Ba|E|S
        s2 < Bx|P~1:select 1|B~1|E|S
        s2 > E26000 no|Z
        c1 < E26000 no|Z
        c1 > Ba|E|S
        s2 < CS~1|P~1:select 1|B~1|E|S
        s2 > 3|1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        """,
        pool_size=2,
        **_FEW,
    )


def test_what_is_sent_while_the_server_skips() -> None:
    """An error that the client has read: until Sync, nothing of what it sends happens, nor is it looked into."""
    play_in_pieces(
        f"""
        {_A}
        c1 > Bx|H
        s1 < Bx|H
        s1 > E26000 no
        c1 < E26000 no
        c1 > Pb:select 2|CSa|Ba|DSa|P:select 3|S
        s1 < Pb:select 2|CSa|Ba|DSa|P:select 3|S
        s1 > Z
        c1 < Z
        c1 > Ba|S
        s1 < B~1|S
        s1 > 2|Z
        c1 < 2|Z
        {_B_IS_MISSING}
        """,
        **_FEW,
    )


def test_in_a_transaction_block_a_parse_is_not_answered_here() -> None:
    """If the block has failed, the error must come where PostgreSQL would make it."""
    play(
        f"""
        {_A}
        {_BEGUN.replace("c1", "c2")}
        c2 > Pb:select 1|S
        s1 < CS~1|P~1:select 1|S
        s1 > 3|1|ZT
        c2 < 1|ZT
        c2 > Qselekt
        s1 < Qselekt
        s1 > E42601 no|ZE
        c2 < E42601 no|ZE
        c2 > Pc:select 1|S
        s1 < P~2:select 1|S
        s1 > E25P02 aborted|ZE
        c2 < E25P02 aborted|ZE
        c2 > Qrollback
        s1 < Qrollback
        s1 > CROLLBACK|Z
        c2 < CROLLBACK|Z
        c2 > Bc|S
        s1 < Bc|S
        s1 > E26000 prepared statement "c" does not exist|Z
        c2 < E26000 prepared statement "c" does not exist|Z
        """,
        **_FEW,
    )


def test_behind_other_requests_a_parse_is_not_answered_here() -> None:
    """If they fail, it is discarded."""
    play(
        f"""
        {_A}
        c2 > Bx|Pb:select 1|S
        s1 < Bx|CS~1|P~1:select 1|S
        s1 > E26000 no|Z
        c2 < E26000 no|Z
        c2 > Bb|S
        s1 < Bb|S
        s1 > E26000 no|Z
        c2 < E26000 no|Z
        c1 > Ba|S
        s1 < CS~1|P~1:select 1|B~1|S
        s1 > 3|1|2|Z
        c1 < 2|Z
        """,
        **_FEW,
    )
