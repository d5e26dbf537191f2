"""Statements that clients of shared servers deallocate by SQL."""

from __future__ import annotations

import pytest

from hyperpool.config import SessionState
from tests.support.pglanguage import frame
from tests.support.relaystage import Stage, answers, play, play_in_pieces
from tests.support.sessionscripts import FOLLOW

_A = """
    c1 > Pa:select 1|S
    s1 < P~1:select 1|S
    s1 > 1|Z
    c1 < 1|Z
"""
_GONE = """
    c1 > Ba|S
    s1 < Ba|S
    s1 > E26000 prepared statement "a" does not exist|Z
    c1 < E26000 prepared statement "a" does not exist|Z
"""


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("deallocate a", 'deallocate "~1"'),
        ("DEALLOCATE PREPARE a", 'DEALLOCATE PREPARE "~1"'),
        ('deallocate "a"', 'deallocate "~1"'),
        ("deallocate A;", 'deallocate "~1";'),
        ("/* a */ deallocate /* b */ a -- c", '/* a */ deallocate /* b */ "~1" -- c'),
    ],
)
def test_deallocate(text: str, sent: str) -> None:
    """With the server's name; then the client has no such statement, and may give the name again."""
    play_in_pieces(
        f"""
        {_A}
        c1 > Q{text}
        s1 < Q{sent}
        s1 > CDEALLOCATE|Z
        c1 < CDEALLOCATE|Z
        {_GONE}
        c1 > Pa:select 2|Ba|S
        s1 < P~2:select 2|B~2|S
        """,
        **FOLLOW,
    )


def test_deallocate_of_what_the_server_does_not_have() -> None:
    """It is prepared first: the answer is the server's."""
    play(
        f"""
        {_A}
        c9 > Qbegin
        s1 < Qbegin
        s1 > CBEGIN|ZT
        c9 < CBEGIN|ZT
        c1 > Qdeallocate a
        s2 < P~1:select 1|S|Qdeallocate "~1"
        """,
        pool_size=2,
        **FOLLOW,
    )


def test_others_keep_what_one_has_deallocated() -> None:
    """It is prepared again when they use it."""
    play(
        f"""
        {_A}
        c2 > Pb:select 1|S
        c2 < 1|Z
        c1 > Qdeallocate a
        s1 < Qdeallocate "~1"
        s1 > CDEALLOCATE|Z
        c1 < CDEALLOCATE|Z
        c2 > Bb|S
        s1 < CS~1|P~1:select 1|B~1|S
        s1 > 3|1|2|Z
        c2 < 2|Z
        """,
        **FOLLOW,
    )


def test_deallocate_of_what_sql_has_prepared() -> None:
    """Its name is the server's."""
    play(
        """
        c1 > Qprepare p as select 1
        s1 < Qprepare p as select 1
        s1 > CPREPARE|Z
        s1 < Q<pins>
        c1 < CPREPARE|Z
        s1 > T|Df,f,f,f,t|CSELECT 1|Z
        c1 > Pa:select 1|S
        s1 < P~1:select 1|S
        s1 > 1|Z
        c1 < 1|Z
        c1 > Qdeallocate p
        s1 < Qdeallocate p
        s1 > CDEALLOCATE|Z
        s1 < Q<pins>
        c1 < CDEALLOCATE|Z
        s1 > T|Df,f,f,f,f|CSELECT 1|Z
        c1 > Ba|S
        s1 < B~1|S
        """,
        **FOLLOW,
    )


_D = """
    c1 > Pd:deallocate a|S
    s1 < P~2:deallocate a|S
    s1 > 1|Z
    c1 < 1|Z
"""


def test_bound_twice_and_executed_once() -> None:
    """The second portal takes the place of the first: nothing has been deallocated before."""
    play_in_pieces(
        f"""
        {_A}
        {_D}
        c1 > Bd|Bd|E|S
        s1 < P~3:deallocate "~1"|B~3|B~3|E|S
        s1 > 1|2|2|CDEALLOCATE|Z
        c1 < 2|2|CDEALLOCATE|Z
        {_GONE}
        """,
        **FOLLOW,
    )


