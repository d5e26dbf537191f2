"""Parameters that follow clients which share servers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from hyperpool.relay import session
from tests.support.exchanges import BEGINS
from tests.support.relaystage import Stage, play, play_in_pieces
from tests.support.sessionscripts import (
    FOLLOW,
    FOLLOW_ON_TWO,
    NOTHING,
    SETS_WORK_MEM,
    WELCOME,
    defaults_and_values,
    rows,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_ALL = "s1 < Q<begin>;<no timeout>;<settings>"
_ALL_DEFAULT = (
    rows("statement_timeout,0,-")
    + "|CSET|"
    + rows("statement_timeout,0,0", "role,none,-", "session_authorization,u,-")
    + "|Z"
)
"""Everything is asked for, and nothing is set."""


_BACK = """
    c2 > Qselect 2
    s1 < QRESET work_mem;|Qselect 2
    s1 > CRESET|Z|CSELECT 1|Z
    c2 < CSELECT 1|Z
"""
"""The client c2 does not find it."""


# -- parameters --------------------------------------------------------------------------------------------------------


def test_what_a_client_has_set_follows_it() -> None:
    """And nobody else: the server is adjusted in front of each client's first request."""
    play_in_pieces(
        f"""
        {SETS_WORK_MEM}
        c1 > Qselect 1
        s1 < Qselect 1
        s1 > CSELECT 1|Z
        c1 < CSELECT 1|Z
        {_BACK}
        c1 > Qselect 1
        s1 < QSET work_mem = '7MB';|Qselect 1
        s1 > CSET|Z|CSELECT 1|Z
        c1 < CSELECT 1|Z
        {_BACK}
        """,
        **FOLLOW,
    )


def test_a_default_is_asked_for_once() -> None:
    """What a parameter is at the beginning of every session is known then."""
    play(
        f"""
        {SETS_WORK_MEM}
        {_BACK}
        c3 > Qset work_mem to default
        s1 < Qset work_mem to default
        s1 > CSET|Z
        s1 < Q{values("work_mem")}
        c3 < CSET|Z
        s1 > {rows("work_mem,4MB,-")}|Z
        c2 > Qselect 2
        s1 < Qselect 2
        """,
        **FOLLOW,
    )


def test_a_parameter_that_was_rolled_back_is_not_set() -> None:
    """It is the server's word that counts."""
    play(
        f"""
        {BEGINS}
        c1 > Qset work_mem = '7MB'
        s1 < Qset work_mem = '7MB'
        s1 > CSET|ZT
        c1 < CSET|ZT
        c1 > Qrollback
        s1 < Qrollback
        s1 > CROLLBACK|Z
        s1 < Q{defaults_and_values("work_mem")}
        c1 < CROLLBACK|Z
        s1 > {rows("work_mem,4MB,4MB")}|{rows("work_mem,4MB,-")}|Z
        c2 > Qselect 2
        s1 < Qselect 2
        """,
        **FOLLOW,
    )


def test_what_the_server_reports_is_not_asked_for() -> None:
    """ParameterStatus tells."""
    play(
        """
        c1 > Qset timezone = 'Asia/Tokyo'
        s1 < Qset timezone = 'Asia/Tokyo'
        s1 > CSET|STimeZone=Asia/Tokyo|Z
        c1 < CSET|STimeZone=Asia/Tokyo|Z
        c2 > Qselect 2
        s1 < QSET TimeZone = 'UTC';|Qselect 2
        s1 > STimeZone=UTC|CSET|Z|CSELECT 1|Z
        c2 < CSELECT 1|Z
        c1 > Qselect 1
        s1 < QSET TimeZone = 'Asia/Tokyo';|Qselect 1
        s1 > STimeZone=Asia/Tokyo|CSET|Z|CSELECT 1|Z
        c1 < CSELECT 1|Z
        """,
        **FOLLOW,
    )


def test_a_parameter_that_may_not_be_asked_for() -> None:
    """The question fails, and is asked again for what the server lists by itself."""
    play(
        f"""
        c1 > Qset secret = 1
        s1 < Qset secret = 1
        s1 > E42501 permission denied|Z
        s1 < Q{defaults_and_values("secret")}
        c1 < E42501 permission denied|Z
        s1 > E42501 permission denied to examine "secret"|Z
        s1 < Q<begin>;<no timeout>;<settings>
        c1 <
        s1 > {_ALL_DEFAULT}
        c1 > Qselect 1
        s1 < Qselect 1
        """,
        **FOLLOW,
    )


