"""What scripts about resets have in common: a client that has asked for a parameter, ``x.y``, when it logged in."""

from __future__ import annotations

from tests.support.exchanges import SELECTS, exchange
from tests.support.sessionscripts import defaults_and_values, rows

SETS_AGAIN = """
    s1 < QSET "x"."y" = '1';
    s1 > CSET|Z
"""
"""The server is told again what the client has asked for."""

SETS_AGAIN_IN_BLOCK = """
    s1 < QSET "x"."y" = '1';
    s1 > CSET|ZT
"""
"""The same within a transaction block."""

RESETS = exchange("Qreset x.y", "CRESET|Z")
"""The client c1 resets what it has asked for."""

RESETS_IN_BLOCK = exchange("Qreset x.y", "CRESET|ZT")
"""The same within a transaction block."""


def asks(name: str, value: str) -> str:
    """The server is asked for a parameter that nobody has asked for before; it has this value."""
    return f"""
        s1 < Q{defaults_and_values(name)}
        s1 > {rows()}|{rows(f"{name},{value},-")}|Z
    """


ASKS = asks("x.y", "1")
"""The server is asked for ``x.y``, and has what the client has asked for."""

SHOWS = f"""
    {SETS_AGAIN}
    {ASKS}
    s1 < Qshow x.y
    s1 > T|D1|CSHOW|Z
    c1 < T|D1|CSHOW|Z
"""
"""What the client c1 has sent behind its reset finds the parameter."""

ALONE_HAS = f"""
    {SELECTS}
    c2 > Qselect 2
    s1 < QRESET "x"."y";
    s1 > CRESET|Z
    s1 < Qselect 2
"""
"""The client c1 goes on with its parameter, which c2 does not find."""

HAS = f"""
    {ALONE_HAS}
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


def everything(*rows_with_a_dot: str) -> str:
    """Everything is asked for; these parameters with a dot are there, and nothing else is set."""
    names = [row.partition(",")[0] for row in rows_with_a_dot]
    named = f"{defaults_and_values(*names)};" if names else ""
    answers = f"{rows()}|{rows(*rows_with_a_dot)}|" if names else ""
    listed = rows("statement_timeout,0,0", "role,none,-", "session_authorization,u,-")
    return f"""
        s1 < Q<begin>;<no timeout>;{named}<settings>
        s1 > {rows("statement_timeout,0,-")}|CSET|{answers}{listed}|Z
    """
