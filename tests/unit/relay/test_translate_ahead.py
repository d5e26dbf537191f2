"""Pipelines that are written ahead: what depends on answers that have not come waits for them, and nothing else."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from hyperpool.config import SessionState
from tests.support.relaystage import Stage, play, play_in_pieces

_FEW: dict[str, Any] = {"max_prepared_statements": 3}

_A = """
    c1 > Pa:select 1|S
    s1 < P~1:select 1|S
    s1 > 1|Z
    c1 < 1|Z
"""


@pytest.mark.parametrize(
    ("first", "sent", "second", "translated"),
    [
        ("Pa:select 1|S", "P~1:select 1|S", "Ba|E|S", "B~1|E|S"),
        ("Pa:select 1|S", "P~1:select 1|S", "DSa|S", "DS~1|S"),
        ("Pa:select 1|DSa|S", "P~1:select 1|DS~1|S", "Ba|E|S", "B~1|E|S"),
    ],
)
@pytest.mark.parametrize("works", [True, False])
def test_what_a_name_means_is_known_when_it_has_been_prepared(
    first: str, sent: str, second: str, translated: str, works: bool
) -> None:
    """A pipeline ahead uses a name that the one before it gives, if that works; else, the server knows no such name."""
    done = "1|t|T" if "D" in first else "1"
    if works:
        end = f"""
            s1 > {done}|Z
            c1 < {done}|Z
            s1 < {translated}
        """
    else:
        end = f"""
            s1 > E42601 no|Z
            c1 < E42601 no|Z
            s1 < {second}
        """
    script = f"""
        c1 > {first}|{second}
        s1 < {sent}
        {end}
    """
    play_in_pieces(script, **_FEW)


@pytest.mark.parametrize(("answer", "sent"), [("1", "S"), ("E42601 no", "CSa|S")])
def test_what_a_close_ahead_closes(answer: str, sent: str) -> None:
    """A statement, or nothing."""
    play(
        f"""
        c1 > Pa:select 1|S|CSa|S
        s1 < P~1:select 1|S
        s1 > {answer}|Z
        c1 < {answer}|Z
        s1 < {sent}
        s1 > {"3|" if "C" in sent else ""}Z
        c1 < 3|Z
        """,
        **_FEW,
    )


def test_what_was_sent_before_in_the_same_cycle_does_not_keep_it_waiting() -> None:
    """PostgreSQL keeps those answers until the Sync: only the answers to the cycles before are waited for."""
    play(
        """
        c1 > Pa:select 1|S|Pb:select 2|Ba|E|S
        s1 < P~1:select 1|S|P~2:select 2
        s1 > 1|Z
        c1 < 1|Z
        s1 < B~1|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|Z
        """,
        **_FEW,
    )


def test_what_comes_behind_waits_too_and_stays_in_order() -> None:
    """More is read when the server has answered."""
    play(
        """
        c1 > Pa:select 1|S|Ba|E|S|Qselect 2
        s1 < P~1:select 1|S
        c1 > Qselect 3
        s1 <
        s1 > 1|Z
        c1 < 1|Z
        s1 < B~1|E|S|Qselect 2|Qselect 3
        s1 > 2|CSELECT 1|Z|CSELECT 2|Z|CSELECT 3|Z
        c1 < 2|CSELECT 1|Z|CSELECT 2|Z|CSELECT 3|Z
        """,
        **_FEW,
    )


def test_other_names_need_not_wait() -> None:
    """Only what the open answers decide."""
    play(
        f"""
        {_A}
        c1 > Pb:select 2|S|Ba|E|S|Qselect 3
        s1 < P~2:select 2|S|B~1|E|S|Qselect 3
        s1 > 1|Z|2|CSELECT 1|Z|CSELECT 1|Z
        c1 < 1|Z|2|CSELECT 1|Z|CSELECT 1|Z
        """,
        **_FEW,
    )


def test_within_a_cycle_nothing_waits() -> None:
    """An error discards the rest of the cycle, whatever the names in it mean."""
    play(
        """
        c1 > Pa:select 1|Ba|E|CSa|Pa:select 2|Ba|E|S
        s1 < P~1:select 1|B~1|E|P~2:select 2|B~2|E|S
        s1 > 1|2|CSELECT 1|1|2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|3|1|2|CSELECT 1|Z
        """,
        **_FEW,
    )


def test_a_client_leaves_while_it_waits() -> None:
    """As with any request under way, its server is closed."""
    play(
        """
        c1 > Pa:select 1|S|Ba|E|S
        s1 < P~1:select 1|S
        c1 leaves
        s1 > 1|Z
        s1 < B~1|E|S|END
        c2 > Qselect 1
        s2 < Qselect 1
        """,
        **_FEW,
    )


def test_the_server_dies_while_a_client_waits() -> None:
    """It is told, and closed."""
    play(
        """
        c1 > Pa:select 1|S|Ba|E|S
        s1 < P~1:select 1|S
        s1 > 1
        s1 dies
        c1 < 1|!08006 server closed the connection|END
        """,
        **_FEW,
    )


@pytest.mark.parametrize("state", SessionState)
def test_a_pipeline_of_many_cycles(state: SessionState) -> None:
    """Written ahead by a driver that prepares everything: what is known is sent at once, whatever is watched."""
    play(
        f"""
        {_A}
        c1 > Ba|E|S|Ba|E|S|Qselect 2|Ba|E|S|Pb:select 3|Bb|E|S
        s1 < B~1|E|S|B~1|E|S|Qselect 2|B~1|E|S|P~2:select 3|B~2|E|S
        s1 > 2|CSELECT 1|Z|2|CSELECT 1|Z|CSELECT 1|Z|2|CSELECT 1|Z|1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z|2|CSELECT 1|Z|CSELECT 1|Z|2|CSELECT 1|Z|1|2|CSELECT 1|Z
        """,
        session_state=state,
        max_pinned=1,
        **_FEW,
    )


# -- the unnamed statement ---------------------------------------------------------------------------------------------


def test_a_query_ends_the_unnamed_statement() -> None:
    """Although what stands in front might have made the server skip it, and others stand behind it."""
    play(
        f"""
        {_A}
        c1 > P:select 9|S|Ba|E|Qselect 2|S|Pb:select 3|S|B|E|S
        s1 < P:select 9|S|B~1|E|Qselect 2|S|P~2:select 3|S
        s1 > 1|Z|2|CSELECT 1|CSELECT 1|Z|Z|1|Z
        c1 < 1|Z|2|CSELECT 1|CSELECT 1|Z|Z|1|Z
        s1 < CS|B|E|S
        """,
        **_FEW,
    )


def test_an_unnamed_statement_behind_one_that_fails() -> None:
    """It is the one that counts."""
    play(
        """
        c1 > P:selekt|S|P:select 1|S
        s1 < P:selekt|S|P:select 1|S
        s1 > E42601 no|Z
        c1 < E42601 no|Z
        s1 > 1|Z
        c1 < 1|Z
        c1 > B|E|S
        s1 < P:select 1|B|E|S
        """,
        **_FEW,
    )


def test_an_unnamed_statement_that_is_discarded_behind_one_that_fails() -> None:
    """Then there is none."""
    play(
        """
        c1 > P:selekt|S|Bx|E|H
        s1 < P:selekt|S|Bx|E|H
        c1 > P:select 1|S
        s1 < P:select 1|S
        s1 > E42601 no|Z|E26000 no|Z
        c1 < E42601 no|Z|E26000 no|Z
        c1 > B|E|S
        s1 < CS|B|E|S
        """,
        **_FEW,
    )


def test_an_unnamed_statement_that_is_discarded_in_front_of_named_ones() -> None:
    """What is prepared for those does not keep it."""
    play(
        f"""
        {_A}
        c9 > Qbegin
        s1 < Qbegin
        s1 > CBEGIN|ZT
        c9 < CBEGIN|ZT
        c1 > Bx|P:select 2|S|Ba|S
        s2 < Bx|P:select 2|S|P~1:select 1|B~1|S
        s2 > E26000 no|Z|1|2|Z
        c1 < E26000 no|Z|2|Z
        c1 > B|E|S
        s2 < CS|B|E|S
        """,
        pool_size=2,
        **_FEW,
    )


_ELSEWHERE = """
    c1 > P:select 1|S
    s1 < P:select 1|S
    s1 > 1|Z
    c1 < 1|Z
    c2 comes TimeZone=Asia/Tokyo
    c2 > P:select 2|S
    s1 < QSET TimeZone = 'Asia/Tokyo';|P:select 2|S
    s1 > STimeZone=Asia/Tokyo|CSET|Z|1|Z
    c2 < 1|Z
