"""Time limits: each ends what has taken so long, and nothing that has taken 100 ms less, or that is not meant.

Each script runs with limits of 10 s. The scripts do not end with what they lead to: `_play` looks once 100 ms before,
and once when the time has come.
"""

from __future__ import annotations

from typing import Any

import pytest

from hyperpool.config import PoolMode
from tests.support.relaystage import Stage
from tests.support.sessionscripts import FOLLOW, defaults_and_values

_LIMITS = (
    "query_timeout",
    "transaction_timeout",
    "idle_transaction_timeout",
    "client_idle_timeout",
    "query_wait_timeout",
)

_IDLE = "c1 comes"
_AFTER_A_QUERY = """
    c1 > Qselect 1
    s1 < Qselect 1
    s1 > CSELECT 1|Z
    c1 < CSELECT 1|Z
"""
_BUSY = """
    c1 > Qselect 1
    s1 < Qselect 1
"""
_BUSY_WITH_ROWS = """
    c1 > Qselect 1
    s1 < Qselect 1
    s1 > T|Da
    c1 < T|Da
"""
_BLOCK = """
    c1 > Qbegin
    s1 < Qbegin
    s1 > CBEGIN|ZT
    c1 < CBEGIN|ZT
"""
_BUSY_IN_A_BLOCK = (
    _BLOCK
    + """
    wait 9
    c1 > Qselect 1
    s1 < Qselect 1
"""
)
_AFTER_A_QUERY_IN_A_BLOCK = (
    _BUSY_IN_A_BLOCK
    + """
    s1 > CSELECT 1|ZT
    c1 < CSELECT 1|ZT
"""
)
_FAILED_BLOCK = (
    _BLOCK
    + """
    c1 > Qselekt
    s1 < Qselekt
    s1 > E42601 no|ZE
    c1 < E42601 no|ZE
"""
)
_AFTER_A_BLOCK = (
    _BLOCK
    + """
    wait 9
    c1 > Qcommit
    s1 < Qcommit
    s1 > CCOMMIT|Z
    c1 < CCOMMIT|Z
"""
)
_HALF_A_CYCLE = (
    _AFTER_A_QUERY
    + """
    wait 20
    c1 > P:select 1|DS|H
    s1 < P:select 1|DS|H
    s1 > 1|t|T
    c1 < 1|t|T
"""
)
_PIPELINE = """
    c1 > P:select 1|B|E|S|P:select 1|B|E|S
    s1 < P:select 1|B|E|S|P:select 1|B|E|S
    wait 9
    s1 > 1|2|CSELECT 1|Z
    c1 < 1|2|CSELECT 1|Z
"""
_AFTER_A_COPY_IN_DOUBT = """
    c1 > P:copy|B|E|S
    s1 < P:copy|B|E|S
    s1 > 1|2|G|E42809 a view|Z
    c1 < 1|2|G|E42809 a view|Z
"""
"""It keeps its server: nobody knows which Sync has been answered."""
_WAITING = """
    c2 > P:select 1|H
    s1 < P:select 1|H
    c1 > Qselect 1
"""
_AFTER_WAITING = """
    c2 > Qselect 1
    s1 < Qselect 1
    c1 > Qselect 2
    wait 9
    s1 > CSELECT 1|Z
    c2 < CSELECT 1|Z
    s1 < Qselect 2
"""
_AFTER_A_LONG_QUERY = """
    c1 > Qselect 1
    s1 < Qselect 1
    wait 5
    wait 5
    wait 5
    s1 > CSELECT 1|Z
    c1 < CSELECT 1|Z
"""
_ADJUSTING = """
    c1 proves timezone=Mars
    s1 < QSET timezone = 'Mars';
"""

_NAMES = {
    _IDLE: "idle",
    _AFTER_A_QUERY: "after a query",
    _BUSY: "busy",
    _BUSY_WITH_ROWS: "busy with rows",
    _BLOCK: "block",
    _BUSY_IN_A_BLOCK: "busy in a block",
    _AFTER_A_QUERY_IN_A_BLOCK: "after a query in a block",
    _FAILED_BLOCK: "failed block",
    _AFTER_A_BLOCK: "after a block",
    _HALF_A_CYCLE: "half a cycle",
    _PIPELINE: "pipeline",
    _WAITING: "waiting",
    _AFTER_WAITING: "after waiting",
    _AFTER_A_LONG_QUERY: "after a long query",
    _ADJUSTING: "adjusting",
}


