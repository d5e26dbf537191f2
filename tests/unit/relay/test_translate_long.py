"""Messages that are longer than what is read at once, and statements that are not kept.

The buffer has 512 bytes here, and a message is cut at many places.
"""

from __future__ import annotations

from typing import Any

import pytest

from hyperpool.config import SessionState
from tests.support.relaystage import Stage, cut_at, pieces_of, play, requests, whole

_FEW: dict[str, Any] = {"max_prepared_statements": 3}
_FOLLOWING: dict[str, Any] = {**_FEW, "session_state": SessionState.FOLLOW, "max_pinned": 1, "pool_size": 2}
_CUTS = [
    whole,
    *map(cut_at, (1, 4, 5, 6, 7, 8, 20, 100, 505, 510, 511, 512, 513, 517, 520, 600, 1023, 1024, 1025)),
    *map(pieces_of, (7, 100, 511, 512, 513)),
]


def _play(script: str, **stage: Any) -> None:
    for split in _CUTS:
        play(script, split=split, **stage)


def _text(size: int) -> str:
    """A text with which a Parse with a name of one byte has this size."""
    text = "select 1 --"
    return text + "x" * (size - len(requests(f"Pa:{text}")))


@pytest.mark.parametrize("size", [500, 511, 512, 513, 514, 1024, 1500, 3000])
@pytest.mark.parametrize("pool", [_FEW, _FOLLOWING], ids=["few", "follow"])
def test_a_long_parse_is_collected(size: int, pool: dict[str, Any]) -> None:
    """As long as there is memory for it; other clients share the statement."""
    text = _text(size)
    _play(
        f"""
        c1 > Pa:{text}|Ba|E|S
        s1 < P~1:{text}|B~1|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|Z
        c2 > Pb:{text}|Bb|E|S
        s1 < B~1|E|S
        s1 > 2|CSELECT 1|Z
        c2 < 1|2|CSELECT 1|Z
        """,
        **pool,
    )


@pytest.mark.parametrize("size", [500, 512, 513, 3000])
def test_a_long_parse_without_a_name(size: int) -> None:
    """It follows its client, too."""
    text = _text(size)
    _play(
        f"""
        c1 > P:{text}|DS|S
        s1 < P:{text}|DS|S
        s1 > 1|t|T|Z
        c1 < 1|t|T|Z
        c1 > B|E|S
        s1 < P:{text}|B|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        """,
        **_FEW,
    )


@pytest.mark.parametrize("name", ["", "a"])
@pytest.mark.parametrize("memory", [1000, 1 << 20])
def test_a_long_parse_that_the_server_skips(name: str, memory: int) -> None:
    """It passes, and nothing is known of it."""
    text = _text(3000)
    _play(
        f"""
        c1 > P:select 1|S
        s1 < P:select 1|S
        s1 > 1|Z
        c1 < 1|Z
        c1 > Bx|H
        s1 < Bx|H
        s1 > E26000 no
        c1 < E26000 no
        c1 > P{name}:{text}|S
        s1 < P{name}:{text}|S
        s1 > Z
        c1 < Z
        c1 > B|E|S
        s1 < P:select 1|B|E|S
        """,
        max_prepared_statements=3,
        max_pinned=0,
        memory=memory,
    )


def test_a_long_parse_that_waits() -> None:
    """It counts for its client meanwhile."""
    text = _text(3000)
    with Stage(**_FEW) as stage:
        stage.play(
            f"""
            c1 > Pb:select 2|S|Pb:{text}|S
            s1 < P~1:select 2|S
            """
        )
        assert stage.client("c1").stalled
        assert stage.relay.budget.used > 3000
        stage.play(
            f"""
            s1 > E42601 no|Z
            c1 < E42601 no|Z
            s1 < P~2:{text}|S
            """
        )
        used = stage.relay.budget.used
        assert 3000 < used < 4000
        stage.play("s1 > E42601 no|Z\nc1 < E42601 no|Z")
        assert stage.relay.budget.used == 0


