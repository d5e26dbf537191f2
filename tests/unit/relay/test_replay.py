"""Prepared statements that are out of date: seen by their errors, and prepared anew without the client's knowledge."""

from __future__ import annotations

import pytest

from hyperpool.config import SessionState
from hyperpool.relay.ledger import FAKE, SKIP, Ledger
from hyperpool.relay.replay import fits, is_stale
from tests.support.exchanges import BEGINS, ROLLS_BACK, exchange
from tests.support.pglanguage import frame
from tests.support.relaystage import cut_at, play

_STALE = "E0A000 cached plan must not change result type @RevalidateCachedQuery"


@pytest.mark.parametrize(
    ("code", "message", "routine", "stale"),
    [
        ("0A000", "cached plan must not change result type", "RevalidateCachedQuery", True),
        ("0A000", "der gecachte Plan darf den Ergebnistyp nicht verändern", "RevalidateCachedQuery", True),
        ("0A000", "cached plan must not change result type", "ExecCheckPlan", False),
        ("0A000", "RevalidateCachedQuery", "", False),
        ("26000", 'prepared statement "HYPERPOOL_1" does not exist', "FetchPreparedStatement", True),
        ("26000", 'prepared statement "HYPERPOOL_123456" does not exist', "", True),
        ("26000", 'prepared statement "HYPERPOOL_1?" does not exist', "FetchPreparedStatement", False),
        ("26000", 'prepared statement "HYPERPOOL_x" does not exist', "FetchPreparedStatement", False),
        ("26000", 'prepared statement "a" does not exist', "FetchPreparedStatement", False),
        ("26000", "unnamed prepared statement does not exist", "exec_bind_message", False),
        ("42P05", 'prepared statement "HYPERPOOL_1" already exists', "StorePreparedStatement", False),
        ("XX000", "HYPERPOOL_1 0A000 26000", "RevalidateCachedQuery", False),
    ],
)
def test_errors(code: str, message: str, routine: str, stale: bool) -> None:
    """By SQLSTATE and routine, which are the same in every language, and only of the pooler's own statements."""
    fields = ("SFEHLER", "VERROR", "C" + code, "M" + message, "Fplancache.c", "L123", "R" + routine)
    assert is_stale(frame(b"E", "\0".join(fields).encode() + b"\0\0")) is stale


@pytest.mark.parametrize(
    ("entries", "expected"),
    [("BES", True), ("ES", False), ("S", False), ("", False), ("BESQ", False), ("BESBES", False)],
)
def test_fits(entries: str, expected: bool) -> None:
    """Nothing of the pipeline has been answered, and nothing was sent behind it."""
    ledger = Ledger()
    for kind in entries:
        ledger.request(ord(kind))
    assert fits((b"", 3, ()), ledger) is expected


def test_what_is_asked_in_front_does_not_fit() -> None:
    """An answer of the pooler's own is still to come."""
    ledger = Ledger()
    for kind, action in (("Q", SKIP), ("B", 0), ("C", FAKE), ("S", 0)):
        ledger.request(ord(kind), action)
    assert not fits((b"", 3, ()), ledger)


_PREPARE = exchange("Pa:select * from t|S", "1|Z", sent="P~1:select * from t|S")

_MEETS = f"""
    c1 > Ba|E|S
    s1 < B~1|E|S
    s1 > {_STALE}|Z
"""
"""The client c1 uses the statement, which is out of date."""

_ANEW = """
    s1 < CS~1|P~1:select * from t|B~1|E|S
    s1 > 3|1|2|CSELECT 1|Z
    c1 < 2|CSELECT 1|Z
"""
"""It is prepared anew and executed; the client c1 does not see that."""


