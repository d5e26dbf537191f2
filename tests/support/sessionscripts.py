"""What scripts about session state have in common (`tests.support.relaystage` says how scripts are read)."""

from __future__ import annotations

from typing import Any

from hyperpool.config import SessionState
from hyperpool.relay import session

FOLLOW: dict[str, Any] = {
    "max_prepared_statements": 3,
    "session_state": SessionState.FOLLOW,
    "max_pinned": 1,
}
"""Settings of a pool whose clients' sessions follow them."""

FOLLOW_ON_TWO: dict[str, Any] = {**FOLLOW, "pool_size": 2}
"""The same with two servers, of which one client may keep one."""

WELCOME = "Sapplication_name=|Sclient_encoding=UTF8|STimeZone=UTC|"
"""What each client is told at login."""


def values(*names: str) -> str:
    """The question for the values of parameters whose defaults are known."""
    return session._VALUES % ",".join(f"'{name}'" for name in names)


def defaults_and_values(*names: str) -> str:
    """The same, for parameters of which nothing is known."""
    return session._DEFAULTS % ",".join(f"'{name}'" for name in names) + ";" + values(*names)


def rows(*rows: str) -> str:
    """An answer with rows; the columns of each are parted by commas."""
    return "T|" + "".join(f"D{row}|" for row in rows) + "CSELECT 1"


COMES = f"""
    c1 proves x.y=1
    s1 < QSET "x"."y" = '1';
    s1 > CSET|Z
    c1 < {WELCOME}Sx.y=1|Z
"""
"""The client c1 has asked for a parameter at login; the first server has it."""

SETS_WORK_MEM = f"""
    c1 > Qset work_mem = '7MB'
    s1 < Qset work_mem = '7MB'
    s1 > CSET|Z
    s1 < Q{defaults_and_values("work_mem")}
    c1 < CSET|Z
    s1 > {rows("work_mem,7MB,4MB")}|{rows("work_mem,7MB,-")}|Z
"""
"""The client c1 sets a parameter, and the pooler hears what its default is."""

NOTHING = "T|Df,f,f,f,f|CSELECT 1|Z"
"""The answer to what is asked about state that pins: there is none."""

LISTENING = "T|Df,t,f,f,f|CSELECT 1|Z"
"""The same: the session listens."""

IS_ASKED = """
    c1 > Qlisten x
    s1 < Qlisten x
    s1 > CLISTEN|Z
    s1 < Q<pins>
    c1 < CLISTEN|Z
"""
"""The client c1 has listened, and the server s1 is asked whether it does."""

LISTENS = f"""
    {IS_ASKED}
    s1 > {LISTENING}
"""
"""The client c1 keeps the server s1."""

FREE = """
    c9 > Qselect 9
    s1 < Qselect 9
    s1 > CSELECT 1|Z
    c9 < CSELECT 1|Z
"""
"""The first server serves somebody else."""

OTHER = """
    c9 > Qselect 9
    s2 < Qselect 9
    s2 > CSELECT 1|Z
    c9 < CSELECT 1|Z
"""
"""The first server is kept: the second one serves somebody else."""