"""


def test_the_unnamed_statement_behind_the_adjusting() -> None:
    """What the pooler itself asks in front decides about nothing: there is nothing to wait for."""
    play(
        f"""
        {_ELSEWHERE}
        c1 > B|E|S
        s1 < QSET TimeZone = 'UTC';|P:select 1|B|E|S
        s1 > STimeZone=UTC|CSET|Z|1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        c2 > DS|S
        s1 < QSET TimeZone = 'Asia/Tokyo';|P:select 2|DS|S
        """,
        **_FEW,
    )


def test_two_clients_with_one_server_and_other_parameters_both_go_on() -> None:
    """In turn."""
    play(
        f"""
        {_ELSEWHERE}
        c9 > Qbegin
        s1 < QSET TimeZone = 'UTC';|Qbegin
        s1 > STimeZone=UTC|CSET|Z|CBEGIN|ZT
        c9 < CBEGIN|ZT
        c2 > B|E|S
        c1 > B|E|S
        c9 > Qcommit
        s1 < Qcommit
        s1 > CCOMMIT|Z
        c9 < CCOMMIT|Z
        s1 < QSET TimeZone = 'Asia/Tokyo';|P:select 2|B|E|S
        s1 > STimeZone=Asia/Tokyo|CSET|Z|1|2|CSELECT 1|Z
        c2 < 2|CSELECT 1|Z
        s1 < QSET TimeZone = 'UTC';|P:select 1|B|E|S
        s1 > STimeZone=UTC|CSET|Z|1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        """,
        **_FEW,
    )


_FOREIGN = """
    c1 > P:select 1|S
    s1 < P:select 1|S
    s1 > 1|Z
    c1 < 1|Z
    c2 > P:select 2|S
    s1 < P:select 2|S
    s1 > 1|Z
    c2 < 1|Z