def test_long_statements_without_a_name_are_counted_as_long_as_they_live() -> None:
    """Its client may need it on another server."""
    with Stage(**_FEW) as stage:
        stage.play(
            f"""
            c1 > P:{_text(3000)}|S
            s1 < P:{_text(3000)}|S
            s1 > 1|Z
            c1 < 1|Z
            """
        )
        assert stage.relay.budget.used > 2900
        stage.play(
            """
            c1 > P:select 1|S
            s1 < P:select 1|S
            s1 > 1|Z
            c1 < 1|Z
            """
        )
        assert stage.relay.budget.used == 0


def test_a_client_that_goes_while_its_parse_is_collected() -> None:
    """The server has not seen it, and serves the next client."""
    with Stage(**_FEW) as stage:
        stage.play("c1 comes")
        stage._actors["c1"].sock.send(requests(f"Pa:{_text(3000)}")[:1500])
        stage.turn()
        assert stage.relay.budget.used == 3000
        stage.play(
            """
            s1 <
            c1 leaves
            c2 > Qselect 1
            s1 < Qselect 1
            """
        )
        assert stage.relay.budget.used == 0


def test_messages_behind_a_long_parse() -> None:
    """They are looked into as any others."""
    text = _text(700)
    _play(
        f"""
        c1 > Pa:{text}|CSa|Pa:select 2|DSa|Ba(1000)|E|S|Qselect 3
        s1 < P~1:{text}|P~2:select 2|DS~2|B~2(1000)|E|S|Qselect 3
        s1 > 1|1|t|T|2|CSELECT 1|Z|CSELECT 1|Z
        c1 < 1|3|1|t|T|2|CSELECT 1|Z|CSELECT 1|Z
        """,
        **_FEW,
    )


@pytest.mark.parametrize("name", ["a", "a_name_that_is_longer_than_the_other"])
@pytest.mark.parametrize("portal", ["", "p="])
@pytest.mark.parametrize("size", [480, 500, 511, 512, 2000, 9000])
def test_a_long_bind_streams_through(name: str, portal: str, size: int) -> None:
    """Only its names are looked at; its length is that of the server's name."""
    _play(
        f"""
        c1 > P{name}:select 1|B{portal}{name}({size})|E|S
        s1 < P~1:select 1|B{portal}~1({size})|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|Z
        """,
        **_FEW,
    )


def test_a_long_bind_of_what_is_elsewhere() -> None:
    """What has to be prepared goes in front of its beginning."""
    _play(
        """
        c1 > Pa:select 1|S
        s1 < P~1:select 1|S
        s1 > 1|Z
        c1 < 1|Z
        c9 > Qbegin
        s1 < Qbegin
        s1 > CBEGIN|ZT
        c9 < CBEGIN|ZT
        c1 > Ba(2000)|E|S
        s2 < P~1:select 1|B~1(2000)|E|S
        s2 > 1|2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        """,
        pool_size=2,
        **_FEW,
    )


@pytest.mark.parametrize("pool", [_FEW, _FOLLOWING], ids=["few", "follow"])
def test_long_messages_that_are_nobodys_business(pool: dict[str, Any]) -> None:
    """A long Bind of the unnamed statement, of an unknown one, CopyData."""
    _play(
        """
        c1 > P:select 1|B(2000)|E|S
        s1 < P:select 1|B(2000)|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|Z
        c1 > Bx(2000)|S
        s1 < Bx(2000)|S
        s1 > E26000 prepared statement "x" does not exist|Z
        c1 < E26000 prepared statement "x" does not exist|Z
        c1 > Qcopy t from stdin
        s1 < Qcopy t from stdin
        s1 > G
        c1 < G
        c1 > d2000|c
        s1 < d2000|c
        s1 > CCOPY 1|Z
        c1 < CCOPY 1|Z
        """,
        **pool,
    )


@pytest.mark.parametrize("size", [100, 504, 512])
def test_a_query_that_fits_is_read_whole(size: int) -> None:
    """What it may do is known."""
    query = "select 1 --" + "x" * (size - 17)
    _play(
        f"""
        c1 > Q{query}
        s1 < Q{query}
        s1 > CSELECT 1|Z
        c1 < CSELECT 1|Z
        c1 > Qselect 2
        s1 < Qselect 2
        """,
        **_FOLLOWING,
    )


