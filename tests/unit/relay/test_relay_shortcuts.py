"""The relay's short path for one request and its answer must not skip what the long way looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hyperpool.cache.fronts import Fronts
from hyperpool.config import SessionState
from hyperpool.relay import catalog
from hyperpool.wire import messages
from tests.support import pgpipelines as pp
from tests.support.relaystage import Stage, requests

if TYPE_CHECKING:
    from tests.support.relayworld import World


def test_a_server_in_doubt_stays_with_its_client(world: World) -> None:
    """An answer that nobody asked for came before: a plain COMMIT afterwards does not give the server back."""
    client = world.connect()
    client.pending += pp.query("begin")
    world.flow(rounds=3)
    (server,) = world.servers
    server.out += messages.ready_for_query(b"T")
    world.flow(rounds=2)
    assert server.conn.ledger.doubt
    client.pending += pp.query("commit")
    world.flow(rounds=3)
    assert server.conn.client is not None
    assert not server.conn.pool.idle


def test_a_query_ends_an_unsynced_pipeline(world: World) -> None:
    """Messages that a Flush has had answered, then a Query: its answer leaves nothing open on the server."""
    client = world.connect()
    client.pending += pp.parse("rows 1 5 c1q1") + pp.FLUSH
    world.flow(rounds=3)
    (server,) = world.servers
    assert server.conn.ledger.unsynced
    client.pending += pp.query("rows 1 5 c1q2")
    world.flow(rounds=3)
    assert server.conn.ledger.clean
    assert list(server.conn.pool.idle) == [server.conn]


@pytest.mark.parametrize("cached", [False, True], ids=["plain", "cached"])
@pytest.mark.parametrize("cut", [1, 5, 6, 7, 12])
def test_a_request_that_comes_in_two_parts(cut: int, cached: bool) -> None:
    """Cut anywhere: what lies behind the first part is what somebody else has sent."""
    with Stage(max_prepared_statements=3) as stage:
        if cached:
            stage.pool.fronts = Fronts()
        stage.play(
            """
            c1 > Pa:select 1|Ba|E|S
            s1 < P~1:select 1|B~1|E|S
            s1 > 1|2|CSELECT 1|Z
            c1 < 1|2|CSELECT 1|Z
            """
        )
        stage.split = lambda data: [data[:cut], data[cut:]]
        for _ in range(2):
            stage.play(
                """
                c1 > Qselect 3
                s1 < Qselect 3
                s1 > T|D3|CSELECT 1|Z
                c1 < T|D3|CSELECT 1|Z
                c1 > Ba|E|S
                s1 < B~1|E|S
                s1 > 2|CSELECT 1|Z
                c1 < 2|CSELECT 1|Z
                c1 > P:select 2|B|E|S
                s1 < P:select 2|B|E|S
                s1 > 1|2|CSELECT 1|Z
                c1 < 1|2|CSELECT 1|Z
                """
            )


@pytest.mark.parametrize("length", range(4, 8))
@pytest.mark.parametrize("kind", [b"B", b"P"])
def test_a_request_that_is_too_short(kind: bytes, length: int) -> None:
    """It has a whole frame, and is not what it should be: the server says so."""
    short = f"\\x{(kind + length.to_bytes(4, 'big') + bytes(length - 4)).hex()}"
    # Where a Bind has room for an empty name, it means the unnamed statement, which the server must not have.
    closed = "CS|" if kind == b"B" and length > 5 else ""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(
            f"""
            c1 > Pa:select 1|S
            s1 < P~1:select 1|S
            s1 > 1|Z
            c1 < 1|Z
            c1 > {short}|E|S
            s1 < {closed}{short}|E|S
            """
        )


def test_the_unnamed_statement_is_there_for_a_pipeline_behind() -> None:
    """It neither waits for the answer nor has it parsed once more, with settings that may have changed meanwhile."""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(
            """
            c1 > P:select 2|B|E|S
            s1 < P:select 2|B|E|S
            c1 > B|E|S
            s1 < B|E|S
            s1 > 1|2|D2|CSELECT 1|Z|2|D2|CSELECT 1|Z
            c1 < 1|2|D2|CSELECT 1|Z|2|D2|CSELECT 1|Z
            """
        )


def test_others_have_not_prepared_the_unnamed_statement() -> None:
    """The server is given back when it has answered: what is there then is nobody's."""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(
            """
            c1 > P:select 2|B|E|S
            s1 < P:select 2|B|E|S
            s1 > 1|2|D2|CSELECT 1|Z
            c1 < 1|2|D2|CSELECT 1|Z
            c2 > P:select 3|B|E|S
            s1 < P:select 3|B|E|S
            s1 > 1|2|D3|CSELECT 1|Z
            c2 < 1|2|D3|CSELECT 1|Z
            c1 > B|E|S
            s1 < P:select 2|B|E|S
            s1 > 1|2|D2|CSELECT 1|Z
            c1 < 2|D2|CSELECT 1|Z
            """
        )


