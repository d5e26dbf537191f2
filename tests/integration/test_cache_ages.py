"""The result cache: how old answers may be, who fetches new ones, and who waits for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from hyperpool.sql.reader import QueryReader
from tests.support import rawclient as raw
from tests.support.cached import Stage, config_for, rows, tables
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_SQL = "SELECT name FROM cached.item WHERE id = 1"
_SHORT = "/*+ hyperpool: max_age=300ms, stale_while_revalidate=0 */ " + _SQL
_STALE = "/*+ hyperpool: max_age=300ms, stale_while_revalidate=60s */ " + _SQL
_RULES: list[dict[str, Any]] = [
    {"table": "cached.note", "never": True},
    {"table": "other", "max_age": "400ms", "stale_while_revalidate": 0},
]


@pytest.fixture(scope="module")
def caching_pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Iterator[Pooler]:
    """With settings of its own."""
    with tables(_pg):
        yield make_module_pooler(config_for(_pg, {"max_age_empty": "300ms", "stale_while_revalidate": 0}))


def test_an_answer_is_not_served_beyond_its_age(stage: Stage) -> None:
    """It has the age of its query, not of its last use."""
    client = stage.client()
    began = last = time.monotonic()
    client.fetch(_SHORT)
    stage.rename(1, "new")
    while client.fetch(_SHORT) == [[b"item 1"]]:
        assert time.monotonic() - began < 0.3 + 5.0, "long past its age"
        last = time.monotonic()
    assert last - began < 0.35
    assert client.fetch(_SHORT) == [[b"new"]]


def test_who_asks_for_fresher_answers_does_not_get_those_of_others(stage: Stage) -> None:
    """A hint makes a key of its own."""
    client = stage.client()
    client.fetch(_SQL)
    stage.rename(1, "new")
    assert client.fetch(_SHORT) == [[b"new"]]
    assert client.fetch(_SQL) == [[b"item 1"]]


def test_a_hint_says_nocache(stage: Stage) -> None:
    """Neither is the answer from memory, nor is it kept."""
    client = stage.client()
    hinted = f"/*+ hyperpool: nocache */ {_SQL}"
    client.fetch(hinted)
    stage.rename(1, "new")
    assert client.fetch(_SQL) == [[b"new"]]
    stage.rename(1, "newer")
    assert client.fetch(hinted) == [[b"newer"]]
    assert client.fetch(_SQL) == [[b"new"]]


def test_answers_without_rows_have_an_age_of_their_own(stage: Stage) -> None:
    """A name that was free is not free for long."""
    client = stage.client()
    sql = "SELECT id FROM cached.item WHERE name = 'taken'"
    assert client.fetch(sql) == []
    stage.rename(1, "taken")
    assert client.fetch(sql) == []
    eventually(lambda: client.fetch(sql) == [[b"1"]], within=5.0, what="it is asked for again")


@pytest.mark.parametrize(
    "form",
    [
        raw.query(_STALE),
        raw.extended(_STALE) + raw.SYNC,
        raw.parse(_STALE) + raw.bind() + raw.describe_portal() + raw.execute(rows=1) + raw.SYNC,
    ],
)
def test_a_stale_answer_is_served_and_renewed_once(stage: Stage, form: bytes) -> None:
    """One query of the background for any number of clients; its answer is there for all."""
    clients = [stage.client() for _ in range(5)]
    assert rows(clients[0].frames(form)) == [[b"item 1"]]
    locker = stage.direct()
    locker.fetch("BEGIN")
    locker.fetch("UPDATE cached.item SET name = 'new' WHERE id = 1")
    locker.fetch("LOCK TABLE cached.item IN ACCESS EXCLUSIVE MODE")

    def begun() -> int:
        for client in clients:
            assert rows(client.frames(form)) == [[b"item 1"]]
        return stage.waiting()

    eventually(begun, what="it is being fetched")
    assert begun() == 1
    locker.fetch("COMMIT")
    eventually(lambda: rows(clients[0].frames(form)) == [[b"new"]], what="it is renewed")


def test_a_refresh_has_the_settings_of_who_has_asked(stage: Stage) -> None:
    """What is fetched in the background is what the client would have got."""
    client, other = stage.client(), stage.client()
    sql = "/*+ hyperpool: max_age=300ms, stale_while_revalidate=60s */ SELECT made, price FROM cached.item WHERE id = 2"
    client.fetch("SET TimeZone = 'Asia/Tokyo'")
    client.fetch("SET DateStyle = 'German'")
    (was,) = client.fetch(sql)
    other.fetch("SELECT 1 FROM cached.item")
    stage.behind("UPDATE cached.item SET price = 99 WHERE id = 2")

    def renewed() -> bool:
        (now,) = client.fetch(sql)
        assert now[0] == was[0]
        return now[1] == b"99.00"

    eventually(renewed, what="it is renewed")


def test_a_refresh_that_fails_ends_the_entry(stage: Stage) -> None:
    """What is an error now is told, not hidden."""
    client = stage.client()
    sql = "/*+ hyperpool: max_age=300ms, stale_while_revalidate=60s */ SELECT 10 / price FROM cached.item WHERE id = 4"
    client.fetch(sql)
    stage.behind("UPDATE cached.item SET price = 0 WHERE id = 4")
    eventually(
        lambda: client.frames(raw.query(sql))[0 - 2].kind == b"E", what="the error is told", within=5.0
    )


# -- one query for all who ask at once -------------------------------------------------------------------------


def test_clients_that_ask_at_once_share_one_query(stage: Stage) -> None:
    """Two hundred clients, one cold key, one query."""
    sql = "SELECT count(*) FROM cached.item a, cached.item b WHERE a.id < 19"
    locker = stage.direct()
    clients = [stage.client() for _ in range(200)]
    locker.fetch("BEGIN; LOCK TABLE cached.item IN ACCESS EXCLUSIVE MODE")
    for client in clients:
        client.send(raw.query(sql))
    eventually(lambda: stage.waiting() >= 1, what="the query waits for its lock")
    time.sleep(0.05)
    assert stage.waiting() == 1
    locker.fetch("ROLLBACK")
    for client in clients:
        assert rows(client.receive_until()) == [[b"360"]]


def test_who_waits_goes_on_when_the_first_one_has_gone(stage: Stage) -> None:
    """The next one asks; nobody asks twice."""
    locker = stage.direct()
    first, second, third = stage.client(), stage.client(), stage.client()
    locker.fetch("BEGIN; LOCK TABLE cached.item IN ACCESS EXCLUSIVE MODE")
    first.send(raw.query(_SQL))
    eventually(lambda: stage.waiting() == 1, what="the query waits for its lock")
    second.send(raw.query(_SQL))
    third.send(raw.query(_SQL))
    first.sock.close()
    eventually(lambda: stage.waiting() == 2, what="the second one has asked")
    locker.fetch("ROLLBACK")
    assert rows(second.receive_until()) == rows(third.receive_until()) == [[b"item 1"]]


def test_who_waits_may_leave_or_cancel(stage: Stage) -> None:
    """The others are answered."""
    locker = stage.direct()
    first, leaver, canceler, last = (stage.client() for _ in range(4))
    locker.fetch("BEGIN; LOCK TABLE cached.item IN ACCESS EXCLUSIVE MODE")
    first.send(raw.query(_SQL))
    eventually(lambda: stage.waiting() == 1, what="the query waits for its lock")
    for client in (leaver, canceler, last):
        client.send(raw.query(_SQL))
    with stage.pooler.open_raw() as line:
        line.send(raw.cancel_packet(canceler.pid, canceler.secret))
        line.receive_all()
    assert canceler.receive().fields["C"] == "57014"
    assert canceler.receive().kind == b"Z"
    leaver.sock.close()
    locker.fetch("ROLLBACK")
    assert rows(first.receive_until()) == rows(last.receive_until()) == [[b"item 1"]]
    assert canceler.fetch(_SQL) == [[b"item 1"]]


def test_who_waits_for_what_fails_asks_for_itself(stage: Stage) -> None:
    """Each gets the error of its own query."""
    locker = stage.direct()
    clients = [stage.client() for _ in range(3)]
    sql = "SELECT 1 / (id - 1) FROM cached.item"
    locker.fetch("BEGIN; LOCK TABLE cached.item IN ACCESS EXCLUSIVE MODE")
    for client in clients:
        client.send(raw.query(sql))
    eventually(lambda: stage.waiting() == 1, what="the query waits for its lock")
    locker.fetch("ROLLBACK")
    for client in clients:
        errors = [frame.fields["C"] for frame in client.receive_until() if frame.kind == b"E"]
        assert errors == ["22012"]


def test_who_asks_after_a_write_does_not_get_an_answer_from_before(stage: Stage) -> None:
    """The query under way has not seen the write."""
    locker, writer = stage.direct(), stage.client()
    first = stage.client()
    sql = "SELECT i.name FROM cached.item i, cached.other o WHERE i.id = 1 AND o.id = 1"
    locker.fetch("BEGIN; LOCK TABLE cached.other IN ACCESS EXCLUSIVE MODE")
    first.send(raw.query(sql))
    eventually(lambda: stage.waiting() == 1, what="the query waits for its lock")
    writer.fetch("UPDATE cached.item SET name = 'written' WHERE id = 1")
    writer.send(raw.query(sql))
    eventually(lambda: stage.waiting() == 2, what="the writer asks for itself")
    locker.fetch("ROLLBACK")
    assert rows(writer.receive_until()) == [[b"written"]]
    first.receive_until()


@pytest.mark.usefixtures("stage")
def test_nobody_waits_for_longer_than_is_set(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Then each asks for itself."""
    with Stage(make_pooler(config_for(pg, {"wait": "200ms"})), pg) as stage:
        locker, first, second = stage.direct(), stage.client(), stage.client()
        locker.fetch("BEGIN; LOCK TABLE cached.item IN ACCESS EXCLUSIVE MODE")
        first.send(raw.query(_SQL))
        eventually(lambda: stage.waiting() == 1, what="the query waits for its lock")
        second.send(raw.query(_SQL))
        eventually(lambda: stage.waiting() == 2, what="the second one has waited long enough")
        locker.fetch("ROLLBACK")
        assert rows(first.receive_until()) == rows(second.receive_until()) == [[b"item 1"]]