def test_a_query_that_does_not_fit_may_do_anything() -> None:
    """It streams through, and the server is asked afterwards."""
    query = "select 1 --" + "x" * 3000
    _play(
        f"""
        c1 > Q{query}
        s1 < Q{query}
        s1 > CSELECT 1|Z
        s1 < Q<begin>;<no timeout>;<pins>;<settings>
        c1 < CSELECT 1|Z
        s1 > T|Dstatement_timeout,-,-|CSET|T|Df,f,f,f,f|T|Drole,none,-|CSELECT 1|Z
        s1 < QRESET ALL
        c1 > Qselect 2
        s1 > CRESET|Z
        s1 < Qselect 2
        """,
        **_FOLLOWING,
    )


def test_a_name_that_is_too_long() -> None:
    """A client that sends a name that does not fit into what is read at once breaks the protocol."""
    for message in (f"B{'x' * 600}", f"B{'p' * 600}=a", f"DS{'x' * 600}", f"CS{'x' * 600}"):
        for split in (whole, pieces_of(100)):
            play(
                f"""
                c1 > P:select 1|H
                s1 < P:select 1|H
                s1 > 1
                c1 < 1
                c1 > {message}|S
                c1 < !08P01 a name in a message is too long|END
                s1 < END
                """,
                split=split,
                **_FEW,
            )


# -- statements that the pooler does not keep --------------------------------------------------------------------------

_OVER: dict[str, Any] = {**_FEW, "memory": 6_000, "max_pinned": 10}
"""One client may have 375 bytes, or one statement."""


def test_memory_is_used_up() -> None:
    """A client with more than its share keeps its server connection, where its statements have its own names."""
    play(
        """
        c1 > Pa:select 1|Pb:select 2|Ba|Bb|S
        s1 < P~1:select 1|Pb:select 2|B~1|Bb|S
        s1 > 1|1|2|2|Z
        c1 < 1|1|2|2|Z
        c2 > Qselect 1
        s2 < Qselect 1
        s2 > CSELECT 1|Z
        c2 < CSELECT 1|Z
        c1 > Bb|E|DSb|CSb|S
        s1 < Bb|E|DSb|CSb|S
        s1 > 2|CSELECT 1|t|T|3|Z
        c1 < 2|CSELECT 1|t|T|3|Z
        c1 > Ba|S
        s1 < B~1|S
        s1 > 2|Z
        c1 < 2|Z
        """,
        pool_size=2,
        **_OVER,
    )


def test_memory_is_used_up_by_others() -> None:
    """It is the sum that is bounded; what a client that has gone held is free again."""
    play(
        """
        c1 > Pa:select 1|S
        s1 < P~1:select 1|S
        s1 > 1|Z
        c1 < 1|Z
        c2 > Pa:select 1|Ba|S
        s1 < Pa:select 1|Ba|S
        s1 > 1|2|Z
        c2 < 1|2|Z
        c1 leaves
        c3 > Pa:select 1|Ba|S
        s2 < P~1:select 1|B~1|S
        """,
        pool_size=2,
        max_prepared_statements=3,
        max_pinned=10,
        memory=512,
    )


def test_the_server_of_a_client_whose_statements_are_not_kept_is_cleaned() -> None:
    """When the client has gone; the statements of others there have gone with its own."""
    play(
        """
        c1 > Pa:select 1|Pb:select 2|S
        s1 < P~1:select 1|Pb:select 2|S
        s1 > 1|1|Z
        c1 < 1|1|Z
        c1 leaves
        s1 < QDISCARD ALL
        c2 > Pb:select 1|Bb|S
        s1 > CDISCARD ALL|Z
        s1 < P~2:select 1|B~2|S
        s1 > 1|2|Z
        c2 < 1|2|Z
        """,
        **_OVER,
    )


