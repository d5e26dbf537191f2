"""A client whose next message waits for earlier answers, while its server waits for what a COPY is to read.

Neither of them would ever go on.
"""

from __future__ import annotations

import pytest

from tests.support.exchanges import PREPARES
from tests.support.relaystage import play, play_in_pieces
from tests.support.resetscripts import ASKS, HAS, SETS_AGAIN, SHOWS
from tests.support.sessionscripts import COMES, FOLLOW

_COPIES = "Pa:selct|S|Qcopy|{}"
_ENDED = "!08P01 unexpected message type 0x{:02X} during COPY from stdin|END"


@pytest.mark.parametrize("next_one", ["Pa:select 1|S", "Ba|E|S", "DSa|S", "CSa|S"])
@pytest.mark.parametrize("before", ["", "S", "H"])
def test_what_depends_on_an_answer_behind_a_copy_ends_the_client(before: str, next_one: str) -> None:
    """What the name means is known only when the copy has ended, and this is no end: PostgreSQL ends the session."""
    sent = "|".join(filter(None, (before, next_one)))
    passed = f"|{before}" if before else ""
    play(
        f"""
        c1 > {_COPIES.format(sent)}
        s1 < P~1:selct|S|Qcopy{passed}
        s1 > E42601 syntax|Z|G
        c1 < E42601 syntax|Z|G|{_ENDED.format(ord(next_one[0]))}
        s1 < END
        """,
        max_prepared_statements=5,
    )


@pytest.mark.parametrize(
    ("text", "next_one"),
    [("copy t from stdin; deallocate a", "Ba|E|S"), ("reset x.y; copy t from stdin", "Qx")],
)
def test_it_may_come_when_the_copy_has_begun(text: str, next_one: str) -> None:
    """Nothing else that happens would remind of it."""
    reset = "CRESET|" if text.startswith("reset") else ""
    play(
        f"""
        {COMES}
        {PREPARES}
        c1 > Q{text}
        s1 < Q{text.replace(" a", ' "~1"')}
        s1 > {reset}G
        c1 < {reset}G
        c1 > {next_one}
        c1 < {_ENDED.format(ord(next_one[0]))}
        s1 < END
        """,
        **FOLLOW,
    )


def test_it_waits_while_the_end_of_the_copy_is_on_its_way() -> None:
    """Then the copy will end by itself."""
    play_in_pieces(
        """
        c1 > Pa:selct|S|Qcopy|d5|c|Ba|E|S
        s1 < P~1:selct|S|Qcopy|d5|c
        s1 > E42601 syntax|Z|G
        c1 < E42601 syntax|Z|G
        s1 > CCOPY 1|Z
        c1 < CCOPY 1|Z
        s1 < Ba|E|S
        s1 > E26000 no such statement|Z
        c1 < E26000 no such statement|Z
        """,
        max_prepared_statements=5,
    )


@pytest.mark.parametrize("ignored", ["S", "H", "S|H|S"])
def test_what_a_copy_ignores_does_not_wait_for_a_reset(ignored: str) -> None:
    """What is behind a reset waits for its answer; but the copy behind it in the same text waits for its data."""
    play(
        f"""
        {COMES}
        c1 > Qreset x.y; copy t from stdin|{ignored}|d5|c
        s1 < Qreset x.y; copy t from stdin
        s1 > CRESET|G
        c1 < CRESET|G
        s1 < {ignored}|d5|c
        s1 > CCOPY 1|Z
        c1 < CCOPY 1|Z
        {SETS_AGAIN}
        {ASKS}
        {HAS}
        """,
        **FOLLOW,
    )


@pytest.mark.parametrize("text", ["reset x.y", "reset x.y; copy t from stdin"])
def test_what_is_behind_a_copy_waits_for_a_reset(text: str) -> None:
    """Behind the end of a copy, too: it must find what the session began with."""
    copies = "copy" in text
    play_in_pieces(
        f"""
        {COMES}
        c1 > Q{text}|c|Qshow x.y
        s1 < Q{text}|c
        s1 > CRESET|{"G|CCOPY 0|" if copies else ""}Z
        c1 < CRESET|{"G|CCOPY 0|" if copies else ""}Z
        {SHOWS}
        {HAS}
        """,
        **FOLLOW,
    )