def test_executed_twice() -> None:
    """The second time, there is nothing."""
    play(
        f"""
        {_A}
        {_D}
        c1 > Bd|E|Bd|E|S
        s1 < P~3:deallocate "~1"|B~3|E|B~3|E|S
        s1 > 1|2|CDEALLOCATE|2|E26000 prepared statement "~1" does not exist|Z
        c1 < 2|CDEALLOCATE|2|E26000 prepared statement "a" does not exist|Z
        {_GONE}
        """,
        **FOLLOW,
    )


def test_bound_again_behind_a_pipeline_that_deallocates() -> None:
    """That may fail: what the name means is known when it has been answered."""
    play_in_pieces(
        f"""
        {_A}
        {_D}
        c1 > Bd(1)|E|S|Bd|E|S
        s1 < B~2(1)|E|S
        s1 > E08P01 bind message supplies 1 parameter|Z
        s1 < CS~1|P~1:select 1|P~3:deallocate "~1"|B~3|E|S
        s1 > 3|1|1|2|CDEALLOCATE|Z
        c1 < E08P01 bind message supplies 1 parameter|Z|2|CDEALLOCATE|Z
        {_GONE}
        """,
        **FOLLOW,
    )


@pytest.mark.parametrize(
    ("again", "sent"),
    [
        ("Pa:select 3", "P~2:select 3|"),
        ("CSa", ""),
        ("CSa|Pa:select 3", "P~2:select 3|"),
        ("Pa:select 3|CSa|Pa:select 4", "P~2:select 3|P~3:select 4|"),
    ],
)
@pytest.mark.parametrize(
    ("deallocate", "parsed", "parses", "tag"),
    [
        ("deallocate all", "P:deallocate all|B", "1", "DEALLOCATE ALL"),
        ("deallocate a", 'P:deallocate a|P~9:deallocate "~1"|B~9', "1|1", "DEALLOCATE"),
    ],
)
def test_what_is_done_behind_it_fails(
    again: str, sent: str, deallocate: str, parsed: str, parses: str, tag: str
) -> None:
    """The name means nothing then: what it meant before the text is gone."""
    if "~9" in parsed:
        parsed, sent = parsed.replace("~9", "~2"), sent.replace("~3", "~4").replace("~2", "~3")
    play(
        f"""
        {_A}
        c1 > P:{deallocate}|B|E|Ep|{again}|S
        s1 < {parsed}|E|Ep|{sent}S
        s1 > {parses}|2|C{tag}|E34000 portal "p" does not exist|Z
        c1 < 1|2|C{tag}|E34000 portal "p" does not exist|Z
        {_GONE}
        """,
        **{**FOLLOW, "max_prepared_statements": 9},
    )


def test_deallocate_fails() -> None:
    """Then the client still has its statement; and a later one is not taken for it."""
    play(
        f"""
        {_A}
        c1 > Qdeallocate missing|Qdeallocate a
        s1 < Qdeallocate missing|Qdeallocate "~1"
        s1 > E26000 prepared statement "missing" does not exist|Z|CDEALLOCATE|Z
        c1 < E26000 prepared statement "missing" does not exist|Z|CDEALLOCATE|Z
        {_GONE}
        """,
        **FOLLOW,
    )
    play(
        f"""
        {_A}
        c1 > Qselect 1/0; deallocate a
        s1 < Qselect 1/0; deallocate "~1"
        s1 > E22012 division by zero|Z
        c1 < E22012 division by zero|Z
        c1 > Ba|S
        s1 < CS~1|P~1:select 1|B~1|S
        """,
        **FOLLOW,
    )


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("P:deallocate a|B|E|S", 'P:deallocate a|P~2:deallocate "~1"|B~2|E|S'),
        ("Pd:deallocate a|Bd|E|S", 'P~2:deallocate a|P~3:deallocate "~1"|B~3|E|S'),
    ],
)
def test_deallocate_by_the_extended_protocol(asked: str, sent: str) -> None:
    """Drivers that prepare everything prepare this, too, and execute it by its name."""
    play(
        f"""
        {_A}
        c1 > {asked}
        s1 < {sent}
        s1 > 1|1|2|CDEALLOCATE|Z
        c1 < 1|2|CDEALLOCATE|Z
        {_GONE}
        """,
        **FOLLOW,
    )