def test_what_is_sent_on_is_counted_as_it_is_sent() -> None:
    """A statement has another name on the server."""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(
            """
            c1 > Pa:select 1|S
            s1 < P~1:select 1|S
            s1 > 1|Z
            c1 < 1|Z
            """
        )
        before = stage.pool.stats.received
        stage.play(
            """
            c1 > Ba|E|S
            s1 < B~1|E|S
            s1 > 2|CSELECT 1|Z
            c1 < 2|CSELECT 1|Z
            """
        )
        assert stage.pool.stats.received - before == len(requests("B~1|E|S"))


def test_an_error_undoes_a_new_unnamed_statement() -> None:
    """What was prepared in the shortest way is known when it fails: the client has its statement of before."""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(
            """
            c1 > P:select 1|B|E|S
            s1 < P:select 1|B|E|S
            s1 > 1|2|CSELECT 1|Z
            c1 < 1|2|CSELECT 1|Z
            """
        )
        before = stage.client("c1").unnamed
        stage.play(
            """
            c1 > P:select nothing|B|DP|E|S
            s1 < P:select nothing|B|DP|E|S
            s1 > 1|E22012 division by zero|Z
            c1 < 1|E22012 division by zero|Z
            """
        )
        parsed = stage.client("c1").unnamed
        assert parsed is not None
        assert parsed is not before
        stage.play(
            """
            c1 > P:select wrong|B|E|S
            s1 < P:select wrong|B|E|S
            s1 > E42601 wrong|Z
            c1 < E42601 wrong|Z
            """
        )
        assert stage.client("c1").unnamed is None


def test_who_sends_an_unnamed_statement_waits_for_a_server() -> None:
    """Whatever the shape, it is answered when its turn has come."""
    with Stage(max_prepared_statements=3) as stage:
        stage.play(
            """
            c1 > Qselect 1
            s1 < Qselect 1
            c2 > P:select 2|B|DP|E|S
            c3 > P:select 3|S
            s1 > CSELECT 1|Z
            c1 < CSELECT 1|Z
            s1 < P:select 2|B|DP|E|S
            s1 > 1|2|n|CSELECT 1|Z
            c2 < 1|2|n|CSELECT 1|Z
            s1 < P:select 3|S
            s1 > 1|Z
            c3 < 1|Z
            """
        )


@pytest.mark.parametrize("state", [SessionState.FOLLOW, SessionState.RESET])
def test_a_pool_that_is_never_idle_asks_its_database_again(state: SessionState) -> None:
    """Which functions change session state: the next server that is free tells, whatever way its requests go."""
    with Stage(session_state=state, max_prepared_statements=3) as stage:
        stage.play(
            """
            c1 > Qselect 1
            s1 < Qselect 1
            c2 > Qselect 2
            """
        )
        stage.clock.now += catalog.INTERVAL + 1
        stage.relay.maintain(iter([stage.pool]))
        stage.play(
            """
            s1 > CSELECT 1|Z
            s1 < Q<catalog>
            c1 < CSELECT 1|Z
            s1 > CSELECT 0|Z
            s1 < Qselect 2
            """
        )
        assert not stage.server("s1").held


def test_a_message_behind_another_one_that_is_too_long() -> None:
    """It is refused also if its client has waited for a server."""
    with Stage(max_prepared_statements=3) as stage:
        stage.relay.max_packet_size = 40
        stage.play(
            """
            c1 > Qselect 1
            s1 < Qselect 1
            c2 > P:select 2|B(40)|E|S
            s1 > CSELECT 1|Z
            c1 < CSELECT 1|Z
            c2 < !08P01 invalid message length 56|END
            s1 < END
            """
        )
