"""RESET, and what is like it: a client is back at what its own session began with, in the transaction that resets."""

from __future__ import annotations

import pytest

from tests.support.exchanges import BEGINS, COMMITS, ROLLS_BACK, SELECTS, SELECTS_IN_BLOCK
from tests.support.relaystage import play, play_in_pieces
from tests.support.resetscripts import (
    ALONE_HAS,
    ASKS,
    HAS,
    RESETS_IN_BLOCK,
    SETS_AGAIN,
    SETS_AGAIN_IN_BLOCK,
    asks,
    everything,
)
from tests.support.sessionscripts import COMES, FOLLOW, WELCOME

_RESET_CANCELED = """
    c1 > Qreset x.y
    s1 < Qreset x.y
    s1 > CRESET|Z
    s1 < QSET "x"."y" = '1';
    c1 < CRESET|Z
    {sent}
    s1 > E57014 canceling statement due to user request|Z
"""
"""A late cancel request hits the pooler's own query, behind which the client may have `sent` something."""

# -- outside of a transaction block ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("reset x.y", "CRESET"),
        ("set x.y to default", "CSET"),
        ("set X.y = 5; reset x.Y", "CSET|CRESET"),
        ("reset x.y; select 1", "CRESET|T|D1|CSELECT 1"),
    ],
)
def test_one_parameter(text: str, tags: str) -> None:
    """The client has its answer at once; behind it, the parameter is set."""
    play_in_pieces(
        f"""
        {COMES}
        c1 > Q{text}
        s1 < Q{text}
        s1 > {tags}|Z
        c1 < {tags}|Z
        {SETS_AGAIN}
        {ASKS}
        {HAS}
        """,
        **FOLLOW,
    )


def test_all_parameters() -> None:
    """RESET ALL, and nothing is told, as the server does not report the parameter."""
    play(
        f"""
        {COMES}
        c1 > Qreset all
        s1 < Qreset all
        s1 > CRESET|Z
        c1 < CRESET|Z
        {SETS_AGAIN}
        {everything("x.y,1,-")}
        {HAS}
        """,
        **FOLLOW,
    )


def test_all_but_what_is_set_behind_it() -> None:
    """In the same text."""
    play(
        f"""
        {COMES}
        c1 > Qreset all; set x.y = 5
        s1 < Qreset all; set x.y = 5
        s1 > CRESET|CSET|Z
        c1 < CRESET|CSET|Z
        {everything("x.y,5,-")}
        s1 < QRESET ALL
        s1 > CRESET|Z
        c1 > Qselect 1
        s1 < QSET "x"."y" = '5';
        s1 > CSET|Z
        s1 < Qselect 1
        s1 > CSELECT 1|Z
        c1 < CSELECT 1|Z
        """,
        **FOLLOW,
    )


@pytest.mark.parametrize(("text", "tag"), [("reset all", "RESET"), ("discard all", "DISCARD ALL")])
def test_what_the_server_reports(text: str, tag: str) -> None:
    """The client is told of it in front of ReadyForQuery: what it reads last is what it has."""
    play(
        f"""
        c1 comes TimeZone=Asia/Tokyo
        c1 > Qselect 1
        s1 < QSET TimeZone = 'Asia/Tokyo';|Qselect 1
        s1 > STimeZone=Asia/Tokyo|CSET|Z|CSELECT 1|Z
        c1 < CSELECT 1|Z
        c1 > Q{text}
        s1 < Q{text}
        s1 > C{tag}|STimeZone=UTC|Z
        c1 < C{tag}|STimeZone=UTC|STimeZone=Asia/Tokyo|Z
        s1 < QSET timezone = 'Asia/Tokyo';
        s1 > STimeZone=Asia/Tokyo|CSET|Z
        {everything()}
        {SELECTS}
        c2 > Qselect 2
        s1 < QSET TimeZone = 'UTC';|Qselect 2
        """,
        **FOLLOW,
    )


def test_one_that_the_server_reports() -> None:
    """No question is needed."""
    play_in_pieces(
        """
        c1 comes TimeZone=Asia/Tokyo
        c1 > Qreset timezone
        s1 < QSET TimeZone = 'Asia/Tokyo';|Qreset timezone
        s1 > STimeZone=Asia/Tokyo|CSET|Z|CRESET|STimeZone=UTC|Z
        c1 < CRESET|STimeZone=UTC|STimeZone=Asia/Tokyo|Z
        s1 < QSET timezone = 'Asia/Tokyo';
        c2 > Qselect 2
        s1 <
        s1 > STimeZone=Asia/Tokyo|CSET|Z
        s1 < QSET TimeZone = 'UTC';|Qselect 2
        s1 > STimeZone=UTC|CSET|Z|CSELECT 2|Z
        c2 < CSELECT 2|Z
        c1 > Qselect 1
        s1 < QSET TimeZone = 'Asia/Tokyo';|Qselect 1
        """,
        **FOLLOW,
    )


def test_a_late_cancel() -> None:
    """A cancel request that hits the pooler's own query is not for that: it is sent again."""
    play(
        f"""
        {COMES}
        {_RESET_CANCELED.format(sent="")}
        {SETS_AGAIN}
        {ASKS}
        {HAS}
        """,
        **FOLLOW,
    )