@pytest.mark.parametrize(
    "script",
    [
        f"""
        c1 > Ba|E|S
        s1 < B~1|E|S
        s1 > {_STALE}
        s1 < CS~1|P~1:select * from t|B~1|E|S
        s1 > Z|3|1|2|Da|CSELECT 1|Z
        c1 < 2|Da|CSELECT 1|Z
        """,
        f"""
        c1 > DSa|Ba|E|S
        s1 < DS~1|B~1|E|S
        s1 > {_STALE}|Z
        s1 < CS~1|P~1:select * from t|DS~1|B~1|E|S
        s1 > 3|1|t|T|2|CSELECT 0|Z
        c1 < t|T|2|CSELECT 0|Z
        """,
        f"""
        c1 > DSa|S
        s1 < DS~1|S
        s1 > t
        s1 > {_STALE}|Z
        s1 < CS~1|P~1:select * from t|DS~1|S
        s1 > 3|1|t|T|Z
        c1 < t|T|Z
        """,
        f"""
        c2 > Pb:select * from t|DSb|S
        s1 < DS~1|S
        s1 > t|{_STALE}|Z
        c2 < 1
        s1 < CS~1|P~1:select * from t|DS~1|S
        s1 > 3|1|t|T|Z
        c2 < t|T|Z
        """,
        """
        c1 > Ba(3)|E|S
        s1 < B~1(3)|E|S
        s1 > E26000 prepared statement "~1" does not exist|Z
        s1 < CS~1|P~1:select * from t|B~1(3)|E|S
        s1 > 3|1|2|CSELECT 0|Z
        c1 < 2|CSELECT 0|Z
        """,
        f"""
        c2 > Pb:select * from t|Bb|E|S
        s1 < B~1|E|S
        s1 > {_STALE}|Z
        c2 < 1
        s1 < CS~1|P~1:select * from t|B~1|E|S
        s1 > 3|1|2|CSELECT 0|Z
        c2 < 2|CSELECT 0|Z
        """,
    ],
)
def test_a_pipeline_is_sent_once_more(script: str) -> None:
    """Outside of a transaction block, when its first request fails: the client sees what a new statement returns."""
    play(_PREPARE + script, max_prepared_statements=3)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("t|T|Z", "t|T|Z"),
        ("t|n|Z", "t|n|Z"),
        ("t|E42703 no such column|Z", "t|E42703 no such column|Z"),
        ("t|Nis said|T|Z", "t|Nis said|T|Z"),
    ],
)
def test_parameters_are_told_when_what_follows_is_there(answer: str, told: str) -> None:
    """A statement that is out of date says so only behind them."""
    first, rest = answer.split("|", 1)
    script = f"{_PREPARE}\nc1 > DSa|S\ns1 < DS~1|S\n"
    play(f"{script}s1 > {answer}\nc1 < {told}", max_prepared_statements=3)
    play(f"{script}s1 > {first}\nc1 < \ns1 > {rest}\nc1 < {told}", max_prepared_statements=3)


def test_what_has_been_told_is_not_asked_for_again() -> None:
    """A notice came in between: the client sees the error."""
    play(
        f"""
        {_PREPARE}
        c1 > DSa|S
        s1 < DS~1|S
        s1 > t|Nis said|{_STALE}|Z
        c1 < t|Nis said|{_STALE}|Z
        """,
        max_prepared_statements=3,
    )


def test_each_statement_is_prepared_once_more() -> None:
    """All that the pipeline uses: if one is out of date, the others may be, too."""
    play(
        f"""
        {_PREPARE}
        c1 > Pb:select * from u|S
        s1 < P~2:select * from u|S
        s1 > 1|Z
        c1 < 1|Z
        c1 > Bb|E|Ba|E|Bb|E|S
        s1 < B~2|E|B~1|E|B~2|E|S
        s1 > {_STALE}|Z
        s1 < CS~2|P~2:select * from u|CS~1|P~1:select * from t|B~2|E|B~1|E|B~2|E|S
        s1 > 3|1|3|1|2|CSELECT 1|2|CSELECT 2|2|CSELECT 3|Z
        c1 < 2|CSELECT 1|2|CSELECT 2|2|CSELECT 3|Z
        """,
        max_prepared_statements=3,
    )


