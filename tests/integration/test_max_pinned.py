"""`max_pinned`: how many clients of a pool may keep their server, and what becomes of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.support import rawclient as raw
from tests.support.sharing import (
    DATABASE,
    STATE,
    WAYS,
    Sharing,
    answers,
    config_for,
    differences,
    leave,
    schema,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

REFUSED: Final = {
    "a temporary table": "CREATE TEMP TABLE t (n int)",
    "LISTEN": "LISTEN news",
    "a lock": "SELECT pg_advisory_lock(4711)",
    "a cursor": "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "PREPARE": "PREPARE p AS SELECT 1",
    "a function": "SELECT state.hidden()",
}
"""What is refused when too many clients keep their servers already."""


@pytest.fixture(scope="module")
def sharing_pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Iterator[Pooler]:
    """One client of a pool may keep its server; of the database `none`, nobody."""
    with schema(_pg, DATABASE):
        config = config_for(_pg, DATABASE, pin_functions=["state.hidden"], max_pinned=1)
        config["databases"]["none"] = {**config["databases"]["*"], "max_pinned": 0}
        yield make_module_pooler(config)


@pytest.fixture
def nobody(
    sharing_pooler: Pooler, pg: PostgresCluster, watch: Callable[[Pooler], Pooler]
) -> Iterator[Sharing]:
    """Clients that share two servers, none of which anybody may keep."""
    with Sharing(watch(sharing_pooler), "none") as sharing:
        yield sharing


def _compare(state: str, expected: str) -> None:
    assert state == expected, differences(state, expected)


def _check_refusal(frames: list[raw.Frame]) -> None:
    """Check that an answer is a refusal, and nothing else that matters."""
    (error,) = [got for got in frames if got.kind == b"E"]
    fields = error.fields
    assert (fields["S"], fields["C"]) == ("ERROR", "53400")
    assert "max_pinned" in fields["M"] + fields["H"]
    assert "raise max_pinned" in fields["H"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_the_statement_is_refused(nobody: Sharing, text: str, way: str) -> None:
    """Where nobody may keep a server, what would need it is an error and does nothing; the client goes on."""
    client = nobody.client()
    plain = nobody.everywhere(client)
    _check_refusal(answers(client, way, [text]))
    _compare(nobody.everywhere(client), plain)
    assert nobody.reasons(client) == []


@pytest.mark.parametrize("way", ["simple", "extended", "prepared"])
@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_it_aborts_its_transaction(nobody: Sharing, text: str, way: str) -> None:
    """In a transaction block the refusal is an error like any other: what was done before is rolled back."""
    client = nobody.client()
    plain = nobody.everywhere(client)
    client.ask("BEGIN; SET work_mem = '7MB'; SAVEPOINT s")
    client.send(raw.parse(text, "named"), raw.SYNC)
    client.receive_until()
    if way == "simple":
        client.send(raw.query(text))
    elif way == "extended":
        client.send(raw.extended(text), raw.SYNC)
    else:
        client.send(raw.bind(name="named"), raw.execute(), raw.SYNC)
    frames = client.receive_until()
    _check_refusal(frames)
    assert frames[-1].body == b"E"
    assert client.ask("SELECT 1")[0].fields["C"] == "25P02"
    assert client.ask("ROLLBACK TO s")[-1].body == b"T"
    assert client.value("SHOW work_mem") == "7MB"
    client.ask("ROLLBACK")
    _compare(nobody.everywhere(client), plain)


def test_the_rest_of_a_pipeline_is_skipped(nobody: Sharing) -> None:
    """Behind the refused statement, a pipeline is discarded up to its Sync, and rolled back."""
    client = nobody.client()
    plain = nobody.everywhere(client)
    before, behind = "SELECT set_config('work_mem', '7MB', false)", "SELECT 'not to be seen'"
    client.send(raw.extended(before), raw.extended("LISTEN news"), raw.extended(behind), raw.SYNC)
    client.send(raw.extended("SELECT 'next'"), raw.SYNC)
    frames = client.receive_until()
    _check_refusal(frames)
    assert [got.columns for got in frames if got.kind == b"D"] == [[b"7MB"]]
    assert raw.kinds(frames[-2:]) == b"EZ"
    assert raw.kinds(client.receive_until()) == b"12DCZ"
    _compare(nobody.everywhere(client), plain)


def test_a_prepared_statement_is_refused_again_and_again(nobody: Sharing) -> None:
    """A prepared statement is refused each time, by its name alone, and Describe still tells what it returns."""
    client = nobody.client()
    client.send(raw.parse("SELECT pg_advisory_lock($1) AS locked", "s"), raw.frame(b"D", b"Ss\0"), raw.SYNC)
    assert raw.kinds(client.receive_until()) == b"1tTZ"
    for _ in range(3):
        client.send(raw.bind(b"4711", name="s"), raw.execute(), raw.SYNC)
        _check_refusal(client.receive_until())
    nobody.everywhere(client)


@pytest.mark.parametrize("end", ["UNLISTEN *", "DISCARD ALL", "goodbye", "abruptly"])
def test_when_another_lets_go(sharing: Sharing, end: str) -> None:
    """What was refused works as soon as another client does not keep its server any more."""
    keeper, client = sharing.client(), sharing.client()
    keeper.ask("LISTEN news")
    sharing.stays(keeper)
    client.send(raw.parse("LISTEN news", "s"), raw.SYNC)
    client.receive_until()
    for way in WAYS:
        _check_refusal(answers(client, way, ["LISTEN news"]))
    client.send(raw.bind(name="s"), raw.execute(), raw.SYNC)
    _check_refusal(client.receive_until())

    if end in {"goodbye", "abruptly"}:
        leave(keeper, abruptly=end == "abruptly")
    else:
        keeper.ask(end)
    sharing.settle()

    client.send(raw.bind(name="s"), raw.execute(), raw.SYNC)
    assert raw.kinds(client.receive_until()) == b"2CZ"
    sharing.stays(client)
    assert sharing.reasons(client) == ["LISTEN"]


def test_who_keeps_a_server_may_do_more(sharing: Sharing) -> None:
    """A client that keeps its server counts once, whatever else it does there."""
    client = sharing.client()
    client.ask("LISTEN news")
    client.ask("CREATE TEMP TABLE t (n int)")
    client.ask("SELECT pg_advisory_lock(4711)")
    client.ask("LISTEN more")
    sharing.stays(client)
    assert client.value("SELECT count(*) FROM pg_listening_channels()") == "2"


@pytest.mark.parametrize(
    "text",
    [
        "DO $$ BEGIN PERFORM pg_advisory_lock(4711); END $$",
        "SELECT state.take_lock(4711)",
        "DO $$ BEGIN CREATE TEMP TABLE t (n int); END $$",
    ],
)
def test_what_is_only_seen_afterwards(sharing: Sharing, pg: PostgresCluster, text: str) -> None:
    """A client that has such state without a text that tells is closed, for the same reason; nothing is left."""
    keeper, client, other = sharing.client(), sharing.client(), sharing.client()
    keeper.ask("LISTEN news")
    plain = other.value(STATE)
    client.send(raw.query(text))
    *_, error = client.receive_all()
    assert (error.kind, error.fields["S"], error.fields["C"]) == (b"E", "FATAL", "53400")
    assert "raise max_pinned" in error.fields["H"]
    _compare(other.value(STATE), plain)
    assert pg.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
    sharing.stays(keeper)


def test_what_does_not_last_is_let_through(sharing: Sharing) -> None:
    """What a text may leave and does not leave counts nobody, when only the server can tell."""
    keeper, client = sharing.client(), sharing.client()
    keeper.ask("LISTEN news")
    for text in (
        "DO $$ BEGIN NULL; END $$",
        "SELECT state.set_tenant('x')",
        "BEGIN; DECLARE c CURSOR FOR SELECT 1; COMMIT",
    ):
        assert b"E" not in raw.kinds(client.ask(text))
    assert client.value("SHOW my.setting") == "x"


def test_one_server_is_left_for_the_others(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Whatever `max_pinned` says, the last server of a pool is for those who need none of their own."""
    pooler = make_pooler(config_for(pg, "app", max_pinned=10))
    with Sharing(pooler) as sharing:
        keeper, client = sharing.client(), sharing.client()
        keeper.ask("LISTEN news")
        sharing.stays(keeper)
        _check_refusal(client.ask("LISTEN news"))
        assert client.value("SELECT 'served'") == "served"