@pytest.mark.parametrize(
    "sent", ["Qcopy t from stdin|d5", "P:select 1|B|E", "Qselect 1"], ids=["copy", "unsynced", "query"]
)
def test_a_late_cancel_behind_which_the_client_has_gone_on(sent: str) -> None:
    """It would be sent again amid that, or too late for it: the client is ended instead."""
    play(
        f"""
        {COMES}
        {_RESET_CANCELED.format(sent=f"c1 > {sent}")}
        c1 < !57014 canceling statement due to user request|END
        s1 < {sent}|END
        """,
        **FOLLOW,
    )


def test_what_the_client_has_not_asked_for() -> None:
    """Nothing is set: the server's default is the client's."""
    play(
        f"""
        {COMES}
        c1 > Qreset x.z
        s1 < Qreset x.z
        s1 > CRESET|Z
        c1 < CRESET|Z
        {asks("x.z", "")}
        {HAS}
        """,
        **FOLLOW,
    )


def test_a_role() -> None:
    """Who the client was at login is set last."""
    play(
        f"""
        c1 proves x.y=1;role=r
        s1 < QSET "x"."y" = '1';SET ROLE 'r';
        s1 > CSET|CSET|Z
        c1 < {WELCOME}Sx.y=1|Srole=r|Z
        c1 > Qreset role; reset x.y
        s1 < Qreset role; reset x.y
        s1 > CRESET|CRESET|Z
        c1 < CRESET|CRESET|Z
        s1 < QSET "x"."y" = '1';SET ROLE 'r';
        """,
        **FOLLOW,
    )


# -- in a transaction block --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("end", "value"), [("commit", "1"), ("rollback", "1"), ("rollback", "5")])
def test_in_a_block(end: str, value: str) -> None:
    """It is set in the block, so that what undoes the reset undoes that."""
    play(
        f"""
        {COMES}
        {BEGINS}
        {RESETS_IN_BLOCK}
        {SETS_AGAIN_IN_BLOCK}
        {SELECTS_IN_BLOCK}
        c1 > Q{end}
        s1 < Q{end}
        s1 > C{end.upper()}|Z
        c1 < C{end.upper()}|Z
        {asks("x.y", value)}
        c1 > Qselect 1
        s1 < Qselect 1
        """,
        **FOLLOW,
    )


def test_a_block_in_one_text() -> None:
    """The end of the text is the end of the transaction."""
    play(
        f"""
        {COMES}
        c1 > Qbegin; reset x.y; commit
        s1 < Qbegin; reset x.y; commit
        s1 > CBEGIN|CRESET|CCOMMIT|Z
        c1 < CBEGIN|CRESET|CCOMMIT|Z
        {SETS_AGAIN}
        {ASKS}
        {HAS}
        """,
        **FOLLOW,
    )


def test_set_again_in_a_block() -> None:
    """Another text sets what was reset: that stays."""
    play(
        f"""
        {COMES}
        {BEGINS}
        {RESETS_IN_BLOCK}
        {SETS_AGAIN_IN_BLOCK}
        c1 > Qset x.y = 5
        s1 < Qset x.y = 5
        s1 > CSET|ZT
        c1 < CSET|ZT
        {COMMITS}
        {asks("x.y", "5")}
        {ALONE_HAS}
        """,
        **FOLLOW,
    )


def test_twice_in_a_block() -> None:
    """Each time."""
    once = f"""
        {RESETS_IN_BLOCK}
        {SETS_AGAIN_IN_BLOCK}
    """
    play(
        f"""
        {COMES}
        {BEGINS}
        {once}
        {once}
        {COMMITS}
        {ASKS}
        {HAS}
        """,
        **FOLLOW,
    )


# -- what does not happen ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["reset x.y", "reset all", "set x.y to default"])
def test_a_text_that_fails(text: str) -> None:
    """Nothing is reset, and nothing is set."""
    play(
        f"""
        {COMES}
        {BEGINS}
        c1 > Qselect 1/0
        s1 < Qselect 1/0
        s1 > E22012 division by zero|ZE
        c1 < E22012 division by zero|ZE
        c1 > Q{text}
        s1 < Q{text}
        s1 > E25P02 current transaction is aborted|ZE
        c1 < E25P02 current transaction is aborted|ZE
        {ROLLS_BACK}
        {ASKS if "all" not in text else everything("x.y,1,-")}
        {HAS}
        """,
        **FOLLOW,
    )


@pytest.mark.parametrize(
    ("then", "goes", "answer"), [("DSa|S", "DS~1|S", "n|ZT"), ("S", "S", "ZT"), ("CSa|S", "S", "3|ZT")]
)
def test_what_is_prepared_but_not_executed(then: str, goes: str, answer: str) -> None:
    """No parameter is set, and another setting in the same block does not look like a reset."""
    play(
        f"""
        {COMES}
        {BEGINS}
        c1 > Pa:reset x.y|{then}
        s1 < P~1:reset x.y|{goes}
        s1 > 1|{answer.removeprefix("3|")}
        c1 < 1|{answer}
        c1 > Qset x.z = 1
        s1 < Qset x.z = 1
        s1 > CSET|ZT
        c1 < CSET|ZT
        """,
        **FOLLOW,
    )