def _name(value: object) -> str | None:
    """A script in the name of a test."""
    return _NAMES.get(value) if isinstance(value, str) else None


_ENDS = {
    "query_timeout": ("57014", "a query took 10 s"),
    "transaction_timeout": ("25P04", "a transaction took 10 s"),
    "idle_transaction_timeout": ("25P03", "a transaction was left open for 10 s without a query"),
    "client_idle_timeout": ("57P05", "the client sent nothing for 10 s"),
}


def _ended(limit: str) -> str:
    """What a client reads."""
    if limit == "query_wait_timeout":
        hint = "no server connection of pool db/u became free in 10 s; see query_wait_timeout and default_pool_size"
        return f"!08P01 query_wait_timeout {{{hint}}}|END"
    sqlstate, what = _ENDS[limit]
    return f"!{sqlstate} {limit} {{{what}; see the setting {limit}}}|END"


def _stage(limit: str = "", **pool: Any) -> Stage:
    """A stage with one limit."""
    limits: dict[str, Any] = dict.fromkeys(_LIMITS, 0.0)
    if limit:
        limits[limit] = 10.0
    return Stage(**limits, **pool)


def _play(script: str, limit: str, after: float, end: str, **pool: Any) -> None:
    """Play a script, and let time pass: nothing happens before, and then this."""
    with _stage(limit, **pool) as stage:
        stage.play(script)
        stage.wait(after - 0.1)
        assert stage.take("c1") == ""
        stage.wait(0.1)
        assert stage.take("c1") == end


@pytest.mark.parametrize(
    ("limit", "script", "after"),
    [
        ("query_timeout", _BUSY, 10.0),
        ("query_timeout", _BUSY_WITH_ROWS, 10.0),
        ("query_timeout", _BUSY_IN_A_BLOCK, 10.0),
        ("query_timeout", _PIPELINE, 1.0),
        ("query_timeout", _AFTER_WAITING, 10.0),
        ("transaction_timeout", _BUSY, 10.0),
        ("transaction_timeout", _BLOCK, 10.0),
        ("transaction_timeout", _FAILED_BLOCK, 10.0),
        ("transaction_timeout", _BUSY_IN_A_BLOCK, 1.0),
        ("transaction_timeout", _AFTER_A_QUERY_IN_A_BLOCK, 1.0),
        ("transaction_timeout", _HALF_A_CYCLE, 10.0),
        ("transaction_timeout", _AFTER_WAITING, 10.0),
        ("idle_transaction_timeout", _BLOCK, 10.0),
        ("idle_transaction_timeout", _FAILED_BLOCK, 10.0),
        ("idle_transaction_timeout", _AFTER_A_QUERY_IN_A_BLOCK, 10.0),
        ("idle_transaction_timeout", _HALF_A_CYCLE, 10.0),
        ("client_idle_timeout", _IDLE, 10.0),
        ("client_idle_timeout", _AFTER_A_QUERY, 10.0),
        ("client_idle_timeout", _AFTER_A_BLOCK, 10.0),
        ("client_idle_timeout", _AFTER_A_LONG_QUERY, 10.0),
        ("client_idle_timeout", _AFTER_A_COPY_IN_DOUBT, 10.0),
        ("query_wait_timeout", _WAITING, 10.0),
    ],
    ids=_name,
)
def test_what_takes_too_long(limit: str, script: str, after: float) -> None:
    """It ends at the time, with PostgreSQL's SQLSTATE for such a timeout if it has one, and names the setting."""
    _play(script, limit, after, _ended(limit))


@pytest.mark.parametrize(
    ("limit", "script"),
    [
        ("query_timeout", _IDLE),
        ("query_timeout", _AFTER_A_QUERY),
        ("query_timeout", _BLOCK),
        ("query_timeout", _HALF_A_CYCLE),
        ("query_timeout", _WAITING),
        ("transaction_timeout", _IDLE),
        ("transaction_timeout", _AFTER_A_QUERY),
        ("transaction_timeout", _AFTER_A_BLOCK),
        ("transaction_timeout", _WAITING),
        ("idle_transaction_timeout", _IDLE),
        ("idle_transaction_timeout", _AFTER_A_QUERY),
        ("idle_transaction_timeout", _BUSY),
        ("idle_transaction_timeout", _BUSY_IN_A_BLOCK),
        ("idle_transaction_timeout", _AFTER_A_BLOCK),
        ("idle_transaction_timeout", _WAITING),
        ("client_idle_timeout", _BUSY),
        ("client_idle_timeout", _BUSY_WITH_ROWS),
        ("client_idle_timeout", _BLOCK),
        ("client_idle_timeout", _HALF_A_CYCLE.replace("wait 20", "")),
        ("client_idle_timeout", _WAITING),
        ("query_wait_timeout", _IDLE),
        ("query_wait_timeout", _BUSY),
        ("query_wait_timeout", _BLOCK),
    ],
    ids=_name,
)
def test_what_is_not_meant(limit: str, script: str) -> None:
    """Each limit is for one state; the client may go on."""
    _play(script, limit, 100.0, "")


