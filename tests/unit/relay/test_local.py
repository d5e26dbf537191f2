"""Preparing statements without a server, when all that is asked for is known."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpool.config import SessionState
from hyperpool.relay.parameters import ParameterTracker
from tests.support.relaystage import Stage, play, play_in_pieces

_FEW: dict[str, Any] = {"max_prepared_statements": 3}

_KNOWN = """
    c1 > Pa:select 1|Pb:select 2|Pc:listen x|S
    s1 < P~1:select 1|P~2:select 2|P~3:listen x|S
    s1 > 1|1|1|Z
    c1 < 1|1|1|Z
"""
_BUSY = """
    c9 > Qbegin
    s1 < Qbegin
    s1 > CBEGIN|ZT
    c9 < CBEGIN|ZT
"""
"""There is no free server: who has to ask one is not answered."""


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("Px:select 1|S", "1|Z"),
        ("Px:select 1|Py:select 2|S", "1|1|Z"),
        ("Px:select 1|S|Py:select 2|S", "1|Z|1|Z"),
        ("Px:select 1|S|S", "1|Z|Z"),
        ("Pa:select 2|S", "1|Z"),
        ("P~2:select 1|S", "1|Z"),
        ("Px:listen x|S", "1|Z"),
    ],
)
def test_what_is_known_is_answered_at_once(asked: str, told: str) -> None:
    """Also while there is no server; and the client has the statements then."""
    play(f"{_KNOWN}{_BUSY}\nc2 > {asked}\nc2 < {told}", **_FEW)


@pytest.mark.parametrize(
    "asked",
    [
        "Px:select 3|S",  # unknown
        "Px:select 1[23]|S",  # unknown with such types
        "Px:select 1|Py:select 3|S",
        "P:select 1|S",  # the unnamed statement
        "Px:select 1|DSx|S",  # the server must describe it
        "Px:select 1|Bx|E|S",
        "Px:select 1|CSx|S",
        "Px:select 1|H",  # not all of a cycle
        "Px:select 1",
        "Px:select 1|S|Qselect 1",
        "Px:select 1|S|Px:select 1|S",  # a name that is taken
        "Px:select 1|Px:select 2|S",
        "Px:select 1|Py:select 1|S",  # two names of one text
        "S",
        r"Px:select 1|\x5000000004|S",
    ],
)
def test_what_is_not_known_is_left_to_a_server(asked: str) -> None:
    """All of it: nothing is answered, and nothing is remembered."""
    with Stage(**_FEW) as stage:
        stage.play(f"{_KNOWN}{_BUSY}\nc2 > {asked}\nc2 <")
        client = stage.client("c2")
        assert client.parked is not None
        assert not (client.statements and client.statements.names)


def test_the_client_has_the_statements_then() -> None:
    """They are used where the client gets a server."""
    play(
        f"""
        {_KNOWN}
        c2 > Px:select 1|S
        c2 < 1|Z
        c2 > Bx|E|S
        s1 < B~1|E|S
        s1 > 2|CSELECT 1|Z
        c2 < 2|CSELECT 1|Z
        c2 > CSx|Px:select 2|Bx|S
        s1 < B~2|S
        """,
        **_FEW,
    )


def test_in_pieces() -> None:
    """What does not come as a whole goes to a server; the client cannot tell the difference."""
    script = f"""
        {_KNOWN}
        c2 > Px:select 1|S
    """
    play(script + "c2 < 1|Z", **_FEW)
    play_in_pieces("c2 > Px:select 1|S\ns1 < P~1:select 1|S\ns1 > 1|Z\nc2 < 1|Z", **_FEW)


@pytest.mark.parametrize(
    ("spoil", "sent"),
    [
        # the only server that had it has gone
        ("s1 dies", "s2 < P~1:select 1|S"),
        # the schema has changed
        (
            """
            c3 > Qdrop table t
            s1 < Qdrop table t
            s1 > CDROP TABLE|Z
            c3 < CDROP TABLE|Z
            """,
            "s1 < CS~1|P~1:select 1|S",
        ),
        # what it had has been deallocated
        (
            """
            c3 > Qdeallocate all
            s1 < Qdeallocate all
            s1 > CDEALLOCATE ALL|Z
            c3 < CDEALLOCATE ALL|Z
            """,
            "s1 < CS~1|P~1:select 1|S",
        ),
    ],
    ids=["server", "schema", "deallocated"],
)
def test_what_no_server_has_is_not_known(spoil: str, sent: str) -> None:
    """Somebody must say that it is still possible."""
    play(
        f"""
        {_KNOWN}
        {spoil}
        c2 > Px:select 1|S
        {sent}
        """,
        **_FEW,
        session_state=SessionState.RESET,
    )


def test_a_client_that_reads_texts_otherwise() -> None:
    """A literal may mean something else in its session."""
    play(
        f"""
        {_KNOWN}
        c2 comes TimeZone=Asia/Tokyo
        c2 > Px:select 1|S
        s1 < QSET TimeZone = 'Asia/Tokyo';|CS~1|P~4:select 1|S
        """,
        **_FEW,
    )


def test_what_does_not_change_how_texts_are_read() -> None:
    """The name of the application, and timeouts."""
    flavor = (
        ParameterTracker().intern({"TimeZone": "UTC", "application_name": "x"}, {"lock_timeout": "1"}).flavor
    )
    assert flavor == (("TimeZone", "UTC"),)
    play(
        f"""
        {_KNOWN}
        c2 comes application_name=me
        c2 > Px:select 1|S
        c2 < 1|Z
        """,
        **_FEW,
    )


def test_memory_is_counted() -> None:
    """Beyond its share, a client has to ask a server, and to keep it."""
    play(
        """
        c1 > Pa:select 1|S
        s1 < P~1:select 1|S
        s1 > 1|Z
        c1 < 1|Z
        c2 > Pb:select 1|S
        s1 < Pb:select 1|S
        """,
        memory=512,
        max_pinned=1,
        **_FEW,
    )


def test_without_prepared_statements() -> None:
    """With ``max_prepared_statements`` of 0, a name is known to the server alone."""
    play(
        """
        c1 > Pa:select 1|S
        s1 < Pa:select 1|S
        s1 > 1|Z
        c1 < 1|Z
        c2 > Pb:select 1|S
        s1 < Pb:select 1|S
        """,
        max_prepared_statements=0,
    )
