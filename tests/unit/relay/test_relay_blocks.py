"""Requests within a transaction block take the short way, too, where nothing has to be looked into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hyperpool.config import PoolMode, SessionState
from hyperpool.relay.translate import Translator
from tests.support.exchanges import BEGINS, COMMITS, PREPARES, ROLLS_BACK, SELECTS_IN_BLOCK
from tests.support.relaystage import Stage, pieces_of

if TYPE_CHECKING:
    from hyperpool.relay.client import ClientConnection


class _Counting(Translator):
    """Knows how often somebody went the long way."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(
        self, client: ClientConnection, buffer: bytes | bytearray, view: memoryview, at: int, end: int
    ) -> bool:
        self.count += 1
        return super().forward(client, buffer, view, at, end)


def _long_ways(stage: Stage, script: str) -> int:
    """How many requests of a script, which comes behind `PREPARES`, have gone the long way."""
    stage.play(PREPARES)
    stage.relay.translator = counting = _Counting()
    stage.play(script)
    return counting.count


_BLOCK = f"""
    {BEGINS}
    c1 > Qupdate t set a = 1
    s1 < Qupdate t set a = 1
    s1 > CUPDATE 1|ZT
    c1 < CUPDATE 1|ZT
    c1 > Ba|E|S
    s1 < B~1|E|S
    s1 > 2|D1|CSELECT 1|ZT
    c1 < 2|D1|CSELECT 1|ZT
    c1 > P:select 2|B|DP|E|S
    s1 < P:select 2|B|DP|E|S
    s1 > 1|2|T|D2|CSELECT 1|ZT
    c1 < 1|2|T|D2|CSELECT 1|ZT
    {COMMITS}
"""


def test_a_whole_block() -> None:
    """It keeps its server from BEGIN to COMMIT, and then the next one has it."""
    with Stage(max_prepared_statements=3, session_state=SessionState.FOLLOW) as stage:
        assert _long_ways(stage, _BLOCK) == 0
        assert list(stage.pool.idle) == [stage.server("s1")]
        assert (stage.pool.stats.queries, stage.pool.stats.transactions) == (6, 2)
        stage.play(
            """
            c2 > Qselect 3
            s1 < Qselect 3
            s1 > CSELECT 1|Z
            c2 < CSELECT 1|Z
            """
        )


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_block_in_pieces(size: int) -> None:
    """However its messages come, it is the same."""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(PREPARES)
        stage.split = pieces_of(size)
        stage.play(_BLOCK)
        assert list(stage.pool.idle) == [stage.server("s1")]


def test_nobody_else_gets_the_server_in_between() -> None:
    """Whatever is answered within the block, the others wait for its end."""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(BEGINS)
        stage.play(
            f"""
            c2 > Qselect 2
            {SELECTS_IN_BLOCK}
            {ROLLS_BACK}
            s1 < Qselect 2
            s1 > CSELECT 1|Z
            c2 < CSELECT 1|Z
            """
        )


def test_an_error_within_a_block() -> None:
    """It fails the block; ROLLBACK ends it, and the server is given back."""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(BEGINS)
        stage.play(
            f"""
            c1 > Qselect 1/0
            s1 < Qselect 1/0
            s1 > E22012 division by zero|ZE
            c1 < E22012 division by zero|ZE
            c1 > P:select 2|B|E|S
            s1 < P:select 2|B|E|S
            s1 > E25P02 aborted|ZE
            c1 < E25P02 aborted|ZE
            {ROLLS_BACK}
            """
        )
        assert list(stage.pool.idle) == [stage.server("s1")]


def test_a_statement_that_is_out_of_date_within_a_block() -> None:
    """It cannot be sent once more: the error is the client's."""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(PREPARES)
        stage.play(BEGINS)
        stage.play(
            f"""
            c1 > Ba|E|S
            s1 < B~1|E|S
            s1 > E0A000 cached plan must not change result type @RevalidateCachedQuery|ZE
            c1 < E0A000 cached plan must not change result type @RevalidateCachedQuery|ZE
            {ROLLS_BACK}
            """
        )


def test_the_unnamed_statement_is_gone_behind_a_query() -> None:
    """Within a block as elsewhere, and what another one has prepared is not taken for it."""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(BEGINS)
        stage.play(
            f"""
            c1 > P:select 2|S
            s1 < P:select 2|S
            s1 > 1|ZT
            c1 < 1|ZT
            {SELECTS_IN_BLOCK}
            """
        )
        assert stage.client("c1").unnamed is None
        assert stage.server("s1").unnamed is None


