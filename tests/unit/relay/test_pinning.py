"""Clients that keep their servers, because what they have left there cannot follow them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.exchanges import SELECTS, exchange
from tests.support.relaystage import play, play_in_pieces
from tests.support.sessionscripts import FOLLOW_ON_TWO, FREE, IS_ASKED, LISTENING, LISTENS, NOTHING, OTHER

_UNLISTENS = f"""
    c1 > Qunlisten x
    s1 < Qunlisten x
    s1 > CUNLISTEN|Z
    s1 < Q<pins>
    c1 < CUNLISTEN|Z
    s1 > {NOTHING}
"""
"""Nothing keeps the server s1 any more."""


def test_a_server_is_kept_until_nothing_is_left() -> None:
    """What ends state of any kind makes the pooler ask again; what does not, does not."""
    play(
        f"""
        {LISTENS}
        {OTHER}
        {SELECTS}
        {_UNLISTENS}
        {FREE}
        """,
        **FOLLOW_ON_TWO,
    )


def test_the_server_of_a_client_that_leaves_is_cleaned() -> None:
    """Before the next client has it."""
    play(
        f"""
        {LISTENS}
        c1 leaves
        s1 < QDISCARD ALL
        c9 > Qselect 9
        s1 <
        s1 > CDISCARD ALL|Z
        s1 < Qselect 9
        s1 > CSELECT 1|Z
        c9 < CSELECT 1|Z
        """,
        **{**FOLLOW_ON_TWO, "pool_size": 1},
    )


@pytest.mark.parametrize(
    ("answer", "end"), [("E42501 permission denied|Z", "X|END"), ("!57P01 terminating connection", "END")]
)
def test_a_server_that_cannot_be_cleaned_is_closed(answer: str, end: str) -> None:
    """The next client gets another one."""
    play(
        f"""
        {FREE}
        {LISTENS}
        c1 leaves
        s1 < QDISCARD ALL
        s1 > {answer}
        s1 < {end}
        {OTHER}
        """,
        **FOLLOW_ON_TWO,
    )


@pytest.mark.parametrize(
    ("text", "pool"),
    [("load 'x'", {}), ("select dblink_connect('x')", {"pin_functions": ("public.dblink_connect",)})],
)
def test_what_only_the_end_of_a_connection_undoes(text: str, pool: dict[str, Any]) -> None:
    """No question is asked: the client keeps its server, which is closed when it leaves."""
    play(
        f"""
        {exchange(f"Q{text}", "CDONE|Z")}
        {OTHER}
        {SELECTS}
        c1 leaves
        s1 < X|END
        """,
        **FOLLOW_ON_TWO,
        **pool,
    )


def test_notifications_are_for_clients_that_listen() -> None:
    """Who has listened on a server that is not kept may have been somebody else."""
    play(
        f"""
        {FREE}
        s1 > Ax
        c9 > Qselect 9
        s1 < Qselect 9
        s1 > Ax|CSELECT 1|Z
        c9 < CSELECT 1|Z
        {LISTENS}
        s1 > Ax|Ax
        c1 < Ax|Ax
        c1 > Qselect 1
        s1 < Qselect 1
        s1 > Ax|CSELECT 1|Z
        c1 < Ax|CSELECT 1|Z
        """,
        **FOLLOW_ON_TWO,
    )


def test_notifications_in_the_transaction_that_listens() -> None:
    """A client may notify itself."""
    play(
        f"""
        c1 > Qlisten x; notify x
        s1 < Qlisten x; notify x
        s1 > CLISTEN|CNOTIFY|Ax|Z
        s1 < Q<pins>
        c1 < CLISTEN|CNOTIFY|Ax|Z
        s1 > {LISTENING}
        """,
        **FOLLOW_ON_TWO,
    )


# -- max_pinned --------------------------------------------------------------------------------------------------------

_REFUSED = "E53400 too many clients of this pool keep their server connection (max_pinned)"

_CALLS = """
    c2 > Qselect f()
    s2 < Qselect f()
    s2 > CSELECT 1|Z
    s2 < Q<begin>;<no timeout>;<pins>;<settings>
    c2 < CSELECT 1|Z
