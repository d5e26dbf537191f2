"""How many statements a server has, and which make room for others."""

from __future__ import annotations

from typing import Any

from tests.support.relaystage import Stage, play, play_in_pieces

_FEW: dict[str, Any] = {"max_prepared_statements": 3}

_THREE = """
    c1 > Pa:select 1|S
    s1 < P~1:select 1|S
    s1 > 1|Z
    c1 < 1|Z
    c1 > Pb:select 2|S
    s1 < P~2:select 2|S
    s1 > 1|Z
    c1 < 1|Z
    c1 > Pc:select 3|S
    s1 < P~3:select 3|S
    s1 > 1|Z
    c1 < 1|Z
"""


def test_what_was_used_longest_ago_makes_room() -> None:
    """Its Close goes in front; when it is used again, it is prepared again."""
    play_in_pieces(
        f"""
        {_THREE}
        c1 > Pd:select 4|Bd|E|S
        s1 < CS~1|P~4:select 4|B~4|E|S
        s1 > 3|1|2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|Z
        c1 > Ba|E|S
        s1 < CS~2|P~1:select 1|B~1|E|S
        s1 > 3|1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        """,
        **_FEW,
    )


def test_use_renews() -> None:
    """By Bind, by Describe, and by a Parse that is answered here."""
    play(
        f"""
        {_THREE}
        c1 > Ba|E|S
        s1 < B~1|E|S
        s1 > 2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        c1 > DSb|S
        s1 < DS~2|S
        s1 > t|T|Z
        c1 < t|T|Z
        c1 > Pd:select 4|S
        s1 < CS~3|P~4:select 4|S
        s1 > 3|1|Z
        c1 < 1|Z
        """,
        **_FEW,
    )


def test_what_a_transaction_uses_stays_until_it_ends() -> None:
    """However many there are: they may be used again. The next transaction makes room for all of them."""
    play(
        """
        c1 > Qbegin
        s1 < Qbegin
        s1 > CBEGIN|ZT
        c1 < CBEGIN|ZT
        c1 > Pa:select 1|Pb:select 2|Pc:select 3|S
        s1 < P~1:select 1|P~2:select 2|P~3:select 3|S
        s1 > 1|1|1|ZT
        c1 < 1|1|1|ZT
        c1 > Pd:select 4|Pe:select 5|Ba|E|S
        s1 < P~4:select 4|P~5:select 5|B~1|E|S
        s1 > 1|1|2|CSELECT 1|ZT
        c1 < 1|1|2|CSELECT 1|ZT
        c1 > Qcommit
        s1 < Qcommit
        s1 > CCOMMIT|Z
        c1 < CCOMMIT|Z
        c1 > Pf:select 6|Bf|E|S
        s1 < CS~2|CS~3|CS~4|P~6:select 6|B~6|E|S
        s1 > 3|3|3|1|2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|Z
        """,
        **_FEW,
    )


def test_one_pipeline_uses_more_than_there_is_room_for() -> None:
    """Nothing that it has prepared itself makes room: its Bind may still come."""
    play_in_pieces(
        f"""
        {_THREE}
        c1 > Pd:select 4|Pe:select 5|Pf:select 6|Pg:select 7|Bd|E|Bg|E|S
        s1 < CS~1|P~4:select 4|CS~2|P~5:select 5|CS~3|P~6:select 6|P~7:select 7|B~4|E|B~7|E|S
        s1 > 3|1|3|1|3|1|1|2|CSELECT 1|2|CSELECT 1|Z
        c1 < 1|1|1|1|2|CSELECT 1|2|CSELECT 1|Z
        """,
        **_FEW,
    )


def test_many_statements() -> None:
    """As many as ``max_prepared_statements`` says are kept, and no more."""
    with Stage(max_prepared_statements=200, memory=1 << 24) as stage:
        for number in range(1, 202):
            close = "CS~1|" if number == 201 else ""
            stage.play(
                f"""
                c1 > Pn{number}:select {number}|S
                s1 < {close}P~{number}:select {number}|S
                s1 > {"3|" if close else ""}1|Z
                c1 < 1|Z
                """
            )


def test_without_room() -> None:
    """With ``max_prepared_statements`` of 0 and nothing watched, names are passed on as they are."""
    play(
        """
        c1 > Pa:select 1|Ba|DSa|CSa|S
        s1 < Pa:select 1|Ba|DSa|CSa|S
        s1 > 1|2|t|T|3|Z
        c1 < 1|2|t|T|3|Z
        c1 > P~1:select 1|B~1|S
        s1 < P~1:select 1|B~1|S
        s1 > 1|2|Z
        c1 < 1|2|Z
        """,
        max_prepared_statements=0,
    )
