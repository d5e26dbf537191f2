"""RESET by the extended protocol, what clients send behind it, and what may come in between."""

from __future__ import annotations

from typing import Any

from hyperpool.config import SessionState
from hyperpool.relay import session
from tests.support.relaystage import play, play_in_pieces

_FOLLOW: dict[str, Any] = {
    "max_prepared_statements": 3,
    "session_state": SessionState.FOLLOW,
    "max_pinned": 1,
}

_REPORTS = "Sapplication_name=|Sclient_encoding=UTF8|STimeZone=UTC|"

_COMES = f"""
    c1 proves x.y=1
    s1 < QSET "x"."y" = '1';
    s1 > CSET|Z
    c1 < {_REPORTS}Sx.y=1|Z
"""
"""The client c1 has asked for a parameter at login; the first server has it."""

_SETS = """
    s1 < QSET "x"."y" = '1';
    s1 > CSET|Z
"""
_SETS_IN_BLOCK = """
    s1 < QSET "x"."y" = '1';
    s1 > CSET|ZT
"""

_BEGINS = """
    c1 > Qbegin
    s1 < Qbegin
    s1 > CBEGIN|ZT
    c1 < CBEGIN|ZT
"""


def _rows(*rows: str) -> str:
    return "T|" + "".join(f"D{row}|" for row in rows) + "CSELECT 1"


def _asks(name: str, value: str) -> str:
    """The server is asked for a parameter that nobody has asked for before; it has this value."""
    return f"""
        s1 < Q{session._DEFAULTS % f"'{name}'"};{session._VALUES % f"'{name}'"}
        s1 > {_rows()}|{_rows(f"{name},{value},-")}|Z
    """


_ASKS = _asks("x.y", "1")

_HAS = """
    c1 > Qselect 1
    s1 < Qselect 1
    s1 > CSELECT 1|Z
    c1 < CSELECT 1|Z
    c2 > Qselect 2
    s1 < QRESET "x"."y";
    s1 > CRESET|Z
    s1 < Qselect 2
    s1 > CSELECT 2|Z
    c2 < CSELECT 2|Z
    c1 > Qselect 1
    s1 < QSET "x"."y" = '1';
    s1 > CSET|Z
    s1 < Qselect 1
    s1 > CSELECT 1|Z
    c1 < CSELECT 1|Z
"""
"""The client c1 has what it asked for at login, and c2 does not."""


# -- with the extended protocol ----------------------------------------------------------------------------------------


def test_by_unnamed_statements() -> None:
    """In one pipeline, or in two."""
    play_in_pieces(
        f"""
        {_COMES}
        c1 > P:reset x.y|B|E|S
        s1 < P:reset x.y|B|E|S
        s1 > 1|2|CRESET|Z
        c1 < 1|2|CRESET|Z
        {_SETS}
        {_ASKS}
        {_HAS}
        """,
        **_FOLLOW,
    )


def test_by_a_named_statement_again_and_again() -> None:
    """Executing it is enough."""
    again = """
        c1 > Ba|E|S
        s1 < B~1|E|S
        s1 > 2|CRESET|Z
        c1 < 2|CRESET|Z
    """
    value = session._VALUES % "'x.y'"
    play(
        f"""
        {_COMES}
        c1 > Pa:reset x.y|S
        s1 < P~1:reset x.y|S
        s1 > 1|Z
        c1 < 1|Z
        {again}
        {_SETS}
        {_ASKS}
        {again}
        {_SETS}
        s1 < Q{value}
        s1 > {_rows("x.y,1,-")}|Z
        {_HAS}
        """,
        **_FOLLOW,
    )


def test_reset_and_set_in_one_pipeline() -> None:
    """They are one transaction, and the last word counts."""
    play_in_pieces(
        f"""
        {_COMES}
        c1 > P:reset x.y|B|E|P:set x.y = 5|B|E|S
        s1 < P:reset x.y|B|E|P:set x.y = 5|B|E|S
        s1 > 1|2|CRESET|1|2|CSET|Z
        c1 < 1|2|CRESET|1|2|CSET|Z
        {_asks("x.y", "5")}
        """,
        **_FOLLOW,
    )


def test_set_and_reset_in_one_pipeline() -> None:
    """The same, the other way round."""
    play_in_pieces(
        f"""
        {_COMES}
        c1 > P:set x.y = 5|B|E|P:reset x.y|B|E|S
        s1 < P:set x.y = 5|B|E|P:reset x.y|B|E|S
        s1 > 1|2|CSET|1|2|CRESET|Z
        c1 < 1|2|CSET|1|2|CRESET|Z
        {_SETS}
        {_ASKS}
        {_HAS}
        """,
        **_FOLLOW,
    )


# -- what comes behind it ----------------------------------------------------------------------------------------------


