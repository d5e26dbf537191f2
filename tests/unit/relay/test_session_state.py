"""Session state of clients that share servers: asking what a text has done, keeping servers, and cleaning them."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpool.config import SessionState
from tests.support.exchanges import BEGINS, PREPARES, exchange
from tests.support.relaystage import Stage, play, play_in_pieces
from tests.support.sessionscripts import FOLLOW, FOLLOW_ON_TWO, FREE, LISTENING, LISTENS, NOTHING, OTHER

_RESET: dict[str, Any] = {**FOLLOW_ON_TWO, "session_state": SessionState.RESET}


# -- the question ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["select 1", "begin", "insert into t values (1)", "set local x.y = 1", "commit"]
)
def test_what_changes_nothing_costs_nothing(text: str) -> None:
    """No question is asked."""
    play_in_pieces(
        f"""
        {exchange(f"Q{text}", "CDONE|Z")}
        {FREE}
        """,
        **FOLLOW_ON_TWO,
    )


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("create temp table t ()", "t,f,f,f,f"),
        ("listen x", "f,t,f,f,f"),
        ("select pg_advisory_lock(1)", "f,f,t,f,f"),
        ("declare c cursor with hold for select 1", "f,f,f,t,f"),
        ("prepare p as select 1", "f,f,f,f,t"),
    ],
)
@pytest.mark.parametrize(
    ("asked", "sent", "answered"),
    [
        ("Q{}", "Q{}", "CDONE|Z"),
        ("P:{}|B|E|S", "P:{}|B|E|S", "1|2|CDONE|Z"),
        ("Pa:{}|Ba|E|S", "P~1:{}|B~1|E|S", "1|2|CDONE|Z"),
    ],
    ids=["query", "unnamed", "named"],
)
def test_what_lasts_keeps_the_server(text: str, row: str, asked: str, sent: str, answered: str) -> None:
    """If the server says that there is something."""
    done = f"""
        c1 > {asked.format(text)}
        s1 < {sent.format(text)}
        s1 > {answered}
        s1 < Q<pins>
        c1 < {answered}
    """
    play_in_pieces(f"{done}\ns1 > T|D{row}|CSELECT 1|Z\n{OTHER}", **FOLLOW_ON_TWO)
    play_in_pieces(f"{done}\ns1 > {NOTHING}\n{FREE}", **FOLLOW_ON_TWO)


def test_the_question_is_asked_when_the_transaction_has_ended() -> None:
    """It may roll back."""
    play(
        f"""
        {BEGINS}
        c1 > Qcreate temp table t ()
        s1 < Qcreate temp table t ()
        s1 > CCREATE TABLE|ZT
        c1 < CCREATE TABLE|ZT
        c1 > Qrollback
        s1 < Qrollback
        s1 > CROLLBACK|Z
        s1 < Q<pins>
        c1 < CROLLBACK|Z
        s1 > {NOTHING}
        {FREE}
        """,
        **FOLLOW_ON_TWO,
    )


def test_a_statement_that_is_only_prepared_raises_no_question() -> None:
    """It is executed later, perhaps by its name alone, and perhaps on another server."""
    play(
        f"""
        c1 > Pa:listen x|DSa|S
        s1 < P~1:listen x|DS~1|S
        s1 > 1|t|n|Z
        c1 < 1|t|n|Z
        {FREE.replace("Qselect 9", "Qbegin").replace("CSELECT 1|Z", "CBEGIN|ZT")}
        c1 > Ba|E|S
        s2 < P~1:listen x|B~1|E|S
        s2 > 1|2|CLISTEN|Z
        s2 < Q<pins>
        c1 < 2|CLISTEN|Z
        s2 > {LISTENING}
        c1 > Qselect 1
        s2 < Qselect 1
        """,
        **FOLLOW_ON_TWO,
    )


def test_a_function_of_the_database_may_do_anything() -> None:
    """Those that the database has named when it was asked."""
    script = """
        c1 > Qselect f()
        s1 < Qselect f()
        s1 > CSELECT 1|Z
        s1 < Q<begin>;<no timeout>;<pins>;<settings>
        c1 < CSELECT 1|Z
    """
    play(script, functions=("f",), **FOLLOW_ON_TWO)
    play(
        script.replace("s1 < Q<begin>;<no timeout>;<pins>;<settings>", ""), functions=("g",), **FOLLOW_ON_TWO
    )


@pytest.mark.parametrize(
    ("function", "asks"), [(2078, True), (2026, True), (16384, True), (715, False), (958, False)]
)
def test_a_function_call(function: int, asks: bool) -> None:
    """By number: any function may run SQL, but for those that libpq calls for large objects."""
    play(
        f"""
        c1 > F{function}
        s1 < F{function}
        s1 > V|Z
        {"s1 < Q<begin>;<no timeout>;<pins>;<settings>" if asks else ""}
        c1 < V|Z
        """,
        **FOLLOW_ON_TWO,
    )


# -- while the question is under way -----------------------------------------------------------------------------------

_ASKED = """
    c1 > Qlisten x
    s1 < Qlisten x
    s1 > CLISTEN|Z
    s1 < Q<pins>
    c1 < CLISTEN|Z