def test_a_text_that_was_parsed_before_the_name_was_given() -> None:
    """It deallocates what has the name when it is executed."""
    play(
        """
        c1 > P:deallocate a|Pa:select 1|B|E|S
        s1 < P:deallocate a|P~1:select 1|P~2:deallocate "~1"|B~2|E|S
        s1 > 1|1|1|2|CDEALLOCATE|Z
        c1 < 1|1|2|CDEALLOCATE|Z
        """,
        **FOLLOW,
    )


@pytest.mark.parametrize("text", ["deallocate all", "DEALLOCATE PREPARE ALL"])
@pytest.mark.parametrize("state", SessionState)
def test_deallocate_all(text: str, state: SessionState) -> None:
    """The client has no statement any more, and none of its server's is certain."""
    play(
        f"""
        {_A}
        c2 > Pb:select 1|S
        c2 < 1|Z
        c1 > Q{text}
        s1 < Q{text}
        s1 > CDEALLOCATE ALL|Z
        c1 < CDEALLOCATE ALL|Z
        {_GONE}
        c2 > Bb|S
        s1 < CS~1|P~1:select 1|B~1|S
        s1 > 3|1|2|Z
        c2 < 2|Z
        c1 > Pa:select 2|Ba|S
        s1 < P~2:select 2|B~2|S
        """,
        **{**FOLLOW, "session_state": state},
    )


def test_a_statement_that_is_prepared_behind_deallocate_all() -> None:
    """In the same write: it is there, and its name is free."""
    play(
        f"""
        {_A}
        c1 > Qdeallocate all|Pa:select 2|Ba|E|S
        s1 < Qdeallocate all
        s1 > CDEALLOCATE ALL|Z
        c1 < CDEALLOCATE ALL|Z
        s1 < P~2:select 2|B~2|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|Z
        c1 > Ba|S
        s1 < B~2|S
        """,
        **FOLLOW,
    )


@pytest.mark.parametrize("state", [SessionState.FOLLOW, SessionState.KEEP])
def test_discard_all(state: SessionState) -> None:
    """Statements are gone, too."""
    play(
        f"""
        {_A}
        c1 > Qdiscard all
        s1 < Qdiscard all
        s1 > CDISCARD ALL|Z
        {"s1 < Q<begin>;<no timeout>;<settings>" if state is SessionState.FOLLOW else ""}
        c1 < CDISCARD ALL|Z
        {"s1 > T|Drole,none,-|CSELECT 1|Z" if state is SessionState.FOLLOW else ""}
        {_GONE}
        """,
        **{**FOLLOW, "session_state": state},
    )


