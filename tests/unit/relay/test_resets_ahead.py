"""RESET by the extended protocol, what clients send behind it, and what may come in between."""

from __future__ import annotations

from hyperpool.relay import session
from tests.support.exchanges import BEGINS
from tests.support.relaystage import play, play_in_pieces
from tests.support.resetscripts import ASKS, HAS, RESETS, SETS_AGAIN, SETS_AGAIN_IN_BLOCK, SHOWS, asks
from tests.support.sessionscripts import COMES, FOLLOW, rows

# -- with the simple protocol ------------------------------------------------------------------------------------------


def test_amid_a_message() -> None:
    """PostgreSQL ignores COPY data where nothing is copied: but there is no room for the pooler's query within it."""
    play(
        rf"""
        {COMES}
        c1 > Qreset x.y
        s1 < Qreset x.y
        c1 > \x640000000a0000
        s1 > CRESET|Z
        c1 < !08P01 unexpected CopyData message outside of COPY|END
        s1 < \x640000000a000058000000|\x04|END
        """,
        **FOLLOW,
    )


# -- with the extended protocol ----------------------------------------------------------------------------------------


def test_by_unnamed_statements() -> None:
    """In one pipeline, or in two."""
    play_in_pieces(
        f"""
        {COMES}
        c1 > P:reset x.y|B|E|S
        s1 < P:reset x.y|B|E|S
        s1 > 1|2|CRESET|Z
        c1 < 1|2|CRESET|Z
        {SETS_AGAIN}
        {ASKS}
        {HAS}
        """,
        **FOLLOW,
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
        {COMES}
        c1 > Pa:reset x.y|S
        s1 < P~1:reset x.y|S
        s1 > 1|Z
        c1 < 1|Z
        {again}
        {SETS_AGAIN}
        {ASKS}
        {again}
        {SETS_AGAIN}
        s1 < Q{value}
        s1 > {rows("x.y,1,-")}|Z
        {HAS}
        """,
        **FOLLOW,
    )


def test_reset_and_set_in_one_pipeline() -> None:
    """They are one transaction, and the last word counts."""
    play_in_pieces(
        f"""
        {COMES}
        c1 > P:reset x.y|B|E|P:set x.y = 5|B|E|S
        s1 < P:reset x.y|B|E|P:set x.y = 5|B|E|S
        s1 > 1|2|CRESET|1|2|CSET|Z
        c1 < 1|2|CRESET|1|2|CSET|Z
        {asks("x.y", "5")}
        """,
        **FOLLOW,
    )


def test_reset_and_copy_in_one_pipeline() -> None:
    """The Sync that came with them is ignored by the copy: they end with the one behind its data."""
    play_in_pieces(
        f"""
        {COMES}
        c1 > P:reset x.y|B|E|P:copy t from stdin|B|E|S
        s1 < P:reset x.y|B|E|P:copy t from stdin|B|E|S
        s1 > 1|2|CRESET|1|2|G
        c1 < 1|2|CRESET|1|2|G
        c1 > d5|c|S
        s1 < d5|c|S
        s1 > CCOPY 1|Z
        c1 < CCOPY 1|Z
        {SETS_AGAIN}
        {ASKS}
        {HAS}
        """,
        **FOLLOW,
    )


def test_reset_and_a_copy_that_fails_in_one_pipeline() -> None:
    """The reset is undone with it, and what the client has set since its login is still there."""
    play_in_pieces(
        f"""
        {COMES}
        c1 > Qset x.y = 5
        s1 < Qset x.y = 5
        s1 > CSET|Z
        c1 < CSET|Z
        {asks("x.y", "5")}
        c1 > P:reset x.y|B|E|P:copy t from stdin|B|E|S
        s1 < P:reset x.y|B|E|P:copy t from stdin|B|E|S
        s1 > 1|2|CRESET|1|2|G
        c1 < 1|2|CRESET|1|2|G
        c1 > d5|c|S
        s1 < d5|c|S
        s1 > E22P04 wrong data|Z
        c1 < E22P04 wrong data|Z
        """,
        **FOLLOW,
    )


def test_set_and_reset_in_one_pipeline() -> None:
    """The same, the other way round."""
    play_in_pieces(
        f"""
        {COMES}
        c1 > P:set x.y = 5|B|E|P:reset x.y|B|E|S
        s1 < P:set x.y = 5|B|E|P:reset x.y|B|E|S
        s1 > 1|2|CSET|1|2|CRESET|Z
        c1 < 1|2|CSET|1|2|CRESET|Z
        {SETS_AGAIN}
        {ASKS}
        {HAS}
        """,
        **FOLLOW,
    )


# -- what comes behind it ----------------------------------------------------------------------------------------------


def test_what_is_sent_behind_it_waits() -> None:
    """Until the parameter is there: it must find that."""
    play_in_pieces(
        f"""
        {COMES}
        c1 > Qreset x.y|Qshow x.y
        s1 < Qreset x.y
        s1 > CRESET|Z
        c1 < CRESET|Z
        {SHOWS}
        {HAS}
        """,
        **FOLLOW,
    )


def test_two_in_one_write() -> None:
    """Each has its turn."""
    play_in_pieces(
        f"""
        {COMES}
        c1 > Qreset x.y|Qset x.y = 5|Qreset x.y|Qselect 1
        s1 < Qreset x.y
        s1 > CRESET|Z
        c1 < CRESET|Z
        {SETS_AGAIN}
        {ASKS}
        s1 < Qset x.y = 5|Qreset x.y
        s1 > CSET|Z|CRESET|Z
        c1 < CSET|Z|CRESET|Z
        {SETS_AGAIN}
        s1 < Q{session._VALUES % "'x.y'"}
        s1 > {rows("x.y,1,-")}|Z
        s1 < Qselect 1
        s1 > CSELECT 1|Z
        c1 < CSELECT 1|Z
        {HAS}
        """,
        **FOLLOW,
    )


def test_pipelines_behind_it() -> None:
    """The unnamed statement, too, is prepared behind what the pooler has sent."""
    play(
        f"""
        {COMES}
        c1 > P:reset x.y|B|E|S|P:show x.y|B|E|S
        s1 < P:reset x.y|B|E|S
        s1 > 1|2|CRESET|Z
        c1 < 1|2|CRESET|Z
        {SETS_AGAIN}
        {ASKS}
        s1 < P:show x.y|B|E|S
        s1 > 1|2|D1|CSHOW|Z
        c1 < 1|2|D1|CSHOW|Z
        {HAS}
        """,
        **FOLLOW,
    )


def test_the_unnamed_statement_is_there_afterwards() -> None:
    """What the pooler sends destroys it on the server."""
    play(
        f"""
        {COMES}
        {BEGINS}
        c1 > P:reset x.y|B|E|S
        s1 < P:reset x.y|B|E|S
        s1 > 1|2|CRESET|ZT
        c1 < 1|2|CRESET|ZT
        {SETS_AGAIN_IN_BLOCK}
        c1 > B|E|S
        s1 < P:reset x.y|B|E|S
        s1 > 1|2|CRESET|ZT
        c1 < 2|CRESET|ZT
        {SETS_AGAIN_IN_BLOCK}
        """,
        **FOLLOW,
    )


# -- what may come in between ------------------------------------------------------------------------------------------


def test_the_client_leaves_before_the_answer() -> None:
    """The server is closed, as nobody reads its answer."""
    play(
        f"""
        {COMES}
        c1 > Qreset x.y
        s1 < Qreset x.y
        c1 leaves
        s1 < END
        """,
        **FOLLOW,
    )


def test_the_client_leaves_while_the_parameter_is_set() -> None:
    """Its answer has come; nothing of it may be left to the next client."""
    play(
        f"""
        {COMES}
        {RESETS}
        s1 < QSET "x"."y" = '1';
        c1 leaves
        s1 < END
        """,
        **FOLLOW,
    )


def test_the_client_leaves_while_it_is_asked_for() -> None:
    """The server is cleaned for the next client."""
    play(
        f"""
        {COMES}
        {RESETS}
        {SETS_AGAIN}
        c1 leaves
        c2 > Qselect 2
        {ASKS}
        s1 < QRESET "x"."y";
        s1 > CRESET|Z
        s1 < Qselect 2
        """,
        **FOLLOW,
    )


def test_the_server_refuses_what_is_set() -> None:
    """The client would go on with another value than it has asked for: it is told, and goes."""
    play(
        f"""
        {COMES}
        {RESETS}
        s1 < QSET "x"."y" = '1';
        s1 > E42501 permission denied|Z
        c1 < !42501 permission denied|END
        s1 < END
        """,
        **FOLLOW,
    )


def test_the_server_dies_meanwhile() -> None:
    """The client is told."""
    play(
        f"""
        {COMES}
        {RESETS}
        s1 < QSET "x"."y" = '1';
        s1 dies
        c1 < !08006 server closed the connection|END
        """,
        **FOLLOW,
    )
