"""A reset that does not happen, or is undone: what the client had set stays."""

from __future__ import annotations

from tests.support.exchanges import BEGINS, PREPARES, ROLLS_BACK
from tests.support.relaystage import play
from tests.support.resetscripts import ASKS, HAS, RESETS_IN_BLOCK, SETS_AGAIN, everything
from tests.support.sessionscripts import COMES, FOLLOW, WELCOME


def test_discard_all() -> None:
    """Its statements are gone, its parameters are not."""
    play(
        f"""
        {COMES}
        {PREPARES}
        c1 > Qdiscard all
        s1 < Qdiscard all
        s1 > CDISCARD ALL|Z
        c1 < CDISCARD ALL|Z
        {SETS_AGAIN}
        {everything("x.y,1,-")}
        {HAS}
        c1 > Pa:select 2|Ba|E|S
        s1 < P~2:select 2|B~2|E|S
        """,
        **FOLLOW,
    )


def test_a_text_that_fails_behind_the_reset() -> None:
    """A text is one transaction: the reset is undone."""
    play(
        f"""
        {COMES}
        c1 > Qreset x.y; select 1/0
        s1 < Qreset x.y; select 1/0
        s1 > CRESET|E22012 division by zero|Z
        c1 < CRESET|E22012 division by zero|Z
        {ASKS}
        {HAS}
        """,
        **FOLLOW,
    )


def test_a_block_that_fails_behind_the_reset() -> None:
    """Before the pooler could set anything: the end of the block undoes the reset."""
    play(
        f"""
        {COMES}
        {BEGINS}
        c1 > Qreset x.y; select 1/0
        s1 < Qreset x.y; select 1/0
        s1 > CRESET|E22012 division by zero|ZE
        c1 < CRESET|E22012 division by zero|ZE
        {ROLLS_BACK}
        {ASKS}
        {HAS}
        """,
        **FOLLOW,
    )


def test_a_savepoint_behind_which_a_text_fails() -> None:
    """The reset is undone with the text, and the block goes on."""
    play(
        f"""
        {COMES}
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
        **FOLLOW,
    )


def test_a_pipeline_that_fails_behind_the_reset() -> None:
    """It is one transaction: nothing is reset."""
    play(
        f"""
        {COMES}
        c1 > P:reset x.y|B|E|P:select 1/0|B|E|S
        s1 < P:reset x.y|B|E|P:select 1/0|B|E|S
        s1 > 1|2|CRESET|1|E22012 division by zero|Z
        c1 < 1|2|CRESET|1|E22012 division by zero|Z
        {ASKS}
        {HAS}
        """,
        **FOLLOW,
    )


def test_what_is_bound_but_not_executed() -> None:
    """No parameter is set, and another setting in the same block does not look like a reset."""
    play(
        f"""
        {COMES}
        {BEGINS}
        c1 > Pa:reset x.y|Ba|S
        s1 < P~1:reset x.y|B~1|S
        s1 > 1|2|ZT
        c1 < 1|2|ZT
        c1 > Qset x.z = 1
        s1 < Qset x.z = 1
        s1 > CSET|ZT
        c1 < CSET|ZT
        """,
        **FOLLOW,
    )


def test_the_encoding_in_which_the_client_has_asked_for_it() -> None:
    """It may have another one now."""
    play(
        f"""
        c1 proves x.y=é
        s1 < QSELECT pg_catalog.set_config('x.y',pg_catalog.convert_from(pg_catalog.decode('c3a9','hex'),'UTF8'),false);
        s1 > CSELECT 1|Z
        c1 < {WELCOME}Sx.y=é|Z
        {BEGINS}
        c1 > Qset client_encoding = 'LATIN1'
        s1 < Qset client_encoding = 'LATIN1'
        s1 > CSET|Sclient_encoding=LATIN1|ZT
        c1 < CSET|Sclient_encoding=LATIN1|ZT
        {RESETS_IN_BLOCK}
        s1 < QSELECT pg_catalog.set_config('x.y',pg_catalog.convert_from(pg_catalog.decode('c3a9','hex'),'UTF8'),false);
        """,
        **FOLLOW,
    )