def test_what_is_sent_behind_it_waits() -> None:
    """Until the parameter is there: it must find that."""
    play_in_pieces(
        f"""
        {_COMES}
        c1 > Qreset x.y|Qshow x.y
        s1 < Qreset x.y
        s1 > CRESET|Z
        c1 < CRESET|Z
        {_SETS}
        {_ASKS}
        s1 < Qshow x.y
        s1 > T|D1|CSHOW|Z
        c1 < T|D1|CSHOW|Z
        {_HAS}
        """,
        **_FOLLOW,
    )


def test_two_in_one_write() -> None:
    """Each has its turn."""
    play_in_pieces(
        f"""
        {_COMES}
        c1 > Qreset x.y|Qset x.y = 5|Qreset x.y|Qselect 1
        s1 < Qreset x.y
        s1 > CRESET|Z
        c1 < CRESET|Z
        {_SETS}
        {_ASKS}
        s1 < Qset x.y = 5|Qreset x.y
        s1 > CSET|Z|CRESET|Z
        c1 < CSET|Z|CRESET|Z
        {_SETS}
        s1 < Q{session._VALUES % "'x.y'"}
        s1 > {_rows("x.y,1,-")}|Z
        s1 < Qselect 1
        s1 > CSELECT 1|Z
        c1 < CSELECT 1|Z
        {_HAS}
        """,
        **_FOLLOW,
    )


def test_pipelines_behind_it() -> None:
    """The unnamed statement, too, is prepared behind what the pooler has sent."""
    play(
        f"""
        {_COMES}
        c1 > P:reset x.y|B|E|S|P:show x.y|B|E|S
        s1 < P:reset x.y|B|E|S
        s1 > 1|2|CRESET|Z
        c1 < 1|2|CRESET|Z
        {_SETS}
        {_ASKS}
        s1 < P:show x.y|B|E|S
        s1 > 1|2|D1|CSHOW|Z
        c1 < 1|2|D1|CSHOW|Z
        {_HAS}
        """,
        **_FOLLOW,
    )


def test_the_unnamed_statement_is_there_afterwards() -> None:
    """What the pooler sends destroys it on the server."""
    play(
        f"""
        {_COMES}
        {_BEGINS}
        c1 > P:reset x.y|B|E|S
        s1 < P:reset x.y|B|E|S
        s1 > 1|2|CRESET|ZT
        c1 < 1|2|CRESET|ZT
        {_SETS_IN_BLOCK}
        c1 > B|E|S
        s1 < P:reset x.y|B|E|S
        s1 > 1|2|CRESET|ZT
        c1 < 2|CRESET|ZT
        {_SETS_IN_BLOCK}
        """,
        **_FOLLOW,
    )


# -- what may come in between ------------------------------------------------------------------------------------------


def test_the_client_leaves_before_the_answer() -> None:
    """The server is closed, as nobody reads its answer."""
    play(
        f"""
        {_COMES}
        c1 > Qreset x.y
        s1 < Qreset x.y
        c1 leaves
        s1 < END
        """,
        **_FOLLOW,
    )


def test_the_client_leaves_while_the_parameter_is_set() -> None:
    """Its answer has come; nothing of it may be left to the next client."""
    play(
        f"""
        {_COMES}
        c1 > Qreset x.y
        s1 < Qreset x.y
        s1 > CRESET|Z
        c1 < CRESET|Z
        s1 < QSET "x"."y" = '1';
        c1 leaves
        s1 < END
        """,
        **_FOLLOW,
    )


def test_the_client_leaves_while_it_is_asked_for() -> None:
    """The server is cleaned for the next client."""
    play(
        f"""
        {_COMES}
        c1 > Qreset x.y
        s1 < Qreset x.y
        s1 > CRESET|Z
        c1 < CRESET|Z
        {_SETS}
        c1 leaves
        c2 > Qselect 2
        {_ASKS}
        s1 < QRESET "x"."y";
        s1 > CRESET|Z
        s1 < Qselect 2
        """,
        **_FOLLOW,
    )


def test_the_server_refuses_what_is_set() -> None:
    """The client would go on with another value than it has asked for: it is told, and goes."""
    play(
        f"""
        {_COMES}
        c1 > Qreset x.y
        s1 < Qreset x.y
        s1 > CRESET|Z
        c1 < CRESET|Z
        s1 < QSET "x"."y" = '1';
        s1 > E42501 permission denied|Z
        c1 < !42501 permission denied|END
        s1 < END
        """,
        **_FOLLOW,
    )


def test_the_server_dies_meanwhile() -> None:
    """The client is told."""
    play(
        f"""
        {_COMES}
        c1 > Qreset x.y
        s1 < Qreset x.y
        s1 > CRESET|Z
        c1 < CRESET|Z
        s1 < QSET "x"."y" = '1';
        s1 dies
        c1 < !08006 server closed the connection|END
        """,
        **_FOLLOW,
    )