"""
"""A function is called, and the server is asked what it has changed."""


def _refused_afterwards(what: str) -> str:
    return (
        f"!53400 too many clients of this pool keep their server connection ({what}) {{end this state in other"
        " clients, or raise max_pinned and the pool's size, or use session pooling}"
    )


def _must_go(has: str, what: str) -> str:
    """The server tells what the function has left there, and the client hears that there is no room for it."""
    return f"""
        s2 > T|Dstatement_timeout,0,-|CSELECT 1|CSET|T|D{has}|CSELECT 1|T|Drole,none,-|CSELECT 1|Z
        c2 < {_refused_afterwards(what)}|END
        s2 < QDISCARD ALL
    """


@pytest.mark.parametrize(
    ("asked", "sent", "answered"),
    [
        ("Qlisten y", "Q<refusal>", f"{_REFUSED}|Z"),
        ("Qselect 1; listen y; select 2", "Q<refusal>", f"{_REFUSED}|Z"),
        ("P:listen y|B|DP|E|S", "P:listen y|P~1:<refusal>|B~1|DP|E|S", f"1|1|2|n|{_REFUSED}|Z"),
        (
            "P:select pg_advisory_lock($1)[23]|B(3)|E|S",
            "P:select pg_advisory_lock($1)[23]|P~1:<refusal>|B~1|E|S",
            f"1|1|2|{_REFUSED}|Z",
        ),
        ("Pa:listen y|Ba|E|S", "P~1:listen y|P~2:<refusal>|B~2|E|S", f"1|1|2|{_REFUSED}|Z"),
        (
            "Pa:select pg_advisory_lock($1)[23]|Bp=a(3)|Ep|S",
            "P~1:select pg_advisory_lock($1)[23]|P~2:<refusal>|Bp=~2|Ep|S",
            f"1|1|2|{_REFUSED}|Z",
        ),
        ("Qload 'x'", "Q<refusal>", f"{_REFUSED}|Z"),
    ],
)
def test_too_many_clients_keep_their_servers(asked: str, sent: str, answered: str) -> None:
    """The server itself is made to refuse, where the text would be executed; the client goes on."""
    told = answered.replace("1|1|2|", "1|2|")
    play_in_pieces(
        f"""
        {LISTENS}
        c2 > {asked}
        s2 < {sent}
        s2 > {answered}
        c2 < {told}
        {OTHER}
        """,
        **FOLLOW_ON_TWO,
    )


def test_too_many_and_a_bind_that_is_too_long_to_be_held_back() -> None:
    """It is executed; then the client must go, and the server is cleaned."""
    play(
        f"""
        {LISTENS}
        c2 > Pa:select pg_advisory_lock($1)[23]|S
        s2 < P~1:select pg_advisory_lock($1)[23]|S
        s2 > 1|Z
        c2 < 1|Z
        c2 > Ba(600)|E|S
        s2 < B~1(600)|E|S
        s2 > 2|CSELECT 1|Z
        s2 < Q<pins>
        c2 < 2|CSELECT 1|Z
        s2 > T|Df,f,t,f,f|CSELECT 1|Z
        c2 < {_refused_afterwards("session advisory locks")}|END
        s2 < QDISCARD ALL
        s2 > CDISCARD ALL|Z
        {OTHER}
        """,
        **FOLLOW_ON_TWO,
    )


def test_who_keeps_a_server_may_do_more() -> None:
    """One client is one client."""
    play(
        f"""
        {LISTENS}
        c1 > Qcreate temp table t ()
        s1 < Qcreate temp table t ()
        s1 > CCREATE TABLE|Z
        s1 < Q<pins>
        c1 < CCREATE TABLE|Z
        s1 > T|Dt,t,f,f,f|CSELECT 1|Z
        """,
        **FOLLOW_ON_TWO,
    )


def test_when_a_server_is_free_again_another_may_be_kept() -> None:
    """It is the servers that are kept now that count."""
    play(
        f"""
        {LISTENS}
        c1 leaves
        s1 < QDISCARD ALL
        s1 > CDISCARD ALL|Z
        {LISTENS.replace("c1", "c2")}
        """,
        **FOLLOW_ON_TWO,
    )


def test_who_has_left_keeps_nothing() -> None:
    """A client that connects anew is not refused for the one before, whose server is still being cleaned."""
    play(
        f"""
        {LISTENS}
        {OTHER}
        c1 leaves
        s1 < QDISCARD ALL
        {LISTENS.replace("c1", "c2").replace("s1", "s2")}
        c3 > Qlisten y
        s1 <
        s1 > CDISCARD ALL|Z
        s1 < Q<refusal>
        s1 > {_REFUSED}|Z
        c3 < {_REFUSED}|Z
        """,
        **FOLLOW_ON_TWO,
    )


def test_what_cannot_be_told_beforehand_is_refused_afterwards() -> None:
    """A function has created a temporary table, and there is no room for one more such client: it must go."""
    play(
        f"""
        {LISTENS}
        {_CALLS}
        {_must_go("t,f,f,f,f", "temporary objects")}
        s2 > CDISCARD ALL|Z
        {OTHER}
        """,
        functions=("f",),
        **FOLLOW_ON_TWO,
    )


def test_who_was_let_keep_a_server_is_not_refused_for_another() -> None:
    """Of two clients where one may keep its server, one alone goes, whichever server tells first."""
    play(
        f"""
        {IS_ASKED}
        {_CALLS}
        {_must_go("t,f,f,f,f", "temporary objects")}
        s1 > {LISTENING}
        s2 > CDISCARD ALL|Z
        {SELECTS}
        {OTHER}
        """,
        functions=("f",),
        **FOLLOW_ON_TWO,
    )


def test_who_has_kept_a_server_before_is_refused_like_others() -> None:
    """What counts is who keeps a server now."""
    play(
        f"""
        {LISTENS.replace("c1", "c2")}
        {OTHER.replace("c9", "c8")}
        {_UNLISTENS.replace("c1", "c2")}
        {LISTENS}
        {_CALLS}
        {_must_go("f,t,f,f,f", "LISTEN")}
        s2 > CDISCARD ALL|Z
        {OTHER}
        """,
        functions=("f",),
        **FOLLOW_ON_TWO,
    )


def test_a_statement_without_a_name_that_was_refused_is_refused_again() -> None:
    """What the client prepared behind it has been discarded: the Bind in its next pipeline means the first one."""
    play(
        """
        c1 > P:listen x|B|E|P:select 1|B|E|S|B|E|S
        s1 < P:listen x|P~1:<refusal>|B~1|E|P:select 1|B|E|S
        s1 > 1|1|2|E53400 too many|Z
        c1 < 1|2|E53400 too many|Z
        s1 < P:listen x|B~1|E|S
        s1 > 1|2|E53400 too many|Z
        c1 < 2|E53400 too many|Z
        """,
        **{**FOLLOW_ON_TWO, "max_pinned": 0},
    )