# -- rules and switches ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stage")
def test_the_first_rule_that_fits_decides(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """By table or by fingerprint: never, another age, or always, if somebody has signed for it."""
    clock = "SELECT now() AS asked, name FROM cached.item WHERE id = 1"
    signed = {
        "fingerprint": QueryReader().read(clock.encode()).reading.fingerprint,
        "always": "ann: it is a test",
    }
    with Stage(make_pooler(config_for(pg, {"rules": [*_RULES, signed]})), pg) as stage:
        client = stage.client()
        note = "SELECT words FROM cached.note WHERE id = 1"
        client.fetch(note)
        stage.behind("UPDATE cached.note SET words = 'new' WHERE id = 1")
        assert client.fetch(note) == [[b"new"]]
        other = "SELECT name FROM cached.other WHERE id = 1"
        client.fetch(other)
        stage.rename(1, "new", "other")
        eventually(lambda: client.fetch(other) == [[b"new"]], within=5.0, what="its own age is over")
        first = client.fetch(clock)
        assert client.fetch(clock) == first
        client.fetch("UPDATE cached.other SET name = 'anything' WHERE id = 1")
        assert client.fetch(clock) != first, "any write may have been meant"
        unsigned = clock.replace("name", "price")
        assert client.fetch(unsigned) != client.fetch(unsigned)


SWITCHES = {
    "SET": (raw.query("SET hyperpool.cache = off"), raw.query("set hyperpool.cache to 'on';")),
    "RESET": (raw.query("SET SESSION hyperpool.cache TO false"), raw.query("RESET hyperpool.cache")),
    "RESET ALL": (raw.query("SET hyperpool.cache = off"), raw.query("RESET ALL")),
    "the extended protocol": (
        raw.extended("SET hyperpool.cache = off") + raw.SYNC,
        raw.parse("SET hyperpool.cache = on") + raw.bind() + raw.describe_portal() + raw.execute() + raw.SYNC,
    ),
    "in a transaction": (
        raw.query("BEGIN; SET hyperpool.cache = off; COMMIT"),
        raw.query("SET hyperpool.cache = on"),
    ),
}


@pytest.mark.parametrize("how", SWITCHES)
def test_a_client_may_turn_the_cache_off_for_its_session(stage: Stage, how: str) -> None:
    """And on again; others are not concerned."""
    off, on = SWITCHES[how]
    client, other = stage.client(), stage.client()
    client.fetch(_SQL)
    stage.rename(1, "new")
    rows(client.frames(off))
    assert client.fetch(_SQL) == [[b"new"]]
    assert other.fetch(_SQL) == [[b"item 1"]]
    rows(client.frames(on))
    # What follows a reset at once goes to the server that is being asked what has become of the session.
    eventually(lambda: client.fetch(_SQL) == [[b"item 1"]], what="it is on again")


def test_a_client_may_turn_it_off_when_it_logs_in(stage: Stage) -> None:
    """As any other setting."""
    client = stage.client(options="-c hyperpool.cache=off")
    stage.client().fetch(_SQL)
    stage.rename(1, "new")
    assert client.fetch(_SQL) == [[b"new"]]


def test_a_reload_that_leads_elsewhere(stage: Stage) -> None:
    """Nothing of the past is served behind it."""
    client = stage.client()
    client.fetch(_SQL)
    stage.rename(1, "new")
    assert client.fetch(_SQL) == [[b"item 1"]]
    stage.pooler.reload(
        {
            **stage.pooler.config,
            "databases": {
                **stage.pooler.config["databases"],
                "app": {**stage.pooler.config["databases"]["app"], "connect_query": "SELECT 1"},
            },
        }
    )
    eventually(lambda: client.fetch(_SQL) == [[b"new"]], what="the reload has had its effect")