@pytest.mark.parametrize("tag", ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE"])
def test_an_answer_in_pieces(tag: str) -> None:
    """It counts when all of it has come."""
    text = "deallocate a" if tag == "DEALLOCATE" else tag.lower()
    sent = text.replace(" a", ' "~1"') if tag == "DEALLOCATE" else text
    answer = answers(f"C{tag}|Z")
    for at in range(1, len(answer)):
        play(
            f"""
            {_A}
            c1 > Q{text}
            s1 < Q{sent}
            s1 > \\x{answer[:at].hex()}
            s1 > \\x{answer[at:].hex()}
            c1 < C{tag}|Z
            {_GONE}
            """,
            **{**FOLLOW, "session_state": SessionState.KEEP},
        )


_ELSEWHERE = f"""
    {_A}
    c2 comes TimeZone=Asia/Tokyo
    c2 > Qselect 1
    s1 < QSET TimeZone = 'Asia/Tokyo';|Qselect 1
    s1 > STimeZone=Asia/Tokyo|CSET|Z|CSELECT 1|Z
    c2 < CSELECT 1|Z
"""


@pytest.mark.parametrize("behind", ["", "Ba|E|S"])
def test_deallocate_fails_behind_the_adjusting(behind: str) -> None:
    """The pooler's own answer in front is not that of the text."""
    play(
        f"""
        {_ELSEWHERE}
        c1 > Qdeallocate all{"|" + behind if behind else ""}
        s1 < QSET TimeZone = 'UTC';|Qdeallocate all
        s1 > STimeZone=UTC|CSET|Z|E57014 canceled|Z
        c1 < E57014 canceled|Z
        {"c1 > Ba|E|S" if not behind else ""}
        s1 < B~1|E|S
        """,
        **{**FOLLOW, "session_state": SessionState.KEEP},
    )


def test_deallocate_behind_a_query_that_is_discarded() -> None:
    """That has no answer; the text that fails has its own."""
    play(
        f"""
        {_A}
        c1 > Qbegin
        s1 < Qbegin
        s1 > CBEGIN|ZT
        c1 < CBEGIN|ZT
        c1 > Bx|E|Qselect 1|S|Qdeallocate all
        s1 < Bx|E|Qselect 1|S|Qdeallocate all
        s1 > E26000 no|ZE|E25P02 aborted|ZE
        c1 < E26000 no|ZE|E25P02 aborted|ZE
        c1 > Qrollback|Ba|E|S
        s1 < Qrollback|B~1|E|S
        """,
        **{**FOLLOW, "session_state": SessionState.KEEP},
    )


def test_a_long_text() -> None:
    """It is not parsed, but the name is found."""
    long = "/*" + "x" * 5000 + "*/"
    play(
        f"""
        {_A}
        c1 > Qdeallocate a{long}; deallocate b
        s1 < Qdeallocate "~1"{long}; deallocate b
        s1 > CDEALLOCATE|E26000 no|Z
        c1 < CDEALLOCATE|E26000 no|Z
        {_GONE}
        c1 > Pa:select 2|S
        s1 < P~2:select 2|S
        s1 > 1|Z
        c1 < 1|Z
        c1 > Q{long}deallocate all
        s1 < Q{long}deallocate all
        s1 > CDEALLOCATE ALL|Z
        c1 < CDEALLOCATE ALL|Z
        {_GONE}
        """,
        buffer=16384,
        **{**FOLLOW, "session_state": SessionState.KEEP},
    )


@pytest.mark.parametrize(
    ("text", "name", "sent", "told"),
    [
        ("deallocate a; select nope", "~1", 27, 15),
        ("select nope; deallocate a", "~1", 1, 1),
        ("deallocate a; deallocate a; select nope", "~1", 53, 29),
        ("/* \u00e4\u00f6 */ deallocate a; select nope", "~1", 36, 24),
    ],
)
def test_where_an_error_is(text: str, name: str, sent: int, told: int) -> None:
    """In the text that the client has sent, in characters."""
    renamed = text.replace("deallocate a", f'deallocate "{name}"')
    error = r"\x{}".format(frame(b"E", f"SERROR\0C42601\0Mno\0P{sent}\0R?\0\0".encode()).hex())
    seen = r"\x{}".format(frame(b"E", f"SERROR\0C42601\0Mno\0P{told}\0R?\0\0".encode()).hex())
    with Stage(**{**FOLLOW, "session_state": SessionState.KEEP}) as stage:
        stage.play(_A)
        stage.play(f"c1 > Q{text}\ns1 < Q{renamed}\ns1 > {error}|Z\nc1 < {seen}|Z")


def test_names_longer_than_postgresql_looks_at() -> None:
    """63 bytes count, in the protocol as in SQL; the answer speaks of what the client has written."""
    name = "a" * 63
    play_in_pieces(
        f"""
        c1 > P{name}b:select 1|S
        s1 < P~1:select 1|S
        s1 > 1|Z
        c1 < 1|Z
        c1 > B{name}c|E|DS{name}|P{name}d:select 2|S
        s1 < B~1|E|DS~1|CS~01|P~01:|P~01:select 2|S
        s1 > 2|CSELECT 1|t|T|3|1|E42P05 "~01" exists|Z
        c1 < 2|CSELECT 1|t|T|E42P05 "{name}d" exists|Z
        c1 > Qdeallocate {name}e
        s1 < Qdeallocate "~1"
        s1 > CDEALLOCATE|Z
        c1 < CDEALLOCATE|Z
        c1 > B{name}b|E|CS{name}f|S
        s1 < B{name}b|E|CS{name}f|S
        s1 > E26000 no|Z
        c1 < E26000 no|Z
        """,
        **{**FOLLOW, "session_state": SessionState.KEEP},
    )