def test_the_table_is_gone() -> None:
    """The client reads the error of preparing it anew, as it would on a server of its own; once, and then no more."""
    play(
        f"""
        {_PREPARE}
        {_MEETS}
        s1 < CS~1|P~1:select * from t|B~1|E|S
        s1 > 3|E42P01 relation "t" does not exist|Z
        c1 < E42P01 relation "t" does not exist|Z
        c1 > Ba|E|S
        {_ANEW}
        """,
        max_prepared_statements=3,
    )


def test_it_is_out_of_date_again() -> None:
    """What was sent once more is not sent a third time."""
    play(
        f"""
        {_PREPARE}
        {_MEETS}
        s1 < CS~1|P~1:select * from t|B~1|E|S
        s1 > 3|1|{_STALE}|Z
        c1 < {_STALE}|Z
        """,
        max_prepared_statements=3,
    )


def test_other_servers_prepare_anew_what_they_prepared_before() -> None:
    """The next client on another server does not meet the same error."""
    play(
        f"""
        {_PREPARE}
        {BEGINS}
        c2 > Pb:select * from t|Bb|E|S
        s2 < P~1:select * from t|B~1|E|S
        s2 > 1|2|CSELECT 1|Z
        c2 < 1|2|CSELECT 1|Z
        c2 > Bb|E|S
        s2 < B~1|E|S
        s2 > {_STALE}|Z
        s2 < CS~1|P~1:select * from t|B~1|E|S
        s2 > 3|1|2|CSELECT 1|Z
        c2 < 2|CSELECT 1|Z
        c1 > Ba|E|S
        s1 < CS~1|P~1:select * from t|B~1|E|S
        s1 > 3|1|2|CSELECT 1|ZT
        c1 < 2|CSELECT 1|ZT
        """,
        max_prepared_statements=3,
        pool_size=2,
    )


@pytest.mark.parametrize(
    ("asked", "sent", "answered", "told"),
    [
        # in a transaction block, the server has aborted the transaction
        ("Qbegin|Ba|E|S", "Qbegin|B~1|E|S", f"CBEGIN|ZT|{_STALE}|ZE", f"CBEGIN|ZT|{_STALE}|ZE"),
        # something has been answered
        ("P:x|Ba|E|S", "P:x|B~1|E|S", f"1|{_STALE}|Z", f"1|{_STALE}|Z"),
        ("Ba|E|Ba|E|S", "B~1|E|B~1|E|S", f"2|CUPDATE 1|{_STALE}|Z", f"2|CUPDATE 1|{_STALE}|Z"),
        # something has been sent behind it
        ("Ba|E|S|Qselect 1", "B~1|E|S|Qselect 1", f"{_STALE}|Z|CSELECT 1|Z", f"{_STALE}|Z|CSELECT 1|Z"),
        ("Ba|E|S|Ba|E|S", "B~1|E|S|B~1|E|S", f"{_STALE}|Z|{_STALE}|Z", f"{_STALE}|Z|{_STALE}|Z"),
        # more of it may be on its way
        ("Ba|E|H", "B~1|E|H", _STALE, _STALE),
        # another error
        ("Ba|E|S", "B~1|E|S", "E42501 permission denied|Z", "E42501 permission denied|Z"),
    ],
)
def test_what_is_not_sent_once_more(asked: str, sent: str, answered: str, told: str) -> None:
    """The client reads the error, as it would read one of PostgreSQL's own in the same place."""
    play(
        f"""
        {_PREPARE}
        c1 > {asked}
        s1 < {sent}
        s1 > {answered}
        c1 < {told}
        """,
        max_prepared_statements=3,
    )


def test_a_pipeline_that_came_in_pieces_is_not_sent_once_more() -> None:
    """Only the last piece is at hand; and the statement is prepared anew for the next."""
    for at in (8, 14, 20, 24):
        play(
            f"""
            {_PREPARE}
            {_MEETS}
            c1 < {_STALE}|Z
            c1 > Ba|E|S
            s1 < CS~1|P~1:select * from t|B~1|E|S
            """,
            max_prepared_statements=3,
            split=lambda data, at=at: cut_at(at)(data) if data[:1] == b"B" else [data],  # type: ignore[misc]
        )


