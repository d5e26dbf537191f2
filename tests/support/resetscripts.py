"""What scripts about resets have in common: a client that has asked for a parameter, ``x.y``, when it logged in."""

from __future__ import annotations

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

BEGINS = """
    c1 > Qbegin
    s1 < Qbegin
    s1 > CBEGIN|ZT
    c1 < CBEGIN|ZT
"""
"""The client c1 opens a transaction block."""


def asks(name: str, value: str) -> str:
    """The server is asked for a parameter that nobody has asked for before; it has this value."""
    return f"""
        s1 < Q{defaults_and_values(name)}
        s1 > {rows()}|{rows(f"{name},{value},-")}|Z
    """


ASKS = asks("x.y", "1")
"""The server is asked for ``x.y``, and has what the client has asked for."""

HAS = """
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
