"""Sessions that ask for too much, or whose changes fail halfway: nobody hangs, and nobody else pays for it."""

from __future__ import annotations

import itertools

import pytest

from hyperpool.relay import following, session
from hyperpool.relay.session import Pinned, Suspicion
from hyperpool.sql.effects import EVERYTHING, Effects
from tests.support.exchanges import BEGINS
from tests.support.relaystage import Stage, play, play_in_pieces
from tests.support.resetscripts import ALONE_HAS, ASKS, RESETS, RESETS_IN_BLOCK, SETS_AGAIN
from tests.support.sessionscripts import COMES, FOLLOW, SETS_WORK_MEM, defaults_and_values, rows, values

# -- COPY --------------------------------------------------------------------------------------------------------------


def test_the_data_of_a_copy_behind_a_reset_in_one_text() -> None:
    """The server waits for it, and answers nothing before."""
    play_in_pieces(
        f"""
        {COMES}
        c1 > Qreset x.y; copy t from stdin|d3|d4|c
        s1 < Qreset x.y; copy t from stdin|d3|d4|c
        s1 > CRESET|G|CCOPY 2|Z
        c1 < CRESET|G|CCOPY 2|Z
        {SETS_AGAIN}
        {ASKS}
        """,
        **FOLLOW,
    )


def test_a_copy_behind_a_reset_that_the_client_gives_up() -> None:
    """What the server says to that ends it; the reset is undone with it."""
    play(
        f"""
        {COMES}
        c1 > Qreset x.y; copy t from stdin|fno more
        s1 < Qreset x.y; copy t from stdin|fno more
        s1 > CRESET|G|E57014 COPY from stdin failed: no more|Z
        s1 < Q{defaults_and_values("x.y")}
        c1 < CRESET|G|E57014 COPY from stdin failed: no more|Z
        s1 > {rows()}|{rows("x.y,1,-")}|Z
        """,
        **FOLLOW,
    )


def test_the_data_of_a_copy_whose_text_takes_long_to_translate() -> None:
    """Others have their turn, but no answer is waited for: the server owes none before it has the data."""
    with Stage(**FOLLOW) as stage:
        seconds = itertools.count()
        stage.relay.translator._clock = lambda: float(next(seconds))
        stage.play(
            """
            c1 > Qcopy t from stdin|d3|d4|c|Qselect 2
            s1 < Qcopy t from stdin|d3|d4|c|Qselect 2
            s1 > G|CCOPY 2|Z|CSELECT 1|Z
            c1 < G|CCOPY 2|Z|CSELECT 1|Z
            """
        )


# -- what fails halfway ------------------------------------------------------------------------------------------------


def test_a_timeout_that_was_lifted_for_somebody_whose_parameters_are_refused() -> None:
    """Whose it is has it again."""
    play(
        f"""
        c1 > Qset statement_timeout = '7s'
        s1 < Qset statement_timeout = '7s'
        s1 > CSET|Z
        s1 < Q<no timeout>;{session._DEFAULTS % "'statement_timeout'"}
        c1 < CSET|Z
        s1 > {rows("statement_timeout,7s,-")}|CSET|{rows("statement_timeout,0,0")}|Z
        c2 proves work_mem=garbage
        s1 < QRESET statement_timeout|QRESET statement_timeout;SET work_mem = 'garbage';
        s1 > CRESET|Z|E22023 invalid value|Z
        c2 < !22023 invalid value|END
        c1 > Qselect 1
        s1 < QSET statement_timeout = '7s';|Qselect 1
        s1 > CSET|Z|CSELECT 1|Z
        c1 < CSELECT 1|Z
        """,
        **FOLLOW,
    )


def test_a_late_cancel_hits_what_is_set_behind_a_reset() -> None:
    """It was meant for what is over: the parameter is set again."""
    play(
        f"""
        {COMES}
        {RESETS}
        s1 < QSET "x"."y" = '1';
        s1 > E57014 canceling statement due to user request|Z
        {SETS_AGAIN}
        {ASKS}
        c1 > Qselect 1
        s1 < Qselect 1
        """,
        **FOLLOW,
    )