"""
"""The server has another client's."""


@pytest.mark.parametrize(
    ("first", "sent"),
    [
        ("Bx|P:select 3|S", "Bx|P:select 3|S"),
        ("Bx|P:select 3|P:select 4|S", "Bx|P:select 3|P:select 4|S"),
        ("Bx|B|E|S", "Bx|P:select 1|B|E|S"),
        ("Bx|DS|S", "Bx|P:select 1|DS|S"),
        ("Bx|CS|S", "Bx|CS|S"),
    ],
)
def test_another_client_s_unnamed_statement_is_not_executed(first: str, sent: str) -> None:
    """An error may discard what was to take its place: who uses it in the next pipeline waits for that."""
    play(
        f"""
        {_FOREIGN}
        c1 > {first}|B|E|S
        s1 < {sent}
        s1 > E26000 no|Z
        c1 < E26000 no|Z
        s1 < P:select 1|B|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        """,
        **_FEW,
    )


@pytest.mark.parametrize(
    "sent",
    [
        "P:select 3|B|E|P:select 4|B|E|S|P:select 5|B|E|P:select 6|B|E|S",
        "P:select 3|S|B|E|S|B|E|S",
        "P:select 3|S|Bx|P:select 4|S|B|E|S",
        "Bx|P:select 3|B|E|S|P:select 4|B|E|S",
        "Bx|P:select 3|B|E|S|Bx|P:select 4|B|E|S",
        "CS|S|P:select 3|S|B|E|S",
    ],
)
def test_what_the_server_certainly_decides_as_for_a_server_of_its_own(sent: str) -> None:
    """Nothing waits."""
    play(f"{_FOREIGN}\nc1 > {sent}\ns1 < {sent}", **_FEW)


def test_a_named_statement_that_fails_in_front_of_the_unnamed_one() -> None:
    """It is not the Parse of the unnamed one that has failed."""
    play(
        f"""
        {_A}
        c1 > P:select 2|S
        s1 < P:select 2|S
        s1 > 1|Z
        c1 < 1|Z
        c1 > Pa:select 3|P:select 4|S
        s1 < CS~01|P~01:|P~01:select 3|P:select 4|S
        s1 > 3|1|E42P05 prepared statement "~01" already exists|Z
        c1 < E42P05 prepared statement "a" already exists|Z
        c1 > B|E|S
        s1 < P:select 2|B|E|S
        """,
        **_FEW,
    )


# -- room ------------------------------------------------------------------------------------------------------------


def test_what_was_to_make_room() -> None:
    """Its Close may be discarded by an error that has not come yet: before it is prepared again, it is closed again."""
    play(
        f"""
        {_A}
        c2 > Pb:select 2|S
        s1 < CS~1|P~2:select 2|S
        s1 > 3|1|Z
        c2 < 1|Z
        c1 > Bx|Ba|S|Pc:select 2|S
        s1 < Bx|CS~2|P~1:select 1|B~1|S|CS~2|P~2:select 2|S
        s1 > E26000 no|Z|3|1|Z
        c1 < E26000 no|Z|1|Z
        """,
        max_prepared_statements=1,
    )


# -- turns -----------------------------------------------------------------------------------------------------------


def _slowly(script: str) -> int:
    """Each look at the clock takes a second. Returns how many looks there were."""
    with Stage(**_FEW) as stage:
        seconds = itertools.count()
        stage.relay.translator._clock = lambda: float(next(seconds))
        stage.play(script)
        return next(seconds)


def test_requests_that_take_long_to_translate_come_in_slices() -> None:
    """Others have their turn between two slices; nothing waits for answers."""
    looks = _slowly(
        """
        c1 > Qselect 1|Qselect 2|P:select 3|B|E|S|Qselect 4
        s1 < Qselect 1|Qselect 2|P:select 3|B|E|S|Qselect 4
        """
    )
    assert looks == 10  # one at the beginning of each of five turns, and one behind each of five requests


def test_slices_of_one_pipeline() -> None:
    """There is no answer before the Sync: nothing waits, but for others."""
    _slowly(
        """
        c1 > Pa:select 1|Ba|E|Pb:select 2|Bb|E|S
        s1 < P~1:select 1|B~1|E|P~2:select 2|B~2|E|S
        s1 > 1|2|CSELECT 1|1|2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|1|2|CSELECT 1|Z
        c1 > Qselect 3
        s1 < Qselect 3
        """
    )


def test_the_last_request_need_not_wait() -> None:
    """It is done already."""
    _slowly("c1 > Qselect 1;select 2\ns1 < Qselect 1;select 2\ns1 > Z\nc1 < Z\nc1 > Bx|S\ns1 < Bx|S")