def test_the_timeout_that_was_lifted_is_not_taken_for_the_client_s() -> None:
    """The server lists it with its default, because the question itself has changed it."""
    play(
        f"""
        c1 > Qreset all
        s1 < Qreset all
        s1 > CRESET|Z
        {_ALL}
        c1 < CRESET|Z
        s1 > {_ALL_DEFAULT}
        c2 > Qselect 2
        s1 < Qselect 2
        """,
        **FOLLOW,
    )


_TIMES_OUT = f"""
    c1 > Qset statement_timeout = 1
    s1 < Qset statement_timeout = 1
    s1 > CSET|Z
    s1 < Q<no timeout>;{session._DEFAULTS % "'statement_timeout'"}
    c1 < CSET|Z
    s1 > {rows("statement_timeout,1ms,-")}|CSET|{rows("statement_timeout,0,0")}|Z
"""


def test_a_timeout_does_not_end_the_pooler_s_own_queries() -> None:
    """What it is is asked for first, and then it is lifted for the question."""
    play(
        f"""
        {_TIMES_OUT}
        c1 > Qlisten x
        s1 < Qlisten x
        s1 > CLISTEN|Z
        s1 < Q<no timeout>;<pins>
        c1 < CLISTEN|Z
        """,
        **FOLLOW,
    )


def test_a_timeout_does_not_end_the_adjusting() -> None:
    """It is lifted first; and nothing is sent behind an adjusting that may fail."""
    play(
        f"""
        {_TIMES_OUT}
        c2 > Qselect 2
        s1 < QRESET statement_timeout|QRESET statement_timeout;
        s1 > CRESET|Z|CRESET|Z
        s1 < Qselect 2
        s1 > CSELECT 1|Z
        c2 < CSELECT 1|Z
        c1 > Qselect 1
        s1 < QSET statement_timeout = '1ms';|Qselect 1
        """,
        **FOLLOW,
    )


def test_parameters_that_the_pooler_cannot_set_any_more() -> None:
    """A client whose parameter the server refuses reads why; nothing of its request is executed."""
    play(
        f"""
        {SETS_WORK_MEM}
        {_BACK}
        c1 > Qselect 1
        s1 < QSET work_mem = '7MB';|Qselect 1
        s1 > E42501 permission denied|Z
        c1 < !42501 permission denied|END
        s1 < END
        """,
        **FOLLOW,
    )


# -- parameters at login -----------------------------------------------------------------------------------------------


def test_parameters_that_a_server_has_not_taken_before() -> None:
    """The client is let in when a server has taken them."""
    play(
        f"""
        c1 proves x.y=1;work_mem=7MB
        s1 < QSET "x"."y" = '1';SET work_mem = '7MB';
        c1 <
        s1 > CSET|CSET|Z
        c1 < {WELCOME}Sx.y=1|Swork_mem=7MB|Z
        c1 > Qselect 1
        s1 < Qselect 1
        s1 > CSELECT 1|Z
        c1 < CSELECT 1|Z
        c2 > Qselect 2
        s1 < QRESET "x"."y";RESET work_mem;
        s1 > CRESET|Z
        s1 < Qselect 2
        """,
        **FOLLOW,
    )


def test_parameters_that_a_server_refuses() -> None:
    """The client reads the server's words; the server has done nothing, and serves the next client."""
    play(
        """
        c1 proves x.y=1;work_mem=Mars
        s1 < QSET "x"."y" = '1';SET work_mem = 'Mars';
        s1 > CSET|E22023 invalid value {look at a map} @parse|Z
        c1 < !22023 invalid value {look at a map}|END
        c2 > Qselect 2
        s1 < Qselect 2
        s1 > CSELECT 1|Z
        c2 < CSELECT 1|Z
        """,
        **FOLLOW,
    )


def test_clients_wait_while_a_server_is_asked() -> None:
    """In turn; the next one gets the server as it should be."""
    play(
        f"""
        c1 proves x.y=1
        s1 < QSET "x"."y" = '1';
        c2 > Qselect 2
        s1 > CSET|Z
        c1 < {WELCOME}Sx.y=1|Z
        s1 < QRESET "x"."y";
        s1 > CRESET|Z
        s1 < Qselect 2
        s1 > CSELECT 1|Z
        c2 < CSELECT 1|Z
        """,
        **FOLLOW,
    )


def test_a_client_goes_while_its_parameters_are_asked_for() -> None:
    """The server is given back when it has answered, whatever it says."""
    for answer, adjusts in (("CSET|Z", "QRESET work_mem;|"), ("E22023 no|Z", "")):
        play(
            f"""
            c1 proves work_mem=1
            s1 < QSET work_mem = '1';
            c1 leaves
            c2 > Qselect 2
            s1 <
            s1 > {answer}
            s1 < {adjusts}Qselect 2
            """,
            **FOLLOW,
        )