@pytest.mark.parametrize("script", [_IDLE, _BUSY, _BLOCK, _WAITING, _HALF_A_CYCLE], ids=_name)
def test_without_limits(script: str) -> None:
    """Zero is no limit."""
    with _stage() as stage:
        stage.play(script)
        stage.wait(1e6)
        stage.check()


@pytest.mark.parametrize("limit", ["query_timeout", "transaction_timeout", "idle_transaction_timeout"])
def test_the_server_is_closed(limit: str) -> None:
    """PostgreSQL rolls back, and the next client gets another server."""
    script = _BLOCK if "transaction" in limit else _BUSY
    with _stage(limit) as stage:
        stage.play(script)
        stage.wait(10.0)
        stage.play(
            f"""
            c1 < {_ended(limit)}
            s1 < END
            c2 > Qselect 1
            s2 < Qselect 1
            s2 > CSELECT 1|Z
            c2 < CSELECT 1|Z
            """
        )


def test_an_idle_client_costs_no_server() -> None:
    """When it is closed, the server stays."""
    with Stage(client_idle_timeout=10.0) as stage:
        stage.play(_AFTER_A_QUERY)
        stage.wait(10.0)
        stage.play(
            f"""
            c1 < {_ended("client_idle_timeout")}
            c2 > Qselect 1
            s1 < Qselect 1
            s1 > CSELECT 1|Z
            c2 < CSELECT 1|Z
            """
        )


class TestSessionMode:
    """A client keeps its server: the same limits hold, and count from the same moments."""

    @pytest.mark.parametrize(
        ("limit", "script", "after"),
        [
            ("query_timeout", _AFTER_A_QUERY + "wait 20\n" + _BUSY, 10.0),
            ("transaction_timeout", _AFTER_A_QUERY + "wait 20\n" + _BLOCK, 10.0),
            ("transaction_timeout", _AFTER_A_QUERY + "wait 20\n" + _BUSY_IN_A_BLOCK, 1.0),
            ("idle_transaction_timeout", _AFTER_A_QUERY + "wait 20\n" + _BLOCK, 10.0),
            ("idle_transaction_timeout", _HALF_A_CYCLE, 10.0),
            ("client_idle_timeout", _AFTER_A_QUERY, 10.0),
            ("client_idle_timeout", _AFTER_A_BLOCK, 10.0),
            ("client_idle_timeout", _AFTER_A_LONG_QUERY, 10.0),
        ],
        ids=_name,
    )
    def test_what_takes_too_long(self, limit: str, script: str, after: float) -> None:
        """It ends at the time."""
        _play(script, limit, after, _ended(limit), pool_mode=PoolMode.SESSION)

    @pytest.mark.parametrize(
        ("limit", "script"),
        [
            ("query_timeout", _AFTER_A_QUERY),
            ("transaction_timeout", _AFTER_A_QUERY),
            ("transaction_timeout", _AFTER_A_BLOCK),
            ("idle_transaction_timeout", _AFTER_A_QUERY),
            ("idle_transaction_timeout", _BUSY),
            ("client_idle_timeout", _BLOCK),
        ],
        ids=_name,
    )
    def test_what_is_not_meant(self, limit: str, script: str) -> None:
        """A session without a transaction is idle as long as it likes."""
        _play(script, limit, 100.0, "", pool_mode=PoolMode.SESSION)


# -- clients that wait -----------------------------------------------------------------------------------------------

_NOTICE = "Nno server connection is free, the query waits for one"