def test_the_others_wait_for_the_only_server(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Where there is one server and a client keeps it, others wait, like behind a transaction."""
    pooler = make_pooler(config_for(pg, "app", default_pool_size=1))
    with pooler.raw() as keeper, pooler.raw() as client:
        keeper.ask("LISTEN news")
        client.send(raw.query("SELECT 'served'"))
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.receive()
        client.sock.settimeout(10)
        keeper.ask("UNLISTEN news")
        assert [got.columns for got in client.receive_until() if got.kind == b"D"] == [[b"served"]]


def test_limits_change_with_a_reload(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """`max_pinned` and `pin_functions` are those of the newest settings."""
    config = config_for(pg, "app", max_pinned=0)
    pooler = make_pooler(config)

    def reload(number: int) -> None:
        pooler.reload(config)
        eventually(lambda: pooler.log_text().count(" reloaded ") == number, what="the settings are read")

    with pooler.raw() as client:
        _check_refusal(client.ask("LISTEN news"))
        assert client.value("SELECT upper('a')") == "A"
        config["pooler"] |= {"pin_functions": ["upper"]}
        reload(1)
        _check_refusal(client.ask("SELECT upper('a')"))
        config["pooler"] |= {"max_pinned": 1}
        reload(2)
        assert raw.kinds(client.ask("LISTEN news")) == b"CZ"