def test_in_a_transaction_block_it_happens_once() -> None:
    """The error aborts the transaction; in the next one, the statement is prepared anew."""
    play(
        f"""
        {_PREPARE}
        {BEGINS}
        c1 > Ba|E|S
        s1 < B~1|E|S
        s1 > {_STALE}|ZE
        c1 < {_STALE}|ZE
        {ROLLS_BACK}
        c1 > Ba|E|S
        {_ANEW}
        """,
        max_prepared_statements=3,
    )


def test_the_client_goes_meanwhile() -> None:
    """Then the server is closed, as with any request under way."""
    play(
        f"""
        {_PREPARE}
        c1 > Ba|E|S
        s1 < B~1|E|S
        s1 > {_STALE}
        s1 < CS~1|P~1:select * from t|B~1|E|S
        c1 leaves
        s1 < END
        """,
        max_prepared_statements=3,
    )


@pytest.mark.parametrize("schema", ["alter table t add u int", "drop table t", "create table t (a int)"])
def test_a_change_of_the_schema_by_a_client(schema: str) -> None:
    """Nobody meets the error: statements are prepared anew where they are used next."""
    play(
        f"""
        {_PREPARE}
        c2 > Q{schema}
        s1 < Q{schema}
        s1 > CDONE|Z
        c2 < CDONE|Z
        c1 > Ba|E|S
        {_ANEW}
        """,
        max_prepared_statements=3,
        session_state=SessionState.RESET,
    )


def test_behind_the_adjusting() -> None:
    """What the pooler has asked in front is not the pipeline's answer."""
    play(
        f"""
        {_PREPARE}
        c2 comes TimeZone=Asia/Tokyo
        c2 > Qselect 1
        s1 < QSET TimeZone = 'Asia/Tokyo';|Qselect 1
        s1 > STimeZone=Asia/Tokyo|CSET|Z|CSELECT 1|Z
        c2 < CSELECT 1|Z
        c1 > Ba|E|S
        s1 < QSET TimeZone = 'UTC';|B~1|E|S
        s1 > STimeZone=UTC|CSET|Z
        s1 > {_STALE}|Z
        {_ANEW}
        """,
        max_prepared_statements=3,
    )


@pytest.mark.parametrize("end", ["rollback", "commit"])
def test_what_was_prepared_over_a_temporary_table_is_prepared_anew(end: str) -> None:
    """Within its transaction it is certain; afterwards, the table may have gone, and its name may mean another."""
    play(
        f"""
        c1 > Qbegin; create temp table t (i int) on commit drop
        s1 < Qbegin; create temp table t (i int) on commit drop
        s1 > CBEGIN|CCREATE TABLE|ZT
        c1 < CBEGIN|CCREATE TABLE|ZT
        c1 > Pa:select * from t|S
        s1 < P~1:select * from t|S
        s1 > 1|ZT
        c1 < 1|ZT
        c1 > Ba|E|S
        s1 < B~1|E|S
        s1 > 2|CSELECT 0|ZT
        c1 < 2|CSELECT 0|ZT
        c1 > Q{end}
        s1 < Q{end}
        s1 > C{end.upper()}|Z
        s1 < Q<pins>
        c1 < C{end.upper()}|Z
        s1 > T|Df,f,f,f,f|CSELECT 1|Z
        c2 > Qbegin
        s1 < Qbegin
        s1 > CBEGIN|ZT
        c2 < CBEGIN|ZT
        c2 > Pb:select * from t|S
        s1 < CS~1|P~1:select * from t|S
        s1 > 3|1|ZT
        c2 < 1|ZT
        c2 > Qcommit|Bb|E|S
        s1 < Qcommit|B~1|E|S
        """,
        max_prepared_statements=3,
        max_pinned=1,
        session_state=SessionState.FOLLOW,
    )