def test_a_client_that_waits_is_told_once() -> None:
    """``query_wait_notify``: after so many seconds, and again when it waits again."""
    with Stage(query_wait_notify=5.0) as stage:
        stage.play(_WAITING)
        stage.wait(4.9)
        assert stage.take("c1") == ""
        stage.wait(0.1)
        assert stage.take("c1") == _NOTICE
        stage.wait(50.0)
        stage.play(
            """
            c2 > S
            s1 < S
            s1 > 1|Z
            c2 < 1|Z
            s1 < Qselect 1
            s1 > CSELECT 1|Z
            c1 < CSELECT 1|Z
            c2 > P:select 1|H
            s1 < P:select 1|H
            c1 > Qselect 1
            """
        )
        stage.wait(4.9)
        assert stage.take("c1") == ""
        stage.wait(0.1)
        assert stage.take("c1") == _NOTICE


@pytest.mark.parametrize(
    ("notify", "timeout"), [(5.0, 10.0), (5.0, 0.0), (0.0, 10.0), (0.0, 0.0), (10.0, 5.0)]
)
def test_notice_and_timeout(notify: float, timeout: float) -> None:
    """Each may be off; the notice comes before the end, or not at all."""
    with Stage(query_wait_notify=notify, query_wait_timeout=timeout) as stage:
        stage.play(_WAITING)
        for second in range(1, 13):
            stage.wait(1.0)
            expected = []
            if notify and second == notify and not (timeout and timeout < notify):
                expected.append(_NOTICE)
            if timeout and second == timeout:
                expected.append(_ended("query_wait_timeout").replace("10 s", f"{timeout:g} s"))
            assert stage.take("c1") == "|".join(expected), second


def test_who_has_waited_less_waits_on() -> None:
    """The limits are each client's own."""
    with Stage(query_wait_notify=5.0, query_wait_timeout=10.0) as stage:
        stage.play(_WAITING)
        stage.wait(3.0)
        stage.play("c3 > Qselect 3")
        stage.wait(2.0)
        assert (stage.take("c1"), stage.take("c3")) == (_NOTICE, "")
        stage.wait(3.0)
        assert (stage.take("c1"), stage.take("c3")) == ("", _NOTICE)
        stage.wait(2.0)
        assert (stage.take("c1"), stage.take("c3")) == (_ended("query_wait_timeout"), "")
        stage.wait(3.0)
        assert stage.take("c3") == _ended("query_wait_timeout")


def test_a_client_that_waits_to_be_let_in_is_told_when_its_time_is_over() -> None:
    """It cannot take a notice before its login is complete, but an error."""
    with Stage(query_wait_notify=5.0, query_wait_timeout=10.0) as stage:
        stage.play(
            """
            c2 > P:select 1|H
            s1 < P:select 1|H
            c1 proves timezone=Mars
            """
        )
        stage.wait(9.9)
        assert stage.take("c1") == ""
        stage.wait(0.1)
        assert stage.take("c1") == _ended("query_wait_timeout")


@pytest.mark.parametrize("limit", ["query_timeout", "transaction_timeout", "client_idle_timeout"])
def test_a_client_whose_server_is_being_adjusted_is_not_meant(limit: str) -> None:
    """It has asked nothing yet."""
    _play(_ADJUSTING, limit, 14.0, "")


_ASKS_BEHIND = f"""
    c1 > Qset work_mem = '7MB'
    s1 < Qset work_mem = '7MB'
    wait 9.9
    s1 > CSET|Z
    s1 < Q{defaults_and_values("work_mem")}
    c1 < CSET|Z
"""
"""The client c1 has its answer just in time, and the pooler asks the server what it has left."""


@pytest.mark.parametrize("limit", ["query_timeout", "transaction_timeout"])
def test_what_the_pooler_asks_behind_an_answer_is_a_time_of_its_own(limit: str) -> None:
    """The client has its answer in time, and is not ended for the question behind it, unless that takes as long."""
    with _stage(limit, **FOLLOW) as stage:
        stage.play(
            f"""
            {_ASKS_BEHIND}
            wait 9.9
            """
        )
        stage.wait(0.1)
        assert stage.take("c1") == _ended(limit)


@pytest.mark.parametrize("limit", ["query_timeout", "transaction_timeout"])
def test_what_comes_before_the_pooler_has_been_answered_has_its_own_time(limit: str) -> None:
    """A client that goes on while the server is asked what its last query has left is not ended for that one."""
    with _stage(limit, **FOLLOW) as stage:
        stage.play(
            f"""
            {_ASKS_BEHIND}
            c1 > QSELECT 1
            s1 < QSELECT 1
            wait 9.9
            """
        )
        stage.wait(0.1)
        assert stage.take("c1") == _ended(limit)