def test_a_server_does_not_answer_for_a_client_that_is_not_let_in_yet() -> None:
    """It dies: the client reads that."""
    play(
        """
        c1 proves x.y=1
        s1 < QSET "x"."y" = '1';
        s1 dies
        c1 < !08006 server closed the connection|END
        """,
        **FOLLOW,
    )


# -- who the session is ------------------------------------------------------------------------------------------------

_BECOMES = f"""
    c1 > Qset role r
    s1 < Qset role r
    s1 > CSET|Z
    s1 < Q{values("role")}
    c1 < CSET|Z
    s1 > {rows("role,r,-")}|Z
"""

_IS_NOBODY = """
    c2 > Qselect 2
    s1 < QRESET ROLE;RESET SESSION AUTHORIZATION;
    s1 > CRESET|CRESET|Z
    s1 < Qselect 2
    s1 > CSELECT 1|Z
    c2 < CSELECT 1|Z
"""
"""The client c2, which has no role, uses the server."""


def test_a_role_is_taken_before_anything_is_sent() -> None:
    """Without a role, or with another's, a request could do what it must not: the answer is waited for."""
    play(
        f"""
        {_BECOMES}
        {_IS_NOBODY}
        c1 > Pa:select 1|Ba|E|S
        s1 < QSET ROLE 'r';
        s1 > CSET|Z
        s1 < P~1:select 1|B~1|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|Z
        """,
        **FOLLOW,
    )


def test_a_role_that_is_no_longer_granted() -> None:
    """The client goes; its request was never sent, and the server serves others."""
    play(
        f"""
        {_BECOMES}
        {_IS_NOBODY}
        c1 > Qdelete from t
        s1 < QSET ROLE 'r';
        s1 > E22023 role "r" does not exist|Z
        c1 < !22023 role "r" does not exist|END
        c2 > Qselect 2
        s1 < Qselect 2
        """,
        **FOLLOW,
    )


def test_more_is_not_read_while_a_role_is_taken() -> None:
    """It comes in order, and once."""
    play(
        f"""
        {_BECOMES}
        c2 > Qselect 2
        s1 < QRESET ROLE;RESET SESSION AUTHORIZATION;
        c2 > Qselect 3
        s1 <
        s1 > CRESET|CRESET|Z
        s1 < Qselect 2|Qselect 3
        s1 > CSELECT 1|Z|CSELECT 2|Z
        c2 < CSELECT 1|Z|CSELECT 2|Z
        """,
        **FOLLOW,
    )


# -- what may be called ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _two_servers() -> Iterator[Stage]:
    """A pool whose servers have come before any client."""
    with Stage(**FOLLOW_ON_TWO) as stage:
        stage.arrive()
        stage.arrive()
        yield stage


def test_the_catalogue_is_asked_again() -> None:
    """When a client has changed what may be called, before anybody calls it."""
    play(
        """
        c1 > Qcreate view v as select 1
        s1 < Qcreate view v as select 1
        s1 > CCREATE VIEW|Z
        s1 < Q<catalog>
        c1 < CCREATE VIEW|Z
        c2 > Qselect * from v
        s1 <
        s1 > T|Dv,-|CSELECT 1|Z
        s1 < Qselect * from v
        s1 > CSELECT 1|Z
        s1 < Q<begin>;<no timeout>;<pins>;<settings>
        c2 < CSELECT 1|Z
        """,
        **FOLLOW,
    )


def test_a_late_cancel_request_hits_the_question_for_the_catalogue() -> None:
    """It was meant for the client's query: the pooler asks again. Not for ever, whatever cancels it."""
    asked = "s1 < Q<catalog>\n"
    canceled = "s1 > E57014 canceling statement due to user request|Z\n"
    begins = """
        c1 > Qcreate view v as select 1
        s1 < Qcreate view v as select 1
        s1 > CCREATE VIEW|Z
        c1 < CCREATE VIEW|Z
    """
    play(
        f"""
        {begins}
        {asked + canceled + asked}
        c2 > Qselect * from v
        s1 > T|Dv,-|CSELECT 1|Z
        s1 < Qselect * from v
        s1 > CSELECT 1|Z
        s1 < Q<begin>;<no timeout>;<pins>;<settings>
        c2 < CSELECT 1|Z
        """,
        **FOLLOW,
    )
    play(
        f"""
        {begins}
        {(asked + canceled) * 3}
        c2 > Qselect 1
        s1 < Qselect 1
        """,
        **FOLLOW,
    )


