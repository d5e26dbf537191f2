"""RESET in session mode: a client is back at what its session began with, and no text is looked into."""

from __future__ import annotations

from typing import Any, Final

import pytest

from hyperpool.config import PoolMode, SessionState
from hyperpool.relay.parameters import reassignment
from tests.support.exchanges import BEGINS, ROLLS_BACK
from tests.support.relaystage import play, play_in_pieces

_SESSION: Final[dict[str, Any]] = {"pool_mode": PoolMode.SESSION, "session_state": SessionState.FOLLOW}

_BEGUN: Final = reassignment({"timezone": "Asia/Tokyo", "work_mem": "7MB"}, "u", "UTF8")

_COMES: Final = """
    c1 comes TimeZone=Asia/Tokyo;work_mem=7MB
    c1 > Qselect 1
    s1 < QSET TimeZone = 'Asia/Tokyo';SET work_mem = '7MB';|Qselect 1
    s1 > STimeZone=Asia/Tokyo|CSET|CSET|Z|CSELECT 1|Z
    c1 < CSELECT 1|Z
"""
"""The client c1 has asked for two parameters at login; servers report one of them."""


@pytest.mark.parametrize(
    ("requests", "answer"),
    [
        ("Qreset work_mem", "CRESET|Z"),
        ("Qselect 1; reset all", "T|D1|CSELECT 1|CRESET|Z"),
        ("Qdiscard all", "CDISCARD ALL|Z"),
        ("P:reset all|B|E|S", "1|2|CRESET|Z"),
    ],
)
def test_set_again(requests: str, answer: str) -> None:
    """Behind the answer, and what the server then reports is told: nobody knew what the client has reset."""
    play_in_pieces(
        f"""
        {_COMES}
        c1 > {requests}
        s1 < {requests}
        s1 > {answer}
        c1 < {answer}
        s1 < Q{_BEGUN}
        s1 > T|D7MB|STimeZone=Asia/Tokyo|CSELECT 1|Z
        c1 < STimeZone=Asia/Tokyo
        c1 > Qselect 2
        s1 < Qselect 2
        s1 > CSELECT 1|Z
        c1 < CSELECT 1|Z
        """,
        **_SESSION,
    )


@pytest.mark.parametrize("canceled", [False, True], ids=["first", "again"])
@pytest.mark.parametrize(
    ("sent", "rest", "together", "answer"),
    [
        (r"\x510000000d73656c", r"\x656374203100", "Qselect 1", "CSELECT 1|Z"),
        ("Qcopy t from stdin|d5", "d5|c", "Qcopy t from stdin|d5|d5|c", "G|CCOPY 2|Z"),
        ("P:select 1|B|E", "S", "P:select 1|B|E|S", "1|2|CSELECT 1|Z"),
    ],
    ids=["half a message", "copy", "unsynced"],
)
def test_not_amid_what_the_client_has_sent_meanwhile(
    sent: str, rest: str, together: str, answer: str, *, canceled: bool
) -> None:
    """It would be part of the client's message, or of its COPY, or end its transaction: it comes behind that.

    So it does if it has been sent before, and a late cancel request has hit it.
    """
    too_late = f"""
        s1 < Q{_BEGUN}
        c1 > {sent}
        s1 > E57014 canceling statement due to user request|Z
    """
    play(
        f"""
        {_COMES}
        c1 > Qreset all
        s1 < Qreset all
        {"" if canceled else f"c1 > {sent}"}
        s1 > CRESET|Z
        c1 < CRESET|Z
        {too_late if canceled else ""}
        c1 > {rest}
        s1 < {together}
        s1 > {answer}
        c1 < {answer}
        s1 < Q{_BEGUN}
        s1 > T|CSELECT 2|Z
        c1 > Qselect 2
        s1 < Qselect 2
        """,
        **_SESSION,
    )


@pytest.mark.parametrize("parameters", ["TimeZone=Asia/Tokyo", "application_name=mine", ""])
def test_what_servers_report_alone(parameters: str) -> None:
    """A client that has asked for nothing else costs nothing, and is at the server's values, as with pgbouncer."""
    play(
        f"""
        c1 comes {parameters}
        c1 > Qselect 1
        """
        + (
            f"""
        s1 < QSET {parameters.replace("=", " = '")}';|Qselect 1
        s1 > CSET|Z|CSELECT 1|Z
        """
            if parameters
            else """
        s1 < Qselect 1
        s1 > CSELECT 1|Z
        """
        )
        + """
        c1 < CSELECT 1|Z
        c1 > Qreset all
        s1 < Qreset all
        s1 > CRESET|Z
        c1 < CRESET|Z
        s1 <
        """,
        **_SESSION,
    )


def test_texts_that_reset_nothing() -> None:
    """Nothing is asked."""
    play(
        f"""
        {_COMES}
        c1 > Qset work_mem = 5
        s1 < Qset work_mem = 5
        s1 > CSET|Z
        c1 < CSET|Z
        s1 <
        """,
        **_SESSION,
    )


def test_a_block_that_fails_behind_the_reset() -> None:
    """It is set again as soon as that is possible; if the block has undone the reset, there is nothing to set."""
    play(
        f"""
        {_COMES}
        {BEGINS}
        c1 > Qreset all; select 1/0
        s1 < Qreset all; select 1/0
        s1 > CRESET|E22012 division by zero|ZE
        c1 < CRESET|E22012 division by zero|ZE
        s1 <
        {ROLLS_BACK}
        s1 < Q{_BEGUN}
        s1 > T|CSELECT 0|Z
        c1 <
        """,
        **_SESSION,
    )


def test_a_late_cancel() -> None:
    """A cancel request that hits the pooler's own query is not for that: it is sent again, but not for ever."""
    canceled = f"""
        s1 < Q{_BEGUN}
        s1 > E57014 canceling statement due to user request|Z
    """
    reset = f"""
        {_COMES}
        c1 > Qreset all
        s1 < Qreset all
        s1 > CRESET|Z
        c1 < CRESET|Z
    """
    play(
        f"""
        {reset}
        {canceled * 5}
        s1 < Q{_BEGUN}
        s1 > T|CSELECT 0|Z
        c1 > Qselect 1
        s1 < Qselect 1
        """,
        **_SESSION,
    )
    play(
        f"""
        {reset}
        {canceled * 6}
        c1 < !57014 canceling statement due to user request|END
        s1 < END
        """,
        **_SESSION,
    )


def test_the_next_client() -> None:
    """It has not asked for anything: its resets are its own."""
    play(
        f"""
        {_COMES}
        c1 leaves
        s1 < QRESET ALL
        s1 > CRESET|STimeZone=UTC|Z
        s1 < QDISCARD ALL
        s1 > CDISCARD ALL|Z
        c2 > Qreset all
        s1 < Qreset all
        s1 > CRESET|Z
        c2 < CRESET|Z
        s1 <
        """,
        **_SESSION,
        server_reset_query="DISCARD ALL",
    )