"""


def test_the_client_goes_on_meanwhile() -> None:
    """What it asks next is sent behind the question, on the same server."""
    play(
        f"""
        {_ASKED}
        c1 > Qselect 2
        s1 < Qselect 2
        c1 > Pa:select 3|Ba|E|S
        s1 < P~1:select 3|B~1|E|S
        s1 > {NOTHING}
        c1 <
        s1 > CSELECT 2|Z|1|2|CSELECT 3|Z
        c1 < CSELECT 2|Z|1|2|CSELECT 3|Z
        {FREE}
        """,
        **FOLLOW_ON_TWO,
    )


def test_the_client_has_sent_more_with_its_request() -> None:
    """The question comes when all has been answered."""
    play(
        f"""
        c1 > Qlisten x|Qselect 2|P:select 3|B|E|S
        s1 < Qlisten x|Qselect 2|P:select 3|B|E|S
        s1 > CLISTEN|Z
        c1 < CLISTEN|Z
        s1 <
        s1 > CSELECT 2|Z|1|2|CSELECT 3|Z
        s1 < Q<pins>
        c1 < CSELECT 2|Z|1|2|CSELECT 3|Z
        s1 > {NOTHING}
        {FREE}
        """,
        **FOLLOW_ON_TWO,
    )


def test_the_client_does_more_of_the_kind_meanwhile() -> None:
    """Then there is another question."""
    play(
        f"""
        {_ASKED}
        c1 > Qunlisten x
        s1 < Qunlisten x
        s1 > {LISTENING}|CUNLISTEN|Z
        s1 < Q<pins>
        c1 < CUNLISTEN|Z
        s1 > {NOTHING}
        {FREE}
        """,
        **FOLLOW_ON_TWO,
    )


def test_the_client_begins_a_transaction_meanwhile() -> None:
    """The answer counts; the server is given back when the transaction has ended."""
    play(
        f"""
        {_ASKED}
        c1 > Qbegin
        s1 < Qbegin
        s1 > {NOTHING}|CBEGIN|ZT
        c1 < CBEGIN|ZT
        {OTHER}
        c1 > Qcommit
        s1 < Qcommit
        s1 > CCOMMIT|Z
        c1 < CCOMMIT|Z
        """,
        **FOLLOW_ON_TWO,
    )


@pytest.mark.parametrize("left", [True, False])
def test_the_client_leaves_meanwhile(left: bool) -> None:
    """The server stays; it is cleaned if there is something to be cleaned."""
    play(
        f"""
        {_ASKED}
        c1 leaves
        s1 > {LISTENING if left else NOTHING}
        {"s1 < QDISCARD ALL" if left else ""}
        {"s1 > CDISCARD ALL|Z" if left else ""}
        {FREE}
        """,
        **FOLLOW_ON_TWO,
    )


def test_the_client_leaves_while_its_server_is_asked_what_may_be_called() -> None:
    """What it has kept the server for is cleaned all the same."""
    with Stage(**FOLLOW) as stage:
        stage.play(
            f"""
            {LISTENS}
            c1 > Qcreate view v as select 1
            s1 < Qcreate view v as select 1
            s1 > CCREATE VIEW|Z
            s1 < Q<catalog>
            c1 < CCREATE VIEW|Z
            c1 leaves
            s1 > T|Dv,-|CSELECT 1|Z
            s1 < QDISCARD ALL
            s1 > CDISCARD ALL|Z
            {FREE}
            """
        )
        assert not stage.pool.pinned


def test_the_client_leaves_with_requests_behind_the_question() -> None:
    """Then the server is closed."""
    play(
        f"""
        {_ASKED}
        c1 > Qselect 2
        s1 < Qselect 2
        c1 leaves
        s1 < END
        {OTHER}
        """,
        **FOLLOW_ON_TWO,
    )


def test_what_the_answer_holds_is_for_nobody() -> None:
    """Notices, and what else comes while the question is answered."""
    play(
        f"""
        {_ASKED}
        s1 > Nhello|STimeZone=Asia/Tokyo|{NOTHING}
        c1 <
        """,
        **FOLLOW_ON_TWO,
    )


def test_the_question_fails() -> None:
    """Nobody knows the state of the session: the client reads why, and the server is closed."""
    play(
        f"""
        {_ASKED}
        s1 > E42501 permission denied|Z
        s1 < X|END
        c1 < !42501 the session's state cannot be told: permission denied|END
        {OTHER}
        """,
        **FOLLOW_ON_TWO,
    )


def test_the_question_fails_for_a_client_that_has_gone() -> None:
    """The server is closed."""
    play(
        f"""
        {_ASKED}
        c1 leaves
        s1 > E57014 canceling statement due to user request|Z
        s1 < X|END
        {OTHER}
        """,
        **FOLLOW_ON_TWO,
    )


def test_the_question_is_not_answered_for_a_client_that_has_gone() -> None:
    """``server_connect_timeout`` is the limit."""
    with Stage(**FOLLOW_ON_TWO) as stage:
        stage.play(f"{_ASKED}\nc1 leaves")
        stage.wait(14.9)
        assert stage.take("s1") == ""
        stage.wait(0.1)
        assert stage.take("s1") == "END"


# -- reset -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["set work_mem = '7MB'", "listen x", "create temp table t ()", "prepare p as select 1"]
)
def test_state_lasts_as_long_as_its_transaction(text: str) -> None:
    """``session_state`` reset: no question; the server is cleaned before anybody has it again."""
    play(
        f"""
        c1 > Q{text}
        s1 < Q{text}
        s1 > CDONE|Z
        s1 < QDISCARD ALL
        c1 < CDONE|Z
        c1 > Qselect 1
        s1 <
        s1 > CDISCARD ALL|Z
        s1 < Qselect 1
        """,
        **_RESET,
    )


def test_a_reset_forgets_what_is_prepared() -> None:
    """DISCARD ALL deallocates all statements."""
    play(
        f"""
        {PREPARES}
        c2 > Qlisten x
        s1 < Qlisten x
        s1 > CLISTEN|Z
        s1 < QDISCARD ALL
        c2 < CLISTEN|Z
        s1 > CDISCARD ALL|Z
        c1 > Ba|S
        s1 < P~1:select 1|B~1|S
        """,
        **_RESET,
    )


def test_a_reset_does_not_wait_for_the_client() -> None:
    """What it has written ahead is answered first."""
    play(
        """
        c1 > Qlisten x|Qselect 2
        s1 < Qlisten x|Qselect 2
        s1 > CLISTEN|Z
        c1 < CLISTEN|Z
        s1 <
        s1 > CSELECT 1|Z
        s1 < QDISCARD ALL
        c1 < CSELECT 1|Z
        """,
        **_RESET,
    )


@pytest.mark.parametrize("text", ["set work_mem = '7MB'", "listen x", "discard all", "load 'x'"])
def test_state_is_left_where_it_is(text: str) -> None:
    """``session_state`` keep, as in pgbouncer: the next client finds it."""
    play(
        f"""
        {exchange(f"Q{text}", "CDONE|Z")}
        {FREE}
        """,
        **{**FOLLOW_ON_TWO, "session_state": SessionState.KEEP},
    )


def test_behind_a_reset_the_settings_are_known() -> None:
    """What clients prepare then has the same name for all of them, and is not prepared anew each time."""
    with Stage(**{**_RESET, "pool_size": 1, "max_prepared_statements": 3}) as stage:
        stage.play(
            """
            c1 > Qset work_mem = '1MB'
            s1 < Qset work_mem = '1MB'
            s1 > CSET|Z
            s1 < QDISCARD ALL
            c1 < CSET|Z
            s1 > CDISCARD ALL|Z
            c2 > Pa:select 1|Ba|E|S
            s1 < P~1:select 1|B~1|E|S
            s1 > 1|2|CSELECT 1|Z
            c2 < 1|2|CSELECT 1|Z
            c1 > Pa:select 1|Ba|E|S
            s1 < B~1|E|S
            s1 > 2|CSELECT 1|Z
            c1 < 1|2|CSELECT 1|Z
            """
        )


def test_behind_a_reset_nobody_listens() -> None:
    """A notification for who listened before is not the next client's."""
    with Stage(**{**_RESET, "pool_size": 1}) as stage:
        stage.play(
            """
            c1 > Qlisten channel
            s1 < Qlisten channel
            s1 > CLISTEN|Z
            s1 < QDISCARD ALL
            c1 < CLISTEN|Z
            s1 > CDISCARD ALL|Z
            c2 > Qselect 1
            s1 < Qselect 1
            s1 > Achannel|CSELECT 1|Z
            c2 < CSELECT 1|Z
            """
        )


def test_behind_a_reset_the_database_is_asked_for_new_functions() -> None:
    """Whoever has the server next calls them perhaps, whatever way its request goes."""
    with Stage(**{**_RESET, "pool_size": 1}) as stage:
        stage.play(
            """
            c1 > Qcreate function f()
            s1 < Qcreate function f()
            s1 > CCREATE FUNCTION|Z
            s1 < QDISCARD ALL
            c1 < CCREATE FUNCTION|Z
            s1 > CDISCARD ALL|Z
            c2 > Qselect 1
            s1 < Qselect 1
            s1 > CSELECT 1|Z
            s1 < Q<catalog>
            c2 < CSELECT 1|Z
            s1 > CSELECT 0|Z
            """
        )
        assert not stage.server("s1").held