@pytest.mark.parametrize(
    "behind",
    [
        """
        c1 > Qbegin
        s1 < Qbegin
        {canceled}
        s1 <
        s1 > CBEGIN|ZT
        c1 < CBEGIN|ZT
        c1 > Qset transaction isolation level serializable
        s1 < Qset transaction isolation level serializable
        s1 > CSET|ZT
        c1 < CSET|ZT
        c1 > Qcommit
        s1 < Qcommit
        s1 > CCOMMIT|Z
        s1 < Q<catalog>
        c1 < CCOMMIT|Z
        """,
        """
        c1 > P:select 1|B|E|H
        s1 < P:select 1|B|E|H
        {canceled}
        s1 <
        s1 > 1|2|D1|CSELECT 1
        c1 < 1|2|D1|CSELECT 1
        c1 > S
        s1 < S
        s1 > Z
        s1 < Q<catalog>
        c1 < Z
        """,
        """
        c1 > Qcopy t from stdin
        s1 < Qcopy t from stdin
        {canceled}
        s1 > G
        c1 < G
        c1 > d5|c
        s1 < d5|c
        s1 > CCOPY 1|Z
        s1 < Q<catalog>
        c1 < CCOPY 1|Z
        """,
        r"""
        c1 > \x640000000a0000
        {canceled}
        c1 > \x00000000
        s1 < \x640000000a000000000000|Q<catalog>
        """,
    ],
    ids=["block", "unsynced", "copy", "half a message"],
)
def test_the_catalogue_is_not_asked_again_amid_what_the_client_sends(behind: str) -> None:
    """The question would be part of the client's transaction, or of its message: it waits until that is over."""
    canceled = "s1 > E57014 canceling statement due to user request|Z"
    play(
        f"""
        c1 > Qcreate view v as select 1
        s1 < Qcreate view v as select 1
        s1 > CCREATE VIEW|Z
        s1 < Q<catalog>
        c1 < CCREATE VIEW|Z
        {behind.format(canceled=canceled)}
        s1 > T|Dv,-|CSELECT 1|Z
        c2 > Qselect * from v
        s1 < Qselect * from v
        s1 > CSELECT 1|Z
        s1 < Q<begin>;<no timeout>;<pins>;<settings>
        c2 < CSELECT 1|Z
        """,
        **FOLLOW,
    )


def test_nobody_is_served_before_the_catalogue_is_known() -> None:
    """Servers that come while the first one has not answered wait: what a function leaves would not be found."""
    with _two_servers() as stage:
        stage.play(
            f"""
            s1 < Q<catalog>
            c1 > Qselect g()
            c2 > Qselect g()
            s1 > T|Dg,-|CSELECT 1|Z
            s1 < Qselect g()
            s2 < Qselect g()
            s2 > CSELECT 1|Z
            s2 < Q<begin>;<no timeout>;<pins>;<settings>
            c2 < CSELECT 1|Z
            s2 > {rows("statement_timeout,0,-")}|CSET|{NOTHING.removesuffix("|Z")}|{_ALL_DEFAULT.split("CSET|")[1]}
            s2 < QRESET ALL
            s2 > CRESET|Z
            """
        )


def test_those_who_wait_for_the_catalogue_that_cannot_be_told() -> None:
    """They serve nevertheless."""
    with _two_servers() as stage:
        stage.play(
            """
            s1 < Q<catalog>
            s1 > E42501 permission denied|Z
            """
        )
        assert stage.pool.idle == [stage.server("s1"), stage.server("s2")]


@pytest.mark.parametrize("paused", [False, True])
def test_who_is_asked_for_the_catalogue_dies(*, paused: bool) -> None:
    """The next one of those that wait is asked, at the next sweep at the latest."""
    with Stage(**{**FOLLOW, "pool_size": 3}) as stage:
        for _ in range(3):
            stage.arrive()
        stage.pool.paused = paused
        stage.play(
            """
            s1 < Q<catalog>
            s1 dies
            wait 0.1
            s2 < Q<catalog>
            s2 > T|Dg,-|CSELECT 1|Z
            """
        )
        assert stage.pool.stateful == {"g"}
        assert stage.pool.idle == [stage.server("s2"), stage.server("s3")]


def test_who_waits_for_the_catalogue_dies() -> None:
    """Nobody thinks of it any more."""
    with _two_servers() as stage:
        stage.play(
            """
            s1 < Q<catalog>
            s2 dies
            s1 > T|CSELECT 0|Z
            """
        )
        assert len(stage.pool.idle) == 1