def test_a_long_parse_over_memory_streams_through() -> None:
    """Under its own name; its client keeps its server."""
    text = "select 1 --" + "x" * 3000
    _play(
        f"""
        c1 > Pa:{text}|Ba|E|S
        s1 < Pa:{text}|Ba|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|Z
        c2 > Qselect 1
        s2 < Qselect 1
        s2 > CSELECT 1|Z
        c2 < CSELECT 1|Z
        c1 > Ba|E|S
        s1 < Ba|E|S
        s1 > 2|CSELECT 1|Z
        c1 < 2|CSELECT 1|Z
        """,
        pool_size=2,
        max_prepared_statements=3,
        max_pinned=10,
        memory=1000,
    )


def test_a_long_parse_without_a_name_over_memory() -> None:
    """It is not put on another server: there, it is not known."""
    text = "select 1 --" + "x" * 3000
    _play(
        f"""
        c1 > P:{text}|B|E|S
        s1 < P:{text}|B|E|S
        s1 > 1|2|CSELECT 1|Z
        c1 < 1|2|CSELECT 1|Z
        c1 > B|E|S
        s1 < CS|B|E|S
        s1 > 3|E26000 unnamed prepared statement does not exist|Z
        c1 < E26000 unnamed prepared statement does not exist|Z
        """,
        max_prepared_statements=3,
        memory=1000,
    )


def test_a_name_that_looks_like_one_on_servers_is_not_kept_either() -> None:
    """It gets in nobody's way there."""
    play(
        """
        c1 > Pa:select 1|P~1:select 2|B~1|E|DS~1|CS~1|S
        s1 < P~1:select 1|P~1?:select 2|B~1?|E|DS~1?|CS~1?|S
        s1 > 1|1|2|CSELECT 1|t|T|3|Z
        c1 < 1|1|2|CSELECT 1|t|T|3|Z
        """,
        **_OVER,
    )


_REFUSED = "E53400 too many clients of this pool keep their server connection (max_pinned)"


@pytest.mark.parametrize("state", SessionState)
def test_too_many_clients_keep_their_servers(state: SessionState) -> None:
    """What would make one more is refused by the server itself, where it would be executed."""
    play(
        f"""
        c1 > Pa:select 1|Pb:select 2|S
        s1 < P~1:select 1|Pb:select 2|S
        s1 > 1|1|Z
        c1 < 1|1|Z
        c2 > Pa:select 1|Pb:select 3|Bb(3)|E|S
        s2 < P~1:select 1|P~2:<refusal>|B~2|E|S
        s2 > 1|1|2|{_REFUSED}|Z
        c2 < 1|1|2|{_REFUSED}|Z
        c2 > Ba|E|S
        s2 < B~1|E|S
        """,
        memory=6_000,
        max_prepared_statements=3,
        max_pinned=1,
        pool_size=2,
        session_state=state,
    )


@pytest.mark.parametrize("there", [8191, 8192, 8193, 15000])
@pytest.mark.parametrize("first", ["Qselect 1", "Pa:select 1|S"])
def test_the_server_is_given_back_while_a_long_message_is_on_its_way(first: str, there: int) -> None:
    """What has come of it is more than what is read of a client without a server."""
    text = "select '" + "x" * 15000 + "'"
    with Stage(buffer=65536, **_FOLLOWING) as stage:
        stage.play("c1 > Qselect 0\ns1 < Qselect 0\ns1 > CSELECT 1|Z\nc1 < CSELECT 1|Z")
        whole = requests(f"Q{text}")
        stage.split = lambda sent: [sent + whole[:there]]
        stage._send("c1", first)
        stage.play(
            "s1 < Qselect 1\ns1 > CSELECT 1|Z\nc1 < CSELECT 1|Z"
            if first == "Qselect 1"
            else "s1 < P~1:select 1|S\ns1 > 1|Z\nc1 < 1|Z"
        )
        stage.split = lambda sent: [sent[there:]]
        stage.play(f"c1 > Q{text}\ns1 < Q{text}\ns1 > CSELECT 1|Z\nc1 < CSELECT 1|Z")