def test_what_changes_the_session_goes_the_long_way() -> None:
    """And so does all that comes behind it in the block: the pooler asks what has come of it."""
    with Stage(max_prepared_statements=3, session_state=SessionState.FOLLOW) as stage:
        assert (
            _long_ways(
                stage,
                f"""
                {BEGINS}
                c1 > Qset work_mem = '1MB'
                s1 < Qset work_mem = '1MB'
                s1 > CSET|ZT
                c1 < CSET|ZT
                {SELECTS_IN_BLOCK}
                """,
            )
            == 2
        )


def test_a_server_that_is_to_be_closed_is_closed_behind_the_block() -> None:
    """RECONNECT within it."""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(BEGINS)
        stage.server("s1").retire("reconnect")
        stage.play(
            f"""
            {SELECTS_IN_BLOCK}
            {COMMITS}
            s1 < X|END
            """
        )
        assert not stage.pool.servers


def test_a_block_in_statement_mode_is_refused() -> None:
    """On the short way, too."""
    with Stage(pool_mode=PoolMode.STATEMENT) as stage:
        stage.play(
            """
            c1 > Qbegin
            s1 < Qbegin
            s1 > CBEGIN|ZT
            c1 < CBEGIN|!08P01 transaction blocks not allowed in statement pooling mode|END
            s1 < END
            """
        )


def test_the_unnamed_statement_is_used_again() -> None:
    """The server has it: it is not parsed once more."""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(BEGINS)
        stage.play(
            """
            c1 > P:select 2|B|E|S
            s1 < P:select 2|B|E|S
            s1 > 1|2|D2|CSELECT 1|ZT
            c1 < 1|2|D2|CSELECT 1|ZT
            c1 > B|E|S
            s1 < B|E|S
            s1 > 2|D2|CSELECT 1|ZT
            c1 < 2|D2|CSELECT 1|ZT
            """
        )


def test_the_unnamed_statement_keeps_what_its_literals_meant() -> None:
    """A setting that is changed behind its Parse does not make it another one."""
    with Stage(max_prepared_statements=3, session_state=SessionState.FOLLOW) as stage:
        stage.play(
            """
            c1 > Pset:set standard_conforming_strings = off|S
            s1 < P~1:set standard_conforming_strings = off|S
            s1 > 1|Z
            c1 < 1|Z
            """
        )
        stage.play(BEGINS)
        stage.play(
            r"""
            c1 > P:select 'a\\b'|B|E|S
            s1 < P:select 'a\\b'|B|E|S
            s1 > 1|2|D2|CSELECT 1|ZT
            c1 < 1|2|D2|CSELECT 1|ZT
            c1 > Bset|E|S
            s1 < B~1|E|S
            s1 > 2|CSET|ZT
            c1 < 2|CSET|ZT
            c1 > B|E|S
            s1 < B|E|S
            s1 > 2|D2|CSELECT 1|ZT
            c1 < 2|D2|CSELECT 1|ZT
            """
        )


def test_the_unnamed_statement_is_there_for_a_pipeline_behind() -> None:
    """What uses it need not wait for the answer."""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(BEGINS)
        stage.play(
            """
            c1 > P:select 2|B|E|S
            s1 < P:select 2|B|E|S
            c1 > B|E|S
            s1 < B|E|S
            s1 > 1|2|D2|CSELECT 1|ZT|2|D2|CSELECT 1|ZT
            c1 < 1|2|D2|CSELECT 1|ZT|2|D2|CSELECT 1|ZT
            """
        )


def test_behind_a_copy_in_a_block() -> None:
    """Its end is a ReadyForQuery, and no Sync: what comes then takes the short way again."""
    with Stage(max_prepared_statements=3) as stage:
        assert (
            _long_ways(
                stage,
                f"""
                {BEGINS}
                c1 > Qcopy t from stdin
                s1 < Qcopy t from stdin
                s1 > G
                c1 < G
                c1 > d5|c
                s1 < d5|c
                s1 > CCOPY 1|ZT
                c1 < CCOPY 1|ZT
                {SELECTS_IN_BLOCK}
                """,
            )
            == 1
        )


def test_the_unnamed_statement_that_begins_a_block_is_used_again() -> None:
    """The server has it."""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(
            """
            c1 > P:begin|B|E|S
            s1 < P:begin|B|E|S
            s1 > 1|2|CBEGIN|ZT
            c1 < 1|2|CBEGIN|ZT
            c1 > B|E|S
            s1 < B|E|S
            s1 > 2|Nthere is one already|CBEGIN|ZT
            c1 < 2|Nthere is one already|CBEGIN|ZT
            """
        )