def test_the_pool_leads_elsewhere_while_the_catalogue_is_asked() -> None:
    """What the old database tells is of no use: the first server of the new one is asked, and others wait for it."""
    with Stage(**{**FOLLOW, "pool_size": 4}) as stage:
        stage.arrive()
        stage.arrive()
        stage.play("s1 < Q<catalog>")
        stage.pool.renew()
        for server in list(stage.pool.servers):
            server.retire("elsewhere", outdated=True)
        stage.arrive()
        stage.arrive()
        stage.play(
            """
            s2 < X|END
            s3 < Q<catalog>
            s1 > T|Dg,-|CSELECT 1|Z
            s1 < X|END
            """
        )
        assert (stage.pool.stateful, stage.pool.told) == (frozenset(), False)
        stage.play("s3 > T|Dh,-|CSELECT 1|Z")
        assert stage.pool.stateful == {"h"}
        assert stage.pool.idle == [stage.server("s3"), stage.server("s4")]


def test_who_waits_for_the_catalogue_is_ended() -> None:
    """It has served nobody: the next one is not opened at once."""
    with Stage(**{**FOLLOW, "pool_size": 2}) as stage:
        stage.arrive()
        stage.arrive()
        stage.play(
            """
            s1 < Q<catalog>
            s2 > !57P05 idle-session timeout
            s2 < END
            """
        )
        assert stage.pool.backoff.holds(stage.clock())


def test_a_pool_is_killed_while_the_catalogue_is_asked() -> None:
    """That is no reason to serve anybody without knowing it."""
    with Stage(**FOLLOW) as stage:
        stage.arrive()
        stage.play("s1 < Q<catalog>")
        stage.relay.kill(stage.pool, "killed")
        stage.pool.paused = False
        stage.arrive()
        stage.play(
            """
            s1 < END
            s2 < Q<catalog>
            c1 > Qselect g()
            s2 > T|Dg,-|CSELECT 1|Z
            s2 < Qselect g()
            s2 > CSELECT 1|Z
            s2 < Q<begin>;<no timeout>;<pins>;<settings>
            c1 < CSELECT 1|Z
            """
        )


def test_nobody_waits_for_the_old_database_to_tell_its_catalogue() -> None:
    """However long that takes: the server that is asked will serve nobody, so another one is opened."""
    with _two_servers() as stage:
        stage.play(
            """
            s1 < Q<catalog>
            c1 > Qselect 1
            """
        )
        stage.pool.renew()
        for server in list(stage.pool.servers):
            server.retire("elsewhere", outdated=True)
        stage.relay.want(stage.pool)
        stage.turn()
        stage.play(
            """
            s2 < X|END
            s3 < Qselect 1
            s3 > CSELECT 1|Z
            c1 < CSELECT 1|Z
            """
        )


def test_the_catalogue_cannot_be_told() -> None:
    """Whoever is to tell it goes: at the third time clients are served without it, and another one is asked soon."""
    with capture_logs() as logs, Stage(**FOLLOW) as stage:
        for name in ("s1", "s2", "s3"):
            stage.arrive()
            stage.play(f"{name} < Q<catalog>\n{name} dies")
        stage.arrive()
        stage.play(
            """
            c1 > Qselect 1
            s4 < Qselect 1
            s4 > CSELECT 1|Z
            c1 < CSELECT 1|Z
            """
        )
        stage.clock.now += 5.0
        stage.relay.maintain(iter([stage.pool]))
        stage.play("s4 < Q<catalog>\ns4 > T|CSELECT 0|Z")
    untold = [entry["error"] for entry in logs if "cannot tell which functions" in entry["event"]]
    assert untold == ["the server connection was lost"]


def test_the_catalogue_is_asked_again_now_and_then() -> None:
    """Others may have changed it: a server that is idle is asked."""
    with Stage(**FOLLOW) as stage:
        stage.play(
            """
            c1 > Qselect g()
            s1 < Qselect g()
            s1 > CSELECT 1|Z
            c1 < CSELECT 1|Z
            """
        )
        for seconds in (299.0, 1.0):
            stage.check()
            stage.clock.now += seconds
            stage.relay.maintain(iter([stage.pool]))
        stage.play(
            """
            s1 < Q<catalog>
            s1 > T|Dg,-|CSELECT 1|Z
            c1 > Qselect g()
            s1 < Qselect g()
            s1 > CSELECT 1|Z
            s1 < Q<begin>;<no timeout>;<pins>;<settings>
            c1 < CSELECT 1|Z
            """
        )