def test_a_late_cancel_hits_what_is_set_behind_a_reset_in_a_block() -> None:
    """The block has failed, and undoes the reset: the client hears of it with its next request, and stays."""
    play(
        f"""
        {COMES}
        {BEGINS}
        {RESETS_IN_BLOCK}
        s1 < QSET "x"."y" = '1';
        s1 > E57014 canceling statement due to user request|ZE
        s1 < QSET "x"."y" = '1';
        s1 > E25P02 current transaction is aborted|ZE
        c1 > Qselect 1
        s1 < Qselect 1
        s1 > E25P02 current transaction is aborted|ZE
        c1 < E25P02 current transaction is aborted|ZE
        c1 > Qrollback
        s1 < Qrollback
        s1 > CROLLBACK|Z
        s1 < Q{defaults_and_values("x.y")}
        c1 < CROLLBACK|Z
        s1 > {rows()}|{rows("x.y,1,-")}|Z
        """,
        **FOLLOW,
    )


# -- defaults ----------------------------------------------------------------------------------------------------------


def test_what_another_server_begins_with_is_asked_of_it() -> None:
    """The default may have been changed between the two logins: what was one is a value of the client's own now."""
    play(
        f"""
        {SETS_WORK_MEM}
        s1 dies
        c1 > Qset work_mem = '4MB'
        s2 < QSET work_mem = '7MB';|Qset work_mem = '4MB'
        s2 > CSET|Z|CSET|Z
        s2 < Q{defaults_and_values("work_mem")}
        c1 < CSET|Z
        s2 > {rows("work_mem,4MB,9MB")}|{rows("work_mem,4MB,-")}|Z
        c2 > Qselect 2
        s2 < QRESET work_mem;|Qselect 2
        s2 > CRESET|Z|CSELECT 1|Z
        c2 < CSELECT 1|Z
        """,
        **FOLLOW,
    )


@pytest.mark.parametrize(
    ("after", "asked", "told"),
    [
        (following._KNOWN_TIME - 1, values("work_mem"), ""),
        (following._KNOWN_TIME + 1, defaults_and_values("work_mem"), rows("work_mem,4MB,9MB") + "|"),
    ],
)
def test_what_a_server_begins_with_is_not_known_for_ever(after: float, asked: str, told: str) -> None:
    """A changed configuration file changes the defaults of sessions that are open."""
    follows = "QRESET work_mem;|Qselect 2" if told else "Qselect 2"
    play(
        f"""
        {SETS_WORK_MEM}
        wait {after}
        c1 > Qset work_mem = '4MB'
        s1 < Q
        s1 > I|Z
        s1 < Qset work_mem = '4MB'
        s1 > CSET|Z
        s1 < Q{asked}
        c1 < CSET|Z
        s1 > {told}{rows("work_mem,4MB,-")}|Z
        c2 > Qselect 2
        s1 < {follows}
        """,
        **FOLLOW,
    )


# -- too much ----------------------------------------------------------------------------------------------------------


_LIMIT = 100


def _is_told(value: str) -> str:
    """A function has set something; the server tells what."""
    return f"""
        c1 > Qselect set_config('x.y', f(), false)
        s1 < Qselect set_config('x.y', f(), false)
        s1 > CSELECT 1|Z
        s1 < Q{defaults_and_values("x.y")}
        c1 < CSELECT 1|Z
        s1 > {rows()}|{rows(f"x.y,{value},-")}|Z
    """


def _play_with_limit(script: str) -> None:
    with Stage(**FOLLOW) as stage:
        stage.relay.max_settings = _LIMIT
        stage.play(script)


def test_values_that_are_not_too_long() -> None:
    """They follow their client."""
    _play_with_limit(
        f"""
        {_is_told("v" * (_LIMIT - len("x.y")))}
        {ALONE_HAS}
        """
    )


def test_values_that_are_too_long() -> None:
    """They end the client, and the server connection that has them: nobody else will find them."""
    _play_with_limit(
        f"""
        {_is_told("v" * (_LIMIT - len("x.y") + 1))}
        c1 < !53400 the session's state cannot be followed: its parameters have more than 262144 bytes|END
        s1 < X|END
        """
    )


def test_texts_that_speak_of_many_names() -> None:
    """They cost nothing in a failed transaction: from some number on, everything is asked for, and none is kept."""
    suspicion = Suspicion()
    for number in range(10):
        names = " ".join(f"a{number}.b{other}" for other in range(100))
        suspicion.add(EVERYTHING, f"do '{names}'".encode(), Pinned(0), ())
    assert len(suspicion.settings) == session._MAX_NAMES
    suspicion.add(Effects(settings=frozenset({"one.more"})), b"set one.more = 1", Pinned(0), ())
    assert not suspicion.settings
    assert suspicion.everything
    assert suspicion.taints
