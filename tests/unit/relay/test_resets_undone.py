"""A reset that does not happen, or is undone: what the client had set stays."""

from __future__ import annotations

from typing import Any

from hyperpool.config import SessionState
from hyperpool.relay import session
from tests.support.relaystage import play

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


def _all(*rows: str) -> str:
    """Everything is asked for; these parameters with a dot are there, and nothing else is set."""
    names = ",".join(f"'{row.partition(',')[0]}'" for row in rows)
    named = f"{session._DEFAULTS % names};{session._VALUES % names};" if rows else ""
    answers = f"{_rows()}|{_rows(*rows)}|" if rows else ""
    listed = _rows("statement_timeout,0,0", "role,none,-", "session_authorization,u,-")
    return f"""
        s1 < Q<begin>;<no timeout>;{named}<settings>
        s1 > {_rows("statement_timeout,0,-")}|CSET|{answers}{listed}|Z
    """


def test_discard_all() -> None:
    """Its statements are gone, its parameters are not."""
    play(
        f"""
        {_COMES}
        c1 > Pa:select 1|S
        s1 < P~1:select 1|S
        s1 > 1|Z
        c1 < 1|Z
        c1 > Qdiscard all
        s1 < Qdiscard all
        s1 > CDISCARD ALL|Z
        c1 < CDISCARD ALL|Z
        {_SETS}
        {_all("x.y,1,-")}
        {_HAS}
        c1 > Pa:select 2|Ba|E|S
        s1 < P~2:select 2|B~2|E|S
        """,
        **_FOLLOW,
    )


def test_a_text_that_fails_behind_the_reset() -> None:
    """A text is one transaction: the reset is undone."""
    play(
        f"""
        {_COMES}
        c1 > Qreset x.y; select 1/0
        s1 < Qreset x.y; select 1/0
        s1 > CRESET|E22012 division by zero|Z
        c1 < CRESET|E22012 division by zero|Z
        {_ASKS}
        {_HAS}
        """,
        **_FOLLOW,
    )


def test_a_block_that_fails_behind_the_reset() -> None:
    """Before the pooler could set anything: the end of the block undoes the reset."""
    play(
        f"""
        {_COMES}
        {_BEGINS}
        c1 > Qreset x.y; select 1/0
        s1 < Qreset x.y; select 1/0
        s1 > CRESET|E22012 division by zero|ZE
        c1 < CRESET|E22012 division by zero|ZE
        c1 > Qrollback
        s1 < Qrollback
        s1 > CROLLBACK|Z
        c1 < CROLLBACK|Z
        {_ASKS}
        {_HAS}
        """,
        **_FOLLOW,
    )


def test_a_savepoint_behind_which_a_text_fails() -> None:
    """The reset is undone with the text, and the block goes on."""
    play(
        f"""
        {_COMES}
        c1 > Qbegin; savepoint a
        s1 < Qbegin; savepoint a
        s1 > CBEGIN|CSAVEPOINT|ZT
        c1 < CBEGIN|CSAVEPOINT|ZT
        c1 > Qreset x.y; select 1/0
        s1 < Qreset x.y; select 1/0
        s1 > CRESET|E22012 division by zero|ZE
        c1 < CRESET|E22012 division by zero|ZE
        c1 > Qrollback to a
        s1 < Qrollback to a
        s1 > CROLLBACK|ZT
        c1 < CROLLBACK|ZT
        c1 > Qset x.z = 1
        s1 < Qset x.z = 1
        s1 > CSET|ZT
        c1 < CSET|ZT
        """,
        **_FOLLOW,
    )


def test_a_pipeline_that_fails_behind_the_reset() -> None:
    """It is one transaction: nothing is reset."""
    play(
        f"""
        {_COMES}
        c1 > P:reset x.y|B|E|P:select 1/0|B|E|S
        s1 < P:reset x.y|B|E|P:select 1/0|B|E|S
        s1 > 1|2|CRESET|1|E22012 division by zero|Z
        c1 < 1|2|CRESET|1|E22012 division by zero|Z
        {_ASKS}
        {_HAS}
        """,
        **_FOLLOW,
    )


def test_what_is_bound_but_not_executed() -> None:
    """No parameter is set, and another setting in the same block does not look like a reset."""
    play(
        f"""
        {_COMES}
        {_BEGINS}
        c1 > Pa:reset x.y|Ba|S
        s1 < P~1:reset x.y|B~1|S
        s1 > 1|2|ZT
        c1 < 1|2|ZT
        c1 > Qset x.z = 1
        s1 < Qset x.z = 1
        s1 > CSET|ZT
        c1 < CSET|ZT
        """,
        **_FOLLOW,
    )


def test_the_encoding_in_which_the_client_has_asked_for_it() -> None:
    """It may have another one now."""
    play(
        f"""
        c1 proves x.y=é
        s1 < QSELECT pg_catalog.set_config('x.y',pg_catalog.convert_from(pg_catalog.decode('c3a9','hex'),'UTF8'),false);
        s1 > CSELECT 1|Z
        c1 < {_REPORTS}Sx.y=é|Z
        {_BEGINS}
        c1 > Qset client_encoding = 'LATIN1'
        s1 < Qset client_encoding = 'LATIN1'
        s1 > CSET|Sclient_encoding=LATIN1|ZT
        c1 < CSET|Sclient_encoding=LATIN1|ZT
        c1 > Qreset x.y
        s1 < Qreset x.y
        s1 > CRESET|ZT
        c1 < CRESET|ZT
        s1 < QSELECT pg_catalog.set_config('x.y',pg_catalog.convert_from(pg_catalog.decode('c3a9','hex'),'UTF8'),false);
        """,
        **_FOLLOW,
    )
